// The optimizers' steps over a whole list of parameters, in one parallel region: the parameters are seen as one long
// array, cut evenly among the threads.
#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/optimizer.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include "backends/cpu/simd-inl.h"
#include "backends/cpu/optimizer.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {
namespace {

void sgd(const SgdParams& p, const Step& s, int64_t begin, int64_t end) {
  const D d;
  const V lr = hn::Set(d, static_cast<float>(p.lr)), momentum = hn::Set(d, static_cast<float>(p.momentum)),
          decay = hn::Set(d, static_cast<float>(s.weight_decay));
  each_vector(begin, end, [&](int64_t i, auto memory) HWY_ATTR {
    const V parameter = memory.load(s.parameter + i);
    const V g = hn::MulAdd(decay, parameter, memory.load(s.gradient + i));
    V direction = g;
    if (p.momentum != 0) {
      const V velocity = p.first_step ? g : hn::MulAdd(momentum, memory.load(s.first + i), g);
      memory.store(velocity, s.first + i);
      direction = p.nesterov ? hn::MulAdd(momentum, velocity, g) : velocity;
    }
    memory.store(hn::NegMulAdd(lr, direction, parameter), s.parameter + i);
  });
}

void adamw(const AdamWParams& p, const AdamWCorrections& k, const Step& s, int64_t begin, int64_t end) {
  const D d;
  const V beta1 = hn::Set(d, static_cast<float>(p.beta1)), rest1 = hn::Set(d, static_cast<float>(1 - p.beta1)),
          beta2 = hn::Set(d, static_cast<float>(p.beta2)), rest2 = hn::Set(d, static_cast<float>(1 - p.beta2)),
          step = hn::Set(d, k.step), square_factor = hn::Set(d, k.square_factor),
          eps = hn::Set(d, static_cast<float>(p.eps)),
          decay = hn::Set(d, static_cast<float>(1 - p.lr * s.weight_decay));
  each_vector(begin, end, [&](int64_t i, auto memory) HWY_ATTR {
    const V g = memory.load(s.gradient + i);
    const V mean = hn::MulAdd(beta1, memory.load(s.first + i), hn::Mul(rest1, g));
    const V square = hn::MulAdd(beta2, memory.load(s.second + i), hn::Mul(rest2, hn::Mul(g, g)));
    memory.store(mean, s.first + i);
    memory.store(square, s.second + i);
    const V deviation = hn::MulAdd(hn::Sqrt(square), square_factor, eps);
    const V parameter = hn::Mul(decay, memory.load(s.parameter + i));
    memory.store(hn::NegMulAdd(step, hn::Div(mean, deviation), parameter), s.parameter + i);
  });
}

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/parallel.h"

namespace mgic {
namespace cpu {
namespace {

HWY_EXPORT(sgd);
HWY_EXPORT(adamw);

float* data_or_null(Tensor& t, bool used) { return used ? t.data<float>() : nullptr; }

std::vector<Step> steps_of(std::string_view op, std::vector<Update>& updates, bool first, bool second) {
  std::vector<Step> steps;
  steps.reserve(updates.size());
  for (Update& u : updates) {
    require_f32(op, {&u.parameter, &u.gradient, &u.first, &u.second});
    steps.push_back({u.parameter.data<float>(), u.gradient.data<float>(), data_or_null(u.first, first),
                     data_or_null(u.second, second), u.parameter.count(), u.weight_decay});
  }
  return steps;
}

// f(step, begin, end) over all elements of all parameters.
template <class F>
void parallel_steps(const std::vector<Step>& steps, F&& f) {
  int64_t total = 0;
  for (const Step& s : steps) total += s.count;
  parallel_ranges(total, 4, [&](int64_t begin, int64_t end) {
    int64_t offset = 0;
    for (const Step& s : steps) {
      const int64_t from = std::max(begin - offset, int64_t{0}), to = std::min(end - offset, s.count);
      if (from < to) f(s, from, to);
      offset += s.count;
    }
  });
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::sgd_update(const SgdParams& p, std::vector<Update>& updates) {
  parallel_steps(steps_of("sgd_update", updates, p.momentum != 0, false),
                 [&](const Step& s, int64_t begin, int64_t end) {
                   HWY_DYNAMIC_DISPATCH(sgd)
                   (p, s, begin, end);
                 });
  for (Update& u : updates) {
    u.parameter.changed_in_place();
    if (p.momentum != 0) u.first.changed_in_place();
  }
}

void CpuBackend::adamw_update(const AdamWParams& p, std::vector<Update>& updates) {
  // Both averages start at zero; dividing by what their weights sum to takes that out.
  const double correction1 = 1 - std::pow(p.beta1, p.step), correction2 = 1 - std::pow(p.beta2, p.step);
  const AdamWCorrections k{static_cast<float>(p.lr / correction1), static_cast<float>(1 / std::sqrt(correction2))};
  parallel_steps(steps_of("adamw_update", updates, true, true), [&](const Step& s, int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(adamw)(p, k, s, begin, end);
  });
  for (Update& u : updates) {
    u.parameter.changed_in_place();
    u.first.changed_in_place();
    u.second.changed_in_place();
  }
}

}  // namespace mgic
#endif  // HWY_ONCE
