// The two walks over rows (pointwise.h) in f32's arithmetic, compiled for every target, for transfers: one side has
// n = 4 or 8 channels a group and the other one twice as many.
//
// Groups share a vector, n lanes each: a unit. The side of n channels a group is one such vector; the other one is two,
// its even and its odd channels, into which pairs of bf16 come apart by a shift and a mask. Every lane of a group has
// to meet every other one: that takes n turns, of which turn k couples lane l with lane l ^ k and has weights of its
// own, and at most one shuffle a turn, where channels that are broadcast take one a channel. Maps are read where they
// lie, and the weights of a unit, or its sums, stay in registers while its rows pass by.
#if defined(MGIC_CPU_POINTWISE_TURNED_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MGIC_CPU_POINTWISE_TURNED_INL_H
#undef MGIC_CPU_POINTWISE_TURNED_INL_H
#else
#define MGIC_CPU_POINTWISE_TURNED_INL_H
#endif

#include "backends/cpu/ahead.h"
#include "backends/cpu/grouped-inl.h"
#include "backends/cpu/pointwise_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR
template <class A>
constexpr bool turns = false;
#else
// Whether groups may be turned where that is the arithmetic.
template <class A>
constexpr bool turns = std::is_same_v<A, F32>;

// What is asked for of memory, and added up, at a time; and rows of a unit with which a share of it is asked for.
constexpr int64_t turned_rows = 32, rows_a_fetch = 8;

// ---- A unit of a side, in `parts` vectors: its channels, or the even and the odd ones ----

template <int parts>
HWY_INLINE void load_unit(const float* p, V* v) {
  if constexpr (parts == 1)
    v[0] = hn::LoadU(D(), p);
  else
    hn::LoadInterleaved2(D(), p, v[0], v[1]);
}
template <int parts>
HWY_INLINE void load_unit(const bf16* p, V* v) {
  if constexpr (parts == 1) {
    v[0] = Whole().load(p);
  } else {
    const hn::ScalableTag<uint32_t> d;
    const auto pairs = hn::LoadU(d, reinterpret_cast<const uint32_t*>(p));
    v[0] = hn::BitCast(D(), hn::ShiftLeft<16>(pairs));
    v[1] = hn::BitCast(D(), hn::And(pairs, hn::Set(d, 0xffff0000u)));
  }
}
// Of x − minus.
template <int parts, class T>
HWY_INLINE void load_unit(const Rows<T>& rows, int64_t at, V* v) {
  load_unit<parts>(rows.x + at, v);
  if (rows.minus == nullptr) return;
  V minus[parts];
  load_unit<parts>(rows.minus + at, minus);
#pragma GCC unroll 2
  for (int h = 0; h < parts; ++h) v[h] = hn::Sub(v[h], minus[h]);
}
template <int parts>
HWY_INLINE void store_unit(const V* v, float* p) {
  if constexpr (parts == 1)
    hn::StoreU(v[0], D(), p);
  else
    hn::StoreInterleaved2(v[0], v[1], D(), p);
}
template <int parts>
HWY_INLINE void store_unit(const V* v, bf16* p) {
  if constexpr (parts == 1) {
    Whole().store(v[0], p);
  } else {
    const hn::ScalableTag<uint32_t> d;
#if MGIC_HAS_BF16_DOT
    if (rounds_to_bf16) return hn::StoreU(Bf16::pair(Bf16::round_two(v[0], v[1])), d, reinterpret_cast<uint32_t*>(p));
#endif
    const auto even = hn::PromoteTo(d, narrow(v[0])), odd = hn::PromoteTo(d, narrow(v[1]));
    hn::StoreU(hn::Or(even, hn::ShiftLeft<16>(odd)), d, reinterpret_cast<uint32_t*>(p));
  }
}
template <int parts, class T>
HWY_INLINE void put_unit(const V* v, bool accumulate, T* p) {
  if (!accumulate) return store_unit<parts>(v, p);
  V sum[parts];
  load_unit<parts>(p, sum);
#pragma GCC unroll 2
  for (int h = 0; h < parts; ++h) sum[h] = hn::Add(sum[h], v[h]);
  store_unit<parts>(sum, p);
}

// f(lanes a group) as a type.
template <class F>
void with_group(int64_t n, F&& f) {
  if constexpr (hn::MaxLanes(D()) >= 8)
    if (n == 8) return f(Count<8>());
  f(Count<4>());
}
// f(k) for the turns 0 … n − 1, each as a type.
template <int n, class F>
HWY_INLINE void each_turn(F&& f) {
  [&]<int... k>(std::integer_sequence<int, k...>) HWY_ATTR { (f(Count<k>()), ...); }
  (std::make_integer_sequence<int, n>());
}

// ---- Maps ----

// Results in one part have a sum for each of a turn's lower bits, which is turned when it is complete; for results in
// two parts it is the factors that are turned, as there are fewer of those.
template <int results>
constexpr int turned_sums = results == 1 ? 4 : 2;

// sum += the products of a term's unit, of which the factors have so many parts, with its weights (parts of factors,
// parts of results, n turns).
template <int n, int results, int factors, class T>
HWY_INLINE void add_turned(const Rows<T>& rows, int64_t at, const V* w, V* sum) {
  V x[factors];
  load_unit<factors>(rows, at, x);
#pragma GCC unroll 2
  for (int f = 0; f < factors; ++f, w += results * n)
    each_turn<n>([&](auto k) HWY_ATTR {
      constexpr int turn = k.value;
      if constexpr (results == 1) {
        sum[turn & 3] = hn::MulAdd(turned<(turn & ~3)>(x[f]), w[turn], sum[turn & 3]);
      } else {
        const V factor = turned<turn>(x[f]);
#pragma GCC unroll 2
        for (int r = 0; r < results; ++r) sum[r] = hn::MulAdd(factor, w[r * n + turn], sum[r]);
      }
    });
}

// Rows [begin, end) of a map with terms of so many parts.
template <int n, int results, int... factors, class T>
void map_units(const RowMap<T>& map, int64_t begin, int64_t end) {
  constexpr int weights = (factors + ...) * results * n;
  const int64_t units = map.groups * n / lanes(), step = results * lanes(), channels = units * step;
  const bool plain = map.residual == nullptr && map.negated == nullptr && !map.accumulate;
  for (int64_t row = begin; row < end; row += turned_rows) {
    const int64_t next = std::min(row + turned_rows, end), after = std::min(next + turned_rows, end);
    const int64_t fetches = (next - row + rows_a_fetch - 1) / rows_a_fetch;
    Ahead ahead = rows_ahead(map, next, after, units * fetches);
    for (int64_t u = 0; u < units; ++u) {
      // Nobody has asked for the first rows: every unit asks for those of the next.
      Ahead unit = row == begin && u + 1 < units ? columns_ahead(map, row, next, u + 1, units, fetches) : Ahead(1);
      V w[weights], start[results];
      {
        V* to = w;
        size_t t = 0;
        const auto load = [&](int count) HWY_ATTR {
          const float* from = static_cast<const float*>(map.terms[t++].packed) + u * count * lanes();
          for (int i = 0; i < count; ++i) *to++ = hn::LoadU(D(), from + i * lanes());
        };
        (load(factors * results * n), ...);
      }
#pragma GCC unroll 2
      for (int r = 0; r < results; ++r) start[r] = hn::Zero(D());
      if (map.shift != nullptr) load_unit<results>(map.shift + u * step, start);
      for (int64_t r = row; r < next; ++r) {
        if ((r - row) % rows_a_fetch == 0) {
          unit.fetch();
          ahead.fetch();
        }
        V sum[turned_sums<results>];
#pragma GCC unroll 4
        for (int i = 0; i < turned_sums<results>; ++i) sum[i] = i < results ? start[i] : hn::Zero(D());
        const V* of_term = w;
        size_t t = 0;
        const auto add = [&](auto parts) HWY_ATTR {
          constexpr int count = decltype(parts)::value;
          add_turned<n, results, count>(map.terms[t++].rows, (r * units + u) * count * lanes(), of_term, sum);
          of_term += count * results * n;
        };
        (add(Count<factors>()), ...);
        if constexpr (results == 1)
          sum[0] = hn::Add(hn::Add(sum[0], turned<1>(sum[1])), turned<2>(hn::Add(sum[2], turned<1>(sum[3]))));
        const int64_t at = r * channels + u * step;
        if (plain) {
          store_unit<results>(sum, map.y + at);
          continue;
        }
        if (map.residual != nullptr) {
          V residual[results];
          load_unit<results>(map.residual + at, residual);
#pragma GCC unroll 2
          for (int h = 0; h < results; ++h) sum[h] = hn::Add(sum[h], residual[h]);
        }
        if (map.y != nullptr) put_unit<results>(sum, map.accumulate, map.y + at);
        if (map.negated == nullptr) continue;
#pragma GCC unroll 2
        for (int h = 0; h < results; ++h) sum[h] = hn::Neg(sum[h]);
        put_unit<results>(sum, map.accumulate_negated, map.negated + at);
      }
    }
  }
}

template <class T>
void map_turned(const RowMap<T>& map, int64_t begin, int64_t end) {
  with_group(map.turned, [&](auto group) {
    constexpr int n = decltype(group)::value;
    if (map.width == 2 * n) return map_units<n, 2, 1>(map, begin, end);
    if (map.terms.size() == 1) return map_units<n, 1, 2>(map, begin, end);
    map_units<n, 1, 2, 1>(map, begin, end);
  });
}

// ---- Sums ----

// acc (units, vectors) += those of rows [begin, end): the outer products of the larger side, in so many parts, and the
// smaller one, (parts, n turns); the larger side's own sums; and the smaller one's. One part: the Gram matrices of v.
template <int n, int parts, class T>
void sum_units(const RowSums<T>& s, int64_t begin, int64_t end, float* acc) {
  const Rows<T> dy{s.dy};
  const bool by_input = parts == 2 && sums_by_input(s.p);
  const Rows<T>&larger = by_input ? dy : s.v, &smaller = by_input ? s.v : dy;
  const float *larger_centre = by_input ? nullptr : s.centre, *smaller_centre = by_input ? s.centre : nullptr;
  constexpr int vectors = parts * n + parts + 1;
  const int64_t units = s.p.groups * n / lanes();
  std::fill_n(acc, units * vectors * lanes(), 0.0f);
  for (int64_t row = begin; row < end; row += turned_rows) {
    const int64_t next = std::min(row + turned_rows, end), after = std::min(next + turned_rows, end);
    const int64_t fetches = (next - row + rows_a_fetch - 1) / rows_a_fetch;
    Ahead ahead = rows_ahead(s, next, after, units * fetches);
    for (int64_t u = 0; u < units; ++u) {
      // Nobody has asked for the first rows: every unit asks for those of the next.
      Ahead unit = row == begin && u + 1 < units ? columns_ahead(s, row, next, u + 1, units, fetches) : Ahead(1);
      V sum[vectors], centre[2];
#pragma GCC unroll 32
      for (int i = 0; i < vectors; ++i) sum[i] = hn::Zero(D());
      if (larger_centre != nullptr) load_unit<parts>(larger_centre + u * parts * lanes(), centre);
      if (smaller_centre != nullptr) load_unit<1>(smaller_centre + u * lanes(), centre);
      for (int64_t r = row; r < next; ++r) {
        if ((r - row) % rows_a_fetch == 0) {
          unit.fetch();
          ahead.fetch();
        }
        V large[parts], small[1];
        load_unit<parts>(larger, (r * units + u) * parts * lanes(), large);
        if (larger_centre != nullptr)
#pragma GCC unroll 2
          for (int h = 0; h < parts; ++h) large[h] = hn::Sub(large[h], centre[h]);
        if constexpr (parts == 1) {
          small[0] = large[0];
        } else {
          load_unit<1>(smaller, (r * units + u) * lanes(), small);
          if (smaller_centre != nullptr) small[0] = hn::Sub(small[0], centre[0]);
        }
        each_turn<n>([&](auto k) HWY_ATTR {
          const V other = turned<k.value>(small[0]);
#pragma GCC unroll 2
          for (int h = 0; h < parts; ++h) sum[h * n + k.value] = hn::MulAdd(large[h], other, sum[h * n + k.value]);
        });
        if (s.centre == nullptr) continue;
#pragma GCC unroll 2
        for (int h = 0; h < parts; ++h) sum[parts * n + h] = hn::Add(sum[parts * n + h], large[h]);
        sum[vectors - 1] = hn::Add(sum[vectors - 1], small[0]);
      }
      float* to = acc + u * vectors * lanes();
#pragma GCC unroll 32
      for (int i = 0; i < vectors; ++i)
        hn::StoreU(hn::Add(sum[i], hn::LoadU(D(), to + i * lanes())), D(), to + i * lanes());
    }
  }
}

// Into sums, as sum_rows() has them, from what sum_units() has left.
template <int n, int parts, class T>
void put_sums(const RowSums<T>& s, const float* acc, float* sums) {
  const Pointwise& p = s.p;
  const bool by_input = parts == 2 && sums_by_input(p);
  float *dy = sums + p.in_channels(), *products = dy + p.out_channels();
  float *larger = by_input ? dy : sums, *smaller = parts == 1 ? nullptr : by_input ? sums : dy;
  for (int64_t l = 0; l < p.groups * n; ++l) {
    const float* at = acc + l / lanes() * (parts * n + parts + 1) * lanes() + l % lanes();
#pragma GCC unroll 2
    for (int h = 0; h < parts; ++h)
      for (int64_t k = 0; k < n; ++k, at += lanes()) products[(l ^ k) * parts * n + l % n * parts + h] += *at;
#pragma GCC unroll 2
    for (int h = 0; h < parts; ++h, at += lanes()) larger[l * parts + h] += *at;
    if (smaller != nullptr) smaller[l] += *at;
  }
}

template <class T>
void sum_turned(const RowSums<T>& s, int64_t begin, int64_t end, float* acc, float* sums) {
  with_group(s.turned, [&](auto group) {
    constexpr int n = decltype(group)::value;
    const auto with = [&](auto parts) {
      sum_units<n, decltype(parts)::value>(s, begin, end, acc);
      put_sums<n, decltype(parts)::value>(s, acc, sums);
    };
    s.gram ? with(Count<1>()) : with(Count<2>());
  });
}

#endif

}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
