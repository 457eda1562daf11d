// Dense 3×3 convolutions with many channels, evaluated: Winograd's filtering over the whole batch, as one matrix
// product for each of a tile's positions p, so that every weight is read once (winograd-inl.h has the transforms).
//
//   V[p] (tiles, inputs) = Bᵀ x B,   M[p] = V[p] U[p],   y = Aᵀ M A        U[p] (inputs, outputs) = G w Gᵀ
//
// For evaluation alone: there the transformed weights, up to four times as many, are made once and not at every step.
#pragma once

#include "backends/backend.h"
#include "backends/cpu/parallel.h"

namespace mgic::cpu {

bool dense_winograd_suits(const ConvParams& p, const Shape& x, const Shape& w);

// Outputs on a side of the tiles for maps of this shape: 4 where those are enough for products that use their weights
// often, else 2.
int64_t dense_winograd_tile(const Shape& x);

// Floats (positions, inputs, outputs) for tiles of that size; w (outputs, 3, 3, inputs), scale: a factor an output, or
// null.
Scratch<uint32_t> dense_winograd_weights(int64_t tile, const Shape& shape, const float* w, const float* scale);

// y = outer(inner(conv(x) + bias) + residual) in maps of T, f32 or bf16, whose channels are multiples of 16; residual
// may be null. Takes scratch for a few MiB of tiles at a time.
template <class T>
void dense_winograd(const Shape& x_shape, int64_t outputs, const T* x, const void* weights, const float* bias,
                    Activation inner, const T* residual, Activation outer, T* y);

}  // namespace mgic::cpu
