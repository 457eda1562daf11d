// What the kernels of batch normalisation are told; the parameters are expanded to wide rows (columns.h).
#pragma once

#include "backends/backend.h"
#include "backends/cpu/columns.h"

namespace mgic::cpu {

struct NormalizeArgs {
  const float *mean, *scale, *beta;  // (width)
  int64_t width;
  const float *x, *residual;  // residual may be null; then `outer` is not looked at
  Activation inner, outer;
  float* y;
};

struct BackwardArgs {
  const float *mean, *scale, *beta, *shift, *slope;  // (width)
  int64_t width;
  const float *x, *dy, *residual;
  Activation inner, outer;  // outer none where there is no residual
  float *dx = nullptr, *dresidual = nullptr;
  bool accumulate_dx = false, accumulate_dresidual = false;
};

}  // namespace mgic::cpu
