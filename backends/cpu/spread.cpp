// One walk over the rows of outputs (for gradients of the input: of inputs). A vector holds neighbouring inputs; loaded
// once for a tap, it is permuted into the m vectors of the outputs that read them.
#include <vector>

#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/spread.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include "backends/cpu/simd-inl.h"
#include "backends/cpu/spread.h"
// clang-format on

#ifndef MGIC_CPU_SPREAD_GEOMETRY
#define MGIC_CPU_SPREAD_GEOMETRY
namespace mgic::cpu {

struct Spread {
  int64_t batch, height, width, inputs, out_height, out_width, times, kernel_height, kernel_width;
  ConvParams p;

  int64_t outputs() const { return inputs * times; }
  int64_t taps() const { return kernel_height * kernel_width; }
  int64_t vectors(int64_t lanes) const { return (inputs + lanes - 1) / lanes; }
  int64_t weight_count(int64_t lanes) const { return vectors(lanes) * taps() * times * lanes; }
};

template <class T>
struct SpreadForward {
  Spread conv;
  const T* x;
  const float *w, *bias;  // in the order of spread_weights; (times · vectors of inputs, lanes)
  const T* residual;
  Activation activation;
  T* y;
};

// Taps 0 … count of a row or column of the kernel that meet an image of `size` pixels; output i.
struct TapRange {
  int64_t begin, end;
  TapRange(const ConvParams& p, int64_t i, int64_t size, int64_t count) {
    const int64_t first = i * p.stride - p.padding;  // pixel of tap 0
    begin = first < 0 ? std::min((-first + p.dilation - 1) / p.dilation, count) : 0;
    end = first >= size ? begin : std::clamp((size - 1 - first) / p.dilation + 1, begin, count);
  }
};

}  // namespace mgic::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {
namespace {

// The part of a memory access that falls to vector k of the m that belong to one vector of inputs.
template <int M>
HWY_INLINE Whole output_memory(Whole, int) {
  return {};
}
template <int M>
HWY_INLINE Part output_memory(Part part, int k) {
  return {std::clamp<int64_t>(part.n * M - k * lanes(), 0, lanes())};
}

// Lane l of vector k takes input (k · lanes + l) / M.
template <int M>
struct Repeat {
  decltype(hn::IndicesFromVec(D(), hn::Zero(hn::RebindToSigned<D>()))) index[M];
  HWY_INLINE Repeat() {
    HWY_ALIGN int32_t table[hn::MaxLanes(D())];
    for (int k = 0; k < M; ++k) {
      for (int l = 0; l < lanes(); ++l) table[l] = (k * static_cast<int>(lanes()) + l) / M;
      index[k] = hn::SetTableIndices(D(), table);
    }
  }
  HWY_INLINE V operator()(V v, int k) const {
    if constexpr (M == 1) return v;
    return hn::TableLookupLanes(v, index[k]);
  }
};

// The sums over every M neighbouring lanes of M vectors.
template <int M>
HWY_INLINE V fold(const V* v) {
  if constexpr (M == 1) {
    return v[0];
  } else {
    V half[M / 2];
    for (int k = 0; k < M / 2; ++k) {
#if HWY_TARGET == HWY_SCALAR
      half[k] = hn::Add(v[2 * k], v[2 * k + 1]);
#else
      half[k] = hn::Add(hn::ConcatEven(D(), v[2 * k + 1], v[2 * k]), hn::ConcatOdd(D(), v[2 * k + 1], v[2 * k]));
#endif
    }
    return fold<M / 2>(half);
  }
}

// f(Count<M>()) with the number of outputs a group.
template <class F>
HWY_INLINE void with_times(int64_t times, F&& f) {
  switch (times) {
    case 1:
      return f(Count<1>());
    case 2:
      return f(Count<2>());
    default:
      return f(Count<4>());
  }
}

// Outputs of rows [begin, end) of all images.
template <class T>
void forward_rows(const SpreadForward<T>& call, int64_t begin, int64_t end) {
  const Spread& c = call.conv;
  const int64_t x_step = c.p.stride * c.inputs, x_tap = c.p.dilation * c.inputs, outputs = c.outputs();
  // Columns whose taps all meet the image.
  int64_t inner_begin = 0, inner_end = c.out_width;
  const auto whole = [&](int64_t j) {
    const TapRange v(c.p, j, c.width, c.kernel_width);
    return v.begin == 0 && v.end == c.kernel_width;
  };
  while (inner_begin < inner_end && !whole(inner_begin)) ++inner_begin;
  while (inner_end > inner_begin && !whole(inner_end - 1)) --inner_end;
  with_times(c.times, [&](auto times) HWY_ATTR {
    constexpr int M = decltype(times)::value, pixels = M == 4 ? 2 : 4;
    const Repeat<M> repeat;
    with_activation(call.activation, [&](auto activation) HWY_ATTR {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t n = row / c.out_height, i = row % c.out_height;
        const TapRange u_range(c.p, i, c.height, c.kernel_height);
        each_vector(0, c.inputs, [&](int64_t channel, auto memory) HWY_ATTR {
          const float* w = call.w + channel * c.taps() * M;
          V bias[M];
          for (int k = 0; k < M; ++k) bias[k] = hn::LoadU(D(), call.bias + channel * M + k * lanes());
          const auto tile = [&](int64_t j, TapRange v_range, auto count) HWY_ATTR {
            constexpr int Q = decltype(count)::value;
            V sum[Q][M];
            for (int q = 0; q < Q; ++q)
              for (int k = 0; k < M; ++k) sum[q][k] = bias[k];
            // A vector is a short piece of a pixel, which the hardware does not foresee: the rows that the next outputs
            // read beside those of these.
            for (int64_t u = std::max<int64_t>(c.kernel_height - c.p.stride, 0); u < c.kernel_height; ++u) {
              const int64_t y = (i + 1) * c.p.stride - c.p.padding + u * c.p.dilation;
              const T* x = call.x + ((n * c.height + y) * c.width + j * c.p.stride) * c.inputs + channel;
              for (int64_t q = 0; q < Q * c.p.stride; ++q) __builtin_prefetch(x + q * c.inputs, 0, 2);
            }
            for (int64_t u = u_range.begin; u < u_range.end; ++u) {
              const int64_t y = i * c.p.stride - c.p.padding + u * c.p.dilation;
              const T* x = call.x + ((n * c.height + y) * c.width + j * c.p.stride - c.p.padding) * c.inputs + channel;
              for (int64_t v = v_range.begin; v < v_range.end; ++v) {
                V weight[M];
                for (int k = 0; k < M; ++k)
                  weight[k] = hn::LoadU(D(), w + ((u * c.kernel_width + v) * M + k) * lanes());
                for (int q = 0; q < Q; ++q) {
                  const V value = memory.load(x + q * x_step + v * x_tap);
                  for (int k = 0; k < M; ++k) sum[q][k] = hn::MulAdd(repeat(value, k), weight[k], sum[q][k]);
                }
              }
            }
            for (int q = 0; q < Q; ++q)
              for (int k = 0; k < M; ++k) {
                const auto part = output_memory<M>(memory, k);
                const int64_t at = (row * c.out_width + j + q) * outputs + channel * M + k * lanes();
                V z = sum[q][k];
                if (call.residual != nullptr) z = hn::Add(z, part.load(call.residual + at));
                part.store(activation.value(z), call.y + at);
              }
          };
          int64_t j = 0;
          const auto single = [&] HWY_ATTR { tile(j, TapRange(c.p, j, c.width, c.kernel_width), Count<1>()); };
          for (; j < inner_begin; ++j) single();
          for (; j + pixels <= inner_end; j += pixels)
            tile(j, TapRange(c.p, j, c.width, c.kernel_width), Count<pixels>());
          for (; j < c.out_width; ++j) single();
        });
      }
    });
  });
}

// Gradients of rows [begin, end) of all input images: what every output that has read a pixel gives back.
template <class T>
void data_rows(const Spread& c, const T* dy, const float* weights, bool accumulate, T* dx, int64_t begin, int64_t end) {
  const int64_t outputs = c.outputs();
  const ConvParams& p = c.p;
  // Which taps of a row or column of the kernel bring which outputs back to a pixel.
  struct Tap {
    int64_t tap, output;
  };
  const auto taps_of = [&p](int64_t pixel, int64_t kernel, int64_t outputs) {
    std::vector<Tap> taps;
    for (int64_t t = 0; t < kernel; ++t) {
      const int64_t at = pixel + p.padding - t * p.dilation;  // stride times the output
      if (at >= 0 && at % p.stride == 0 && at / p.stride < outputs) taps.push_back({t, at / p.stride});
    }
    return taps;
  };
  std::vector<std::vector<Tap>> columns;
  for (int64_t x = 0; x < c.width; ++x) columns.push_back(taps_of(x, c.kernel_width, c.out_width));
  with_times(c.times, [&](auto times) HWY_ATTR {
    constexpr int M = decltype(times)::value;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t n = row / c.height, y = row % c.height;
      const std::vector<Tap> rows = taps_of(y, c.kernel_height, c.out_height);
      each_vector(0, c.inputs, [&](int64_t channel, auto memory) HWY_ATTR {
        const float* w = weights + channel * c.taps() * M;
        for (int64_t x = 0; x < c.width; ++x) {
          V sum[M];
          for (int k = 0; k < M; ++k) sum[k] = hn::Zero(D());
          for (const auto& [u, i] : rows) {
            const T* dy_row = dy + (n * c.out_height + i) * c.out_width * outputs + channel * M;
            for (const auto& [v, j] : columns[static_cast<size_t>(x)]) {
              const T* from = dy_row + j * outputs;
              const float* tap = w + (u * c.kernel_width + v) * M * lanes();
              for (int k = 0; k < M; ++k)
                sum[k] = hn::MulAdd(output_memory<M>(memory, k).load(from + k * lanes()),
                                    hn::LoadU(D(), tap + k * lanes()), sum[k]);
            }
          }
          put(fold<M>(sum), accumulate, memory, dx + (row * c.width + x) * c.inputs + channel);
        }
      });
    }
  });
}

// dw, in the order of the weights, gains what rows [begin, end) of all output images contribute.
template <class T>
void weights_rows(const Spread& c, const T* x, const T* dy, float* dw, int64_t begin, int64_t end) {
  const int64_t outputs = c.outputs(), x_step = c.p.stride * c.inputs, x_tap = c.p.dilation * c.inputs;
  std::vector<TapRange> met_by;  // the output of each column
  for (int64_t j = 0; j < c.out_width; ++j) met_by.emplace_back(c.p, j, c.width, c.kernel_width);
  with_times(c.times, [&](auto times) HWY_ATTR {
    constexpr int M = decltype(times)::value;
    const Repeat<M> repeat;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t n = row / c.out_height, i = row % c.out_height;
      const TapRange u_range(c.p, i, c.height, c.kernel_height);
      each_vector(0, c.inputs, [&](int64_t channel, auto memory) HWY_ATTR {
        const T* dy_row = dy + row * c.out_width * outputs + channel * M;
        for (int64_t u = u_range.begin; u < u_range.end; ++u) {
          const int64_t y = i * c.p.stride - c.p.padding + u * c.p.dilation;
          const T* x_row = x + ((n * c.height + y) * c.width - c.p.padding) * c.inputs + channel;
          float* own = dw + channel * c.taps() * M + u * c.kernel_width * M * lanes();
          // K columns of the kernel from v on.
          const auto columns = [&](int64_t v, auto count) HWY_ATTR {
            constexpr int K = decltype(count)::value;
            V sum[K][M];
            for (int t = 0; t < K; ++t)
              for (int k = 0; k < M; ++k) sum[t][k] = hn::LoadU(D(), own + ((v + t) * M + k) * lanes());
            for (int64_t j = 0; j < c.out_width; ++j) {
              const TapRange& met = met_by[static_cast<size_t>(j)];
              V gradient[M];
              for (int k = 0; k < M; ++k)
                gradient[k] = output_memory<M>(memory, k).load(dy_row + j * outputs + k * lanes());
              const auto tap = [&](int t) HWY_ATTR {
                const V value = memory.load(x_row + j * x_step + (v + t) * x_tap);
                for (int k = 0; k < M; ++k) sum[t][k] = hn::MulAdd(repeat(value, k), gradient[k], sum[t][k]);
              };
              if (met.begin <= v && v + K <= met.end) {
                for (int t = 0; t < K; ++t) tap(t);
              } else {
                for (int t = 0; t < K; ++t)
                  if (met.begin <= v + t && v + t < met.end) tap(t);
              }
            }
            for (int t = 0; t < K; ++t)
              for (int k = 0; k < M; ++k) hn::StoreU(sum[t][k], D(), own + ((v + t) * M + k) * lanes());
          };
          int64_t v = 0;
          for (; v + 3 <= c.kernel_width; v += 3) columns(v, Count<3>());
          for (; v < c.kernel_width; ++v) columns(v, Count<1>());
        }
      });
    }
  });
}

int64_t lanes_here() { return lanes(); }
void forward_f32(const SpreadForward<float>& call, int64_t begin, int64_t end) { forward_rows(call, begin, end); }
void forward_bf16(const SpreadForward<bf16>& call, int64_t begin, int64_t end) { forward_rows(call, begin, end); }
void data_f32(const Spread& c, const float* dy, const float* w, bool accumulate, float* dx, int64_t begin,
              int64_t end) {
  data_rows(c, dy, w, accumulate, dx, begin, end);
}
void data_bf16(const Spread& c, const bf16* dy, const float* w, bool accumulate, bf16* dx, int64_t begin, int64_t end) {
  data_rows(c, dy, w, accumulate, dx, begin, end);
}
void weights_f32(const Spread& c, const float* x, const float* dy, float* dw, int64_t begin, int64_t end) {
  weights_rows(c, x, dy, dw, begin, end);
}
void weights_bf16(const Spread& c, const bf16* x, const bf16* dy, float* dw, int64_t begin, int64_t end) {
  weights_rows(c, x, dy, dw, begin, end);
}

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/parallel.h"

namespace mgic::cpu {
namespace {

HWY_EXPORT(lanes_here);
HWY_EXPORT(forward_f32);
HWY_EXPORT(forward_bf16);
HWY_EXPORT(data_f32);
HWY_EXPORT(data_bf16);
HWY_EXPORT(weights_f32);
HWY_EXPORT(weights_bf16);

void forward_here(const SpreadForward<float>& call, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(forward_f32)(call, begin, end);
}
void forward_here(const SpreadForward<bf16>& call, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(forward_bf16)(call, begin, end);
}
void data_here(const Spread& c, const float* dy, const float* w, bool accumulate, float* dx, int64_t begin,
               int64_t end) {
  HWY_DYNAMIC_DISPATCH(data_f32)(c, dy, w, accumulate, dx, begin, end);
}
void data_here(const Spread& c, const bf16* dy, const float* w, bool accumulate, bf16* dx, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(data_bf16)(c, dy, w, accumulate, dx, begin, end);
}
void weights_here(const Spread& c, const float* x, const float* dy, float* dw, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(weights_f32)(c, x, dy, dw, begin, end);
}
void weights_here(const Spread& c, const bf16* x, const bf16* dy, float* dw, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(weights_bf16)(c, x, dy, dw, begin, end);
}

Spread spread_of(const ConvParams& p, const Shape& x, const Shape& w, const Shape& y) {
  return {x[0], x[1], x[2], x[3], y[1], y[2], w[0] / x[3], w[1], w[2], p};
}

// Where the kernels hold the weight of output o and a tap: (vectors of inputs, taps, times, lanes).
int64_t place_of(const Spread& c, int64_t lanes, int64_t o, int64_t tap) {
  const int64_t vector = o / (lanes * c.times), within = o % (lanes * c.times);
  return (vector * c.taps() + tap) * c.times * lanes + within;
}

Scratch<float> spread_weights(const Spread& c, const float* w) {
  const int64_t lanes = HWY_DYNAMIC_DISPATCH(lanes_here)();
  Scratch<float> packed(c.weight_count(lanes));
  std::fill_n(packed.data(), packed.count(), 0.0f);
  for (int64_t o = 0; o < c.outputs(); ++o)
    for (int64_t tap = 0; tap < c.taps(); ++tap) packed[place_of(c, lanes, o, tap)] = w[o * c.taps() + tap];
  return packed;
}

}  // namespace

bool spread_suits(const ConvParams& p, const Shape& x, const Shape& w) {
  const int64_t times = x[3] == 0 ? 0 : w[0] / x[3];
  return p.groups > 1 && w[3] == 1 && (times == 1 || times == 2 || times == 4);
}

template <class T>
void spread_forward(const ConvParams& p, const Tensor& x, const Tensor& w, const Tensor& bias, const Tensor& residual,
                    Activation activation, Tensor& y) {
  const Spread c = spread_of(p, x.shape(), w.shape(), y.shape());
  const int64_t lanes = HWY_DYNAMIC_DISPATCH(lanes_here)();
  const auto weights = spread_weights(c, w.data<float>());
  Scratch<float> padded_bias(c.vectors(lanes) * lanes * c.times);
  std::fill_n(padded_bias.data(), padded_bias.count(), 0.0f);
  if (bias.defined()) std::copy_n(bias.data<float>(), c.outputs(), padded_bias.data());
  const SpreadForward<T> call{c,          x.data<T>(), weights.data(), padded_bias.data(), data_or_null<T>(residual),
                              activation, y.data<T>()};
  parallel_ranges(c.batch * c.out_height, c.out_width * c.outputs(),
                  [&](int64_t begin, int64_t end) { forward_here(call, begin, end); });
}

template <class T>
void spread_backward_data(const ConvParams& p, const Tensor& dy, const Tensor& w, Sink dx) {
  const Spread c = spread_of(p, (*dx).shape(), w.shape(), dy.shape());
  const auto weights = spread_weights(c, w.data<float>());
  parallel_ranges(c.batch * c.height, c.width * c.inputs, [&](int64_t begin, int64_t end) {
    data_here(c, dy.data<T>(), weights.data(), accumulates(dx), (*dx).data<T>(), begin, end);
  });
}

template <class T>
void spread_backward_weights(const ConvParams& p, const Tensor& x, const Tensor& dy, Sink dw) {
  const Spread c = spread_of(p, x.shape(), (*dw).shape(), dy.shape());
  const int64_t lanes = HWY_DYNAMIC_DISPATCH(lanes_here)(), count = c.weight_count(lanes),
                rows = c.batch * c.out_height;
  const int parts = parts_of(rows, elements_per_part / std::max<int64_t>(c.out_width * c.outputs(), 1));
  Scratch<float> partial(parts * count);
  parallel(rows, parts, [&](int part, int64_t begin, int64_t end) {
    float* own = partial.data() + part * count;
    std::fill_n(own, count, 0.0f);
    weights_here(c, x.data<T>(), dy.data<T>(), own, begin, end);
  });
  float* out = (*dw).data<float>();
  for (int64_t o = 0; o < c.outputs(); ++o)
    for (int64_t tap = 0; tap < c.taps(); ++tap) {
      float sum = accumulates(dw) ? out[o * c.taps() + tap] : 0;
      for (int part = 0; part < parts; ++part) sum += partial[part * count + place_of(c, lanes, o, tap)];
      out[o * c.taps() + tap] = sum;
    }
}

template void spread_forward<float>(const ConvParams&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                    Activation, Tensor&);
template void spread_forward<bf16>(const ConvParams&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                   Activation, Tensor&);
template void spread_backward_data<float>(const ConvParams&, const Tensor&, const Tensor&, Sink);
template void spread_backward_data<bf16>(const ConvParams&, const Tensor&, const Tensor&, Sink);
template void spread_backward_weights<float>(const ConvParams&, const Tensor&, const Tensor&, Sink);
template void spread_backward_weights<bf16>(const ConvParams&, const Tensor&, const Tensor&, Sink);

}  // namespace mgic::cpu
#endif  // HWY_ONCE
