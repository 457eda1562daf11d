// Pooling over windows and over whole images; conventions as in the reference backend: padding never wins, of equal
// values the first wins, NaN wins over numbers, and average counts padded pixels as zeros.
//
// Vectors run over channels. Forward deals output pixels to the threads, backward whole samples, since windows overlap.
#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/pooling.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include "backends/cpu/simd-inl.h"
#include "backends/cpu/pooling.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {
namespace {

// The maximum over a window of pixels of one sample and, per channel, the pixel that has it.
void window_max(const float* x, const Window& w, int64_t channels, float* y, int64_t* winners) {
  const hn::RebindToSigned<D> di;
  HWY_ALIGN int32_t chosen[hn::MaxLanes(di)];
  each_vector(0, channels, [&](int64_t c, auto memory) HWY_ATTR {
    V best = memory.load(x + (w.top * w.image_width + w.left) * channels + c);
    auto winner = hn::Set(di, static_cast<int32_t>(w.top * w.image_width + w.left));
    for (int64_t row = w.top; row < w.bottom; ++row)
      for (int64_t pixel = row * w.image_width + w.left; pixel < row * w.image_width + w.right; ++pixel) {
        const V v = memory.load(x + pixel * channels + c);
        const auto wins = hn::Or(hn::Gt(v, best), hn::IsNaN(v));
        best = hn::IfThenElse(wins, v, best);
        winner = hn::IfThenElse(hn::RebindMask(di, wins), hn::Set(di, static_cast<int32_t>(pixel)), winner);
      }
    memory.store(best, y + c);
    hn::Store(winner, di, chosen);
    for (int64_t u = 0; u < memory.size(); ++u) winners[c + u] = chosen[u];
  });
}

void window_average(const float* x, const Window& w, int64_t channels, float factor, float* y) {
  each_vector(0, channels, [&](int64_t c, auto memory) HWY_ATTR {
    V sum = hn::Zero(D());
    for (int64_t row = w.top; row < w.bottom; ++row)
      for (int64_t pixel = row * w.image_width + w.left; pixel < row * w.image_width + w.right; ++pixel)
        sum = hn::Add(sum, memory.load(x + pixel * channels + c));
    memory.store(hn::Mul(sum, hn::Set(D(), factor)), y + c);
  });
}

void window_spread(const float* dy, const Window& w, int64_t channels, float factor, float* dx) {
  each_vector(0, channels, [&](int64_t c, auto memory) HWY_ATTR {
    const V share = hn::Mul(memory.load(dy + c), hn::Set(D(), factor));
    for (int64_t row = w.top; row < w.bottom; ++row)
      for (int64_t pixel = row * w.image_width + w.left; pixel < row * w.image_width + w.right; ++pixel)
        put(share, true, memory, dx + pixel * channels + c);
  });
}

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/elementwise.h"
#include "backends/cpu/widened.h"

namespace mgic {
namespace cpu {
namespace {

HWY_EXPORT(window_max);
HWY_EXPORT(window_average);
HWY_EXPORT(window_spread);

int64_t pixels_of(const Shape& x) { return x.rows() / std::max<int64_t>(x[0], 1); }

// The sizes of a pooling, out of the shapes once.
struct Images {
  int64_t batch, height, width, channels, out_height, out_width;
  Images(const Shape& x, const Shape& y)
      : batch(x[0]), height(x[1]), width(x[2]), channels(x[3]), out_height(y[1]), out_width(y[2]) {}
  int64_t sample() const { return height * width * channels; }

  // The pixels of output pixel (h, v) that lie inside of the image.
  Window window(const PoolParams& p, int64_t h, int64_t v) const {
    const int64_t top = h * p.stride - p.padding, left = v * p.stride - p.padding;
    return {std::max<int64_t>(top, 0), std::min(top + p.kernel, height), std::max<int64_t>(left, 0),
            std::min(left + p.kernel, width), width};
  }
};

void require_indexable(std::string_view op, const Shape& x) {
  if (pixels_of(x) > INT32_MAX) fail("{}: an image of {} has too many pixels", op, x.str());
}

// dx (+)= dy at the pixels that won; samples are independent.
void scatter(const Tensor& dy, const Tensor& indices, Sink dx) {
  const Shape& shape = (*dx).shape();
  const int64_t samples = shape[0], channels = shape.last();
  const int64_t in = (*dx).count() / std::max<int64_t>(samples, 1), out = dy.count() / std::max<int64_t>(samples, 1);
  const float* pdy = dy.data<float>();
  const int64_t* winners = indices.data<int64_t>();
  float* pdx = (*dx).data<float>();
  parallel_ranges(samples, in + 4 * out, [&](int64_t begin, int64_t end) {
    if (!accumulates(dx)) std::fill(pdx + begin * in, pdx + end * in, 0.0f);
    for (int64_t n = begin; n < end; ++n)
      for (int64_t i = n * out; i < (n + 1) * out; i += channels)
        for (int64_t c = 0; c < channels; ++c) pdx[n * in + winners[i + c] * channels + c] += pdy[i + c];
  });
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::pool2d(const PoolParams& p, const Tensor& x, Tensor& y, Tensor& indices) {
  if (holds_bf16({&x})) {
    Widened w("pool2d");
    return pool2d(p, w(x), w.out(y), indices);
  }
  require_f32("pool2d", {&x, &y});
  require_indexable("pool2d", x.shape());
  const Images images(x.shape(), y.shape());
  const int64_t row = images.out_width * images.channels;
  const float factor = 1.0f / (p.kernel * p.kernel), *px = x.data<float>();
  float* py = y.data<float>();
  int64_t* winners = p.kind == Pool::max ? indices.data<int64_t>() : nullptr;
  parallel_ranges(images.batch * images.out_height, row * p.kernel * p.kernel, [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line)
      for (int64_t v = 0; v < images.out_width; ++v) {
        const Window window = images.window(p, line % images.out_height, v);
        const float* image = px + line / images.out_height * images.sample();
        const int64_t at = line * row + v * images.channels;
        if (p.kind == Pool::max)
          HWY_DYNAMIC_DISPATCH(window_max)(image, window, images.channels, py + at, winners + at);
        else
          HWY_DYNAMIC_DISPATCH(window_average)(image, window, images.channels, factor, py + at);
      }
  });
}

void CpuBackend::pool2d_backward(const PoolParams& p, const Tensor& dy, const Tensor& indices, Sink dx) {
  if (!dx) return;
  if (holds_bf16({&dy, dx.tensor})) {
    Widened w("pool2d_backward");
    return pool2d_backward(p, w(dy), indices, w.out(dx));
  }
  require_f32("pool2d_backward", {&dy, dx.tensor});
  if (p.kind == Pool::max) return scatter(dy, indices, dx);
  const Images images((*dx).shape(), dy.shape());
  const int64_t sample = images.sample();
  const float factor = 1.0f / (p.kernel * p.kernel), *pdy = dy.data<float>();
  float* pdx = (*dx).data<float>();
  parallel_ranges(images.batch, sample * p.kernel, [&](int64_t begin, int64_t end) {
    if (!accumulates(dx)) std::fill(pdx + begin * sample, pdx + end * sample, 0.0f);
    for (int64_t line = begin * images.out_height; line < end * images.out_height; ++line)
      for (int64_t v = 0; v < images.out_width; ++v) HWY_DYNAMIC_DISPATCH(window_spread)
    (pdy + (line * images.out_width + v) * images.channels, images.window(p, line % images.out_height, v),
     images.channels, factor, pdx + line / images.out_height * sample);
  });
}

void CpuBackend::global_pool(Pool kind, const Tensor& x, Tensor& y, Tensor& indices) {
  if (holds_bf16({&x})) {
    Widened w("global_pool");
    return global_pool(kind, w(x), w.out(y), indices);
  }
  require_f32("global_pool", {&x, &y});
  const Shape& in = x.shape();
  const int64_t pixels = pixels_of(in), channels = in.last();
  if (kind == Pool::average) return sum_to(1.0 / pixels, x, {}, Broadcast::sample_channel, {&y});
  require_indexable("global_pool", in);
  const float* px = x.data<float>();
  float* py = y.data<float>();
  int64_t* winners = indices.data<int64_t>();
  parallel_ranges(in[0], pixels * channels, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) HWY_DYNAMIC_DISPATCH(window_max)
    (px + n * pixels * channels, {0, 1, 0, pixels, pixels}, channels, py + n * channels, winners + n * channels);
  });
}

void CpuBackend::global_pool_backward(Pool kind, const Tensor& dy, const Tensor& indices, Sink dx) {
  if (!dx) return;
  if (holds_bf16({&dy, dx.tensor})) {
    Widened w("global_pool_backward");
    return global_pool_backward(kind, w(dy), indices, w.out(dx));
  }
  require_f32("global_pool_backward", {&dy, dx.tensor});
  if (kind == Pool::max) return scatter(dy, indices, dx);
  const Shape& in = (*dx).shape();
  spread_all(1.0f / pixels_of(in), dy.data<float>(), in[0], in.last(), accumulates(dx), (*dx).data<float>(),
             (*dx).count());
}

}  // namespace mgic
#endif  // HWY_ONCE
