// One step of the optimizers, for every parameter p with its gradient g.
//
// SGD as in PyTorch:                        AdamW (Loshchilov & Hutter, 2019), t the step from 1:
//   g ← g + decay · p                         p ← p − lr · decay · p
//   v ← momentum · v + g  (v ← g at first)    m ← beta1 · m + (1 − beta1) · g
//   p ← p − lr · (g + momentum · v) nesterov  s ← beta2 · s + (1 − beta2) · g²
//   p ← p − lr · v                  else      p ← p − lr · m̂ / (sqrt(ŝ) + eps),  m̂ = m / (1 − beta1ᵗ), ŝ likewise
//
// All tensors of an update have one shape; v or m is `first`, s is `second`. SGD without momentum has no v.
#include <cmath>

#include "backends/reference/kernels.h"

namespace mgic {

using namespace reference;

void Backend::sgd_update(const SgdParams& p, std::vector<Update>& updates) {
  naive("sgd_update");
  for (Update& u : updates) {
    Values parameter = load(u.parameter), velocity = load(u.first);
    const Values gradient = load(u.gradient);
    for (size_t i = 0; i < parameter.size(); ++i) {
      double g = gradient[i] + u.weight_decay * parameter[i];
      if (p.momentum != 0) {
        velocity[i] = p.first_step ? g : p.momentum * velocity[i] + g;
        g = p.nesterov ? g + p.momentum * velocity[i] : velocity[i];
      }
      parameter[i] -= p.lr * g;
    }
    update(parameter, u.parameter);
    if (p.momentum != 0) update(velocity, u.first);
  }
}

void Backend::adamw_update(const AdamWParams& p, std::vector<Update>& updates) {
  naive("adamw_update");
  // Both averages start at zero; dividing by what their weights sum to takes that out.
  const double correction1 = 1 - std::pow(p.beta1, p.step), correction2 = 1 - std::pow(p.beta2, p.step);
  for (Update& u : updates) {
    Values parameter = load(u.parameter), mean = load(u.first), square = load(u.second);
    const Values gradient = load(u.gradient);
    for (size_t i = 0; i < parameter.size(); ++i) {
      const double g = gradient[i];
      parameter[i] -= p.lr * u.weight_decay * parameter[i];
      mean[i] = p.beta1 * mean[i] + (1 - p.beta1) * g;
      square[i] = p.beta2 * square[i] + (1 - p.beta2) * g * g;
      parameter[i] -= p.lr * (mean[i] / correction1) / (std::sqrt(square[i] / correction2) + p.eps);
    }
    update(parameter, u.parameter);
    update(mean, u.first);
    update(square, u.second);
  }
}

}  // namespace mgic
