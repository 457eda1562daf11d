// Winograd's transforms of weights, with the points of winograd-inl.h, for n numbers side by side: whole vectors.
#pragma once

#include "backends/cpu/grouped.h"

namespace mgic::cpu {

// out (positions, n) ← G w Gᵀ of w (3, 3, n), or w Gᵀ where tiles are in rows.
template <class Element>
void winograd_of_taps(const Grouped& g, const float* w, int64_t n, Element* out);

// out (3, 3, n) ← Gᵀ m G of m (positions, n), or m G.
void winograd_to_taps(const Grouped& g, const float* m, int64_t n, float* out);

}  // namespace mgic::cpu
