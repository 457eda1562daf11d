#include "backends/cpu/weight_kernels.h"

#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/weight_kernels.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include "backends/cpu/simd-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {
namespace {

// t = G w, of M + 2 numbers.
template <int M>
HWY_INLINE void weights(V first, V middle, V last, V* t) {
  const D d;
  const V ends = hn::Add(first, last);
  if constexpr (M == 2) {
    const V half = hn::Set(d, 0.5f);
    t[0] = first;
    t[1] = hn::Mul(half, hn::Add(ends, middle));
    t[2] = hn::Mul(half, hn::Sub(ends, middle));
    t[3] = last;
  } else {
    const V far = hn::MulAdd(hn::Set(d, 4), last, first), twice = hn::Add(middle, middle);
    const V near_factor = hn::Set(d, -1.0f / 6), far_factor = hn::Set(d, 1.0f / 24);
    t[0] = hn::Mul(hn::Set(d, 1.0f / 4), first);
    t[1] = hn::Mul(near_factor, hn::Add(ends, middle));
    t[2] = hn::Mul(near_factor, hn::Sub(ends, middle));
    t[3] = hn::Mul(far_factor, hn::Add(far, twice));
    t[4] = hn::Mul(far_factor, hn::Sub(far, twice));
    t[5] = last;
  }
}

// t = Gᵀ m, of three numbers.
template <int M>
HWY_INLINE void taps(const V* m, V* t) {
  const D d;
  if constexpr (M == 2) {
    const V half = hn::Set(d, 0.5f);
    const V sum = hn::Mul(half, hn::Add(m[1], m[2])), difference = hn::Mul(half, hn::Sub(m[1], m[2]));
    t[0] = hn::Add(m[0], sum);
    t[1] = difference;
    t[2] = hn::Add(sum, m[3]);
  } else {
    const V near_factor = hn::Set(d, -1.0f / 6);
    const V sum = hn::Mul(near_factor, hn::Add(m[1], m[2])), difference = hn::Mul(near_factor, hn::Sub(m[1], m[2]));
    const V sum2 = hn::Mul(hn::Set(d, 1.0f / 24), hn::Add(m[3], m[4])),
            difference2 = hn::Mul(hn::Set(d, 1.0f / 12), hn::Sub(m[3], m[4]));
    t[0] = hn::MulAdd(hn::Set(d, 1.0f / 4), m[0], hn::Add(sum, sum2));
    t[1] = hn::Add(difference, difference2);
    t[2] = hn::Add(hn::MulAdd(hn::Set(d, 4), sum2, sum), m[5]);
  }
}

template <int M, bool in_rows, class Element>
void of_taps(const float* w, int64_t n, Element* out) {
  constexpr int side = M + 2, rows = in_rows ? 3 : side;
  for (int64_t i = 0; i < n; i += lanes()) {
    const auto tap = [&](int u, int v) HWY_ATTR { return hn::LoadU(D(), w + (3 * u + v) * n + i); };
    V columns[3][rows];
#pragma GCC unroll 3
    for (int v = 0; v < 3; ++v) {
      if constexpr (in_rows)
        for (int u = 0; u < 3; ++u) columns[v][u] = tap(u, v);
      else
        weights<M>(tap(0, v), tap(1, v), tap(2, v), columns[v]);
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; ++r) {
      V row[side];
      weights<M>(columns[0][r], columns[1][r], columns[2][r], row);
#pragma GCC unroll 6
      for (int k = 0; k < side; ++k) Whole().store(row[k], out + (r * side + k) * n + i);
    }
  }
}

template <int M, bool in_rows>
void to_taps(const float* m, int64_t n, float* out) {
  constexpr int side = M + 2, rows = in_rows ? 3 : side;
  for (int64_t i = 0; i < n; i += lanes()) {
    V columns[side][3];
#pragma GCC unroll 6
    for (int k = 0; k < side; ++k) {
      V column[rows];
#pragma GCC unroll 6
      for (int r = 0; r < rows; ++r) column[r] = hn::LoadU(D(), m + (r * side + k) * n + i);
      if constexpr (in_rows)
        std::copy_n(column, 3, columns[k]);
      else
        taps<M>(column, columns[k]);
    }
#pragma GCC unroll 3
    for (int u = 0; u < 3; ++u) {
      V row[side], t[3];
#pragma GCC unroll 6
      for (int k = 0; k < side; ++k) row[k] = columns[k][u];
      taps<M>(row, t);
#pragma GCC unroll 3
      for (int v = 0; v < 3; ++v) hn::StoreU(t[v], D(), out + (3 * u + v) * n + i);
    }
  }
}

// f(M, whether tiles are in rows).
template <class F>
HWY_INLINE void with_tile(const Grouped& g, F&& f) {
  const auto tile = [&](auto in_rows) { g.tile == 4 ? f(Count<4>(), in_rows) : f(Count<2>(), in_rows); };
  g.in_rows ? tile(std::true_type()) : tile(std::false_type());
}
void of_taps_f32(const Grouped& g, const float* w, int64_t n, float* out) {
  with_tile(g, [&](auto tile, auto in_rows) { of_taps<tile.value, in_rows.value>(w, n, out); });
}
// Products of pairs take the smaller tiles alone (grouped.cpp).
void of_taps_bf16(const Grouped&, const float* w, int64_t n, bf16* out) { of_taps<2, false>(w, n, out); }
void back_to_taps(const Grouped& g, const float* m, int64_t n, float* out) {
  with_tile(g, [&](auto tile, auto in_rows) { to_taps<tile.value, in_rows.value>(m, n, out); });
}

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mgic::cpu {
namespace {

HWY_EXPORT(of_taps_f32);
HWY_EXPORT(of_taps_bf16);
HWY_EXPORT(back_to_taps);

}  // namespace

template <>
void winograd_of_taps(const Grouped& g, const float* w, int64_t n, float* out) {
  HWY_DYNAMIC_DISPATCH(of_taps_f32)(g, w, n, out);
}
template <>
void winograd_of_taps(const Grouped& g, const float* w, int64_t n, bf16* out) {
  HWY_DYNAMIC_DISPATCH(of_taps_bf16)(g, w, n, out);
}
void winograd_to_taps(const Grouped& g, const float* m, int64_t n, float* out) {
  HWY_DYNAMIC_DISPATCH(back_to_taps)(g, m, n, out);
}

}  // namespace mgic::cpu
#endif  // HWY_ONCE
