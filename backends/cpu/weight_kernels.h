// Winograd's transforms of weights, with the points of winograd-inl.h, for n numbers side by side: whole vectors.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace mgic::cpu {

// out (tile + 2, tile + 2, n) ← G w Gᵀ of w (3, 3, n).
template <class Element>
void winograd_of_taps(int64_t tile, const float* w, int64_t n, Element* out);

// out (3, 3, n) ← Gᵀ m G of m (tile + 2, tile + 2, n).
void winograd_to_taps(int64_t tile, const float* m, int64_t n, float* out);

}  // namespace mgic::cpu
