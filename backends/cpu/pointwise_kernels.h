// The walks over rows of pointwise.h for one thread, on the machine at hand.
#pragma once

#include "backends/cpu/ahead.h"
#include "backends/cpu/pointwise.h"

namespace mgic::cpu {

constexpr int64_t block_rows = 16;

// Whether outer products are summed as (groups, inputs, outputs): vectors hold whatever there is more of.
inline bool sums_by_input(const Pointwise& p) { return p.outputs > p.inputs; }

// Rows [begin, end) of a map whose weights are packed; `block` has room for block_rows rows of all terms.
void map_rows(const RowMap<float>& map, int64_t begin, int64_t end, float* block);
void map_rows(const RowMap<bf16>& map, int64_t begin, int64_t end, float* block);

// Adds those of rows [begin, end) to sums: of v, of dy, the outer products and the Gram matrices, one behind the other.
// `block` has room for block_rows rows of v and of the wider one of v and dy.
void sum_rows(const RowSums<float>& sums, int64_t begin, int64_t end, float* block, float* to);
void sum_rows(const RowSums<bf16>& sums, int64_t begin, int64_t end, float* block, float* to);

// What a map touches of rows [begin, end), asked for by so many calls.
template <class T>
Ahead rows_ahead(const RowMap<T>& map, int64_t begin, int64_t end, int64_t calls) {
  Ahead ahead(calls);
  const auto add = [&](const T* p, int64_t channels) {
    if (p != nullptr) ahead.add(p + begin * channels, (end - begin) * channels);
  };
  for (const auto& term : map.terms)
    for (const T* x : {term.rows.x, term.rows.minus}) add(x, map.groups * term.depth);
  for (const T* p : {map.residual, static_cast<const T*>(map.y), static_cast<const T*>(map.negated)})
    add(p, map.groups * map.width);
  return ahead;
}

// What sums touch of rows [begin, end).
template <class T>
Ahead rows_ahead(const RowSums<T>& s, int64_t begin, int64_t end, int64_t calls) {
  Ahead ahead(calls);
  const auto add = [&](const T* p, int64_t channels) {
    if (p != nullptr) ahead.add(p + begin * channels, (end - begin) * channels);
  };
  for (const T* x : {s.v.x, s.v.minus}) add(x, s.p.in_channels());
  add(s.dy, s.p.out_channels());
  return ahead;
}

}  // namespace mgic::cpu
