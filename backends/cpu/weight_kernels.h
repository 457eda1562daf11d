// What is done to weights in vectors: Winograd's transforms, with the points of winograd-inl.h, for n numbers side by
// side, which are whole vectors; and how matrices lie.
#pragma once

#include "backends/cpu/grouped.h"

namespace mgic::cpu {

// out (positions, n) ← G w Gᵀ of w (3, 3, n), or w Gᵀ where tiles are in rows.
template <class Element>
void winograd_of_taps(const Grouped& g, const float* w, int64_t n, Element* out);

// The first nine of m (positions, n) ← Gᵀ m G, or m G.
void winograd_to_taps(const Grouped& g, float* m, int64_t n);

// Row c of `to`, of so many columns, has in its first ones column c of the `rows` of `from`, each times its scale, if
// there are any. Rows and columns are multiples of four.
void transpose(const float* from, int64_t rows, int64_t columns, int64_t from_stride, const float* scale, float* to,
               int64_t to_stride);

// Groups of n channels that share vectors, 4 or 8, as winograd_rows-inl.h wants their weights: of `count` matrices (n,
// lanes) each, where row o has the weights of every group's output o, or for gradients of the input those from its
// channel o, the vectors of all turns; in place.
void turn(int64_t n, bool transposed, int64_t count, float* m);
// Of `count` pairs of neighbouring vectors, the cells of both, rounded to bf16.
void pair(int64_t count, const float* m, uint32_t* cells);
// The rows of outputs from vectors of turns.
void turn_back(int64_t n, int64_t count, float* m);

}  // namespace mgic::cpu
