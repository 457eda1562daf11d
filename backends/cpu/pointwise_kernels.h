// The walks over rows of pointwise.h for one thread, on the machine at hand.
#pragma once

#include "backends/cpu/ahead.h"
#include "backends/cpu/pointwise.h"

namespace mgic::cpu {

constexpr int64_t block_rows = 16;

// Whether outer products are summed as (groups, inputs, outputs), unless groups are turned: vectors hold whatever there
// is more of.
inline bool sums_by_input(const Pointwise& p) { return p.outputs > p.inputs; }

// Rows [begin, end) of a map whose weights are packed; `block` has room for block_rows rows of all terms. Or of one
// whose groups are turned; it has room for the weights then.
void map_rows(const RowMap<float>& map, int64_t begin, int64_t end, float* block);
void map_rows(const RowMap<bf16>& map, int64_t begin, int64_t end, float* block);

// The sums over rows [begin, end): of v, of dy, the outer products and the Gram matrices, one behind the other.
// `block` has room for block_rows rows of v and of the wider one of v and dy.
void sum_rows(const RowSums<float>& sums, int64_t begin, int64_t end, float* block, float* to);
void sum_rows(const RowSums<bf16>& sums, int64_t begin, int64_t end, float* block, float* to);

// f(map, channels) for the maps that a walk touches.
template <class T, class F>
void each_map(const RowMap<T>& map, F&& f) {
  for (const auto& term : map.terms)
    for (const T* x : {term.rows.x, term.rows.minus}) f(x, map.groups * term.depth);
  for (const T* p : {map.residual, static_cast<const T*>(map.y), static_cast<const T*>(map.negated)})
    f(p, map.groups * map.width);
}
template <class T, class F>
void each_map(const RowSums<T>& s, F&& f) {
  for (const T* x : {s.v.x, s.v.minus}) f(x, s.p.in_channels());
  f(s.dy, s.p.out_channels());
}

// What a walk touches of rows [begin, end), asked for by so many calls.
template <class Call>
Ahead rows_ahead(const Call& call, int64_t begin, int64_t end, int64_t calls) {
  Ahead ahead(calls);
  each_map(call, [&](const auto* p, int64_t channels) {
    if (p != nullptr) ahead.add(p + begin * channels, (end - begin) * channels);
  });
  return ahead;
}
// Of these rows, part i of so many parts of their channels.
template <class Call>
Ahead columns_ahead(const Call& call, int64_t begin, int64_t end, int64_t i, int64_t parts, int64_t calls) {
  Ahead ahead(calls);
  each_map(call, [&](const auto* p, int64_t channels) {
    const int64_t own = channels / parts;
    if (p != nullptr) ahead.add(p + begin * channels + i * own, end - begin, own, channels);
  });
  return ahead;
}

}  // namespace mgic::cpu
