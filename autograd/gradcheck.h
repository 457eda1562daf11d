// Gradient check: backward against central differences, in f64 on the reference backend.
#pragma once

#include <functional>
#include <vector>

#include "autograd/variable.h"

namespace mgic {

struct GradcheckOptions {
  double step = 1e-6;
  double tolerance = 1e-6;  // of |analytic − numeric| relative to max(1, the largest gradient of that input)
  uint64_t seed = 1;
};

// f maps the inputs (f64 on reference) to one output of any shape; the check is of Σ output · cotangent for a random
// cotangent. Throws Error naming the input, the element and both values where they differ.
void gradcheck(const std::function<Variable(const std::vector<Variable>&)>& f, const std::vector<Tensor>& inputs,
               const GradcheckOptions& options = {});

}  // namespace mgic
