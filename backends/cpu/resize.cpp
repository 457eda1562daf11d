// Bilinear resize, one direction after the other: a row of y is first made of two rows of x, all columns and channels
// at once, and then its pixels of pairs of that row's. Backward goes the other way, for one row of dx after the other,
// so that no two threads add to the same pixel.
#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/resize.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include "backends/cpu/simd-inl.h"
#include "backends/cpu/resize.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {
namespace {

// y = (1 − weight) low + weight high.
void blend(const float* low, const float* high, float weight, int64_t n, float* y) {
  const V b = hn::Set(D(), weight), a = hn::Set(D(), 1 - weight);
  each_vector(0, n, [&](int64_t i, auto memory) HWY_ATTR {
    memory.store(hn::MulAdd(a, memory.load(low + i), hn::Mul(b, memory.load(high + i))), y + i);
  });
}

// y += weight x.
void add_scaled(float weight, const float* x, int64_t n, float* y) {
  const V factor = hn::Set(D(), weight);
  each_vector(0, n, [&](int64_t i, auto memory) HWY_ATTR {
    memory.store(hn::MulAdd(factor, memory.load(x + i), memory.load(y + i)), y + i);
  });
}

// Plain loops over the channels of pixels: there may be few.

void blend_columns(const float* x, const Place* places, int64_t columns, int64_t channels, float* y) {
  for (int64_t v = 0; v < columns; ++v) {
    const Place p = places[v];
    const float *low = x + p.low * channels, *high = x + p.high * channels, a = 1 - p.weight, b = p.weight;
    float* HWY_RESTRICT pixel = y + v * channels;
    for (int64_t c = 0; c < channels; ++c) pixel[c] = a * low[c] + b * high[c];
  }
}

// x += what blend_columns' gradient is.
void spread_columns(const float* dy, const Place* places, int64_t columns, int64_t channels, float* dx) {
  for (int64_t v = 0; v < columns; ++v) {
    const Place p = places[v];
    const float *pixel = dy + v * channels, a = 1 - p.weight, b = p.weight;
    float* HWY_RESTRICT low = dx + p.low * channels;
    for (int64_t c = 0; c < channels; ++c) low[c] += a * pixel[c];
    float* HWY_RESTRICT high = dx + p.high * channels;
    for (int64_t c = 0; c < channels; ++c) high[c] += b * pixel[c];
  }
}

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/parallel.h"
#include "backends/cpu/widened.h"

namespace mgic {
namespace cpu {
namespace {

HWY_EXPORT(blend);
HWY_EXPORT(add_scaled);
HWY_EXPORT(blend_columns);
HWY_EXPORT(spread_columns);

// Of each of `out` positions; the formulas are at the reference's.
std::vector<Place> places_of(bool align_corners, int64_t in, int64_t out) {
  std::vector<Place> places;
  for (int64_t i = 0; i < out; ++i) {
    const double at = !align_corners ? std::max((i + 0.5) * in / out - 0.5, 0.0)
                      : out > 1      ? i * static_cast<double>(in - 1) / (out - 1)
                                     : 0.0;
    const int64_t low = std::min(static_cast<int64_t>(at), in - 1);
    places.push_back({low, std::min(low + 1, in - 1), static_cast<float>(at - static_cast<double>(low))});
  }
  return places;
}

// The two sides of a resize: rows and columns of the image x behind those of y.
struct Resize {
  int64_t batch, channels, height, width, out_height, out_width;
  std::vector<Place> rows, columns;
  Resize(bool align_corners, const Shape& x, const Shape& y)
      : batch(x[0]),
        channels(x[3]),
        height(x[1]),
        width(x[2]),
        out_height(y[1]),
        out_width(y[2]),
        rows(places_of(align_corners, height, out_height)),
        columns(places_of(align_corners, width, out_width)) {}
  int64_t row() const { return width * channels; }
  int64_t out_row() const { return out_width * channels; }
};

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::resize_bilinear(bool align_corners, const Tensor& x, Tensor& y) {
  if (holds_bf16({&x, &y})) {
    Widened w("resize_bilinear");
    return resize_bilinear(align_corners, w(x), w.out(y));
  }
  require_f32("resize_bilinear", {&x, &y});
  const Resize size(align_corners, x.shape(), y.shape());
  const float* px = x.data<float>();
  float* py = y.data<float>();
  parallel_ranges(size.batch * size.out_height, size.row() + 2 * size.out_row(), [&](int64_t begin, int64_t end) {
    Scratch<float> blended(size.row());
    for (int64_t line = begin; line < end; ++line) {
      const Place p = size.rows[line % size.out_height];
      const float* image = px + line / size.out_height * size.height * size.row();
      HWY_DYNAMIC_DISPATCH(blend)
      (image + p.low * size.row(), image + p.high * size.row(), p.weight, size.row(), blended.data());
      HWY_DYNAMIC_DISPATCH(blend_columns)
      (blended.data(), size.columns.data(), size.out_width, size.channels, py + line * size.out_row());
    }
  });
}

void CpuBackend::resize_bilinear_backward(bool align_corners, const Tensor& dy, Sink dx) {
  if (!dx) return;
  if (holds_bf16({&dy, dx.tensor})) {
    Widened w("resize_bilinear_backward");
    return resize_bilinear_backward(align_corners, w(dy), w.out(dx));
  }
  require_f32("resize_bilinear_backward", {&dy, dx.tensor});
  const Resize size(align_corners, (*dx).shape(), dy.shape());
  const float* pdy = dy.data<float>();
  float* pdx = (*dx).data<float>();
  const int64_t cost = size.row() + (2 * size.out_height / std::max<int64_t>(size.height, 1) + 2) * size.out_row();
  parallel_ranges(size.batch * size.height, cost, [&](int64_t begin, int64_t end) {
    Scratch<float> sum(size.out_row());
    for (int64_t line = begin; line < end; ++line) {
      const int64_t row = line % size.height;
      // The rows of y that are made of this one: places ascend, and those before `row` reach to it at most by `high`.
      const auto from = std::lower_bound(size.rows.begin(), size.rows.end(), row,
                                         [](const Place& p, int64_t r) { return p.high < r; });
      std::fill(sum.data(), sum.data() + sum.count(), 0.0f);
      for (auto p = from; p != size.rows.end() && p->low <= row; ++p) {
        const float weight = (p->low == row ? 1 - p->weight : 0) + (p->high == row ? p->weight : 0);
        const int64_t out_line = line / size.height * size.out_height + (p - size.rows.begin());
        HWY_DYNAMIC_DISPATCH(add_scaled)(weight, pdy + out_line * size.out_row(), size.out_row(), sum.data());
      }
      float* target = pdx + line * size.row();
      if (!accumulates(dx)) std::fill(target, target + size.row(), 0.0f);
      HWY_DYNAMIC_DISPATCH(spread_columns)
      (sum.data(), size.columns.data(), size.out_width, size.channels, target);
    }
  });
}

}  // namespace mgic
#endif  // HWY_ONCE
