// What the reference kernels share: tensors as doubles, and the activations of one number.
//
// A kernel loads its inputs as doubles, loops over them as its formula reads, and stores the result. So every sum is
// taken in double, and an f32 tensor is rounded once, when it is stored. Inputs are copied and speed is given away:
// these kernels are for checking and for reading.
#pragma once

#include <algorithm>
#include <vector>

#include "backends/backend.h"

namespace mgic::reference {

using Values = std::vector<double>;  // a tensor's elements, in their order in memory

// The elements of an f32 or f64 tensor; none where it is undefined.
inline Values load(const Tensor& t) {
  if (!t.defined()) return {};
  return visit_f32_f64(t.dtype(), "the reference backend", [&](auto zero) {
    const auto elements = t.span<decltype(zero)>();
    return Values(elements.begin(), elements.end());
  });
}

// Into a gradient: overwriting never reads what is there. Nothing happens where no gradient is wanted.
inline void store(const Values& values, Sink sink) {
  if (!sink) return;
  visit_f32_f64((*sink).dtype(), "the reference backend", [&](auto zero) {
    using T = decltype(zero);
    T* out = (*sink).data<T>();
    for (size_t i = 0; i < values.size(); ++i)
      out[i] = static_cast<T>(sink.write == Write::accumulate ? static_cast<double>(out[i]) + values[i] : values[i]);
  });
}

inline void store(const Values& values, Tensor& y) { store(values, Sink{&y}); }

// Into a tensor that lives on, such as a parameter: whoever saved it is told.
inline void update(const Values& values, Tensor& y) {
  store(values, y);
  y.changed_in_place();
}

// min(max(x, 0), 6); NaN stays NaN.
inline double relu6(double x) { return std::min(std::max(x, 0.0), 6.0); }

inline double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::none:
      break;
    case Activation::relu:
      return x <= 0 ? 0 : x;  // written so that NaN stays NaN
    case Activation::hswish:
      return x * relu6(x + 3) / 6;
    case Activation::hsigmoid:
      return relu6(x + 3) / 6;
  }
  return x;
}

// 1/6 as f32 rounds it: PyTorch's slope in every dtype, and so that of the golden vectors.
constexpr double hsigmoid_slope = 1.0F / 6.0F;

// dy · activation'(x). At the kinks the flat or linear side's slope, as in PyTorch (whose hswish has done so
// since 2.7).
inline double activate_backward(Activation activation, double x, double dy) {
  switch (activation) {
    case Activation::none:
      break;
    case Activation::relu:
      return x <= 0 ? 0 : dy;
    case Activation::hswish:
      if (x <= -3) return 0;
      return x < 3 ? dy * (x / 3 + 0.5) : dy;
    case Activation::hsigmoid:
      return x > -3 && x < 3 ? dy * hsigmoid_slope : 0;
  }
  return dy;
}

// Which element of the stretched factor belongs to element i of a tensor of this shape.
inline int64_t partner(Broadcast broadcast, const Shape& shape, int64_t i) {
  const int64_t channel = i % shape.last();
  switch (broadcast) {
    case Broadcast::same:
      break;
    case Broadcast::channel:
      return channel;
    case Broadcast::sample_channel:
      return i / (shape.count() / shape[0]) * shape.last() + channel;
  }
  return i;
}

}  // namespace mgic::reference
