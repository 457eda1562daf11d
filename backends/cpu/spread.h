// Convolutions with one input a group: depthwise ones, and those that spread every channel over a few outputs, which
// MGIC's transitions do where the width grows.
//
//   y[n, i, j, m·c + k] = Σ_{u, v} w[m·c + k, u, v] · x[n, s·i + d·u − p, s·j + d·v − p, c]      k = 0 … m − 1
//
// Bound by memory: x, y and dy are read and written once, in f32 or bf16, and the sums are f32.
#pragma once

#include "backends/backend.h"

namespace mgic::cpu {

// Whether these kernels take the convolution, in all three directions.
bool spread_suits(const ConvParams& p, const Shape& x, const Shape& w);

// Maps of T, f32 or bf16.
template <class T>
void spread_forward(const ConvParams& p, const Tensor& x, const Tensor& w, const Tensor& bias, const Tensor& residual,
                    Activation activation, Tensor& y);
template <class T>
void spread_backward_data(const ConvParams& p, const Tensor& dy, const Tensor& w, Sink dx);
template <class T>
void spread_backward_weights(const ConvParams& p, const Tensor& x, const Tensor& dy, Sink dw);

}  // namespace mgic::cpu
