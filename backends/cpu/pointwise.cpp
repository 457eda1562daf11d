// A product of small matrices a group:
//
//   forward         y[r, o]  = Σ_i x[r, i] w[o, i]
//   backward data   dx[r, i] = Σ_o dy[r, o] w[o, i]
//   backward weight dw[o, i] = Σ_r dy[r, o] x[r, i]
//
// The first two are one kernel, `multiply`: a vector holds neighbouring results of one row, every factor of the row is
// broadcast from memory, and eight rows run side by side, so that eight sums hide the latency of an addition and one
// load of the weights serves them all. The third holds a tile of dw in registers while rows stream by.
#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/pointwise.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/cache_control.h>
#include "backends/cpu/simd-inl.h"
#include "backends/cpu/pointwise.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {
namespace {

// f(vector type's tag) with the widest vector that divides n: 16, 8 or 4 floats, or what the machine has.
template <class F>
HWY_INLINE void with_lanes(int64_t n, F&& f) {
  if (n % 16 == 0) return f(hn::CappedTag<float, 16>());
  if (n % 8 == 0) return f(hn::CappedTag<float, 8>());
  f(hn::CappedTag<float, 4>());
}

// Groups make rows be read in short pieces far apart, which the hardware does not foresee.
HWY_INLINE void prefetch(const float* p, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) hwy::Prefetch(p + i);
}

// Without it a row of results waits for its lines: the passes from 16² pixels on took up to 1.7 times as long.
HWY_INLINE void prefetch_written(const float* p, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) __builtin_prefetch(p + i, 1, 3);
}

// R rows of y[r, 0 … n) (+)= Σ_k x[r, k] w[k, 0 … n); x and y have row strides, w is (depth, n).
template <int R, class Tag>
HWY_INLINE void multiply_rows(Tag d, const float* HWY_RESTRICT x, int64_t x_stride, const float* HWY_RESTRICT w,
                              int64_t depth, int64_t n, bool accumulate, float* HWY_RESTRICT y, int64_t y_stride) {
  for (int64_t j = 0; j < n; j += static_cast<int64_t>(hn::Lanes(d))) {
    hn::Vec<Tag> sum[R];
    for (int r = 0; r < R; ++r) sum[r] = accumulate ? hn::LoadU(d, y + r * y_stride + j) : hn::Zero(d);
    // Four factors at a time, so that one address a row serves four of them.
    for (int64_t k = 0; k < depth; k += 4) {
      const auto w0 = hn::LoadU(d, w + k * n + j), w1 = hn::LoadU(d, w + (k + 1) * n + j),
                 w2 = hn::LoadU(d, w + (k + 2) * n + j), w3 = hn::LoadU(d, w + (k + 3) * n + j);
      for (int r = 0; r < R; ++r) {
        const float* four = x + r * x_stride + k;
        sum[r] = hn::MulAdd(hn::Set(d, four[0]), w0, sum[r]);
        sum[r] = hn::MulAdd(hn::Set(d, four[1]), w1, sum[r]);
        sum[r] = hn::MulAdd(hn::Set(d, four[2]), w2, sum[r]);
        sum[r] = hn::MulAdd(hn::Set(d, four[3]), w3, sum[r]);
      }
    }
    for (int r = 0; r < R; ++r) hn::StoreU(sum[r], d, y + r * y_stride + j);
  }
}

// x (rows, groups·depth), w (groups, depth, n), y (rows, groups·n).
void multiply(const float* x, const float* w, int64_t rows, int64_t groups, int64_t depth, int64_t n, bool accumulate,
              float* y) {
  const int64_t x_stride = groups * depth, y_stride = groups * n;
  with_lanes(n, [&](auto d) HWY_ATTR {
    int64_t row = 0;
    for (; row + 8 <= rows; row += 8)
      for (int64_t g = 0; g < groups; ++g) {
        prefetch(x + (row + 16) * x_stride + g * 8 * depth, 8 * depth);
        prefetch_written(y + (row + 16) * y_stride + g * 8 * n, 8 * n);
        multiply_rows<8>(d, x + row * x_stride + g * depth, x_stride, w + g * depth * n, depth, n, accumulate,
                         y + row * y_stride + g * n, y_stride);
      }
    for (; row < rows; ++row)
      for (int64_t g = 0; g < groups; ++g)
        multiply_rows<1>(d, x + row * x_stride + g * depth, x_stride, w + g * depth * n, depth, n, accumulate,
                         y + row * y_stride + g * n, y_stride);
  });
}

// T rows of dw[0 … T, 0 … lanes) += Σ_r dy[r, 0 … T) x[r, 0 … lanes).
template <int T, class Tag>
HWY_INLINE void outer_tile(Tag d, const float* HWY_RESTRICT x, int64_t x_stride, const float* HWY_RESTRICT dy,
                           int64_t dy_stride, int64_t rows, float* HWY_RESTRICT dw, int64_t dw_stride) {
  hn::Vec<Tag> sum[T];
  for (int t = 0; t < T; ++t) sum[t] = hn::Zero(d);
  for (int64_t r = 0; r < rows; ++r) {
    const auto values = hn::LoadU(d, x + r * x_stride);
    for (int t = 0; t < T; ++t) sum[t] = hn::MulAdd(hn::Set(d, dy[r * dy_stride + t]), values, sum[t]);
  }
  for (int t = 0; t < T; ++t) hn::StoreU(hn::Add(hn::LoadU(d, dw + t * dw_stride), sum[t]), d, dw + t * dw_stride);
}

// dw (groups·outputs, inputs) += dyᵀ x per group. Rows are taken in short chunks, all groups of one before the next, so
// that memory is read in order; longer ones were measured two to three times slower where x is not in cache.
void outer(const float* x, const float* dy, int64_t rows, int64_t groups, int64_t inputs, int64_t outputs, float* dw) {
  const int64_t x_stride = groups * inputs, dy_stride = groups * outputs;
  constexpr int64_t chunk = 16;
  with_lanes(inputs, [&](auto d) HWY_ATTR {
    const int64_t step = static_cast<int64_t>(hn::Lanes(d));
    for (int64_t done = 0; done < rows; done += chunk) {
      const int64_t n = std::min(chunk, rows - done);
      for (int64_t g = 0; g < groups; ++g) {
        prefetch(x + (done + chunk) * x_stride + g * chunk * inputs, chunk * inputs);
        prefetch(dy + (done + chunk) * dy_stride + g * chunk * outputs, chunk * outputs);
        for (int64_t i = 0; i < inputs; i += step) {
          const float* x_tile = x + done * x_stride + g * inputs + i;
          int64_t o = 0;
          const auto tile = [&](auto size) HWY_ATTR {
            constexpr int T = decltype(size)::value;
            for (; o + T <= outputs; o += T)
              outer_tile<T>(d, x_tile, x_stride, dy + done * dy_stride + g * outputs + o, dy_stride, n,
                            dw + (g * outputs + o) * inputs + i, inputs);
          };
          tile(std::integral_constant<int, 16>());
          tile(std::integral_constant<int, 8>());
          tile(std::integral_constant<int, 4>());
        }
      }
    }
  });
}

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "backends/cpu/grouped.h"
#include "backends/cpu/parallel.h"

namespace mgic::cpu {
namespace {

HWY_EXPORT(multiply);
HWY_EXPORT(outer);

// Groups with fewer than four channels are taken together, with zeros between them.
struct Merged {
  Pointwise p;
  int64_t of;  // groups that became one

  explicit Merged(const Pointwise& own) : of(merged_groups(own.groups, own.inputs, own.outputs)) {
    p = {own.rows, own.groups / of, own.inputs * of, own.outputs * of};
  }
  // f(output, input, weight of the convolution): within one group of p, but for the zeros.
  template <class F>
  void each_weight(int64_t group, F&& f) const {
    const int64_t inputs = p.inputs / of, outputs = p.outputs / of;
    for (int64_t o = 0; o < p.outputs; ++o) {
      const int64_t first = o / outputs * inputs, weight = (group * p.outputs + o) * inputs;
      for (int64_t i = 0; i < inputs; ++i) f(o, first + i, weight + i);
    }
  }
  // (groups, outputs, inputs), or (groups, inputs, outputs).
  Scratch<float> weights(const float* w, bool transpose) const {
    Scratch<float> all(p.groups * p.inputs * p.outputs);
    if (of > 1) std::fill_n(all.data(), all.count(), 0.0f);
    for (int64_t g = 0; g < p.groups; ++g)
      each_weight(g, [&](int64_t o, int64_t i, int64_t own) {
        all[(g * p.inputs * p.outputs) + (transpose ? i * p.outputs + o : o * p.inputs + i)] = w[own];
      });
    return all;
  }
};

}  // namespace

bool pointwise_suits(int64_t groups, int64_t inputs, int64_t outputs) {
  const int64_t merged = inputs > 1 && outputs > 1 ? merged_groups(groups, inputs, outputs) : 1;
  return merged > 0 && merged * inputs % 4 == 0 && merged * outputs % 4 == 0 && inputs <= 32 && outputs <= 32;
}

void pointwise_forward(const Pointwise& own, const float* x, const float* w, float* y) {
  const Merged merged(own);
  const Pointwise& p = merged.p;
  const int64_t in = p.groups * p.inputs, out = p.groups * p.outputs;
  const auto weights = merged.weights(w, true);
  parallel_ranges(p.rows, in + out, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(multiply)
    (x + begin * in, weights.data(), end - begin, p.groups, p.inputs, p.outputs, false, y + begin * out);
  });
}

void pointwise_backward_data(const Pointwise& own, const float* dy, const float* w, bool accumulate, float* dx) {
  const Merged merged(own);
  const Pointwise& p = merged.p;
  const int64_t in = p.groups * p.inputs, out = p.groups * p.outputs;
  const auto weights = merged.weights(w, false);
  parallel_ranges(p.rows, in + out, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(multiply)
    (dy + begin * out, weights.data(), end - begin, p.groups, p.outputs, p.inputs, accumulate, dx + begin * in);
  });
}

void pointwise_backward_weights(const Pointwise& own, const float* x, const float* dy, bool accumulate, float* dw) {
  const Merged merged(own);
  const Pointwise& p = merged.p;
  const int64_t in = p.groups * p.inputs, out = p.groups * p.outputs, count = out * p.inputs;
  const int parts = parts_of(p.rows, elements_per_thread / (in + out));
  Scratch<float> partial(parts * count);
  parallel(p.rows, parts, [&](int part, int64_t begin, int64_t end) {
    float* mine = partial.data() + part * count;
    std::fill_n(mine, count, 0.0f);
    HWY_DYNAMIC_DISPATCH(outer)(x + begin * in, dy + begin * out, end - begin, p.groups, p.inputs, p.outputs, mine);
  });
  for (int64_t g = 0; g < p.groups; ++g)
    merged.each_weight(g, [&](int64_t o, int64_t i, int64_t weight) {
      float sum = accumulate ? dw[weight] : 0;
      for (int part = 0; part < parts; ++part) sum += partial[part * count + (g * p.outputs + o) * p.inputs + i];
      dw[weight] = sum;
    });
}

}  // namespace mgic::cpu
#endif  // HWY_ONCE
