// What the tests of the cpu backend share: every function runs on 1, 2 and 3 OpenMP threads and with every SIMD target
// of the machine, twice each. The two runs must be equal bit for bit, and close to the reference, which computes in
// f64. Outputs start as random numbers, so that an overwriting sink that forgets an element shows, and an accumulating
// one has something to add to.
#pragma once

#include <doctest/doctest.h>
#include <omp.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "backends/cpu/cpu.h"
#include "backends/cpu/inspect.h"
#include "backends/reference/reference.h"
#include "core/rng.h"

namespace mgic::test {

// max|a − b| / max(1, max|b|). f32 keeps 6e-8 of a number; elementwise operations round a few times.
constexpr double elementwise_tolerance = 2e-6;
// Sums of some hundred to thousand products in f32: rounding errors add up as a random walk.
constexpr double sum_tolerance = 2e-5;
// Normalisation divides by a deviation that is itself such a sum.
constexpr double norm_tolerance = 1e-4;

inline Tensor random(const Shape& shape, uint64_t seed, double low = -2, double high = 2) {
  Tensor t = Tensor::empty(shape, DType::f32, Device::cpu);
  for (int64_t i = 0; i < t.count(); ++i)
    t.data<float>()[i] = static_cast<float>(low + (high - low) * uniform_at(seed, static_cast<uint64_t>(i)));
  return t;
}

inline double distance(const Tensor& a, const Tensor& b) {
  double largest = 1, error = 0;
  for (int64_t i = 0; i < a.count(); ++i) {
    const double x = a.data<float>()[i], y = b.data<float>()[i];
    if (!(std::isfinite(x) && std::isfinite(y))) return INFINITY;
    largest = std::max(largest, std::abs(y));
    error = std::max(error, std::abs(x - y));
  }
  return error / largest;
}

inline bool equal(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), static_cast<size_t>(a.bytes())) == 0;
}

// A number of threads and a SIMD target, for a while.
struct Machine {
  int before = omp_get_max_threads();
  Machine(int threads, std::string_view target) {
    omp_set_num_threads(threads);
    cpu::use_simd_target(target);
  }
  ~Machine() {
    omp_set_num_threads(before);
    cpu::use_simd_target("");
  }
};

using Outputs = std::vector<Tensor>;
using Operation = std::function<void(Backend&, Outputs&)>;

inline Outputs clones(const Outputs& tensors) {
  Outputs copies;
  for (const Tensor& t : tensors) copies.push_back(t.clone());
  return copies;
}

inline void check_parity(const std::string& name, const Outputs& initial, double tolerance,
                         const Operation& operation) {
  CAPTURE(name);
  Outputs expected = clones(initial);
  operation(reference_backend(), expected);
  const auto run_twice = [&](int threads, std::string_view target) {
    CAPTURE(threads);
    CAPTURE(target);
    Machine machine(threads, target);
    Outputs first = clones(initial), second = clones(initial);
    operation(cpu_backend(), first);
    operation(cpu_backend(), second);
    for (size_t i = 0; i < initial.size(); ++i) {
      CAPTURE(i);
      CHECK(equal(first[i], second[i]));
      if (first[i].dtype() == DType::f32)
        CHECK(distance(first[i], expected[i]) <= tolerance);
      else
        CHECK(equal(first[i], expected[i]));
    }
  };
  for (int threads : {1, 2, 3}) run_twice(threads, "");
  const auto targets = cpu::simd_targets();
  for (size_t i = 1; i < targets.size(); ++i) run_twice(2, targets[i]);
}

// The same with a sink that overwrites and one that accumulates.
inline void check_sink(const std::string& name, const Shape& shape, double tolerance,
                       const std::function<void(Backend&, Sink)>& operation) {
  for (Write write : {Write::overwrite, Write::accumulate})
    check_parity(name + (write == Write::accumulate ? ", accumulated" : ""), {random(shape, 99)}, tolerance,
                 [&](Backend& b, Outputs& out) {
                   operation(b, {&out[0], write});
                 });
}

}  // namespace mgic::test
