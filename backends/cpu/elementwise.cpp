// One element at a time: y (+)= f(a, b), where b is as a, (C) or (N, C). Each is one pass.
#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/elementwise.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include "backends/cpu/simd-inl.h"
#include "backends/cpu/elementwise.h"
#include <hwy/contrib/math/math-inl.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {
namespace {

void activate(Activation activation, const float* x, float* y, int64_t n) {
  with_activation(activation, [&](auto f) HWY_ATTR {
    each_vector(0, n, [&](int64_t i, auto memory) HWY_ATTR { memory.store(f.value(memory.load(x + i)), y + i); });
  });
}

void activate_backward(Activation activation, const float* x, const float* dy, bool accumulate, float* dx, int64_t n) {
  with_activation(activation, [&](auto f) HWY_ATTR {
    each_vector(0, n, [&](int64_t i, auto memory) HWY_ATTR {
      put(f.gradient(memory.load(x + i), memory.load(dy + i)), accumulate, memory, dx + i);
    });
  });
}

// With e = exp(−|x|), which cannot overflow: 1 / (1 + e) for x ≥ 0, else e / (1 + e). NaN stays NaN.
void sigmoids(const float* x, float* y, int64_t n) {
  const V one = hn::Set(D(), 1);
  each_vector(0, n, [&](int64_t i, auto memory) HWY_ATTR {
    const V v = memory.load(x + i), e = hn::Exp(D(), hn::Neg(hn::Abs(v)));
    const V s = hn::Div(hn::IfThenElse(hn::Lt(v, hn::Zero(D())), e, one), hn::Add(one, e));
    memory.store(hn::IfThenElse(hn::IsNaN(v), v, s), y + i);
  });
}

void sigmoids_backward(const float* y, const float* dy, bool accumulate, float* dx, int64_t n) {
  each_vector(0, n, [&](int64_t i, auto memory) HWY_ATTR {
    const V v = memory.load(y + i);
    put(hn::Mul(memory.load(dy + i), hn::NegMulAdd(v, v, v)), accumulate, memory, dx + i);
  });
}

template <class T>
void scaled_of(float alpha, const T* x, bool accumulate, T* y, int64_t n) {
  const V factor = hn::Set(D(), alpha);
  each_vector(0, n, [&](int64_t i, auto memory) HWY_ATTR {
    put(hn::Mul(factor, memory.load(x + i)), accumulate, memory, y + i);
  });
}

void scaled(float alpha, const float* x, bool accumulate, float* y, int64_t n) {
  scaled_of(alpha, x, accumulate, y, n);
}
void scaled_bf16(float alpha, const bf16* x, bool accumulate, bf16* y, int64_t n) {
  scaled_of(alpha, x, accumulate, y, n);
}

template <class F>
HWY_INLINE void with_operation(Pairwise operation, F&& f) {
  switch (operation) {
    case Pairwise::add:
      return f([](V a, V b) HWY_ATTR { return hn::Add(a, b); });
    case Pairwise::subtract:
      return f([](V a, V b) HWY_ATTR { return hn::Sub(a, b); });
    case Pairwise::multiply:
      return f([](V a, V b) HWY_ATTR { return hn::Mul(a, b); });
  }
}

void pairwise(Pairwise operation, const float* a, const float* b, bool accumulate, float* y, int64_t n) {
  with_operation(operation, [&](auto f) HWY_ATTR {
    each_vector(0, n, [&](int64_t i, auto memory) HWY_ATTR {
      put(f(memory.load(a + i), memory.load(b + i)), accumulate, memory, y + i);
    });
  });
}

void pairwise_columns(Pairwise operation, const float* a, const float* columns, int64_t width, bool accumulate,
                      float* y, int64_t begin, int64_t end) {
  with_operation(operation, [&](auto f) HWY_ATTR {
    each_strip_of_rows(begin, end, width, [&](int64_t j, auto memory, auto count, int64_t i, int64_t rows) HWY_ATTR {
      V b[count.value];
      load_strip(columns + j, memory, count, b);
      for (int64_t r = 0; r < rows; ++r, i += width)
        for (int u = 0; u < count.value; ++u) {
          const int64_t at = i + u * lanes();
          put(f(memory.load(a + at), b[u]), accumulate, memory, y + at);
        }
    });
  });
}

void spread_columns(const float* columns, int64_t width, bool accumulate, float* y, int64_t begin, int64_t end) {
  each_strip_of_rows(begin, end, width, [&](int64_t j, auto memory, auto count, int64_t i, int64_t rows) HWY_ATTR {
    V b[count.value];
    load_strip(columns + j, memory, count, b);
    for (int64_t r = 0; r < rows; ++r, i += width)
      for (int u = 0; u < count.value; ++u) put(b[u], accumulate, memory, y + i + u * lanes());
  });
}

void to_bf16(const float* x, bf16* y, int64_t n) {
  each_vector(0, n, [&](int64_t i, auto memory) HWY_ATTR { memory.store(memory.load(x + i), y + i); });
}
void from_bf16(const bf16* x, float* y, int64_t n) {
  each_vector(0, n, [&](int64_t i, auto memory) HWY_ATTR { memory.store(memory.load(x + i), y + i); });
}

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/widened.h"

namespace mgic {
namespace cpu {

HWY_EXPORT(activate);
HWY_EXPORT(activate_backward);
HWY_EXPORT(sigmoids);
HWY_EXPORT(sigmoids_backward);
HWY_EXPORT(scaled);
HWY_EXPORT(scaled_bf16);
HWY_EXPORT(pairwise);
HWY_EXPORT(pairwise_columns);
HWY_EXPORT(spread_columns);
HWY_EXPORT(to_bf16);
HWY_EXPORT(from_bf16);

void activate_all(Activation activation, const float* x, float* y, int64_t n) {
  parallel_ranges(n, 1, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(activate)(activation, x + begin, y + begin, end - begin);
  });
}

void scale_all(float alpha, const float* x, bool accumulate, float* y, int64_t n) {
  parallel_ranges(n, 1, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(scaled)(alpha, x + begin, accumulate, y + begin, end - begin);
  });
}

void pairwise_all(Pairwise operation, const float* a, const float* b, bool accumulate, float* y, int64_t n) {
  parallel_ranges(n, 1, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(pairwise)(operation, a + begin, b + begin, accumulate, y + begin, end - begin);
  });
}

void spread_all(float alpha, const float* b, int64_t samples, int64_t channels, bool accumulate, float* y,
                int64_t count) {
  const Columns columns(channels);
  const int64_t sample = count / std::max<int64_t>(samples, 1);
  parallel_ranges(samples, sample, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const auto values = columns.expand([&](int64_t c) { return alpha * b[n * channels + c]; });
      HWY_DYNAMIC_DISPATCH(spread_columns)(values.data(), columns.width, accumulate, y + n * sample, 0, sample);
    }
  });
}

namespace {

// y (+)= a ∘ b with b stretched.
void pairwise_stretched(std::string_view op, Pairwise operation, const Tensor& a, const Tensor& b, Broadcast broadcast,
                        Sink y) {
  if (!y) return;
  if (holds_bf16({&a, &b, y.tensor})) {
    Widened w(op);
    return pairwise_stretched(op, operation, w(a), w(b), broadcast, w.out(y));
  }
  require_f32(op, {&a, &b, y.tensor});
  const float *pa = a.data<float>(), *pb = b.data<float>();
  float* py = (*y).data<float>();
  const bool accumulate = accumulates(y);
  if (broadcast == Broadcast::same) return pairwise_all(operation, pa, pb, accumulate, py, a.count());

  const Columns columns(a.shape().last());
  const int64_t samples = broadcast == Broadcast::channel ? 1 : a.shape()[0];
  if (samples == 1) {
    const auto values = columns.expand(pb);
    return columns.parallel_elements(a.count(), [&](int, int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(pairwise_columns)
      (operation, pa, values.data(), columns.width, accumulate, py, begin, end);
    });
  }
  const int64_t sample = a.count() / std::max<int64_t>(samples, 1);
  parallel_ranges(samples, sample, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const auto values = columns.expand(pb + n * columns.channels);
      HWY_DYNAMIC_DISPATCH(pairwise_columns)
      (operation, pa + n * sample, values.data(), columns.width, accumulate, py + n * sample, 0, sample);
    }
  });
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::activation(Activation activation, const Tensor& x, Tensor& y) {
  if (holds_bf16({&x, &y})) {
    Widened w("activation");
    return this->activation(activation, w(x), w.out(y));
  }
  require_f32("activation", {&x, &y});
  activate_all(activation, x.data<float>(), y.data<float>(), x.count());
}

void CpuBackend::activation_backward(Activation activation, const Tensor& x, const Tensor& dy, Sink dx) {
  if (!dx) return;
  if (holds_bf16({&x, &dy, dx.tensor})) {
    Widened w("activation_backward");
    return activation_backward(activation, w(x), w(dy), w.out(dx));
  }
  require_f32("activation_backward", {&x, &dy, dx.tensor});
  const float *px = x.data<float>(), *pdy = dy.data<float>();
  float* pdx = (*dx).data<float>();
  parallel_ranges(x.count(), 1, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(activate_backward)
    (activation, px + begin, pdy + begin, accumulates(dx), pdx + begin, end - begin);
  });
}

void CpuBackend::sigmoid(const Tensor& x, Tensor& y) {
  if (holds_bf16({&x, &y})) {
    Widened w("sigmoid");
    return sigmoid(w(x), w.out(y));
  }
  require_f32("sigmoid", {&x, &y});
  const float* px = x.data<float>();
  float* py = y.data<float>();
  parallel_ranges(x.count(), 1, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(sigmoids)(px + begin, py + begin, end - begin);
  });
}

void CpuBackend::sigmoid_backward(const Tensor& y, const Tensor& dy, Sink dx) {
  if (!dx) return;
  if (holds_bf16({&y, &dy, dx.tensor})) {
    Widened w("sigmoid_backward");
    return sigmoid_backward(w(y), w(dy), w.out(dx));
  }
  require_f32("sigmoid_backward", {&y, &dy, dx.tensor});
  const float *py = y.data<float>(), *pdy = dy.data<float>();
  float* pdx = (*dx).data<float>();
  parallel_ranges(y.count(), 1, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(sigmoids_backward)(py + begin, pdy + begin, accumulates(dx), pdx + begin, end - begin);
  });
}

void CpuBackend::scale(double alpha, const Tensor& x, Sink y) {
  if (!y) return;
  if (x.dtype() == DType::bf16 && (*y).dtype() == DType::bf16) {
    const bf16* px = x.data<bf16>();
    bf16* py = (*y).data<bf16>();
    return parallel_ranges(x.count(), 1, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(scaled_bf16)
      (static_cast<float>(alpha), px + begin, accumulates(y), py + begin, end - begin);
    });
  }
  if (holds_bf16({&x, y.tensor})) {
    Widened w("scale");
    return scale(alpha, w(x), w.out(y));
  }
  require_f32("scale", {&x, y.tensor});
  scale_all(static_cast<float>(alpha), x.data<float>(), accumulates(y), (*y).data<float>(), x.count());
}

void CpuBackend::add(const Tensor& a, const Tensor& b, Broadcast broadcast, Tensor& y) {
  pairwise_stretched("add", Pairwise::add, a, b, broadcast, {&y});
}

void CpuBackend::subtract(const Tensor& a, const Tensor& b, Tensor& y) {
  pairwise_stretched("subtract", Pairwise::subtract, a, b, Broadcast::same, {&y});
}

void CpuBackend::multiply(const Tensor& a, const Tensor& b, Broadcast broadcast, Sink y) {
  pairwise_stretched("multiply", Pairwise::multiply, a, b, broadcast, y);
}

void CpuBackend::copy_channels(const Tensor& x, int64_t from, int64_t count, Sink y, int64_t to) {
  if (!y) return;
  if (holds_bf16({&x, y.tensor})) {
    Widened w("copy_channels");
    // Channels beside those copied keep what they hold.
    Sink wide = y;
    Tensor all = w(*y);
    wide.tensor = &all;
    copy_channels(w(x), from, count, wide, to);
    return this->cast(all, *y);
  }
  require_f32("copy_channels", {&x, y.tensor});
  const int64_t x_channels = x.shape().last(), y_channels = (*y).shape().last();
  const float* source = x.data<float>() + from;
  float* target = (*y).data<float>() + to;
  parallel_ranges(x.shape().rows(), count, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) HWY_DYNAMIC_DISPATCH(scaled)
    (1, source + row * x_channels, accumulates(y), target + row * y_channels, count);
  });
}

void CpuBackend::cast(const Tensor& x, Tensor& y) {
  const auto converts = [](DType d) { return d == DType::f32 || d == DType::bf16; };
  if (!converts(x.dtype()) || !converts(y.dtype()))
    fail("cast: the cpu backend converts between f32 and bf16, not {} to {}", x.str(), y.str());
  parallel_ranges(x.count(), 1, [&](int64_t begin, int64_t end) {
    if (x.dtype() == y.dtype()) {
      const int64_t size = size_of(x.dtype());
      std::memcpy(static_cast<std::byte*>(y.raw()) + begin * size,
                  static_cast<const std::byte*>(x.raw()) + begin * size, static_cast<size_t>((end - begin) * size));
    } else if (y.dtype() == DType::bf16) {
      HWY_DYNAMIC_DISPATCH(to_bf16)(x.data<float>() + begin, y.data<bf16>() + begin, end - begin);
    } else {
      HWY_DYNAMIC_DISPATCH(from_bf16)(x.data<bf16>() + begin, y.data<float>() + begin, end - begin);
    }
  });
}

// Any dtype, f64 too: nothing is computed, and sums of metrics are f64.
void CpuBackend::fill(double value, Tensor& y) { y.fill(value); }

}  // namespace mgic
#endif  // HWY_ONCE
