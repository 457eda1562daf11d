// 1×1 convolutions of stride 1 with few channels a group: x (rows, groups·inputs) → y (rows, groups·outputs), weights
// (groups·outputs, inputs). The transfers of MGIC, where oneDNN reaches a tenth of what it does elsewhere.
#pragma once

#include <cstdint>

namespace mgic::cpu {

struct Pointwise {
  int64_t rows, groups, inputs, outputs;  // inputs and outputs a group
};

bool pointwise_suits(int64_t groups, int64_t inputs, int64_t outputs);

void pointwise_forward(const Pointwise& p, const float* x, const float* w, float* y);
void pointwise_backward_data(const Pointwise& p, const float* dy, const float* w, bool accumulate, float* dx);
void pointwise_backward_weights(const Pointwise& p, const float* x, const float* dy, bool accumulate, float* dw);

}  // namespace mgic::cpu
