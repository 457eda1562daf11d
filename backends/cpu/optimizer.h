// One parameter of an optimizer's step, as raw arrays.
#pragma once

#include <cstdint>

namespace mgic::cpu {

struct Step {
  float* parameter;
  const float* gradient;
  float *first, *second;
  int64_t count;
  double weight_decay;
};

struct AdamWCorrections {
  float step;           // lr / (1 − beta1ᵗ)
  float square_factor;  // 1 / sqrt(1 − beta2ᵗ)
};

}  // namespace mgic::cpu
