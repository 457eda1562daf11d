// What the tests of models share: networks from JSON text, and their names.
#pragma once

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "autograd/gradcheck.h"
#include "autograd/ops.h"
#include "core/rng.h"
#include "layers/dropout.h"
#include "layers/state.h"
#include "models/model.h"
#include "models/summary.h"

namespace mgic::test {

inline std::unique_ptr<Module> network(const std::string& json) { return model_registry().parse(json).make({32, 32}); }

inline int64_t parameters(const std::string& json) { return network(json)->parameter_count(); }

inline std::vector<std::string> names_of(Module& m) {
  std::vector<std::string> names;
  m.each_parameter([&](const std::string& name, Variable&) { names.push_back(name); });
  m.each_buffer([&](const std::string& name, Tensor&) { names.push_back(name); });
  return names;
}

inline bool has_name(Module& m, const std::string& name) {
  const auto names = names_of(m);
  return std::ranges::find(names, name) != names.end();
}

inline Tensor normal(const Shape& shape, uint64_t index, DType dtype = DType::f64, Device device = Device::reference) {
  Tensor t = Tensor::empty(shape, DType::f64, Device::reference);
  Rng rng(20, Purpose::test, 0, index);
  for (double& v : t.span<double>()) v = rng.normal();
  return t.to(dtype).to(device);
}

// The message of building a network; "" where it is accepted.
inline std::string refusal(const std::string& json) {
  try {
    network(json);
  } catch (const UserError& e) {
    return e.what();
  }
  return "";
}

// The network's derivative along a random direction of all its parameters and its input, by backward and by central
// differences, in f64 on reference, in training mode: relative difference, of the
// best of several steps, for long ones cross the kinks of ReLUs and maxima, and short ones are lost in rounding. A
// wrong gradient is wrong at every step.
inline double directional_error(Module& m, const Shape& input) {
  m.to(Device::reference, DType::f64);
  m.initialize(3);
  m.train(true);
  // What begins as 0 would let nothing through.
  m.each_parameter([](const std::string& name, Variable& p) {
    if (p.shape().rank() < 2 || std::ranges::any_of(p.value().span<double>(), [](double v) { return v != 0; })) return;
    const Tensor random = normal(p.shape(), hash_name(name.data(), name.size()));
    for (int64_t i = 0; i < p.value().count(); ++i) p.value().data<double>()[i] = 0.01 * random.data<double>()[i];
  });
  const Tensor x = normal(input, 1);
  std::vector<Tensor*> places;
  m.each_parameter([&](const std::string&, Variable& p) { places.push_back(&p.value()); });
  std::vector<Tensor> directions, origins;
  for (size_t i = 0; i < places.size(); ++i) {
    directions.push_back(normal(places[i]->shape(), 100 + i));
    origins.push_back(places[i]->clone());
  }
  const Tensor dx = normal(input, 2);
  Tensor cotangent;
  auto value = [&](const Variable& at) {
    const RandomStep random(1, 1);
    const Variable y = m(at);
    if (!cotangent.defined()) cotangent = normal(y.shape(), 3);
    return ops::dot(y, cotangent);
  };
  const Variable leaf(x, true);
  backward(value(leaf));
  double expected = 0;
  auto add_dot = [&](const Tensor& a, const Tensor& b) {
    for (int64_t i = 0; i < a.count(); ++i) expected += a.data<double>()[i] * b.data<double>()[i];
  };
  add_dot(leaf.gradient(), dx);
  size_t at = 0;
  m.each_parameter([&](const std::string& name, Variable& p) {
    REQUIRE_MESSAGE(p.gradient().defined(), name);
    add_dot(p.gradient(), directions[at++]);
  });
  NoGrad no_grad;
  auto moved = [&](double h) {
    Tensor shifted = x.clone();
    for (int64_t i = 0; i < x.count(); ++i) shifted.data<double>()[i] += h * dx.data<double>()[i];
    for (size_t k = 0; k < places.size(); ++k)
      for (int64_t i = 0; i < places[k]->count(); ++i)
        places[k]->data<double>()[i] = origins[k].data<double>()[i] + h * directions[k].data<double>()[i];
    return value(Variable(shifted)).value().item();
  };
  double best = INFINITY;
  for (double step : {1e-6, 1e-8, 1e-9, 1e-10}) {
    const double found = (moved(step) - moved(-step)) / (2 * step);
    best = std::min(best, std::abs(found - expected) / (1e-12 + std::abs(expected)));
  }
  return best;
}

// A central difference in f64: rounding of some 1e-13 over the step of 1e-8.
constexpr double directional_limit = 1e-4;

}  // namespace mgic::test
