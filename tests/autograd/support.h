// What the tests of autograd share: random inputs in f64 on the reference backend, and comparisons.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "autograd/gradcheck.h"
#include "autograd/op.h"
#include "autograd/ops.h"
#include "core/rng.h"
#include "tests/core/thrown.h"

namespace mgic::test {

// Two ways to one f64 result differ by the order of some hundred additions: 1e2 · 1e-16, and gradients through a
// batch's deviation lose two more digits. Relative to 1 + |expected|.
constexpr double tolerance_f64 = 1e-11;
// The same in f32: roundings of 6e-8, some hundred of them.
constexpr double tolerance_f32 = 1e-4;

// Standard normal numbers; the index chooses the stream.
inline Tensor normal(const Shape& shape, uint64_t index, DType dtype = DType::f64, Device device = Device::reference) {
  Tensor t = Tensor::empty(shape, DType::f64, Device::reference);
  Rng rng(20, Purpose::test, 0, index);
  for (double& v : t.span<double>()) v = rng.normal();
  return t.to(dtype).to(device);
}
inline Tensor positive(const Shape& shape, uint64_t index) {
  Tensor t = normal(shape, index);
  for (double& v : t.span<double>()) v = 0.5 + std::abs(v);
  return t;
}
// All elements differ by at least 1/64, so that no central difference changes which one is the largest.
inline Tensor distinct(const Shape& shape, uint64_t index) {
  Tensor t = Tensor::empty(shape, DType::f64, Device::reference);
  const auto order = Rng(21, Purpose::test, 0, index).permutation(t.count());
  for (int64_t i = 0; i < t.count(); ++i)
    t.data<double>()[i] =
        (static_cast<double>(order[static_cast<size_t>(i)]) - static_cast<double>(t.count()) / 2) / 64;
  return t;
}
// At least 0.01 away from the places where an activation has a kink: −3, 0, 3.
inline Tensor away_from_kinks(const Shape& shape, uint64_t index) {
  constexpr double margin = 0.01;
  Tensor t = normal(shape, index);
  for (double& v : t.span<double>()) {
    v *= 3;  // so that both of the flat sides are met
    for (double kink : {-3.0, 0.0, 3.0})
      if (std::abs(v - kink) < margin) v = kink + (v < kink ? -margin : margin);
  }
  return t;
}

inline std::vector<double> list(const Tensor& t) {
  const Tensor wide = t.to(DType::f64);
  const auto span = wide.span<double>();
  return {span.begin(), span.end()};
}

// Largest |a − b| / (1 + |b|); infinite where shapes differ or something is not finite.
inline double distance(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined() || a.shape() != b.shape()) return INFINITY;
  const auto va = list(a), vb = list(b);
  double largest = 0;
  for (size_t i = 0; i < va.size(); ++i) {
    const double d = std::abs(va[i] - vb[i]) / (1 + std::abs(vb[i]));
    if (!(d <= largest)) largest = std::isnan(d) ? INFINITY : d;
  }
  return largest;
}

inline Variable leaf(Tensor value) { return Variable(std::move(value), true); }

using Inputs = std::vector<Variable>;

// The message of a gradient check; "" where it holds.
template <class F>
std::string gradcheck_fault(F&& f, const std::vector<Tensor>& inputs) {
  try {
    gradcheck(f, inputs);
  } catch (const std::exception& e) {
    return e.what();
  }
  return "";
}

}  // namespace mgic::test
