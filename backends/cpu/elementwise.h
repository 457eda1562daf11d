// Elementwise passes over raw arrays, for the kernels that need one beside their own work.
#pragma once

#include "backends/backend.h"
#include "backends/cpu/columns.h"

namespace mgic::cpu {

enum class Pairwise : uint8_t { add, subtract, multiply };

void activate_all(Activation activation, const float* x, float* y, int64_t n);  // x may be y
void scale_all(float alpha, const float* x, bool accumulate, float* y, int64_t n);
void pairwise_all(Pairwise operation, const float* a, const float* b, bool accumulate, float* y, int64_t n);
// y[n, …, c] (+)= alpha b[n, c]: y has `count` elements, b (samples, channels).
void spread_all(float alpha, const float* b, int64_t samples, int64_t channels, bool accumulate, float* y,
                int64_t count);

}  // namespace mgic::cpu
