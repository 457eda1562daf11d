// Winograd's minimal filtering along rows alone, F(M, 3), compiled for every target, for groups of 4 or 8 channels that
// share a vector: M outputs of a row of a 3×3 convolution take 3 (M + 2) products a pair of channels, not 9 M.
//
//   y[r] = Aᵀ Σ_u Σ_c (G w[u, c]) ⊙ (Bᵀ x[r + u, c])     y[r] M outputs of a row, x[r] M + 2 inputs, w[u] a row of taps
//
// Products are in f32 or, where transformed values are rounded, in pairs of bf16: of a group's neighbouring channels
// for outputs, of neighbouring tiles for gradients of weights. Along one dimension the larger tiles are exact enough
// for that: results are off by 0.5 % in the root mean square, those of the smaller square ones by 0.4 %
// (bench/winograd_error.py). Gradients of inputs keep the smaller ones (Grouped::transposed), 0.3 %.
//
// Tiles of M × M (winograd-inl.h) take fewer products still, but with so few channels it is the way to and from the
// products that takes the time. Here a row is transformed once for the three rows of outputs that read it, and a window
// of such rows moves down the image within the first cache. Since a value is read once, it is read from the map itself
// where nothing has to happen to it: to pack it into a plane first took 10 to 30 % longer.
#if defined(MGIC_CPU_WINOGRAD_ROWS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MGIC_CPU_WINOGRAD_ROWS_INL_H
#undef MGIC_CPU_WINOGRAD_ROWS_INL_H
#else
#define MGIC_CPU_WINOGRAD_ROWS_INL_H
#endif

#include "backends/cpu/winograd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {

// Groups of n channels side by side in a vector. Its lane l holds, for turn k = 0 … n/2 − 1 and for the even and the
// odd channel c of l's pair, the weight between c and the output whose lane is l ^ 2k: products need no shuffle, since
// a load puts c into both lanes of its pair, and sums of a turn are turned once, when they are complete. In pairs of
// bf16, both weights share a cell, and both channels the cells of their two lanes.
template <int n>
struct SharedGroups {
  static constexpr int turns = n / 2;
  // Vectors that a tile's factors are loaded as, and that hold a position's weights.
  template <class A>
  static constexpr int halves = A::pairs ? 1 : 2;
  template <class A>
  static constexpr int weights = turns* halves<A>;
#if HWY_TARGET != HWY_SCALAR

  // The cells at p, of each pair the even one twice, or the odd one. On x86 that is the load's own work, if the
  // compiler is kept from making a load and a shuffle of it.
  template <class Cell>
  static HWY_INLINE auto twice(int odd, const Cell* p) {
    const hn::ScalableTag<Cell> d;
    const auto* from = reinterpret_cast<const float*>(p);
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
    V v;
    using Memory = const float(*)[hn::MaxLanes(D())];
    if (odd)
      asm("vmovshdup %1, %0" : "=v"(v.raw) : "m"(*reinterpret_cast<Memory>(from)));
    else
      asm("vmovsldup %1, %0" : "=v"(v.raw) : "m"(*reinterpret_cast<Memory>(from)));
    return hn::BitCast(d, v);
#else
    const V v = hn::LoadU(D(), from);
    return hn::BitCast(d, odd ? hn::DupOdd(v) : hn::DupEven(v));
#endif
  }
  // Half of a tile's factors: the even ones or the odd ones, or, of pairs, all.
  template <class A>
  static HWY_INLINE auto factors([[maybe_unused]] int odd, const typename A::Cell* p) {
    if constexpr (A::pairs)
      return A::load(D(), p);
    else
      return twice(odd, p);
  }
  // The sums of all turns, as one.
  static HWY_INLINE V joined(const V* sum) {
    V v = hn::Add(sum[0], turned<2>(sum[1]));
    if constexpr (turns > 2) v = hn::Add(v, turned<4>(hn::Add(sum[2], turned<2>(sum[3]))));
    return v;
  }
  // A vector in all its turns.
  template <class Vector>
  static HWY_INLINE void turn(Vector v, Vector* out) {
    out[0] = v;
    out[1] = turned<2>(v);
    if constexpr (turns > 2) {
      out[2] = turned<4>(v);
      out[3] = turned<6>(v);
    }
  }
#endif
};

// The rows of an item, in one vector of channels: of its plane, where zeros surround every image, or of the map itself.
template <class T>
struct ImageRows {
  const T* first = nullptr;    // pixel 0 of the first one; null: there are none
  int64_t pixel = 0, row = 0;  // elements from one to the next
  bool bordered = true;
  int64_t top = 0;  // the first row's place in its image

  // From the plane's first pixel on, at its upper left corner.
  static ImageRows of_plane(const Grouped& g, const T* plane) {
    const int64_t row = g.pitch() * slab_channels;
    return {plane + g.border() * (row + slab_channels), slab_channels, row};
  }
  // From row y of image n and that channel on, of a map of so many; channels fill slabs, and tiles rows.
  static ImageRows of_map(const Grouped& g, const T* map, int64_t channels, int64_t channel, int64_t n, int64_t y) {
    return {map + (n * g.height + y) * g.width * channels + channel, channels, g.width * channels, false, y};
  }
  explicit operator bool() const { return first != nullptr; }
  ImageRows from_channel(int64_t c) const { return {first + c, pixel, row, bordered, top}; }

  // Row y, and whether the image has `by` more below it (above it).
  const T* at(const Grouped& g, int64_t y) const { return first + (bordered ? g.plane_row(y) : y) * row; }
  bool has(const Grouped& g, int64_t y, int64_t by) const {
    const int64_t in_image = (g.stacked > 1 ? y % g.height : top + y) + by;
    return bordered || (in_image >= 0 && in_image < g.height);
  }
};

// What tiles become for products of outputs: a vector each, as numbers, or as pairs of channels in both of their lanes.
template <class A>
struct RowFactors {
  static int64_t vectors(int64_t tiles) { return tiles; }
  // All positions of tile t of so many go to their places in a row; positions lie so many cells apart.
  template <int side>
  HWY_INLINE void put(const V* v, int64_t t, int64_t, float* row, int64_t position) {
#pragma GCC unroll 6
    for (int p = 0; p < side; ++p) hn::StoreU(v[p], D(), row + t * lanes() + p * position);
  }
};
// And for gradients of weights: as numbers, or as pairs of neighbouring tiles, of which the last may have none.
template <class A>
struct RowSummands : RowFactors<A> {};
#if MGIC_HAS_BF16_DOT
template <>
struct RowFactors<Bf16> {
  static int64_t vectors(int64_t tiles) { return tiles; }
  template <int side>
  HWY_INLINE void put(const V* v, int64_t t, int64_t, uint32_t* row, int64_t position) {
    const Bf16::U d;
    const auto twice = hn::IndicesFromVec(d, hn::ShiftRight<1>(hn::Iota(d, 0)));
#pragma GCC unroll 6
    for (int p = 0; p < side; ++p) {
      const auto pairs = hn::ZeroExtendVector(d, hn::BitCast(hn::Half<Bf16::U>(), narrow(v[p])));
      hn::StoreU(hn::TableLookupLanes(pairs, twice), d, row + t * lanes() + p * position);
    }
  }
};
template <>
struct RowSummands<Bf16> {
  HWY_INLINE RowSummands() {
    for (V& v : before) v = hn::Zero(D());
  }
  static int64_t vectors(int64_t tiles) { return (tiles + 1) / 2; }
  template <int side>
  HWY_INLINE void put(const V* v, int64_t t, int64_t tiles, uint32_t* row, int64_t position) {
    if (t % 2 == 0 && t + 1 < tiles) {
#pragma GCC unroll 6
      for (int p = 0; p < side; ++p) before[p] = v[p];
      return;
    }
#pragma GCC unroll 6
    for (int p = 0; p < side; ++p) {
      const auto both = t % 2 == 0 ? Bf16::round_two(v[p], hn::Zero(D())) : Bf16::round_two(before[p], v[p]);
      hn::StoreU(Bf16::pair(both), Bf16::U(), row + t / 2 * lanes() + p * position);
    }
  }

 private:
  V before[6];
};
#endif

// Rows of an image from row y of its plane on, and whether they follow others of it; and, side by side with them, the
// same rows of the next images.
struct RowBlock {
  int64_t y, rows;
  bool follows;
  int64_t images;
};

// Blocks of rows of some tiles side by side, in one vector of channels.
template <class A, int M>
struct RowTiles {
  using Cell = typename A::Cell;
  static constexpr int side = M + 2;
  // Tiles of a row, or of which products are taken at a time; and of a block of outputs. With twice as large blocks,
  // gradients of weights took 5 to 10 % longer: what is read passes through the same cache.
  static constexpr int64_t widest = 8, most = 2 * widest;
  static constexpr int64_t vector = hn::MaxLanes(D()), input = (most + 2 * widest) * vector;
  HWY_ALIGN Cell inputs[side * input];  // (positions, rows, vectors, lanes), two rows more than there are of outputs
  union {
    HWY_ALIGN Cell gradients[side * most * vector];    // (positions, rows, vectors, lanes)
    HWY_ALIGN float products[side * widest * vector];  // (positions, tiles, lanes)
  };

  // f(block) for the blocks of the planes' images, each of `height` rows, of which there are so many in all. Of small
  // images some, at most so many, share a block.
  template <class F>
  static HWY_INLINE void each_block(int64_t rows, int64_t height, int64_t tiles, int64_t images, F&& f) {
    const int64_t at_once = most / tiles;
    images = std::clamp<int64_t>(std::min(at_once / height, widest / tiles), 1, images);
    for (int64_t top = 0; top < rows; top += images * height) {
      const int64_t end = std::min(top + height, rows), own = std::min(images, (rows - top + height - 1) / height);
      for (int64_t y = top; y < end; y += at_once) f(RowBlock{y, std::min(at_once, end - y), y > top, own});
    }
  }

  // The inputs of a block, so many tiles a row and image from column x on, as Kind has them; where it follows another
  // one, the last two rows of that, which was as high as blocks are, become the first two.
  template <class Kind, class T, class Meanwhile>
  HWY_NOINLINE void put_inputs(const Grouped& g, const ImageRows<T>& in, const RowBlock& block, int64_t x,
                               int64_t tiles, Meanwhile&& meanwhile) {
    const int64_t all = block.images * tiles, length = Kind::vectors(all) * lanes();
    if (block.follows)
      for (int p = 0; p < side; ++p)
        std::copy_n(inputs + p * input + most / tiles * length, 2 * length, inputs + p * input);
    static constexpr T zeros[hn::MaxLanes(D())] = {};
    const bool left = in.bordered || x > 0, right = in.bordered || x + tiles * M < g.width;
    for (int64_t row = block.follows ? 2 : 0; row < block.rows + 2; ++row) {
      Kind kind;
      for (int64_t image = 0; image < block.images; ++image) {
        const int64_t y = block.y + image * g.height;
        const bool there = in.has(g, y, row - 1);
        const int64_t pixel = there ? in.pixel : 0;
        const T* from = there ? in.at(g, y) + (row - 1) * in.row + x * pixel : zeros;
        V d[side];
        d[0] = Whole().load(left ? from - pixel : zeros);
        d[1] = Whole().load(from);
        for (int64_t t = 0; t < tiles; ++t, from += M * pixel) {
          V v[side];
#pragma GCC unroll 4
          for (int i = 2; i < side - 1; ++i) d[i] = Whole().load(from + (i - 1) * pixel);
          d[side - 1] = Whole().load(right || t + 1 < tiles ? from + M * pixel : zeros);
          all_inputs<M>(d, v);
          kind.template put<side>(v, image * tiles + t, all, inputs + row * length, input);
          d[0] = d[M];
          d[1] = d[M + 1];
          meanwhile(1);
        }
      }
    }
  }
  // Gradients of the outputs in that block.
  template <class T, class Meanwhile>
  HWY_NOINLINE void put_gradients(const Grouped& g, const ImageRows<T>& in, const RowBlock& block, int64_t x,
                                  int64_t tiles, Meanwhile&& meanwhile) {
    using Kind = RowSummands<A>;
    const int64_t all = block.images * tiles, length = Kind::vectors(all) * lanes();
    for (int64_t row = 0; row < block.rows; ++row) {
      Kind kind;
      for (int64_t image = 0; image < block.images; ++image) {
        const T* from = in.at(g, block.y + image * g.height) + row * in.row + x * in.pixel;
        for (int64_t t = 0; t < tiles; ++t, from += M * in.pixel) {
          V dy[M], v[side];
#pragma GCC unroll 4
          for (int i = 0; i < M; ++i) dy[i] = Whole().load(from + i * in.pixel);
          all_gradients<M>(dy, v);
          kind.template put<side>(v, image * tiles + t, all, gradients + row * length, most * lanes());
          meanwhile(1);
        }
      }
    }
  }
};

// f(first tile, tiles) for the pieces of a row that are taken at a time.
template <int M, class F>
HWY_INLINE void each_piece_of_row(int64_t width, F&& f) {
  constexpr int64_t widest = RowTiles<F32, M>::widest;
  const int64_t in_row = (width + M - 1) / M, pieces = (in_row + widest - 1) / widest;
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const int64_t begin = in_row * piece / pieces;
    f(begin, in_row * (piece + 1) / pieces - begin);
  }
}

// The products of tiles [first, last), N at a time, at all positions, with weights w (3, positions, turns, cells,
// lanes), go to their places, where those of tile `from` are the first; returns the first tile that is left.
template <int n, int N, class A, int M, class Meanwhile>
HWY_NOINLINE int64_t put_row_products(RowTiles<A, M>& tiles, const typename A::Cell* HWY_RESTRICT w, int64_t from,
                                      int64_t first, int64_t last, int64_t in_row, Meanwhile&& meanwhile) {
  using Groups = SharedGroups<n>;
  using Cell = typename A::Cell;
  const D d;
  constexpr int halves = Groups::template halves<A>;
  constexpr int64_t lanes = hn::MaxLanes(d), position = Groups::template weights<A> * lanes;
  const int64_t end = last - (last - first) % N;
  if (end == first) return first;
  for (int p = 0; p < M + 2; ++p, w += position) {
    meanwhile(M * (end - first) / (M + 2) + 1);
    for (int64_t t = first; t < end; t += N) {
      const Cell* HWY_RESTRICT x = tiles.inputs + p * tiles.input + t * lanes;
      V sum[N][Groups::turns];
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i)
#pragma GCC unroll 4
        for (int k = 0; k < Groups::turns; ++k) sum[i][k] = hn::Zero(d);
#pragma GCC unroll 1
      for (int u = 0; u < 3; ++u, x += in_row * lanes) {
        const Cell* HWY_RESTRICT own = w + u * (M + 2) * position;
#pragma GCC unroll 2
        for (int odd = 0; odd < halves; ++odd) {
          Cells<A> values[N];
#pragma GCC unroll 8
          for (int i = 0; i < N; ++i) values[i] = Groups::template factors<A>(odd, x + i * lanes);
#pragma GCC unroll 4
          for (int k = 0; k < Groups::turns; ++k) {
            const Cells<A> weights = A::load(d, own + (halves * k + odd) * lanes);
#pragma GCC unroll 8
            for (int i = 0; i < N; ++i) sum[i][k] = A::step(d, sum[i][k], weights, values[i]);
          }
        }
      }
      float* out = tiles.products + (p * tiles.widest + t - from) * lanes;
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) hn::StoreU(Groups::joined(sum[i]), d, out + i * lanes);
    }
  }
  return end;
}

// The outputs of those tiles, `in_row` to a row, of which `columns` columns lie in the image, go to outputs.put(place,
// u, v) (outputs-inl.h); the first tile of the block is at (y, x).
template <class A, int M, class Outputs>
HWY_NOINLINE HWY_FLATTEN void put_row_outputs(const RowTiles<A, M>& tiles, int64_t first, int64_t last, int64_t in_row,
                                              int64_t columns, int64_t y, int64_t x, int u, Outputs& outputs) {
  int64_t row = y + first / in_row, column = first % in_row * M;
  for (int64_t t = first; t < last; ++t) {
    V m[M + 2], v[M];
#pragma GCC unroll 6
    for (int p = 0; p < M + 2; ++p) m[p] = hn::LoadU(D(), tiles.products + (p * tiles.widest + t - first) * lanes());
    all_outputs<M>(m, v);
    if (column + M <= columns) {
      outputs.put({row, x + column, false}, u, v);
    } else {
      for (int i = 0; column + i < columns; ++i) {
        V one[1] = {v[i]};
        outputs.put({row, x + column + i, false}, u, one);
      }
    }
    column += M;
    if (column >= in_row * M) {
      column = 0;
      ++row;
    }
  }
}

// All outputs of `rows` rows in vector u of a slab, from row y of the image on, the first of `in`. A tile at the end of
// rows that are no multiple of M reads pixels behind them, which meet only outputs that are not put. meanwhile(pixels)
// is called many times, with the share of the outputs that is done.
template <class A, int M, int n, class T, class Meanwhile, class Outputs>
HWY_INLINE void winograd_rows(const Grouped& g, const ImageRows<T>& in, const typename A::Cell* w, int u, int64_t y,
                              int64_t rows, Meanwhile&& meanwhile, Outputs& outputs) {
  // As many sums as hide their latency and leave registers for the rest.
  constexpr int N = (many_registers ? 16 : 8) / SharedGroups<n>::turns;
  RowTiles<A, M> tiles;
  constexpr int64_t at_once = tiles.widest;
  each_piece_of_row<M>(g.width, [&](int64_t begin, int64_t in_row) HWY_ATTR {
    const auto outputs_of = [&](const RowBlock& block) HWY_ATTR {
      tiles.template put_inputs<RowFactors<A> >(g, in, block, M * begin, in_row, [](int64_t) {});
      const int64_t count = block.rows * in_row;
      for (int64_t first = 0; first < count; first += at_once) {
        const int64_t last = std::min(first + at_once, count);
        int64_t left = put_row_products<n, N>(tiles, w, first, first, last, in_row, meanwhile);
        if (left < last) left = put_row_products<n, N / 2>(tiles, w, first, left, last, in_row, meanwhile);
        if (left < last) put_row_products<n, 1>(tiles, w, first, left, last, in_row, meanwhile);
        put_row_outputs(tiles, first, last, in_row, g.width - M * begin, y + block.y, M * begin, u, outputs);
      }
    };
    tiles.each_block(rows, g.stacked > 1 ? g.height : rows, in_row, 1, outputs_of);
  });
}

// dw[u, p, n, lanes] += the products of a block's inputs and gradients at position p, of so many vectors, `in_row` a
// row, for all three rows of taps.
template <int n, class A, int M, class Meanwhile>
HWY_NOINLINE void row_outer(const RowTiles<A, M>& tiles, int p, int64_t count, int64_t in_row, float* HWY_RESTRICT dw,
                            Meanwhile&& meanwhile) {
  using Groups = SharedGroups<n>;
  using Cell = typename A::Cell;
  const D d;
  constexpr int64_t lanes = hn::MaxLanes(d);
  const auto place = [&](int u, int k) { return dw + ((u * (M + 2) + p) * n + k) * lanes; };
  V sum[3][n];
#pragma GCC unroll 3
  for (int u = 0; u < 3; ++u)
#pragma GCC unroll 8
    for (int k = 0; k < n; ++k) sum[u][k] = hn::LoadU(d, place(u, k));
  const Cell *HWY_RESTRICT x = tiles.inputs + p * tiles.input,
                           *HWY_RESTRICT dy = tiles.gradients + p * tiles.most * lanes;
  for (int64_t t = 0; t < count; ++t, x += lanes, dy += lanes) {
    // The transforms have told of two pixels a tile.
    if (t % 8 == 0) meanwhile((A::pairs ? 16 : 8) * (M - 2) / (M + 2) + 1);
    Cells<A> turns[Groups::turns];
    Groups::turn(A::load(d, dy), turns);
#pragma GCC unroll 3
    for (int u = 0; u < 3; ++u) {
      const Cell* of_row = x + u * in_row * lanes;
      const Cells<A> even = Groups::twice(0, of_row), odd = Groups::twice(1, of_row);
#pragma GCC unroll 4
      for (int k = 0; k < Groups::turns; ++k) {
        sum[u][2 * k] = A::step(d, sum[u][2 * k], even, turns[k]);
        sum[u][2 * k + 1] = A::step(d, sum[u][2 * k + 1], odd, turns[k]);
      }
    }
  }
#pragma GCC unroll 3
  for (int u = 0; u < 3; ++u)
#pragma GCC unroll 8
    for (int k = 0; k < n; ++k) hn::StoreU(sum[u][k], d, place(u, k));
}

// The gradient of the weights of a vector of channels, from `rows` rows of the inputs and of the gradients: whole
// tiles. dw is (3, positions, n, lanes). meanwhile(pixels) as in winograd_rows().
template <class A, int M, int n, class T, class U, class Meanwhile>
HWY_INLINE void winograd_rows_weights(const Grouped& g, const ImageRows<T>& x, const ImageRows<U>& dy, int64_t rows,
                                      float* dw, Meanwhile&& meanwhile) {
  using Kind = RowSummands<A>;
  RowTiles<A, M> tiles;
  each_piece_of_row<M>(g.width, [&](int64_t begin, int64_t in_row) HWY_ATTR {
    const auto add = [&](const RowBlock& block) HWY_ATTR {
      tiles.template put_inputs<Kind>(g, x, block, M * begin, in_row, meanwhile);
      tiles.put_gradients(g, dy, block, M * begin, in_row, meanwhile);
      const int64_t vectors = Kind::vectors(block.images * in_row);
      for (int p = 0; p < M + 2; ++p) row_outer<n>(tiles, p, block.rows * vectors, vectors, dw, meanwhile);
    };
    tiles.each_block(rows, g.stacked > 1 ? g.height : rows, in_row, g.stacked, add);
  });
}

}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
