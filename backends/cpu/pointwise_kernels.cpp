// What most transfers take is in pointwise_turned-inl.h; here is what takes all others.
//
// A few rows at a time: what is not f32, or has to be subtracted first, is copied to the first cache, then all groups
// are multiplied, which read their rows in short pieces far apart that the hardware does not foresee.
//
// In the product a vector holds neighbouring results of one row, and eight rows run side by side, so that eight sums
// hide the latency of an addition and one load of the weights serves them all. A factor is broadcast from memory; where
// groups are smaller than a vector, several share it, and their factors come from a vector of the row by permutation.
// The sums hold a tile of a matrix in registers while the rows stream by.
#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/pointwise_kernels.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include "backends/cpu/grouped-inl.h"
#include "backends/cpu/pointwise_kernels.h"
#include "backends/cpu/pointwise_matrix-inl.h"
#include "backends/cpu/pointwise_turned-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {
namespace {

// f(vector type's tag) with the widest vector that divides n: 16, 8 or 4 floats, or what the machine has.
template <class F>
HWY_INLINE void with_lanes(int64_t n, F&& f) {
  if (n % 16 == 0) return f(hn::CappedTag<float, 16>());
  if (n % 8 == 0) return f(hn::CappedTag<float, 8>());
  f(hn::CappedTag<float, 4>());
}

// Whether numbers of T are cells of the arithmetic as they lie in memory.
template <class A, class T>
constexpr bool are_cells = A::pairs ? std::is_same_v<T, bf16> : std::is_same_v<T, float>;

// Element i of a row, which lies at `at`, of x − minus − centre.
template <class T, class Memory>
HWY_INLINE V row_value(const Rows<T>& source, const float* centre, int64_t at, int64_t i, Memory memory) {
  V v = memory.load(source.x + at);
  if (source.minus != nullptr) v = hn::Sub(v, memory.load(source.minus + at));
  return centre == nullptr ? v : hn::Sub(v, memory.load(centre + i));
}

// Rows in cells of neighbouring channels: in `block`, or where they lie if they are just that and will not change.
template <class A, class T>
const typename A::Cell* load_rows(const Rows<T>& source, const float* centre, int64_t channels, int64_t row,
                                  int64_t rows, void* block, bool changes = false) {
  if constexpr (are_cells<A, T>)
    if (source.minus == nullptr && centre == nullptr && !changes)
      return reinterpret_cast<const typename A::Cell*>(source.x + row * channels);
  auto* to = static_cast<std::conditional_t<A::pairs, bf16, float>*>(block);
  const int64_t all = rows * channels, width = centre == nullptr ? all : channels;
  for (int64_t begin = 0; begin < all; begin += width)
    each_vector(0, width, [&](int64_t i, auto memory) HWY_ATTR {
      memory.store(row_value(source, centre, row * channels + begin + i, i, memory), to + begin + i);
    });
  return static_cast<const typename A::Cell*>(block);
}

// A row of bf16 in the lower halves of cells, and the one behind it, if there is one, in the upper halves.
HWY_INLINE void pair_rows(const bf16* row, bool two, int64_t channels, uint32_t* cells) {
  const hn::ScalableTag<uint32_t> d;
  const auto* from = reinterpret_cast<const uint16_t*>(row);
  int64_t i = 0;
  for (; i + lanes() <= channels; i += lanes()) {
    const auto first = hn::PromoteTo(d, hn::LoadU(Half(), from + i));
    const auto second = two ? hn::PromoteTo(d, hn::LoadU(Half(), from + channels + i)) : hn::Zero(d);
    hn::StoreU(hn::Or(first, hn::ShiftLeft<16>(second)), d, cells + i);
  }
  for (; i < channels; ++i) cells[i] = from[i] | (two ? static_cast<uint32_t>(from[channels + i]) << 16 : 0);
}

// Rows as summands: in cells of neighbouring rows, half as many as a block has room for. A row's last vector may write
// beyond its end: the next row comes after it, or the other half.
template <class A, class T>
const typename A::Cell* load_summands(const Rows<T>& source, const float* centre, int64_t channels, int64_t row,
                                      int64_t rows, void* block) {
  if constexpr (A::pairs) {
    auto* cells = static_cast<typename A::Cell*>(block);
    if constexpr (std::is_same_v<T, bf16>)
      if (source.minus == nullptr && centre == nullptr) {
        for (int64_t r = 0; r < rows; r += 2)
          pair_rows(source.x + (row + r) * channels, r + 1 < rows, channels, cells + r / 2 * channels);
        return cells;
      }
    for (int64_t r = 0; r < rows; r += 2)
      each_vector(0, channels, [&](int64_t i, auto memory) HWY_ATTR {
        const int64_t at = (row + r) * channels + i;
        const V second = r + 1 < rows ? row_value(source, centre, at + channels, i, memory) : hn::Zero(D());
        A::put_summands(row_value(source, centre, at, i, memory), second, cells + r / 2 * channels + i, 0, 0);
      });
    return cells;
  } else {
    return load_rows<A>(source, centre, channels, row, rows, block);
  }
}

// A term of a map: rows of x, and the weights of a tile.
template <class A>
struct Products {
  const typename A::Cell *x, *w;
  int64_t stride, cells;  // of x from row to row; a group
};

// sum[r] += Σ_k w[k] x[r, k] for R rows of a tile of one group: every factor is broadcast from memory.
template <class A, int R>
HWY_INLINE void add_of_group(const Products<A>& p, V* HWY_RESTRICT sum) {
  // Some factors at a time, so that one address a row serves them all; a group has at least as many.
  constexpr int together = A::pairs ? 2 : 4;
  int64_t k = 0;
  do {  // at least once, or sums would have to be in memory
    decltype(A::load(D(), p.w)) weights[together];
    for (int i = 0; i < together; ++i) weights[i] = A::load(D(), p.w + (k + i) * lanes());
    for (int r = 0; r < R; ++r)
      for (int i = 0; i < together; ++i) sum[r] = A::step(D(), sum[r], weights[i], p.x + r * p.stride + k + i);
  } while ((k += together) < p.cells);
}

// Cells k … k + n of each of a tile's groups, in every four lanes of the group's results.
template <class A, int groups, int n>
HWY_INLINE auto cells_of_groups(const typename A::Cell* x, int64_t cells) {
  using Cells = decltype(A::load(D(), x));
  const hn::DFromV<Cells> d;
  if (n == 4 && cells == 4 && groups * 4 == lanes()) return A::load(D(), x);  // they lie there
  const auto all_over = [&](const typename A::Cell* from) HWY_ATTR {
    if constexpr (n == 4) return hn::LoadDup128(d, from);
    uint64_t two;
    std::memcpy(&two, from, sizeof two);
    return hn::BitCast(d, hn::Set(hn::ScalableTag<uint64_t>(), two));
  };
  Cells v = all_over(x);
  for (int g = 1; g < groups; ++g)
    v = hn::IfThenElse(hn::FirstN(d, static_cast<size_t>(g * lanes() / groups)), v, all_over(x + g * cells));
  return v;
}

// sum[r] += w[k … k + n] times the same of the row.
template <class A, int R, int groups, int n>
HWY_INLINE void add_cells(const Products<A>& p, int64_t k, V* HWY_RESTRICT sum) {
  decltype(A::load(D(), p.w)) weights[n];
  for (int i = 0; i < n; ++i) weights[i] = A::load(D(), p.w + (k + i) * lanes());
  for (int r = 0; r < R; ++r) {
    const auto cells = cells_of_groups<A, groups, n>(p.x + r * p.stride + k, p.cells);
    sum[r] = A::step(D(), sum[r], weights[0], hn::Broadcast<0>(cells));
    sum[r] = A::step(D(), sum[r], weights[1], hn::Broadcast<1>(cells));
    if constexpr (n == 4) {
      sum[r] = A::step(D(), sum[r], weights[2], hn::Broadcast<2>(cells));
      sum[r] = A::step(D(), sum[r], weights[3], hn::Broadcast<3>(cells));
    }
  }
}

// The same as add_of_group for a tile of several groups: some cells of every group at a time are brought to the lanes
// of its results, and each of them to all of four.
template <class A, int R, int groups>
HWY_INLINE void add_of_groups(const Products<A>& p, V* HWY_RESTRICT sum) {
  int64_t k = 0;
  if (p.cells < 4) return add_cells<A, R, groups, 2>(p, k, sum);
  do add_cells<A, R, groups, 4>(p, k, sum);
  while ((k += 4) + 4 <= p.cells);
  if (k < p.cells) add_cells<A, R, groups, 2>(p, k, sum);
}

// The results of R rows, of which the first are those from element `at` on.
template <int R, class T, class Memory>
HWY_INLINE void store_tile(const RowMap<T>& map, const V* HWY_RESTRICT sum, int64_t at, Memory memory) {
  const int64_t channels = map.groups * map.width;
  if (map.residual == nullptr && map.negated == nullptr && !map.accumulate) {
    T* y = map.y + at;
    for (int r = 0; r < R; ++r) memory.store(sum[r], y + r * channels);
    return;
  }
  for (int r = 0; r < R; ++r, at += channels) {
    V v = sum[r];
    if (map.residual != nullptr) v = hn::Add(v, memory.load(map.residual + at));
    if (map.y != nullptr) put(v, map.accumulate, memory, map.y + at);
    if (map.negated != nullptr) put(hn::Neg(v), map.accumulate_negated, memory, map.negated + at);
  }
}

// Tile i, of so many groups, for R rows from `row` on; x: the terms' cells there; known_cells: cells a group of every
// term, 0 where they are not known before.
template <class A, int R, int groups, int... known_cells, class T, class Memory>
HWY_INLINE void map_tile(const RowMap<T>& map, const typename A::Cell* const* x, int64_t row, size_t i, Memory memory) {
  const Tile& tile = map.tiles[i];
  const int64_t column = tile.group * map.width + tile.first;
  V sum[R];
  const V start = map.shift == nullptr ? hn::Zero(D()) : memory.load(map.shift + column);
  for (int r = 0; r < R; ++r) sum[r] = start;
  size_t t = 0;
  const auto products_of = [&](int64_t known) HWY_ATTR {
    const auto& term = map.terms[t];
    const int64_t cells = known > 0 ? known : A::cells(term.depth);
    const auto* w = static_cast<const typename A::Cell*>(term.packed) + static_cast<int64_t>(i) * cells * lanes();
    return Products<A>{x[t++] + tile.group * cells, w, map.groups * cells, cells};
  };
  if constexpr (groups == 1)
    (add_of_group<A, R>(products_of(known_cells), sum), ...);
  else
    (add_of_groups<A, R, groups>(products_of(known_cells), sum), ...);
  store_tile<R>(map, sum, row * map.groups * map.width + column, memory);
}

// A function of its own, so that all that a tile needs stays in registers.
template <class A, int R, int... known_cells, class T>
HWY_NOINLINE void map_tiles(const RowMap<T>& map, const typename A::Cell* const* x, int64_t row, Ahead& ahead) {
  const size_t count = map.tiles.size();
  size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const auto of_groups = [&](auto groups) HWY_ATTR {
    for (; i < count && map.tiles[i].groups == decltype(groups)::value; ++i) {
      if (R > 1) ahead.fetch();
      map_tile<A, R, decltype(groups)::value, known_cells...>(map, x, row, i, Whole());
    }
  };
  of_groups(Count<4>());
  of_groups(Count<2>());
#endif
  for (; i < count; ++i) {
    if (R > 1) ahead.fetch();
    if (map.tiles[i].results == lanes())
      map_tile<A, R, 1, known_cells...>(map, x, row, i, Whole());
    else
      map_tile<A, R, 1, known_cells...>(map, x, row, i, Part{map.tiles[i].results});
  }
}

// f(cells) with the usual numbers of cells as a type, and 0 for another one.
template <class F>
HWY_INLINE void with_cells(int64_t cells, F&& f) {
  if (cells == 2) return f(Count<2>());
  if (cells == 4) return f(Count<4>());
  if (cells == 8) return f(Count<8>());
  f(Count<0>());
}

// Of two terms, one usually has as many cells a group as there are results, the other twice or half as many.
template <class A, int R, class T>
void map_some_rows(const RowMap<T>& map, const typename A::Cell* const* x, int64_t row, Ahead& ahead) {
  const auto cells = [&](size_t t) { return A::cells(map.terms[t].depth); };
  if constexpr (R > 1) {
    if (map.terms.size() == 1 && cells(0) == 16) return map_tiles<A, R, 16>(map, x, row, ahead);
    if (map.terms.size() == 1)
      return with_cells(cells(0), [&](auto n) { map_tiles<A, R, decltype(n)::value>(map, x, row, ahead); });
    if (cells(1) == 2 * cells(0))
      return with_cells(
          cells(0), [&](auto n) { map_tiles<A, R, decltype(n)::value, 2 * decltype(n)::value>(map, x, row, ahead); });
    if (cells(0) == 2 * cells(1))
      return with_cells(
          cells(1), [&](auto n) { map_tiles<A, R, 2 * decltype(n)::value, decltype(n)::value>(map, x, row, ahead); });
  }
  map.terms.size() == 1 ? map_tiles<A, R, 0>(map, x, row, ahead) : map_tiles<A, R, 0, 0>(map, x, row, ahead);
}

// Rows [begin, end); `block` holds a block of rows of all terms.
template <class A, class T>
void map_rows(const RowMap<T>& map, int64_t begin, int64_t end, float* block) {
  if constexpr (turns<A>)
    if (map.turned > 0) return map_turned<A>(map, begin, end, block);
  const auto tiles = static_cast<int64_t>(map.tiles.size());
  for (int64_t row = begin; row < end; row += block_rows) {
    const int64_t rows = std::min(block_rows, end - row), next = row + rows, more = std::min(block_rows, end - next);
    Ahead ahead = rows_ahead(map, next, next + more, (rows + 7) / 8 * tiles);
    const typename A::Cell* x[2] = {};
    float* room = block;
    for (size_t t = 0; t < map.terms.size(); ++t) {
      const int64_t width = map.groups * map.terms[t].depth;
      const Rows<T>& source = map.terms[t].rows;
      x[t] = load_rows<A>(source, nullptr, width, row, rows, room, source.x == map.y || source.x == map.negated);
      room += block_rows * width;
    }
    int64_t done = 0;
    const auto rows_of = [&](auto count) HWY_ATTR {
      constexpr int R = decltype(count)::value;
      for (; done + R <= rows; done += R) {
        map_some_rows<A, R>(map, x, row + done, ahead);
        for (size_t t = 0; t < map.terms.size(); ++t) x[t] += R * map.groups * A::cells(map.terms[t].depth);
      }
    };
    rows_of(Count<8>());
    rows_of(Count<1>());
  }
}

// T rows of dw[0 … T, 0 … lanes) += Σ_r dy[r, 0 … T) x[r, 0 … lanes).
template <class A, int T, class Tag>
HWY_INLINE void outer_tile(Tag d, const typename A::Cell* HWY_RESTRICT x, int64_t x_stride,
                           const typename A::Cell* HWY_RESTRICT dy, int64_t dy_stride, int64_t steps,
                           float* HWY_RESTRICT dw, int64_t dw_stride) {
  hn::Vec<Tag> sum[T];
  for (int t = 0; t < T; ++t) sum[t] = hn::Zero(d);
  for (int64_t r = 0; r < steps; ++r) {
    const auto values = A::load(d, x + r * x_stride);
    for (int t = 0; t < T; ++t) sum[t] = A::step(d, sum[t], values, dy + r * dy_stride + t);
  }
  for (int t = 0; t < T; ++t) hn::StoreU(hn::Add(hn::LoadU(d, dw + t * dw_stride), sum[t]), d, dw + t * dw_stride);
}

// dw (groups·outputs, inputs) += dyᵀ x per group, of summands.
template <class A>
void outer(const typename A::Cell* x, const typename A::Cell* dy, int64_t steps, int64_t groups, int64_t inputs,
           int64_t outputs, Ahead& ahead, float* dw) {
  const int64_t x_stride = groups * inputs, dy_stride = groups * outputs;
  with_lanes(inputs, [&](auto d) HWY_ATTR {
    const int64_t step = static_cast<int64_t>(hn::Lanes(d));
    for (int64_t g = 0; g < groups; ++g) {
      ahead.fetch();
      for (int64_t i = 0; i < inputs; i += step) {
        int64_t o = 0;
        const auto tile = [&](auto size) HWY_ATTR {
          constexpr int T = decltype(size)::value;
          for (; o + T <= outputs; o += T)
            outer_tile<A, T>(d, x + g * inputs + i, x_stride, dy + g * outputs + o, dy_stride, steps,
                             dw + (g * outputs + o) * inputs + i, inputs);
        };
        tile(Count<16>());
        tile(Count<8>());
        tile(Count<4>());
      }
    }
  });
}

// sums (channels) += the summands of a block.
template <class A>
void add_rows(const typename A::Cell* block, int64_t channels, int64_t steps, float* sums) {
  with_lanes(channels, [&](auto d) HWY_ATTR {
    for (int64_t i = 0; i < channels; i += static_cast<int64_t>(hn::Lanes(d))) {
      auto sum = hn::Zero(d);
      for (int64_t r = 0; r < steps; ++r) sum = A::step(d, sum, A::load(d, block + r * channels + i), &A::one);
      hn::StoreU(hn::Add(hn::LoadU(d, sums + i), sum), d, sums + i);
    }
  });
}

// Of rows [begin, end): those of v, of dy, the outer products and the Gram matrices, one behind the other.
template <class A, class T>
void sum_rows(const RowSums<T>& s, int64_t begin, int64_t end, float* block, float* sums) {
  if constexpr (turns<A>)
    if (s.turned > 0) return sum_turned<A>(s, begin, end, block, sums);
  const Pointwise& p = s.p;
  float *v_block = block, *dy_block = block + block_rows * p.in_channels();
  float *dy_sums = sums + p.in_channels(), *products = dy_sums + p.out_channels(),
        *gram = products + (s.dy != nullptr ? p.out_channels() * p.inputs : 0);
  const int64_t in = p.in_channels(), out = p.out_channels();
  std::fill(sums, gram + (s.gram ? in * p.inputs : 0), 0.0f);
  for (int64_t row = begin; row < end; row += block_rows) {
    const int64_t rows = std::min(block_rows, end - row), next = row + rows, more = std::min(block_rows, end - next);
    Ahead ahead = rows_ahead(s, next, next + more, p.groups * ((s.gram ? 1 : 0) + (s.dy != nullptr ? 1 : 0)));
    const int64_t steps = A::steps(rows);
    const auto* v = load_summands<A>(s.v, s.centre, in, row, rows, v_block);
    if (s.centre != nullptr) add_rows<A>(v, in, steps, sums);
    if (s.gram) outer<A>(v, v, steps, p.groups, p.inputs, p.inputs, ahead, gram);
    if (s.dy == nullptr) continue;
    const auto* dy = load_summands<A>(Rows<T>{s.dy}, nullptr, out, row, rows, dy_block);
    if (s.centre != nullptr) add_rows<A>(dy, out, steps, dy_sums);
    if (sums_by_input(p))
      outer<A>(dy, v, steps, p.groups, p.outputs, p.inputs, ahead, products);
    else
      outer<A>(v, dy, steps, p.groups, p.inputs, p.outputs, ahead, products);
  }
}

#if MGIC_HAS_MATRICES
// `rows` rows, some times as many as the registers have, 16 or fewer.
template <int runs>
HWY_INLINE void map_by_matrices(const RowMap<bf16>& map, int64_t row, int64_t rows, Ahead& ahead) {
  HWY_ALIGN float results[runs * matrix_cells];
  const int64_t channels = map.groups * map.width;
  for (size_t i = 0; i < map.tiles.size(); ++i) {
    ahead.fetch();
    row_products<runs>(map, i, row, results);
    const int64_t column = map.tiles[i].group * map.width + map.tiles[i].first;
    const V shift = map.shift == nullptr ? hn::Zero(D()) : hn::LoadU(D(), map.shift + column);
    const auto store = [&](int64_t r, auto count) HWY_ATTR {
      V sum[decltype(count)::value];
      for (int k = 0; k < count.value; ++k) sum[k] = hn::Add(hn::Load(D(), results + (r + k) * slab_channels), shift);
      store_tile<decltype(count)::value>(map, sum, (row + r) * channels + column, Whole());
    };
    int64_t r = 0;
    for (; r + 8 <= rows; r += 8) store(r, Count<8>());
    for (; r < rows; ++r) store(r, Count<1>());
  }
}

void map_by_matrices(const RowMap<bf16>& map, int64_t begin, int64_t end) {
  constexpr int64_t run = slab_channels, block = 2 * run;
  const auto tiles = static_cast<int64_t>(map.tiles.size());
  int64_t row = begin;
  const auto ahead_of = [&](int64_t rows) {
    return rows_ahead(map, std::min(row + rows, end), std::min(row + rows + block, end), tiles);
  };
  {
    const AmxRegisters registers = row_registers(map, run);
    for (; row + block <= end; row += block) {
      Ahead ahead = ahead_of(block);
      map_by_matrices<2>(map, row, block, ahead);
    }
    if (row + run <= end) {
      Ahead ahead = ahead_of(run);
      map_by_matrices<1>(map, row, run, ahead);
      row += run;
    }
  }
  if (row == end) return;
  const AmxRegisters registers = row_registers(map, end - row);
  Ahead none(tiles);
  map_by_matrices<1>(map, row, end - row, none);
}

void sum_by_matrices(const RowSums<bf16>& s, int64_t begin, int64_t end, float* acc, float* sums) {
  const Pointwise& p = s.p;
  const int64_t in = p.in_channels(), out = p.out_channels();
  float *dy_sums = sums + in, *products = dy_sums + out, *gram = products + (s.dy != nullptr ? out * p.inputs : 0);
  std::fill(sums, gram + (s.gram ? in * p.inputs : 0), 0.0f);
  const bool centred = s.centre != nullptr;
  const SumSide v{s.v, s.centre, in, p.inputs, centred ? sums : nullptr},
      dy{{s.dy}, nullptr, out, p.outputs, centred ? dy_sums : nullptr},
      // Its sums are taken once.
      again{s.v, s.centre, in, p.inputs, s.dy == nullptr ? v.sums : nullptr};
  const SumSide &smaller = sums_by_input(p) ? v : dy, &larger = sums_by_input(p) ? dy : v;
  const Meeting meeting{smaller.group, larger.group};
  const int64_t meetings = s.dy == nullptr ? 0 : larger.channels * slab_channels;
  float* gram_acc = acc + meetings;
  std::fill_n(acc, meetings + (s.gram ? in * slab_channels : 0), 0.0f);
  const AmxRegisters registers(register_shapes);
  for (int64_t row = begin; row < end; row += summed_rows) {
    const int64_t rows = std::min(summed_rows, end - row), next = row + rows, more = std::min(summed_rows, end - next);
    const int64_t slabs = ((s.gram ? in : 0) + (s.dy != nullptr ? smaller.channels : 0)) / slab_channels;
    Ahead ahead = rows_ahead(s, next, next + more, slabs * ((rows + summand_pixels - 1) / summand_pixels));
    if (s.gram) sum_products(again, again, row, rows, ahead, gram_acc);
    if (s.dy != nullptr) sum_products(smaller, larger, row, rows, ahead, acc);
  }
  if (s.gram) add_products({p.inputs, p.inputs}, in, gram_acc, gram);
  if (s.dy != nullptr) add_products(meeting, smaller.channels, acc, products);
}
#endif

void map_f32(const RowMap<float>& m, int64_t begin, int64_t end, float* block) { map_rows<F32>(m, begin, end, block); }
void map_bf16(const RowMap<bf16>& m, int64_t begin, int64_t end, float* block) {
#if MGIC_HAS_MATRICES
  if (m.arithmetic == Arithmetic::matrices) return map_by_matrices(m, begin, end);
#endif
#if MGIC_HAS_BF16_DOT
  if (m.arithmetic == Arithmetic::pairs) return map_rows<Bf16>(m, begin, end, block);
#endif
  map_rows<F32>(m, begin, end, block);
}
void sum_f32(const RowSums<float>& s, int64_t begin, int64_t end, float* block, float* sums) {
  sum_rows<F32>(s, begin, end, block, sums);
}
void sum_bf16(const RowSums<bf16>& s, int64_t begin, int64_t end, float* block, float* sums) {
#if MGIC_HAS_MATRICES
  if (s.arithmetic == Arithmetic::matrices) return sum_by_matrices(s, begin, end, block, sums);
#endif
#if MGIC_HAS_BF16_DOT
  if (s.arithmetic == Arithmetic::pairs) return sum_rows<Bf16>(s, begin, end, block, sums);
#endif
  sum_rows<F32>(s, begin, end, block, sums);
}

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mgic::cpu {

HWY_EXPORT(map_f32);
HWY_EXPORT(map_bf16);
HWY_EXPORT(sum_f32);
HWY_EXPORT(sum_bf16);

void map_rows(const RowMap<float>& m, int64_t begin, int64_t end, float* block) {
  HWY_DYNAMIC_DISPATCH(map_f32)(m, begin, end, block);
}
void map_rows(const RowMap<bf16>& m, int64_t begin, int64_t end, float* block) {
  HWY_DYNAMIC_DISPATCH(map_bf16)(m, begin, end, block);
}
void sum_rows(const RowSums<float>& s, int64_t begin, int64_t end, float* block, float* sums) {
  HWY_DYNAMIC_DISPATCH(sum_f32)(s, begin, end, block, sums);
}
void sum_rows(const RowSums<bf16>& s, int64_t begin, int64_t end, float* block, float* sums) {
  HWY_DYNAMIC_DISPATCH(sum_bf16)(s, begin, end, block, sums);
}

}  // namespace mgic::cpu
#endif  // HWY_ONCE
