// How the walks over rows are dealt to the threads, and what is made ready for them: tiles, packed weights, groups
// taken together; and the sums of the parts put together. The walks themselves are in pointwise_kernels.cpp.
#include "backends/cpu/pointwise.h"

#include <algorithm>
#include <bit>

#include "backends/cpu/passes.h"
#include "backends/cpu/pointwise_kernels.h"

namespace mgic::cpu {
namespace {

// Parts of rows of so many elements. Each begins with a block that nobody has asked for, and has sums of its own, which
// one thread adds: more than one a thread only where they are long.
int row_parts(int64_t rows, int64_t channels) {
  constexpr int64_t elements_of_several = 1 << 19;
  const int several = parts_of(rows, elements_of_several / channels);
  return several > threads() ? several : std::min(parts_of(rows, elements_per_part / channels), threads());
}

// As many groups side by side as fill a vector with their results.
template <class T>
std::vector<Tile> tiles_of(const RowMap<T>& map, int64_t lanes) {
  const int64_t groups = lanes % map.width == 0 ? lanes / map.width : 1;
  std::vector<Tile> tiles;
  tiles.reserve(static_cast<size_t>(map.groups));
  int64_t group = 0;
  for (; groups > 1 && group + groups <= map.groups; group += groups)
    tiles.push_back({group, groups, 0, groups * map.width});
  for (; group < map.groups; ++group)
    for (int64_t first = 0; first < map.width; first += lanes)
      tiles.push_back({group, 1, first, std::min(lanes, map.width - first)});
  return tiles;
}

// Cells of one tile: of factors that its groups share, or that are each group's own.
template <Arithmetic arithmetic>
int64_t tile_cells(const Tile& tile, int64_t depth, int64_t lanes) {
  if (arithmetic == Arithmetic::f32) return depth * lanes;
  return (arithmetic == Arithmetic::matrices ? tile.groups : 1) * depth / 2 * lanes;
}

// A cell of the arithmetic: a number, or, for pairs, also the one `next` elements behind it.
template <bool pairs>
uint32_t cell_of(const float* w, int64_t next) {
  if constexpr (pairs)
    return bf16(w[0]).bits | static_cast<uint32_t>(bf16(w[next]).bits) << 16;
  else
    return std::bit_cast<uint32_t>(*w);
}

// A term's weights as the tiles' products take them: (tiles, cells, lanes), zeros where a tile has fewer results, or,
// for matrices, where a factor is another group's. A cell is an f32, or two bf16 for factors that follow each other.
template <Arithmetic arithmetic, class T>
void pack(const RowMap<T>& map, const typename RowMap<T>::Term& term, int64_t lanes, uint32_t* to) {
  const int64_t by_result = term.transposed ? 1 : term.depth, by_factor = term.transposed ? map.width : 1;
  constexpr bool pairs = arithmetic != Arithmetic::f32, matrices = arithmetic == Arithmetic::matrices;
  constexpr int64_t factors = pairs ? 2 : 1;
  for (const Tile& tile : map.tiles) {
    const int64_t results = tile.results / tile.groups, cells = tile_cells<arithmetic>(tile, term.depth, lanes);
    if (tile.results < lanes || (matrices && tile.groups > 1)) std::fill_n(to, cells, 0);
    for (int64_t g = 0; g < tile.groups; ++g) {
      const float* from = term.weights + (tile.group + g) * map.width * term.depth + tile.first * by_result;
      uint32_t* row = to + g * results + (matrices ? g * cells / tile.groups : 0);
      for (int64_t k = 0; k < term.depth; k += factors, from += factors * by_factor, row += lanes)
        for (int64_t i = 0; i < results; ++i) row[i] = cell_of<pairs>(from + i * by_result, by_factor);
    }
    to += cells;
  }
}

// Lanes a group, n, where groups of n and 2 n channels on the two sides fill vectors; else 0.
int64_t turned_lanes(int64_t groups, int64_t n, int64_t lanes) {
  return (n == 4 || n == 8) && n <= lanes && groups % (lanes / n) == 0 ? n : 0;
}
// The kernels take n results of 2 n factors, to which n others may be added, and 2 n results of n factors.
template <class T>
int64_t turned_lanes(const RowMap<T>& map, int64_t lanes) {
  if (map.arithmetic == Arithmetic::matrices) return 0;
  const int64_t depth = map.terms[0].depth, n = std::min(map.width, depth);
  const bool one = map.terms.size() == 1, halves = depth == 2 * map.width && (one || map.terms[1].depth == n);
  return halves || (one && map.width == 2 * depth) ? turned_lanes(map.groups, n, lanes) : 0;
}
// They sum products of n and 2 n channels, or of n among themselves.
template <class T>
int64_t turned_lanes(const RowSums<T>& s, int64_t lanes) {
  if (s.arithmetic == Arithmetic::matrices || s.gram == (s.dy != nullptr)) return 0;
  const Pointwise& p = s.p;
  if (s.gram) return turned_lanes(p.groups, p.inputs, lanes);
  const int64_t n = std::min(p.inputs, p.outputs);
  return std::max(p.inputs, p.outputs) == 2 * n ? turned_lanes(p.groups, n, lanes) : 0;
}

template <class T>
void map_packed(const RowMap<T>& map) {
  int64_t depth = 0;  // factors a group of all terms
  for (const auto& term : map.terms) depth += term.depth;
  // Rows of the terms, or their weights.
  const int64_t room = (map.turned > 0 ? map.width : block_rows) * map.groups * depth;
  Scratch<float> scratch(threads() * room);
  const int parts = row_parts(map.rows, map.groups * (depth + map.width));
  parallel(map.rows, parts, true, [&](int, int thread, int64_t begin, int64_t end) {
    map_rows(map, begin, end, scratch.data() + thread * room);
  });
}

// Matrices have 16 results and up to 32 factors, or several times as many, and read while results are written.
template <class T>
bool matrices_suit(const RowMap<T>& map) {
  return std::ranges::all_of(map.tiles, [](const Tile& tile) { return tile.results == slab_channels; }) &&
         std::ranges::all_of(map.terms, [&](const auto& term) {
           const int64_t factors = map.tiles[0].groups * term.depth;
           const auto changes = [&](const T* x) { return x != nullptr && (x == map.y || x == map.negated); };
           return (factors <= 32 || factors % 32 == 0) && !changes(term.rows.x) && !changes(term.rows.minus);
         });
}

// Slabs of 16 channels hold whole groups, of which one side has as many channels as the other, or twice as many.
template <class T>
bool matrices_suit(const RowSums<T>& s) {
  const auto meet = [](int64_t a, int64_t b) {
    const int64_t smaller = std::min(a, b), larger = std::max(a, b);
    return slab_channels % smaller == 0 && (larger == smaller || larger == 2 * smaller);
  };
  const Pointwise& p = s.p;
  return p.in_channels() % slab_channels == 0 && (!s.gram || meet(p.inputs, p.inputs)) &&
         (s.dy == nullptr || (p.out_channels() % slab_channels == 0 && meet(p.inputs, p.outputs)));
}

}  // namespace

template <class T>
void run(RowMap<T> map) {
  const int64_t lanes = lanes_of(slab_channels);
  map.tiles = tiles_of(map, lanes);
  map.arithmetic = best_arithmetic<T>();
  if (map.arithmetic == Arithmetic::matrices && !matrices_suit(map)) map.arithmetic = Arithmetic::f32;
  const auto with_arithmetic = [&](auto&& f) {
    if (map.arithmetic == Arithmetic::matrices) return f.template operator()<Arithmetic::matrices>();
    if (map.arithmetic == Arithmetic::pairs) return f.template operator()<Arithmetic::pairs>();
    f.template operator()<Arithmetic::f32>();
  };
  map.turned = turned_lanes(map, lanes);
  if (map.turned > 0) return map_packed(map);  // the kernels pack turned weights
  with_arithmetic([&]<Arithmetic arithmetic>() {
    constexpr bool matrices = arithmetic == Arithmetic::matrices;
    const auto cells = [&](const auto& term) {
      return static_cast<int64_t>(map.tiles.size()) * tile_cells<arithmetic>(map.tiles[0], term.depth, lanes);
    };
    int64_t all = 0;
    for (const auto& term : map.terms) all += (matrices && term.rows.minus != nullptr ? 2 : 1) * cells(term);
    Scratch<uint32_t> packed(all);
    uint32_t* to = packed.data();
    for (auto& term : map.terms) {
      const int64_t count = cells(term);
      term.packed = to;
      pack<arithmetic>(map, term, lanes, to);
      to += count;
      if (!matrices || term.rows.minus == nullptr) continue;
      std::transform(to - count, to, to, [](uint32_t pair) { return pair ^ 0x80008000u; });
      to += count;
    }
    map_packed(map);
  });
}

namespace {

// The sums of some rows, part by part: of v, of dy, the outer products and the Gram matrices.
template <class T>
struct PartSums {
  RowSums<T> of;                           // with everything settled
  int64_t in, out, products, gram, count;  // count: of all of a part
  int parts;
  Scratch<float> memory;

  explicit PartSums(RowSums<T> s)
      : of(s),
        in(s.p.in_channels()),
        out(s.p.out_channels()),
        products(s.dy != nullptr ? out * s.p.inputs : 0),
        gram(s.gram ? in * s.p.inputs : 0),
        count(in + out + products + gram),
        parts(row_parts(s.p.rows, in + out)),
        memory(parts * count) {
    of.arithmetic = best_arithmetic<T>();
    if (of.arithmetic == Arithmetic::matrices && !matrices_suit(of)) of.arithmetic = Arithmetic::f32;
    of.turned = turned_lanes(of, lanes_of(slab_channels));
    // Rows of both, or, for matrices and turned groups, the products.
    const int64_t room = block_rows * (in + std::max(in, out));
    Scratch<float> scratch(threads() * room);
    parallel(s.p.rows, parts, false, [&](int part, int thread, int64_t begin, int64_t end) {
      sum_rows(of, begin, end, scratch.data() + thread * room, memory.data() + part * count);
    });
  }
  // Whether the outer products are (groups, inputs, outputs).
  bool by_input() const { return of.turned == 0 && sums_by_input(of.p); }
  // n of all parts together, from one on.
  std::vector<double> total(int64_t first, int64_t n) const {
    std::vector<double> sum(static_cast<size_t>(n));
    double* to = sum.data();
    for (int part = 0; part < parts; ++part)
      for (int64_t i = 0; i < n; ++i) to[i] += memory[part * count + first + i];
    return sum;
  }
};

// All parts as one, in f64, and the outer products by output.
template <class T>
Sums together(const PartSums<T>& sums) {
  const Pointwise& p = sums.of.p;
  const int64_t of_dy = sums.of.dy != nullptr ? sums.out : 0, first = sums.in + sums.out;
  Sums all{sums.total(0, sums.in), sums.total(sums.in, of_dy), sums.total(first, sums.products),
           sums.total(first + sums.products, sums.gram)};
  if (!sums.by_input()) return all;
  std::vector<double> by_output(all.outer.size());
  auto to = by_output.begin();
  for (int64_t group = 0; group < sums.products; group += p.outputs * p.inputs)
    for (int64_t o = 0; o < p.outputs; ++o)
      for (int64_t i = 0; i < p.inputs; ++i) *to++ = all.outer[static_cast<size_t>(group + i * p.outputs + o)];
  all.outer = std::move(by_output);
  return all;
}

}  // namespace

template <class T>
Sums run(RowSums<T> sums) {
  return together(PartSums<T>(sums));
}

Merged::Merged(const Pointwise& own) : of(merged_groups(own.groups, own.inputs, own.outputs)) {
  p = {own.rows, own.groups / of, own.inputs * of, own.outputs * of};
}

std::vector<float> Merged::weights(const float* w) const {
  const auto count = static_cast<size_t>(p.out_channels() * p.inputs);
  if (of == 1) return {w, w + count};
  std::vector<float> all(count);
  each_weight([&](int64_t place, int64_t own) { all[static_cast<size_t>(place)] = w[own]; });
  return all;
}

const float* Merged::weights(const float* w, std::vector<float>& room) const {
  if (of > 1) room = weights(w);
  return of > 1 ? room.data() : w;
}

std::vector<float> scaled(const Pointwise& p, std::vector<float> w, const float* scale) {
  float* at = w.data();
  for (int64_t o = 0; o < p.out_channels(); ++o)
    for (int64_t i = 0; i < p.inputs; ++i) *at++ *= scale[o];
  return w;
}

bool pointwise_suits(int64_t groups, int64_t inputs, int64_t outputs) {
  const int64_t merged = inputs > 1 && outputs > 1 ? merged_groups(groups, inputs, outputs) : 1;
  return merged > 0 && merged * inputs % 4 == 0 && merged * outputs % 4 == 0 && inputs <= 32 && outputs <= 32;
}

template <class T>
void pointwise_forward(const Pointwise& own, const T* x, const float* w, const float* bias, const T* residual, T* y) {
  const Merged merged(own);
  const Pointwise& p = merged.p;
  std::vector<float> room;
  run(RowMap<T>{p.rows, p.groups, p.outputs, {{{x}, p.inputs, merged.weights(w, room)}}, bias, residual, y});
}

template <class T>
void pointwise_backward_data(const Pointwise& own, const T* dy, const float* w, bool accumulate, T* dx) {
  const Merged merged(own);
  const Pointwise& p = merged.p;
  std::vector<float> room;
  run(RowMap<T>{p.rows,
                p.groups,
                p.inputs,
                {{{dy}, p.outputs, merged.weights(w, room), true}},
                nullptr,
                nullptr,
                dx,
                accumulate});
}

template <class T>
void pointwise_backward_weights(const Pointwise& own, const T* x, const T* dy, bool accumulate, float* dw) {
  const Merged merged(own);
  const PartSums<T> sums(RowSums<T>{merged.p, {x}, dy});
  // In f32: a handful of parts, which hold f32 themselves.
  const auto put = [&](const auto* products, bool on_top) {
    merged.each_weight([&](int64_t place, int64_t weight) {
      dw[weight] = static_cast<float>((on_top ? dw[weight] : 0) + products[place]);
    });
  };
  if (sums.by_input()) return put(together(sums).outer.data(), accumulate);
  const float* products = sums.memory.data() + sums.in + sums.out;
  for (int part = 0; part < sums.parts; ++part) put(products + part * sums.count, accumulate || part > 0);
}

#define MGIC_POINTWISE(T)                                                                                   \
  template void run(RowMap<T>);                                                                             \
  template Sums run(RowSums<T>);                                                                            \
  template void pointwise_forward<T>(const Pointwise&, const T*, const float*, const float*, const T*, T*); \
  template void pointwise_backward_data<T>(const Pointwise&, const T*, const float*, bool, T*);             \
  template void pointwise_backward_weights<T>(const Pointwise&, const T*, const T*, bool, float*);
MGIC_POINTWISE(float)
MGIC_POINTWISE(bf16)
#undef MGIC_POINTWISE

}  // namespace mgic::cpu
