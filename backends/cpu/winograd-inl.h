// Winograd's minimal filtering F(M×M, 3×3), compiled for every target: M × M outputs of a 3×3 convolution take (M + 2)²
// products a pair of channels, not 9 M².
//
//   Y = Aᵀ [ Σ_c (G w_c Gᵀ) ⊙ (Bᵀ x_c B) ] A        Y M×M, x (M + 2)×(M + 2), w 3×3
//
// (Lavin, Gray: Fast Algorithms for Convolutional Neural Networks, 2015, arXiv 1509.09308, section 4.) Some tiles at a
// time: their inputs are transformed from the planes, for each of the positions a vector of weights serves all of them,
// and the products are transformed on their way to the block of outputs. Transforms and sums are in f32; with pairs of
// bf16 the transformed values are rounded to it. Errors are some roundings larger than those of the plain sum with
// M = 2, and some tens with M = 4, which is therefore for f32 alone.
#if defined(MGIC_CPU_WINOGRAD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MGIC_CPU_WINOGRAD_INL_H
#undef MGIC_CPU_WINOGRAD_INL_H
#else
#define MGIC_CPU_WINOGRAD_INL_H
#endif

#include "backends/cpu/grouped-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {

// The transforms along one dimension, with the points 0, ±1, ∞ and for M = 4 also ±2: t = Bᵀ d of M + 2 inputs,
// y = Aᵀ m of as many products, and t = A y of the gradients of M outputs.
template <int M>
struct Filtering;
template <>
struct Filtering<2> {
  static HWY_INLINE void inputs(const V* d, V* t) {
    t[0] = hn::Sub(d[0], d[2]);
    t[1] = hn::Add(d[1], d[2]);
    t[2] = hn::Sub(d[2], d[1]);
    t[3] = hn::Sub(d[1], d[3]);
  }
  template <class Tag>
  static HWY_INLINE void outputs(Tag, const hn::Vec<Tag>* m, hn::Vec<Tag>* y) {
    y[0] = hn::Add(hn::Add(m[0], m[1]), m[2]);
    y[1] = hn::Sub(hn::Sub(m[1], m[2]), m[3]);
  }
  static HWY_INLINE void gradients(const V* y, V* t) {
    t[0] = y[0];
    t[1] = hn::Add(y[0], y[1]);
    t[2] = hn::Sub(y[0], y[1]);
    t[3] = hn::Neg(y[1]);
  }
};
template <>
struct Filtering<4> {
  static HWY_INLINE void inputs(const V* d, V* t) {
    const D f;
    const V two = hn::Set(f, 2), four = hn::Set(f, 4), five = hn::Set(f, 5);
    const V even = hn::NegMulAdd(four, d[2], d[4]), odd = hn::NegMulAdd(four, d[1], d[3]);
    const V near = hn::Sub(d[4], d[2]), far = hn::Sub(d[3], d[1]);
    t[0] = hn::MulAdd(four, d[0], hn::NegMulAdd(five, d[2], d[4]));
    t[1] = hn::Add(even, odd);
    t[2] = hn::Sub(even, odd);
    t[3] = hn::MulAdd(two, far, near);
    t[4] = hn::NegMulAdd(two, far, near);
    t[5] = hn::MulAdd(four, d[1], hn::NegMulAdd(five, d[3], d[5]));
  }
  template <class Tag>
  static HWY_INLINE void outputs(Tag d, const hn::Vec<Tag>* m, hn::Vec<Tag>* y) {
    const auto sum = hn::Add(m[1], m[2]), difference = hn::Sub(m[1], m[2]);
    const auto sum2 = hn::Add(m[3], m[4]), difference2 = hn::Sub(m[3], m[4]);
    y[0] = hn::Add(hn::Add(m[0], sum), sum2);
    y[1] = hn::MulAdd(hn::Set(d, 2), difference2, difference);
    y[2] = hn::MulAdd(hn::Set(d, 4), sum2, sum);
    y[3] = hn::Add(hn::MulAdd(hn::Set(d, 8), difference2, difference), m[5]);
  }
  static HWY_INLINE void gradients(const V* y, V* t) {
    const D f;
    const V two = hn::Set(f, 2), four = hn::Set(f, 4);
    const V even = hn::Add(y[0], y[2]), odd = hn::Add(y[1], y[3]);
    const V even2 = hn::MulAdd(four, y[2], y[0]), odd2 = hn::Mul(two, hn::MulAdd(four, y[3], y[1]));
    t[0] = y[0];
    t[1] = hn::Add(even, odd);
    t[2] = hn::Sub(even, odd);
    t[3] = hn::Add(even2, odd2);
    t[4] = hn::Sub(even2, odd2);
    t[5] = y[3];
  }
};

// Tiles at a time, so that transformed inputs, weights and products stay near: 8, or as many bytes of pairs. The
// weights of small groups are few, and need not serve as many: with 4, the first cache keeps more of all else.
constexpr int winograd_tiles = 8;
template <bool quads, class Tag>
constexpr int winograd_tiles_of = quads || hn::MaxLanes(Tag()) < hn::MaxLanes(D()) ? winograd_tiles / 2
                                                                                   : winograd_tiles;
template <class A>
constexpr int winograd_summands = A::pairs ? 2 * winograd_tiles : winograd_tiles;

// Tiles side by side that are transformed at once: as many as share a cell of pairs, while registers hold them.
template <int M>
constexpr int winograd_neighbours = M == 2 ? 2 : 1;

template <class A, int M, int T>
struct WinogradTiles {
  using Cell = typename A::Cell;
  static constexpr int side = M + 2, positions = side * side;
  HWY_ALIGN Cell inputs[positions * T * slab_channels];
  union {
    // (a row of positions, a column of outputs): the products, transformed along the rows.
    HWY_ALIGN float products[side * M * T * slab_channels];
    // Of the outputs, for gradients of weights.
    HWY_ALIGN Cell gradients[positions * T * slab_channels];
  };

  static int64_t at(int64_t position, int64_t tile, int64_t pixel) { return (position * T + tile) * pixel; }
};

// put(position, v …) for row r of the tiles that are transformed at once: their columns c are transformed already, and
// of each tile n of them, M from one tile to the next, go through `transform`.
template <int M, int n, class Transform, class F>
HWY_INLINE void put_winograd_row(const V (*c)[M + 2], int r, Transform&& transform, F&& put) {
  constexpr int side = M + 2, tiles = winograd_neighbours<M>;
  V v[tiles][side];
#pragma GCC unroll 2
  for (int j = 0; j < tiles; ++j) {
    V d[n];
#pragma GCC unroll 8
    for (int k = 0; k < n; ++k) d[k] = c[j * M + k][r];
    transform(d, v[j]);
  }
#pragma GCC unroll 8
  for (int k = 0; k < side; ++k) {
    if constexpr (tiles == 2)
      put(r * side + k, v[0][k], v[1][k]);
    else
      put(r * side + k, v[0][k]);
  }
}

// put(position, tile, u, v …) with Bᵀ x B for `count` tiles side by side, from the plane's pixel x on: the v are vector
// u of that tile and, where two are transformed at once, of the next; where their number is odd, the last one is of no
// use, but finite. Neighbours share columns. between() after each.
template <class A, int M, class F, class Between>
HWY_INLINE void winograd_inputs(const typename A::Cell* x, int64_t pitch, int64_t count, F&& put, Between&& between) {
  constexpr int side = M + 2, tiles = winograd_neighbours<M>, columns = tiles * M + 2;
  for (int u = 0; u < slab_channels / lanes(); ++u) {
    V c[columns][side];
    const auto column = [&](int64_t at, V* t) HWY_ATTR {
      V d[side];
#pragma GCC unroll 8
      for (int k = 0; k < side; ++k) d[k] = A::get(x + at * A::pixel + k * pitch, u);
      Filtering<M>::inputs(d, t);
    };
    column(0, c[0]);
    column(1, c[1]);
    for (int64_t t = 0; t < count; t += tiles) {
      const int64_t missing = std::max<int64_t>(t + tiles - count, 0) * M;
#pragma GCC unroll 16
      for (int i = 2; i < columns; ++i) column(t * M + i - (i < M + 2 ? 0 : missing), c[i]);
#pragma GCC unroll 8
      for (int r = 0; r < side; ++r) {
        put_winograd_row<M, side>(
            c, r, [](const V* d, V* v) HWY_ATTR { Filtering<M>::inputs(d, v); },
            [&](int p, auto... v) HWY_ATTR { put(p, t, u, v...); });
        c[0][r] = c[columns - 2][r];
        c[1][r] = c[columns - 1][r];
      }
      between();
    }
  }
}

// One row of positions of N tiles: its products, transformed along the row, are stored in `out` (columns, tiles, 16) or
// added to it. x begins at the row's first position, w is (side, cells, lanes).
template <class A, int M, int T, int N, bool quads, class Tag>
HWY_NOINLINE void winograd_row(Tag d, const typename A::Cell* HWY_RESTRICT w, int64_t cells,
                               const typename A::Cell* HWY_RESTRICT x, bool accumulate, float* HWY_RESTRICT out) {
  constexpr int side = M + 2;
  constexpr int64_t lanes = hn::MaxLanes(d), next = T * A::pixel;
  hn::Vec<Tag> sum[N][side];
#pragma GCC unroll 16
  for (int t = 0; t < N; ++t)
#pragma GCC unroll 8
    for (int k = 0; k < side; ++k) sum[t][k] = hn::Zero(d);
  if constexpr (quads) {
#pragma GCC unroll 8
    for (int k = 0; k < side; ++k)
      quad_steps<A>(d, w + k * cells * lanes, [&](auto&& step) HWY_ATTR {
#pragma GCC unroll 16
        for (int t = 0; t < N; ++t) step(sum[t][k], A::quads(x + k * next + t * A::pixel));
      });
  } else {
#pragma GCC unroll 1
    for (int64_t c = 0; c < cells; ++c, w += lanes) {
#pragma GCC unroll 8
      for (int k = 0; k < side; ++k) {
        const auto weights = A::load(d, w + k * cells * lanes);
#pragma GCC unroll 16
        for (int t = 0; t < N; ++t) sum[t][k] = A::step(d, sum[t][k], weights, x + k * next + t * A::pixel + c);
      }
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < N; ++t) {
    hn::Vec<Tag> y[M];
    Filtering<M>::outputs(d, sum[t], y);
#pragma GCC unroll 4
    for (int j = 0; j < M; ++j) {
      float* to = out + (j * T + t) * slab_channels;
      hn::StoreU(accumulate ? hn::Add(hn::LoadU(d, to), y[j]) : y[j], d, to);
    }
  }
}

// Tiles whose sums over channels lie in registers.
constexpr int winograd_together = many_registers ? 4 : 2;

// The products of `count` tiles: Σ_c w[p][c] inputs[p][t][from + c] for every position p, transformed along the rows,
// go to lanes `to` on; w is (positions, cells, lanes). Row by row, whose weights serve all tiles; between() some tiles.
template <class A, int M, int T, bool quads, class Tag, class Between>
HWY_INLINE void winograd_products(Tag d, const typename A::Cell* w, int64_t cells, int64_t from, int64_t to,
                                  bool accumulate, int64_t count, WinogradTiles<A, M, T>& tiles, Between&& between) {
  constexpr int side = M + 2, together = winograd_together;
  for (int r = 0; r < side; ++r, w += side * cells * static_cast<int64_t>(hn::MaxLanes(d))) {
    const typename A::Cell* x = tiles.inputs + tiles.at(r * side, 0, A::pixel) + from;
    float* out = tiles.products + tiles.at(r * M, 0, slab_channels) + to;
    int64_t t = 0;
    for (; t + together <= count; t += together) {
      winograd_row<A, M, T, together, quads>(d, w, cells, x + t * A::pixel, accumulate, out + t * slab_channels);
      between();
    }
    for (; t < count; ++t)
      winograd_row<A, M, T, 1, quads>(d, w, cells, x + t * A::pixel, accumulate, out + t * slab_channels);
  }
}

// All channels of tile t's outputs in `rows` rows and `columns` columns, 1 … M.
template <class A, int M, int T>
HWY_INLINE void winograd_outputs(const WinogradTiles<A, M, T>& tiles, int64_t t, int64_t rows, int64_t columns,
                                 float* out, int64_t out_row) {
  constexpr int side = M + 2;
  for (int64_t u = 0; u < slab_channels; u += lanes())
#pragma GCC unroll 4
    for (int j = 0; j < M; ++j) {
      V m[side], y[M];
#pragma GCC unroll 8
      for (int r = 0; r < side; ++r) m[r] = hn::LoadU(D(), tiles.products + tiles.at(r * M + j, t, slab_channels) + u);
      Filtering<M>::outputs(D(), m, y);
      if (j >= columns) break;
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i)
        if (i < rows) hn::StoreU(y[i], D(), out + i * out_row + j * slab_channels + u);
    }
}

// Places that a row of tiles takes: whole numbers of those that are transformed at once.
inline int64_t winograd_places(int64_t tiles, int64_t at_once) { return (tiles + at_once - 1) / at_once * at_once; }

// Rows of tiles that are taken together for images of this width, where there are `most` places.
template <int M>
int64_t winograd_strips(int64_t width, int64_t most) {
  return std::max<int64_t>(most / winograd_places((width + M - 1) / M, winograd_neighbours<M>), 1);
}

// f(strips [s0, s1), first tile of a row, tiles, places) for pieces of `rows` rows.
template <int M, class F>
HWY_INLINE void each_winograd_piece(int64_t rows, int64_t width, int64_t most, F&& f) {
  const int64_t in_row = (width + M - 1) / M, strips = (rows + M - 1) / M, together = winograd_strips<M>(width, most),
                pieces = (in_row + most - 1) / most;
  for (int64_t s = 0; s < strips; s += together)
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t begin = in_row * piece / pieces, count = in_row * (piece + 1) / pieces - begin;
      f(s, std::min(s + together, strips), begin, count, winograd_places(count, winograd_neighbours<M>));
    }
}

// All outputs of `rows` rows in `blocks` vectors of a slab of outputs, as tiles() of grouped-inl.h computes them. Every
// vector has weights of its own, and reads its own group, or groups, of the inputs' slabs. A tile at the end of an
// image or a band that is no multiple of M reads pixels behind it, which meet only outputs that are not stored: exactly
// so with M = 2, up to rounding with M = 4, where they have to be finite. meanwhile(pixels) is called many times, with
// the share of the outputs that is done.
template <class A, int M, bool quads, class Tag, class Meanwhile>
HWY_INLINE void winograd(Tag d, const Tiles<typename A::Cell>& in, int64_t blocks, int64_t rows, int64_t width,
                         Meanwhile&& meanwhile) {
  constexpr int T = winograd_tiles_of<quads, Tag>;
  constexpr int64_t lanes = hn::MaxLanes(d);
  using B = typename A::Products;
  WinogradTiles<B, M, T> tiles;
  const int64_t slab_weights = tiles.positions * in.cells * lanes, channels = A::pairs ? 2 * in.cells : in.cells;
  const auto piece = [&](int64_t s0, int64_t s1, int64_t begin, int64_t count, int64_t places) HWY_ATTR {
    const int64_t first = M * begin * A::pixel;
    // A third of the pixels with each step.
    const int64_t all = (s1 - s0) * places;
    const auto share_of = [&](int64_t calls) { return M * M * all / (3 * std::max<int64_t>(calls, 1)) + 1; };
    const int64_t transforming = share_of(in.slabs * all / winograd_neighbours<M>), storing = share_of(all),
                  multiplying = share_of(in.slabs * blocks * (M + 2) * all / winograd_together);
    for (int64_t slab = 0; slab < in.slabs; ++slab) {
      for (int64_t s = s0; s < s1; ++s)
        winograd_inputs<A, M>(
            in.row(M * s) + slab * in.plane + first, in.pitch, count,
            [&](int p, int64_t t, int u, auto... v)
                HWY_ATTR { B::put(v..., tiles.inputs + tiles.at(p, (s - s0) * places + t, B::pixel), u); },
            [&] HWY_ATTR { meanwhile(transforming); });
      for (int64_t i = 0; i < blocks; ++i)
        winograd_products<B, M, T, quads>(d, in.w + (i * in.slabs + slab) * slab_weights, in.cells,
                                          B::cells(quads ? i * lanes : i * lanes / channels * channels), i * lanes,
                                          slab > 0, all, tiles, [&] HWY_ATTR { meanwhile(multiplying); });
    }
    for (int64_t s = s0; s < s1; ++s)
      for (int64_t t = 0; t < count; ++t) {
        winograd_outputs(tiles, (s - s0) * places + t, rows - M * s, width - M * (begin + t),
                         in.out + M * s * in.out_row + M * (begin + t) * slab_channels, in.out_row);
        meanwhile(storing);
      }
  };
  each_winograd_piece<M>(rows, width, T, piece);
}

// put(position, tile, u, v …) with A dy Aᵀ for `count` tiles side by side, as winograd_inputs does it; the last of an
// odd number is zero.
template <class A, int M, class F>
HWY_INLINE void winograd_gradients(const typename A::Cell* dy, int64_t pitch, int64_t count, F&& put) {
  constexpr int side = M + 2, tiles = winograd_neighbours<M>;
  for (int u = 0; u < slab_channels / lanes(); ++u)
    for (int64_t t = 0; t < count; t += tiles) {
      V c[tiles * M][side];
#pragma GCC unroll 8
      for (int i = 0; i < tiles * M; ++i) {
        const typename A::Cell* column = dy + (t * M + i) * A::pixel;
        V y[M];
#pragma GCC unroll 4
        for (int k = 0; k < M; ++k) y[k] = t + i / M < count ? A::get(column + k * pitch, u) : hn::Zero(D());
        Filtering<M>::gradients(y, c[i]);
      }
#pragma GCC unroll 8
      for (int r = 0; r < side; ++r) {
        put_winograd_row<M, M>(
            c, r, [](const V* y, V* v) HWY_ATTR { Filtering<M>::gradients(y, v); },
            [&](int p, auto... v) HWY_ATTR { put(p, t, u, v...); });
      }
    }
}

// dw[p][o][lanes] += Σ over `steps` tiles (or pairs of them) of gradients[p][from_dy + o] · inputs[p][from_x + lanes];
// P positions and O outputs at a time, of the `outputs` that dw (positions, outputs, lanes) has; between() each time.
template <class A, int M, int P, int O, bool quads, class Tag, class Between>
HWY_NOINLINE void winograd_outer(Tag d, const WinogradTiles<A, M, winograd_tiles>& tiles, int64_t steps, int64_t from_x,
                                 int64_t from_dy, int64_t outputs, float* dw, Between&& between) {
  constexpr int64_t lanes = hn::MaxLanes(d);
  for (int p = 0; p < tiles.positions; p += P)
    for (int64_t o = 0; o < outputs; o += O) {
      between();
      const auto place = [&](int k, int i) { return dw + ((p + k) * outputs + o + i) * lanes; };
      hn::Vec<Tag> sum[P][O];
#pragma GCC unroll 16
      for (int k = 0; k < P; ++k)
#pragma GCC unroll 16
        for (int i = 0; i < O; ++i) sum[k][i] = hn::LoadU(d, place(k, i));
      for (int64_t t = 0; t < steps; ++t) {
#pragma GCC unroll 16
        for (int k = 0; k < P; ++k) {
          const int64_t at = tiles.at(p + k, t, slab_channels);
          const auto values = A::load(d, tiles.inputs + at + from_x);
          const typename A::Cell* dy = tiles.gradients + at + from_dy + o;
          if constexpr (quads) {
            quad_outer<A>(d, sum[k], values, A::load(d, dy));
          } else {
#pragma GCC unroll 16
            for (int i = 0; i < O; ++i) sum[k][i] = A::step(d, sum[k][i], values, dy + i);
          }
        }
      }
#pragma GCC unroll 16
      for (int k = 0; k < P; ++k)
#pragma GCC unroll 16
        for (int i = 0; i < O; ++i) hn::StoreU(sum[k][i], d, place(k, i));
    }
}

// The gradient of the weights between a slab of inputs and one of outputs, from rows of their planes: whole tiles.
// `outputs` of one group, at most 16; dw holds (positions, outputs, lanes) for every vector of inputs, `vector` floats
// from one to the next. meanwhile(pixels) as in winograd().
template <class A, int M, bool quads, class Tag, class Meanwhile>
HWY_INLINE void winograd_weights(Tag d, const Grouped& g, const typename A::Cell* x, const typename A::Cell* dy,
                                 int64_t rows, int64_t blocks, int64_t outputs, float* dw, int64_t vector,
                                 Meanwhile&& meanwhile) {
  constexpr int64_t lanes = hn::MaxLanes(d);
  const int64_t pitch = g.pitch() * A::pixel;
  using B = typename A::Products;
  WinogradTiles<B, M, winograd_tiles> tiles;
  const auto piece = [&](int64_t s0, int64_t s1, int64_t begin, int64_t count, int64_t places) HWY_ATTR {
    for (int64_t s = s0; s < s1; ++s) {
      const int64_t at = g.plane_row(M * s) * pitch + M * begin * A::pixel, first = (s - s0) * places;
      const auto put_to = [&](typename A::Cell* to) {
        return [=](int p, int64_t t, int u, auto... v)
                   HWY_ATTR { B::put_summands(v..., to + tiles.at(p, 0, slab_channels), first + t, u); };
      };
      winograd_inputs<A, M>(x + at, pitch, count, put_to(tiles.inputs), [] {});
      winograd_gradients<A, M>(dy + at, pitch, count, put_to(tiles.gradients));
    }
    const int64_t steps = B::steps((s1 - s0) * places);
    for (int64_t i = 0; i < blocks; ++i) {
      const auto outer = [&](auto positions, auto at_once) HWY_ATTR {
        constexpr int P = decltype(positions)::value, O = decltype(at_once)::value;
        const int64_t calls = blocks * tiles.positions / P * outputs / O;
        const int64_t share = (M * M * count * (s1 - s0) + calls - 1) / calls;
        winograd_outer<B, M, P, O, quads>(d, tiles, steps, i * lanes, quads ? i * lanes : i * lanes / outputs * outputs,
                                          outputs, dw + i * vector, [&] HWY_ATTR { meanwhile(share); });
      };
      // Sums enough to hide their latency, and no more than there are registers.
      constexpr int some = many_registers ? 4 : 2;
      if constexpr (quads)
        outer(Count<some>(), Count<4>());
      else if (outputs % 8 != 0)
        outer(Count<2>(), Count<4>());
      else if (many_registers && outputs % 16 == 0)
        outer(Count<1>(), Count<16>());
      else
        outer(Count<some / 2>(), Count<8>());
    }
  };
  each_winograd_piece<M>(rows, g.width, winograd_summands<B>, piece);
}

}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
