// Every channel repeated, and the sum over the repetitions: what turns a convolution with one input and `times` outputs
// a group into a depthwise one.
#pragma once

#include <cstdint>

namespace mgic::cpu {

void repeat_channels(const float* x, int64_t count, int64_t times, float* y);  // y[times·i + t] = x[i]
// x[i] (+)= Σ_t y[times·i + t]
void sum_repeated(const float* y, int64_t count, int64_t times, bool accumulate, float* x);

}  // namespace mgic::cpu
