// The two walks over rows (pointwise.h) in f32 and in pairs of bf16, compiled for every target, for transfers: one side
// has n = 4 or 8 channels a group and the other one twice as many.
//
// Groups share a vector, n lanes each: a unit. The side of n channels a group is one such vector; the other one is two,
// its even and its odd channels, into which pairs of bf16 come apart by a shift and a mask. Every lane of a group has
// to meet every other one: that takes n turns, of which turn k couples lane l with lane l ^ k and has weights of its
// own, and at most one shuffle a turn, where channels that are broadcast take one a channel. Maps are read where they
// lie, and the weights of a unit, or its sums, stay in registers while its rows pass by.
//
// In pairs, the factors of a map are pairs of neighbouring channels, half as many, and what is summed are pairs of
// neighbouring rows; results and sums are the same vectors of f32.
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

// Whether there is anything to turn.
#if HWY_TARGET == HWY_SCALAR
template <class A>
constexpr bool turns = false;
#else
template <class A>
constexpr bool turns = true;

// Rows of maps so wide that are walked at a time, and so are asked for and added up. On Intel's processors 16, where
// the pieces of a unit lie far apart and few of them fit the first cache, or 32: more took 5 to 10 % longer. On AMD's
// as many as the second cache holds beside the next ones, up to 64: maps in memory took 10 to 20 % longer with 16; but
// nobody has asked for the first ones, so that they are to be few of all `rows`.
template <class Call>
int64_t turned_rows(const Call& call, int64_t rows) {
  constexpr int64_t most_bytes = 96 * 1024;
  int64_t bytes = 0;
  each_map(call, [&](const auto* p, int64_t channels) { bytes += p != nullptr ? channels * int64_t{sizeof *p} : 0; });
  if (made_by_amd) return std::clamp<int64_t>(std::min(most_bytes / bytes, rows / 16) / 16 * 16, 16, 64);
  return bytes < 1024 ? 32 : 16;
}
// Of a unit's rows, those with which a share of the next block is asked for.
inline int64_t rows_a_fetch() { return made_by_amd ? 8 : 4; }

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
  each<parts>([&](auto h) HWY_ATTR { v[h] = hn::Sub(v[h], minus[h]); });
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
    const Pairs d;
#if MGIC_HAS_BF16_DOT
    if (rounds_to_bf16) return hn::StoreU(Bf16::pair(Bf16::round_two(v[0], v[1])), d, reinterpret_cast<uint32_t*>(p));
#endif
    hn::StoreU(narrow_pairs(v[0], v[1]), d, reinterpret_cast<uint32_t*>(p));
  }
}
template <int parts, class T>
HWY_INLINE void put_unit(const V* v, bool accumulate, T* p) {
  if (!accumulate) return store_unit<parts>(v, p);
  V sum[parts];
  load_unit<parts>(p, sum);
  each<parts>([&](auto h) HWY_ATTR { sum[h] = hn::Add(sum[h], v[h]); });
  store_unit<parts>(sum, p);
}

// f(unit, first row, end, meanwhile()) for blocks of rows [begin, end), unit by unit; meanwhile() is to be called every
// rows_a_fetch() rows. f must be inlined, or it reads what it has captured from memory again for every row.
template <class Call, class F>
HWY_INLINE void each_unit(const Call& call, int64_t units, int64_t begin, int64_t end, F&& f) {
  const int64_t block = turned_rows(call, end - begin), step = rows_a_fetch();
  for (int64_t row = begin; row < end; row += block) {
    const int64_t next = std::min(row + block, end), after = std::min(next + block, end);
    const int64_t fetches = (next - row + step - 1) / step;
    Ahead ahead = rows_ahead(call, next, after, units * fetches);
    for (int64_t u = 0; u < units; ++u) {
      // Nobody has asked for the first rows: every unit asks for those of the next.
      Ahead unit = row == begin && u + 1 < units ? columns_ahead(call, row, next, u + 1, units, fetches) : Ahead(1);
      f(u, row, next, [&]() HWY_ATTR {
        unit.fetch();
        ahead.fetch();
      });
    }
  }
}

// ---- Maps ----

// Results in one part have a sum for each of a turn's lower bits, which is turned when it is complete; for results in
// two parts it is the factors that are turned, as there are fewer of those.
template <int results>
constexpr int turned_sums = results == 1 ? 4 : 2;

// Rows that are taken together, so that one's products are under way while another's wait for theirs: as many as leave
// room for so many weights in the registers.
template <int weights, int results>
constexpr int rows_together() {
  if (hn::MaxLanes(D()) < 16 || weights > 16) return 1;
  return results == 2 ? 4 : 2;
}

// Vectors that so many parts of factors take, and the turns of each.
template <class A, int parts>
constexpr int factor_vectors = A::pairs ? 1 : parts;
template <class A, int n, int parts>
constexpr int factor_turns = A::pairs ? parts* n / 2 : n;

template <int n, int parts, class T>
HWY_INLINE void load_factors(const Rows<T>& rows, int64_t at, V* x) {
  load_unit<parts>(rows, at, x);
}
#if MGIC_HAS_BF16_DOT
// The n/2 pairs of a group of n channels twice, so that each of its n lanes has one.
template <int n, int parts>
HWY_INLINE void load_factors(const Rows<bf16>& rows, int64_t at, hn::Vec<Bf16::U>* x) {
  const Bf16::U d;
  const auto* from = reinterpret_cast<const uint32_t*>(rows.x + at);
  V difference[parts];
  if (rows.minus != nullptr) load_unit<parts>(rows, at, difference);
  if constexpr (parts == 2) {
    x[0] = rows.minus == nullptr ? hn::LoadU(d, from) : Bf16::pair(Bf16::round_two(difference[0], difference[1]));
  } else {
    const hn::Half<Bf16::U> half;
    const auto pairs = rows.minus == nullptr ? hn::LoadU(half, from) : hn::BitCast(half, narrow(difference[0]));
    const auto lane = hn::Iota(d, 0), group = hn::Set(d, n), pair = hn::Set(d, n / 2 - 1);
    const auto places =
        hn::Add(hn::ShiftRight<1>(hn::AndNot(hn::Sub(group, hn::Set(d, 1)), lane)), hn::And(lane, pair));
    x[0] = hn::TableLookupLanes(hn::ZeroExtendVector(d, pairs), hn::IndicesFromVec(d, places));
  }
}
#endif

// n neighbouring numbers, `group` from one group's to the next, for all groups that share the vector.
template <int n, class Tag>
HWY_INLINE hn::Vec<Tag> load_groups(Tag d, const float* p, int64_t group) {
  constexpr int64_t lanes = hn::MaxLanes(d);
  if constexpr (lanes <= n) {
    return hn::LoadU(d, p);
  } else {
    const hn::Half<Tag> half;
    return hn::Combine(d, load_groups<n>(half, p + lanes / 2 / n * group, group), load_groups<n>(half, p, group));
  }
}
// Of 2 n of them, the even or the odd ones.
template <int n>
HWY_INLINE V load_every_second(bool odd, const float* p, int64_t group) {
  const D d;
  constexpr int64_t half = std::max<int64_t>(hn::MaxLanes(d) / 2 / n, 1);  // groups, or their lanes
  const V low = load_groups<2 * n>(d, p, group),
          high = load_groups<2 * n>(d, p + (hn::MaxLanes(d) > n ? half * group : n), group);
  return odd ? hn::ConcatOdd(d, high, low) : hn::ConcatEven(d, high, low);
}
// Of n of them, the even or the odd ones twice.
template <int n>
HWY_INLINE V load_every_second_twice(bool odd, const float* p, int64_t group) {
  const hn::ScalableTag<int32_t> d;
  const auto lane = hn::Iota(d, 0), within = hn::And(lane, hn::Set(d, n / 2 - 1));
  const auto places =
      hn::Add(hn::Add(hn::AndNot(hn::Set(d, n - 1), lane), hn::Add(within, within)), hn::Set(d, odd ? 1 : 0));
  return hn::TableLookupLanes(load_groups<n>(D(), p, group), hn::IndicesFromVec(D(), places));
}

// Packs a term's weights: (units, vectors of factors, parts of results, turns, lanes). A lane has the weight between a
// factor and a result whose lanes are its own but for the bits of the turn: where results are in one part, the factor's
// the bits above the second and the result's the two below, else the factor's all of them. Returns where they end.
template <class A, int n, int results, int factors, bool transposed, class T>
HWY_NOINLINE typename A::Cell* pack_units(const RowMap<T>& map, const typename RowMap<T>::Term& term,
                                          typename A::Cell* to) {
  constexpr int turns = factor_turns<A, n, factors>, of_result = results == 1 ? 3 : 0;
  constexpr int of_row = transposed ? of_result : ~of_result;  // the bits of whatever lies side by side in a row
  constexpr bool twice = A::pairs && factors == 1;             // n/2 pairs
  const int64_t group = map.width * term.depth, row = transposed ? map.width : term.depth, groups = lanes() / n;
  // In turns: the weights of every second factor from f on, or of all, and of part r of the results.
  const auto turn = [&](const float* p, int f, int r, V* v) HWY_ATTR {
    each<n>([&](auto i) HWY_ATTR {
      if constexpr (transposed) {  // a row is a factor's
        const float* from = p + (factors == 2 ? 2 * i + f : twice ? 2 * (i % (n / 2)) + f : i) * row;
        v[i] = results == 2 ? load_every_second<n>(r == 1, from, group) : load_groups<n>(D(), from, group);
      } else {
        const float* from = p + (results * i + r) * row;
        v[i] = factors == 2 ? load_every_second<n>(f == 1, from, group)
               : twice      ? load_every_second_twice<n>(f == 1, from, group)
                            : load_groups<n>(D(), from, group);
      }
    });
    straighten<n, 1>(v);
    each<n>([&](auto k) HWY_ATTR { v[k] = turned<(k & of_row)>(v[k]); });
  };
  const float* const end = term.weights + map.groups * group;
  for (const float* p = term.weights; p < end; p += groups * group) {
    V first[n];
    if constexpr (A::pairs) {
      V second[n];
      for (int r = 0; r < results; ++r) {
        turn(p, 0, r, first);
        turn(p, 1, r, second);
        for (int k = 0; k < turns; ++k, to += lanes()) hn::StoreU(narrow_pairs(first[k], second[k]), Pairs(), to);
      }
    } else {
      for (int f = 0; f < factors; ++f)
        for (int r = 0; r < results; ++r) {
          turn(p, f, r, first);
          for (int k = 0; k < turns; ++k, to += lanes()) hn::StoreU(first[k], D(), to);
        }
    }
  }
  return to;
}

// For `rows` rows from `at` on, sum += the products of a term's unit, of which the factors have so many parts, with its
// weights (vectors of factors, parts of results, turns).
template <class A, int n, int results, int factors, int rows, class T>
HWY_INLINE void add_turned(const Rows<T>& source, int64_t at, int64_t stride, const Cells<A>* w,
                           V (*sum)[turned_sums<results>]) {
  constexpr int vectors = factor_vectors<A, factors>, all = factor_turns<A, n, factors>;
  Cells<A> x[rows][vectors];
  each<rows>([&](auto r) HWY_ATTR { load_factors<n, factors>(source, at + r * stride, x[r]); });
  each<vectors * all>([&](auto i) HWY_ATTR {
    constexpr int f = i / all, turn = i % all;
    each<rows>([&](auto r) HWY_ATTR {
      if constexpr (results == 1) {
        sum[r][turn & 3] = A::step(D(), sum[r][turn & 3], w[i], turned<(turn & ~3)>(x[r][f]));
      } else {
        const auto factor = turned<turn>(x[r][f]);
        each<results>([&](auto h)
                          HWY_ATTR { sum[r][h] = A::step(D(), sum[r][h], w[(f * results + h) * all + turn], factor); });
      }
    });
  });
}

// What is done with the results of a unit, which begin at element `at`.
template <int results, class T>
HWY_INLINE void store_results(const RowMap<T>& map, int64_t at, V* v) {
  if (map.residual != nullptr) {
    V residual[results];
    load_unit<results>(map.residual + at, residual);
    each<results>([&](auto h) HWY_ATTR { v[h] = hn::Add(v[h], residual[h]); });
  }
  if (map.y != nullptr) put_unit<results>(v, map.accumulate, map.y + at);
  if (map.negated == nullptr) return;
  each<results>([&](auto h) HWY_ATTR { v[h] = hn::Neg(v[h]); });
  put_unit<results>(v, map.accumulate_negated, map.negated + at);
}

// Rows [begin, end) of a map with terms of so many parts, whose weights are packed.
template <class A, int n, int results, int... factors, class T>
void map_units(const RowMap<T>& map, int64_t begin, int64_t end, const typename A::Cell* const* packed) {
  constexpr auto weights_of = [](int parts) { return parts * n / (A::pairs ? 2 : 1) * results; };
  constexpr int weights = (weights_of(factors) + ...);
  const int64_t units = map.groups * n / lanes(), step = results * lanes(), channels = units * step;
  const bool plain = map.residual == nullptr && map.negated == nullptr && !map.accumulate;
  const auto map_unit = [&](int64_t u, int64_t first, int64_t last, auto meanwhile) HWY_ATTR
      __attribute__((always_inline)) {
    Cells<A> w[weights];
    V start[results];
    {
      Cells<A>* to = w;
      size_t t = 0;
      const auto load = [&](int count) HWY_ATTR {
        const auto* from = packed[t++] + u * count * lanes();
        for (int i = 0; i < count; ++i) *to++ = A::load(D(), from + i * lanes());
      };
      (load(weights_of(factors)), ...);
    }
    each<results>([&](auto h) HWY_ATTR { start[h] = hn::Zero(D()); });
    if (map.shift != nullptr) load_unit<results>(map.shift + u * step, start);
    const auto map_some = [&](auto count, int64_t row) HWY_ATTR {
      constexpr int rows = decltype(count)::value;
      V sum[rows][turned_sums<results>];
      each<rows * turned_sums<results> >([&](auto i) HWY_ATTR {
        constexpr int r = i / turned_sums<results>, k = i % turned_sums<results>;
        sum[r][k] = k < results ? start[k % results] : hn::Zero(D());
      });
      const Cells<A>* of_term = w;
      size_t t = 0;
      const auto add = [&](auto parts) HWY_ATTR {
        constexpr int count = decltype(parts)::value;
        const int64_t stride = units * count * lanes();
        add_turned<A, n, results, count, rows>(map.terms[t++].rows, row * stride + u * count * lanes(), stride, of_term,
                                               sum);
        of_term += weights_of(count);
      };
      (add(Count<factors>()), ...);
      each<rows>([&](auto r) HWY_ATTR {
        V* v = sum[r];
        if constexpr (results == 1)
          v[0] = hn::Add(hn::Add(v[0], turned<1>(v[1])), turned<2>(hn::Add(v[2], turned<1>(v[3]))));
        const int64_t at = (row + r) * channels + u * step;
        plain ? store_unit<results>(v, map.y + at) : store_results<results>(map, at, v);
      });
    };
    for (int64_t row = first; row < last;) {
      meanwhile();
      const int64_t until = std::min(row + rows_a_fetch(), last);
      constexpr int together = rows_together<weights, results>();
      for (; row + together <= until; row += together) map_some(Count<together>(), row);
      if constexpr (together > 1)
        for (; row < until; ++row) map_some(Count<1>(), row);
    }
  };
  each_unit(map, units, begin, end, map_unit);
}

// Every thread packs the weights for itself: that takes no longer than if one did so for all, and between cores that
// are far from each other they would go slowly.
template <class A, int n, int results, int... factors, class T>
void pack_and_map(const RowMap<T>& map, int64_t begin, int64_t end, void* room) {
  const typename A::Cell* packed[sizeof...(factors)];
  auto* to = static_cast<typename A::Cell*>(room);
  size_t t = 0;
  const auto pack = [&](auto parts) {
    constexpr int count = decltype(parts)::value;
    const auto& term = map.terms[t];
    packed[t++] = to;
    to = term.transposed ? pack_units<A, n, results, count, true>(map, term, to)
                         : pack_units<A, n, results, count, false>(map, term, to);
  };
  (pack(Count<factors>()), ...);
  map_units<A, n, results, factors...>(map, begin, end, packed);
}

template <class A, class T>
void map_turned(const RowMap<T>& map, int64_t begin, int64_t end, float* room) {
  with_group(map.turned, [&](auto group) {
    constexpr int n = decltype(group)::value;
    if (map.width == 2 * n) return pack_and_map<A, n, 2, 1>(map, begin, end, room);
    if (map.terms.size() == 1) return pack_and_map<A, n, 1, 2>(map, begin, end, room);
    pack_and_map<A, n, 1, 2, 1>(map, begin, end, room);
  });
}

// ---- Sums ----

// A unit's summands from element `at` on, less a centre: of one row, or of two, the other one a stride behind it, or of
// one and none.
template <int parts, bool centred, class T>
HWY_INLINE void load_summands(const Rows<T>& rows, int64_t at, int64_t, bool, const V* centre, V* v) {
  load_unit<parts>(rows, at, v);
  if constexpr (centred) each<parts>([&](auto h) HWY_ATTR { v[h] = hn::Sub(v[h], centre[h]); });
}
#if MGIC_HAS_BF16_DOT
template <int parts, bool centred>
HWY_INLINE void load_summands(const Rows<bf16>& rows, int64_t at, int64_t stride, bool two, const V* centre,
                              hn::Vec<Bf16::U>* v) {
  const Bf16::U d;
  if (centred || rows.minus != nullptr) {
    V first[parts], second[parts];
    load_summands<parts, centred>(rows, at, 0, false, centre, first);
    if (two)
      load_summands<parts, centred>(rows, at + stride, 0, false, centre, second);
    else
      each<parts>([&](auto h) HWY_ATTR { second[h] = hn::Zero(D()); });
    each<parts>([&](auto h) HWY_ATTR { v[h] = Bf16::pair(Bf16::round_two(first[h], second[h])); });
    return;
  }
  const bf16* from = rows.x + at;
  const auto load = [&](const bf16* p) HWY_ATTR {
    if constexpr (parts == 2)
      return hn::LoadU(d, reinterpret_cast<const uint32_t*>(p));
    else
      return hn::PromoteTo(d, hn::LoadU(Half(), reinterpret_cast<const uint16_t*>(p)));
  };
  const auto first = load(from), second = two ? load(from + stride) : hn::Zero(d);
  if constexpr (parts == 2) {
    const auto low = hn::Set(d, 0xffff);
    v[0] = hn::Or(hn::And(first, low), hn::ShiftLeft<16>(second));
    v[1] = hn::Or(hn::ShiftRight<16>(first), hn::AndNot(low, second));
  } else {
    v[0] = hn::Or(first, hn::ShiftLeft<16>(second));
  }
}
#endif

// Vectors a unit has for its sums: the products of the larger side, in so many parts, and the smaller one, (parts, n
// turns); the larger side's own sums, and the smaller one's. One part: v with itself.
template <int n, int parts>
constexpr int vectors_of_sums = parts == 1 ? n + 1 : 2 * n + 3;

// acc (units, vectors) = those of rows [begin, end).
template <class A, int n, int parts, bool centred, class T>
void sum_units(const RowSums<T>& s, int64_t begin, int64_t end, float* acc) {
  const Rows<T> dy{s.dy};
  const bool by_input = parts == 2 && sums_by_input(s.p);
  const Rows<T>&larger = by_input ? dy : s.v, &smaller = by_input ? s.v : dy;
  constexpr int own = parts * n, vectors = vectors_of_sums<n, parts>, together = A::pairs ? 2 : 1;
  const Cells<A> ones = hn::Set(hn::DFromV<Cells<A> >(), A::one);
  const int64_t units = s.p.groups * n / lanes(), step = parts * lanes();
  const auto sum_unit = [&](int64_t u, int64_t first, int64_t last, auto meanwhile) HWY_ATTR
      __attribute__((always_inline)) {
    V sum[vectors], large_centre[parts], small_centre[1] = {hn::Zero(D())};
    each<vectors>([&](auto i) HWY_ATTR { sum[i] = hn::Zero(D()); });
    each<parts>([&](auto h) HWY_ATTR { large_centre[h] = hn::Zero(D()); });
    if constexpr (centred)
      by_input ? load_unit<1>(s.centre + u * lanes(), small_centre)
               : load_unit<parts>(s.centre + u * step, large_centre);
    for (int64_t row = first; row < last;) {
      meanwhile();
      for (const int64_t until = std::min(row + rows_a_fetch(), last); row < until; row += together) {
        const bool two = row + 1 < until;
        Cells<A> large[parts], small[1];
        load_summands<parts, centred>(larger, (row * units + u) * step, units * step, two, large_centre, large);
        if constexpr (parts == 1)
          small[0] = large[0];
        else
          load_summands<1, centred>(smaller, (row * units + u) * lanes(), units * lanes(), two, small_centre, small);
        each<n>([&](auto k) HWY_ATTR {
          const auto other = turned<k>(small[0]);
          each<parts>([&](auto h) HWY_ATTR { sum[h * n + k] = A::step(D(), sum[h * n + k], large[h], other); });
        });
        if constexpr (centred) {
          each<parts>([&](auto h) HWY_ATTR { sum[own + h] = A::step(D(), sum[own + h], large[h], ones); });
          if constexpr (parts == 2) sum[own + 2] = A::step(D(), sum[own + 2], small[0], ones);
        }
      }
    }
    float* to = acc + u * vectors * lanes();
    if (first > begin)
      each<vectors>([&](auto i) HWY_ATTR { sum[i] = hn::Add(sum[i], hn::LoadU(D(), to + i * lanes())); });
    each<vectors>([&](auto i) HWY_ATTR { hn::StoreU(sum[i], D(), to + i * lanes()); });
  };
  each_unit(s, units, begin, end, sum_unit);
}

// Into sums, as sum_rows() has them, what sum_units() has left.
template <int n, int parts, class T>
void put_sums(const RowSums<T>& s, const float* acc, float* sums) {
  const Pointwise& p = s.p;
  const bool by_input = parts == 2 && sums_by_input(p);
  float *dy = sums + p.in_channels(), *to = dy + p.out_channels();
  float *larger = by_input ? dy : sums, *smaller = by_input ? sums : dy;
  constexpr int own = parts * n, vectors = vectors_of_sums<n, parts>;
  const int64_t group = parts * n * n;
  for (int64_t u = 0; u < p.groups * n / lanes(); ++u, acc += vectors * lanes(), to += lanes() / n * group) {
    V v[vectors];
    each<vectors>([&](auto i) HWY_ATTR { v[i] = hn::LoadU(D(), acc + i * lanes()); });
    store_unit<parts>(v + own, larger + u * parts * lanes());
    if constexpr (parts == 2) store_unit<1>(v + own + 2, smaller + u * lanes());
    // Lanes are channels of the larger side, but of the smaller one where that is the inputs.
    if (by_input) each<own>([&](auto i) HWY_ATTR { v[i] = turned<i % n>(v[i]); });
    each<parts>([&](auto h) HWY_ATTR { straighten<n, 1>(v + h * n); });
    // So many vectors' lanes, in turns, are row o of every group.
    HWY_ALIGN float row[2 * hn::MaxLanes(D())];
    const auto put = [&](int64_t o, auto count, const V* lines) HWY_ATTR {
      constexpr int size = decltype(count)::value * n;
      store_unit<decltype(count)::value>(lines, row);
      for (int64_t g = 0; g < lanes() / n; ++g)
        std::memcpy(to + g * group + o * size, row + g * size, sizeof(float) * size);
    };
    each<n>([&](auto j) HWY_ATTR {
      if constexpr (parts == 1) {
        put(j, Count<1>(), v + j);
      } else if (by_input) {
        put(2 * j, Count<1>(), v + j);
        put(2 * j + 1, Count<1>(), v + n + j);
      } else {
        const V lines[2] = {v[j], v[n + j]};
        put(j, Count<2>(), lines);
      }
    });
  }
}

template <class A, class T>
void sum_turned(const RowSums<T>& s, int64_t begin, int64_t end, float* acc, float* sums) {
  with_group(s.turned, [&](auto group) {
    constexpr int n = decltype(group)::value;
    const auto with = [&](auto parts) {
      constexpr int count = decltype(parts)::value;
      s.centre != nullptr ? sum_units<A, n, count, true>(s, begin, end, acc)
                          : sum_units<A, n, count, false>(s, begin, end, acc);
      put_sums<n, count>(s, acc, sums);
    };
    s.gram ? with(Count<1>()) : with(Count<2>());
  });
}

#endif

}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
