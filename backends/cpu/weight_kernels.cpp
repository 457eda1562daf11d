#include "backends/cpu/weight_kernels.h"

#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/weight_kernels.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include "backends/cpu/simd-inl.h"
#include "backends/cpu/winograd_points.h"
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
    const V near = hn::Set(d, winograd::near), far = hn::Set(d, winograd::far), scale = hn::Set(d, winograd::scale);
    const V at_near = hn::MulAdd(far, first, hn::Mul(near, last)), at_far = hn::MulAdd(near, first, hn::Mul(far, last));
    t[0] = first;
    t[1] = hn::Neg(hn::Mul(scale, hn::Add(at_near, middle)));
    t[2] = hn::Mul(scale, hn::Sub(middle, at_near));
    t[3] = hn::Mul(scale, hn::Add(at_far, middle));
    t[4] = hn::Mul(scale, hn::Sub(at_far, middle));
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
    const V near = hn::Set(d, winograd::near), far = hn::Set(d, winograd::far), scale = hn::Set(d, winograd::scale);
    const V at_near = hn::Add(m[1], m[2]), at_far = hn::Add(m[3], m[4]);
    t[0] = hn::MulAdd(scale, hn::NegMulAdd(far, at_near, hn::Mul(near, at_far)), m[0]);
    t[1] = hn::Mul(scale, hn::Add(hn::Sub(m[2], m[1]), hn::Sub(m[3], m[4])));
    t[2] = hn::MulAdd(scale, hn::NegMulAdd(near, at_near, hn::Mul(far, at_far)), m[5]);
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

// In place: a vector's positions are read before its taps are written.
template <int M, bool in_rows>
void to_taps(float* m, int64_t n) {
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
      for (int v = 0; v < 3; ++v) hn::StoreU(t[v], D(), m + (3 * u + v) * n + i);
    }
  }
}

void transpose_f32(const float* from, int64_t rows, int64_t columns, int64_t from_stride, const float* scale, float* to,
                   int64_t to_stride) {
  const auto scale_of = [&](int64_t row) { return scale == nullptr ? 1.0f : scale[row]; };
#if HWY_TARGET == HWY_SCALAR
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) to[c * to_stride + r] = from[r * from_stride + c] * scale_of(r);
#else
  const hn::FixedTag<float, 4> d;
  for (int64_t r = 0; r < rows; r += 4)
    for (int64_t c = 0; c < columns; c += 4) {
      const auto row = [&](int64_t k) HWY_ATTR {
        return hn::Mul(hn::LoadU(d, from + (r + k) * from_stride + c), hn::Set(d, scale_of(r + k)));
      };
      const auto a = row(0), b = row(1), e = row(2), f = row(3);
      const auto low = hn::InterleaveLower(d, a, b), high = hn::InterleaveUpper(d, a, b);
      const auto next_low = hn::InterleaveLower(d, e, f), next_high = hn::InterleaveUpper(d, e, f);
      float* column = to + c * to_stride + r;
      hn::StoreU(hn::ConcatLowerLower(d, next_low, low), d, column);
      hn::StoreU(hn::ConcatUpperUpper(d, next_low, low), d, column + to_stride);
      hn::StoreU(hn::ConcatLowerLower(d, next_high, high), d, column + 2 * to_stride);
      hn::StoreU(hn::ConcatUpperUpper(d, next_high, high), d, column + 3 * to_stride);
    }
#endif
}

#if HWY_TARGET != HWY_SCALAR
// The lanes that a pair of vectors has for even channels, or for odd ones, side by side.
HWY_INLINE V evens(V a, V b) { return hn::OddEven(hn::DupEven(b), a); }
HWY_INLINE V odds(V a, V b) { return hn::OddEven(b, hn::DupOdd(a)); }

// With channels in pairs, output 2 a + s and channel 2 b + t: vector 2 (a ^ b) + t has them in lane 2 b + s.
void turn_f32(int64_t n, bool transposed, int64_t count, float* m) {
  with_group(n, [&](auto channels) HWY_ATTR {
    constexpr int pairs = channels.value / 2;
    for (int64_t c = 0; c < count; ++c, m += 2 * pairs * lanes()) {
      V v[2 * pairs];
      each<pairs>([&](auto a) HWY_ATTR {
        const V even = hn::LoadU(D(), m + 2 * a * lanes()), odd = hn::LoadU(D(), m + (2 * a + 1) * lanes());
        v[a] = transposed ? even : evens(even, odd);
        v[pairs + a] = transposed ? odd : odds(even, odd);
      });
      straighten<pairs, 2>(v);
      straighten<pairs, 2>(v + pairs);
      each<2 * pairs>([&](auto i) HWY_ATTR {
        constexpr int turn = i % pairs;
        hn::StoreU(transposed ? turned<2 * turn>(v[i]) : v[i], D(), m + (2 * turn + i / pairs) * lanes());
      });
    }
  });
}
void turn_back_f32(int64_t n, int64_t count, float* m) {
  with_group(n, [&](auto channels) HWY_ATTR {
    constexpr int pairs = channels.value / 2;
    for (int64_t c = 0; c < count; ++c, m += 2 * pairs * lanes()) {
      V v[2 * pairs];
      each<2 * pairs>([&](auto i) HWY_ATTR { v[i] = hn::LoadU(D(), m + (2 * (i % pairs) + i / pairs) * lanes()); });
      straighten<pairs, 2>(v);
      straighten<pairs, 2>(v + pairs);
      each<pairs>([&](auto a) HWY_ATTR {
        hn::StoreU(evens(v[a], v[pairs + a]), D(), m + 2 * a * lanes());
        hn::StoreU(odds(v[a], v[pairs + a]), D(), m + (2 * a + 1) * lanes());
      });
    }
  });
}
#else
// One lane holds no groups.
void turn_f32(int64_t, bool, int64_t, float*) {}
void turn_back_f32(int64_t, int64_t, float*) {}
#endif

void pair_f32(int64_t count, const float* m, uint32_t* cells) {
  for (int64_t c = 0; c < count; ++c, m += 2 * lanes(), cells += lanes())
    hn::StoreU(narrow_pairs(hn::LoadU(D(), m), hn::LoadU(D(), m + lanes())), Pairs(), cells);
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
void back_to_taps(const Grouped& g, float* m, int64_t n) {
  with_tile(g, [&](auto tile, auto in_rows) { to_taps<tile.value, in_rows.value>(m, n); });
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
HWY_EXPORT(transpose_f32);
HWY_EXPORT(turn_f32);
HWY_EXPORT(pair_f32);
HWY_EXPORT(turn_back_f32);

}  // namespace

template <>
void winograd_of_taps(const Grouped& g, const float* w, int64_t n, float* out) {
  HWY_DYNAMIC_DISPATCH(of_taps_f32)(g, w, n, out);
}
template <>
void winograd_of_taps(const Grouped& g, const float* w, int64_t n, bf16* out) {
  HWY_DYNAMIC_DISPATCH(of_taps_bf16)(g, w, n, out);
}
void winograd_to_taps(const Grouped& g, float* m, int64_t n) { HWY_DYNAMIC_DISPATCH(back_to_taps)(g, m, n); }
void transpose(const float* from, int64_t rows, int64_t columns, int64_t from_stride, const float* scale, float* to,
               int64_t to_stride) {
  HWY_DYNAMIC_DISPATCH(transpose_f32)(from, rows, columns, from_stride, scale, to, to_stride);
}
void turn(int64_t n, bool transposed, int64_t count, float* m) {
  HWY_DYNAMIC_DISPATCH(turn_f32)(n, transposed, count, m);
}
void pair(int64_t count, const float* m, uint32_t* cells) { HWY_DYNAMIC_DISPATCH(pair_f32)(count, m, cells); }
void turn_back(int64_t n, int64_t count, float* m) { HWY_DYNAMIC_DISPATCH(turn_back_f32)(n, count, m); }

}  // namespace mgic::cpu
#endif  // HWY_ONCE
