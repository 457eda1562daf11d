// Winograd's minimal filtering F(M×M, 3×3), compiled for every target: M × M outputs of a 3×3 convolution take (M + 2)²
// products a pair of channels, not 9 M².
//
//   Y = Aᵀ [ Σ_c (G w_c Gᵀ) ⊙ (Bᵀ x_c B) ] A        Y M×M, x (M + 2)×(M + 2), w 3×3
//
// (Lavin, Gray: Fast Algorithms for Convolutional Neural Networks, 2015, arXiv 1509.09308, section 4.) Some tiles at a
// time, and of their positions two rows at a time, whose transforms share most of their arithmetic: inputs are
// transformed from the planes, for each of the positions a vector of weights serves all tiles, and the products are
// transformed on their way out. Transforms and sums are in f32; with pairs of bf16 the transformed values are rounded
// to it. Errors are some roundings larger than those of the plain sum with M = 2, and three times that with M = 4
// (bench/winograd_error.py), which is therefore for f32 alone.
#if defined(MGIC_CPU_WINOGRAD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MGIC_CPU_WINOGRAD_INL_H
#undef MGIC_CPU_WINOGRAD_INL_H
#else
#define MGIC_CPU_WINOGRAD_INL_H
#endif

#include "backends/cpu/grouped-inl.h"
#include "backends/cpu/winograd_points.h"

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {

// The transforms along one dimension, with the points 0, ±1, ∞, or for M = 4 those of winograd_points.h: t = Bᵀ d of
// M + 2 inputs, y = Aᵀ m of as many products, and t = A y of the gradients of M outputs. Results come in pairs, of the
// points 0 and ∞, and of a point and its negative, which share most of their arithmetic; d(k) and y(k) are asked for
// where a pair depends on them.
template <int M>
struct Filtering;
template <>
struct Filtering<2> {
  static constexpr int pairs = 2;
  static constexpr int places[pairs][2] = {{0, 3}, {1, 2}};
  template <int pair, class F>
  static HWY_INLINE void inputs(F&& d, V& t0, V& t1) {
    if constexpr (pair == 0) {
      t0 = hn::Sub(d(0), d(2));
      t1 = hn::Sub(d(1), d(3));
    } else {
      t0 = hn::Add(d(1), d(2));
      t1 = hn::Sub(d(2), d(1));
    }
  }
  // Of sums and differences of pairs, as `halves` gives them.
  template <class Vec>
  static HWY_INLINE void outputs(const Vec* m, Vec* y) {
    y[0] = hn::Add(m[0], m[2]);
    y[1] = hn::Sub(m[3], m[1]);
  }
  template <int pair, class F>
  static HWY_INLINE void gradients(F&& y, V& t0, V& t1) {
    t0 = pair == 0 ? y(0) : hn::Add(y(0), y(1));
    t1 = pair == 0 ? hn::Neg(y(1)) : hn::Sub(y(0), y(1));
  }
};
template <>
struct Filtering<4> {
  static constexpr int pairs = 3;
  static constexpr int places[pairs][2] = {{0, 5}, {1, 2}, {3, 4}};
  // The point of a pair that is not 0, and the other such.
  template <int pair>
  static constexpr float point = pair == 1 ? winograd::near : winograd::far;
  template <int pair>
  static constexpr float other = pair == 1 ? winograd::far : winograd::near;
  template <int pair, class F>
  static HWY_INLINE void inputs(F&& d, V& t0, V& t1) {
    const D f;
    if constexpr (pair == 0) {
      const V squares = hn::Set(f, winograd::near * winograd::near + winograd::far * winograd::far);
      t0 = hn::NegMulAdd(squares, d(2), hn::Add(d(0), d(4)));
      t1 = hn::NegMulAdd(squares, d(3), hn::Add(d(1), d(5)));
    } else {
      const V square = hn::Set(f, other<pair> * other<pair>), own = hn::Set(f, point<pair>);
      const V even = hn::NegMulAdd(square, d(2), d(4)), odd = hn::NegMulAdd(square, d(1), d(3));
      t0 = hn::MulAdd(own, odd, even);
      t1 = hn::NegMulAdd(own, odd, even);
    }
  }
  template <class Vec>
  static HWY_INLINE void outputs(const Vec* m, Vec* y) {
    const hn::DFromV<Vec> d;
    const Vec near = hn::Set(d, winograd::near), far = hn::Set(d, winograd::far);
    y[0] = hn::MulAdd(far, m[2], hn::MulAdd(near, m[4], m[0]));
    y[1] = hn::Add(m[3], m[5]);
    y[2] = hn::MulAdd(near, m[2], hn::Mul(far, m[4]));
    y[3] = hn::MulAdd(hn::Mul(near, near), m[3], hn::MulAdd(hn::Mul(far, far), m[5], m[1]));
  }
  template <int pair, class F>
  static HWY_INLINE void gradients(F&& y, V& t0, V& t1) {
    const D f;
    if constexpr (pair == 0) {
      t0 = y(0);
      t1 = y(3);
    } else {
      const V own = hn::Set(f, point<pair>), inverse = hn::Set(f, other<pair>);
      const V even = hn::MulAdd(inverse, y(0), hn::Mul(own, y(2))), odd = hn::MulAdd(hn::Mul(own, own), y(3), y(1));
      t0 = hn::Add(even, odd);
      t1 = hn::Sub(even, odd);
    }
  }
};

// f(pair) for all pairs of points.
template <int M, class F>
HWY_INLINE void each_pair(F&& f) {
  f(Count<0>());
  f(Count<1>());
  if constexpr (Filtering<M>::pairs > 2) f(Count<2>());
}

// All of Bᵀ d, or of A y.
template <int M>
HWY_INLINE void all_inputs(const V* d, V* t) {
  each_pair<M>([&](auto pair) HWY_ATTR {
    constexpr auto at = Filtering<M>::places[pair.value];
    Filtering<M>::template inputs<pair.value>([&](int k) HWY_ATTR { return d[k]; }, t[at[0]], t[at[1]]);
  });
}
template <int M>
HWY_INLINE void all_gradients(const V* y, V* t) {
  each_pair<M>([&](auto pair) HWY_ATTR {
    constexpr auto at = Filtering<M>::places[pair.value];
    Filtering<M>::template gradients<pair.value>([&](int k) HWY_ATTR { return y[k]; }, t[at[0]], t[at[1]]);
  });
}
// What Aᵀ m wants of a pair of products, and all of it.
template <int pair, class Vec>
HWY_INLINE void halves(Vec m0, Vec m1, Vec* h) {
  h[0] = pair == 0 ? m0 : hn::Add(m0, m1);
  h[1] = pair == 0 ? m1 : hn::Sub(m0, m1);
}
template <int M, class Vec>
HWY_INLINE void all_outputs(const Vec* m, Vec* y) {
  Vec h[M + 2];
  each_pair<M>([&](auto pair) HWY_ATTR {
    constexpr auto at = Filtering<M>::places[pair.value];
    halves<pair.value>(m[at[0]], m[at[1]], h + 2 * pair.value);
  });
  Filtering<M>::outputs(h, y);
}

// Tiles at a time, so that transformed inputs, weights and products stay near: 8, or as many bytes of pairs.
constexpr int winograd_tiles = 8;
template <class A>
constexpr int winograd_summands = A::pairs ? 2 * winograd_tiles : winograd_tiles;

// Tiles side by side that are transformed at once: as many as share a cell of pairs, while registers hold them.
template <int M>
constexpr int winograd_neighbours = M == 2 ? 2 : 1;

// Two rows of positions at a time, those of a pair of points, so that the first cache holds what they need.
template <class A, int M, int T>
struct WinogradTiles {
  using Cell = typename A::Cell;
  static constexpr int side = M + 2, positions = 2 * side, rows_kept = side - 2;
  HWY_ALIGN Cell inputs[positions * T * slab_channels];
  union {
    HWY_ALIGN float products[positions * T * slab_channels];
    // Of the outputs, for gradients of weights.
    HWY_ALIGN Cell gradients[positions * T * slab_channels];
  };
  // (tiles, rows, columns of outputs): of all pairs but the last.
  HWY_ALIGN float kept[T * rows_kept * M * slab_channels];

  static int64_t at(int64_t position, int64_t tile, int64_t pixel) { return (position * T + tile) * pixel; }
  float* kept_at(int64_t tile, int row, int column) {
    return kept + ((tile * rows_kept + row) * M + column) * slab_channels;
  }
};

// put(position, v …) for row r of the tiles that are transformed at once: their columns c are transformed already, and
// of each tile n of them, M from one tile to the next, go through `transform`.
template <int M, int n, class Transform, class F>
HWY_INLINE void put_winograd_row(const V (*c)[2], int r, Transform&& transform, F&& put) {
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

// put(position, tile, u, v …) with two rows of Bᵀ x B for `count` tiles side by side, from the plane's pixel x on: the
// v are vector u of that tile and, where two are transformed at once, of the next; where their number is odd, the last
// one is of no use, but finite. Neighbours share columns.
template <class A, int M, int pair, class F>
HWY_INLINE void winograd_inputs(const typename A::Cell* x, int64_t pitch, int64_t count, F&& put) {
  constexpr int tiles = winograd_neighbours<M>, columns = tiles * M + 2;
  for (int u = 0; u < slab_channels / lanes(); ++u) {
    V c[columns][2];
    const auto column = [&](int64_t at, V* t) HWY_ATTR {
      const auto d = [&](int k) HWY_ATTR { return A::get(x + at * A::pixel + k * pitch, u); };
      Filtering<M>::template inputs<pair>(d, t[0], t[1]);
    };
    column(0, c[0]);
    column(1, c[1]);
    for (int64_t t = 0; t < count; t += tiles) {
      const int64_t missing = std::max<int64_t>(t + tiles - count, 0) * M;
#pragma GCC unroll 16
      for (int i = 2; i < columns; ++i) column(t * M + i - (i < M + 2 ? 0 : missing), c[i]);
#pragma GCC unroll 2
      for (int r = 0; r < 2; ++r) {
        put_winograd_row<M, M + 2>(
            c, r, [](const V* d, V* v) HWY_ATTR { all_inputs<M>(d, v); },
            [&](int p, auto... v) HWY_ATTR { put(p, t, u, v...); });
        c[0][r] = c[columns - 2][r];
        c[1][r] = c[columns - 1][r];
      }
    }
  }
}

// Those rows, for `count` tiles that lie in `to` from the first one on.
template <class A, int M, int T, int pair>
HWY_NOINLINE void put_winograd_inputs(const typename A::Cell* x, int64_t pitch, int64_t count,
                                      typename A::Cell* HWY_RESTRICT to) {
  using B = typename A::Products;
  winograd_inputs<A, M, pair>(x, pitch, count, [to](int p, int64_t t, int u, auto... v) HWY_ATTR {
    B::put(v..., to + WinogradTiles<B, M, T>::at(p, t, B::pixel), u);
  });
}

// Σ_c w[c] x[t][c] of N tiles at one position; x begins at the first tile, w is (cells, lanes).
template <class A, int N, class Tag, class Cells>
HWY_INLINE void winograd_sums(Tag d, const typename A::Cell* HWY_RESTRICT w, Cells cells,
                              const typename A::Cell* HWY_RESTRICT x, bool accumulate, float* HWY_RESTRICT out) {
  hn::Vec<Tag> sum[N];
#pragma GCC unroll 16
  for (int t = 0; t < N; ++t) sum[t] = accumulate ? hn::LoadU(d, out + t * slab_channels) : hn::Zero(d);
#pragma GCC unroll 16
  for (int64_t c = 0; c < cells; ++c) {
    const auto weights = A::load(d, w + c * static_cast<int64_t>(hn::MaxLanes(d)));
#pragma GCC unroll 16
    for (int t = 0; t < N; ++t) sum[t] = A::step(d, sum[t], weights, x + t * A::pixel + c);
  }
#pragma GCC unroll 16
  for (int t = 0; t < N; ++t) hn::StoreU(sum[t], d, out + t * slab_channels);
}

// The products of `count` tiles in one row of positions: Σ_c w[p][c] x[p][t][c]; w is (positions, cells, lanes). A
// position's weights serve all tiles.
template <class A, int M, int T, class Tag, class Cells>
HWY_INLINE void winograd_row(Tag d, const typename A::Cell* w, Cells cells, const typename A::Cell* x, bool accumulate,
                             int64_t count, float* out) {
  for (int p = 0; p < M + 2; ++p) {
    const auto* own = w + p * cells * static_cast<int64_t>(hn::MaxLanes(d));
    const int64_t end = p * T + count;
    int64_t t = p * T;
    for (; t + 8 <= end; t += 8)
      winograd_sums<A, 8>(d, own, cells, x + t * A::pixel, accumulate, out + t * slab_channels);
    for (; t + 4 <= end; t += 4)
      winograd_sums<A, 4>(d, own, cells, x + t * A::pixel, accumulate, out + t * slab_channels);
    for (; t < end; ++t) winograd_sums<A, 1>(d, own, cells, x + t * A::pixel, accumulate, out + t * slab_channels);
  }
}
template <class A, int M, int T, class Tag>
HWY_NOINLINE void winograd_products(Tag d, const typename A::Cell* w, int64_t cells, const typename A::Cell* x,
                                    bool accumulate, int64_t count, float* out) {
  // The number that most have is known when this is compiled.
  constexpr int64_t most = slab_channels / (A::pairs ? 2 : 1);
  if (cells == most)
    winograd_row<A, M, T>(d, w, std::integral_constant<int64_t, most>(), x, accumulate, count, out);
  else
    winograd_row<A, M, T>(d, w, cells, x, accumulate, count, out);
}

// Two rows of products of a tile, transformed along them: vector `u` of the channels, for every column of outputs the
// sum and difference of both.
template <class A, int M, int T, int pair>
HWY_INLINE void winograd_halves(const WinogradTiles<A, M, T>& tiles, int64_t t, int u, V (*h)[2]) {
  constexpr int side = M + 2;
  V y[2][M];
#pragma GCC unroll 2
  for (int r = 0; r < 2; ++r) {
    V m[side];
#pragma GCC unroll 8
    for (int k = 0; k < side; ++k)
      m[k] = hn::LoadU(D(), tiles.products + tiles.at(r * side + k, t, slab_channels) + u * lanes());
    all_outputs<M>(m, y[r]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < M; ++j) halves<pair>(y[0][j], y[1][j], h[j]);
}

// Those of all but the last pair are kept until that one is there.
template <class A, int M, int T, int pair>
HWY_NOINLINE void keep_winograd_halves(WinogradTiles<A, M, T>& tiles, int64_t count) {
  for (int64_t t = 0; t < count; ++t)
    for (int u = 0; u < slab_channels / lanes(); ++u) {
      V h[M][2];
      winograd_halves<A, M, T, pair>(tiles, t, u, h);
#pragma GCC unroll 4
      for (int j = 0; j < M; ++j)
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) hn::StoreU(h[j][i], D(), tiles.kept_at(t, 2 * pair + i, j) + u * lanes());
    }
}

// The outputs of `count` tiles side by side, from `first` on, as many as lie in `rows` rows and `columns` columns, go
// to outputs.put({row, column, below}, u, v) (outputs-inl.h), which begins at (y, x).
template <class A, int M, int T, class Outputs>
HWY_NOINLINE HWY_FLATTEN void put_winograd_outputs(WinogradTiles<A, M, T>& tiles, int64_t first, int64_t count,
                                                   int64_t rows, int64_t columns, int64_t y, int64_t x,
                                                   Outputs& outputs) {
  constexpr int last = Filtering<M>::pairs - 1;
  for (int64_t t = 0; t < count; ++t, x += M, columns -= M)
    for (int u = 0; u < slab_channels / lanes(); ++u) {
      V h[M][2];
      winograd_halves<A, M, T, last>(tiles, first + t, u, h);
#pragma GCC unroll 4
      for (int j = 0; j < M; ++j) {
        if (j >= columns) break;
        V m[M + 2], v[M];
#pragma GCC unroll 4
        for (int i = 0; i < 2 * last; ++i) m[i] = hn::LoadU(D(), tiles.kept_at(first + t, i, j) + u * lanes());
        m[2 * last] = h[j][0];
        m[2 * last + 1] = h[j][1];
        Filtering<M>::outputs(m, v);
        if (rows >= M) {
          outputs.put({y, x + j, true}, u, v);
        } else {
          for (int i = 0; i < rows; ++i) {
            V one[1] = {v[i]};
            outputs.put({y + i, x + j, true}, u, one);
          }
        }
      }
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

// All outputs of `rows` rows, from row y of the image on, in `blocks` vectors of a slab. Every vector has weights of
// its own, and reads its own group, or groups, of the inputs' slabs. A tile at the end of an image or a band that is no
// multiple of M reads pixels behind it, which meet only outputs that are not put: exactly so with M = 2, up to rounding
// with M = 4, where they have to be finite. meanwhile(pixels) is called many times, with the share of the outputs that
// is done.
template <class A, int M, class Tag, class Meanwhile, class Outputs>
HWY_INLINE void winograd(Tag d, const Tiles<typename A::Cell>& in, int64_t blocks, int64_t y, int64_t rows,
                         int64_t width, Meanwhile&& meanwhile, Outputs& outputs) {
  constexpr int T = winograd_tiles, pairs = Filtering<M>::pairs, side = M + 2;
  constexpr int64_t lanes = hn::MaxLanes(d);
  using B = typename A::Products;
  WinogradTiles<B, M, T> tiles;
  const int64_t row_weights = side * in.cells * lanes, channels = A::pairs ? 2 * in.cells : in.cells;
  const auto piece = [&](int64_t s0, int64_t s1, int64_t begin, int64_t count, int64_t places) HWY_ATTR {
    const int64_t first = M * begin * A::pixel, all = (s1 - s0) * places;
    // A third of the pixels with each step.
    const auto share_of = [&](int64_t calls) { return M * M * all / (3 * pairs * calls) + 1; };
    const int64_t transforming = share_of(in.slabs * (s1 - s0)), multiplying = share_of(in.slabs * blocks * 2),
                  storing = share_of(s1 - s0);
    each_pair<M>([&](auto of_points) HWY_ATTR {
      constexpr int pair = decltype(of_points)::value;
      for (int64_t slab = 0; slab < in.slabs; ++slab) {
        for (int64_t s = s0; s < s1; ++s) {
          put_winograd_inputs<A, M, T, pair>(in.row(M * s) + slab * in.plane + first, in.pitch, count,
                                             tiles.inputs + tiles.at(0, (s - s0) * places, B::pixel));
          meanwhile(transforming);
        }
        for (int64_t i = 0; i < blocks; ++i)
          for (int r = 0; r < 2; ++r) {
            winograd_products<B, M, T>(
                d, in.w + ((i * in.slabs + slab) * side + Filtering<M>::places[pair][r]) * row_weights, in.cells,
                tiles.inputs + tiles.at(r * side, 0, B::pixel) + B::cells(i * lanes / channels * channels), slab > 0,
                all, tiles.products + tiles.at(r * side, 0, slab_channels) + i * lanes);
            meanwhile(multiplying);
          }
      }
      if constexpr (pair + 1 < pairs) {
        keep_winograd_halves<B, M, T, pair>(tiles, all);
        meanwhile(storing * (s1 - s0));
      } else {
        for (int64_t s = s0; s < s1; ++s) {
          put_winograd_outputs(tiles, (s - s0) * places, count, rows - M * s, width - M * begin, y + M * s, M * begin,
                               outputs);
          meanwhile(storing);
        }
      }
    });
  };
  each_winograd_piece<M>(rows, width, T, piece);
}

// put(position, tile, u, v …) with two rows of A dy Aᵀ for `count` tiles side by side, as winograd_inputs does it; the
// last of an odd number is zero.
template <class A, int M, int pair, class F>
HWY_INLINE void winograd_gradients(const typename A::Cell* dy, int64_t pitch, int64_t count, F&& put) {
  constexpr int tiles = winograd_neighbours<M>;
  for (int u = 0; u < slab_channels / lanes(); ++u)
    for (int64_t t = 0; t < count; t += tiles) {
      V c[tiles * M][2];
#pragma GCC unroll 8
      for (int i = 0; i < tiles * M; ++i) {
        const typename A::Cell* column = dy + (t * M + i) * A::pixel;
        const auto y = [&](int k)
                           HWY_ATTR { return t + i / M < count ? A::get(column + k * pitch, u) : hn::Zero(D()); };
        Filtering<M>::template gradients<pair>(y, c[i][0], c[i][1]);
      }
#pragma GCC unroll 2
      for (int r = 0; r < 2; ++r) {
        put_winograd_row<M, M>(
            c, r, [](const V* y, V* v) HWY_ATTR { all_gradients<M>(y, v); },
            [&](int p, auto... v) HWY_ATTR { put(p, t, u, v...); });
      }
    }
}

// dw[p][o][lanes] += Σ over `steps` tiles (or pairs of them) of dy[p][t][o] · x[p][t][lanes] for a row of positions;
// P positions and O outputs at a time, of the `outputs` that dw (positions, outputs, lanes) has; between() each time.
template <class A, int M, int T, int P, int O, class Tag, class Between>
HWY_NOINLINE void winograd_outer(Tag d, const typename A::Cell* HWY_RESTRICT x, const typename A::Cell* HWY_RESTRICT dy,
                                 int64_t steps, int64_t outputs, float* HWY_RESTRICT dw, Between&& between) {
  constexpr int64_t lanes = hn::MaxLanes(d);
  for (int p = 0; p < M + 2; p += P)
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
          const int64_t at = ((p + k) * T + t) * slab_channels;
          const auto values = A::load(d, x + at);
#pragma GCC unroll 16
          for (int i = 0; i < O; ++i) sum[k][i] = A::step(d, sum[k][i], values, dy + at + o + i);
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
template <class A, int M, class Tag, class Meanwhile>
HWY_INLINE void winograd_weights(Tag d, const Grouped& g, const typename A::Cell* x, const typename A::Cell* dy,
                                 int64_t rows, int64_t blocks, int64_t outputs, float* dw, int64_t vector,
                                 Meanwhile&& meanwhile) {
  constexpr int64_t lanes = hn::MaxLanes(d);
  constexpr int side = M + 2, pairs = Filtering<M>::pairs;
  const int64_t pitch = g.pitch() * A::pixel;
  using B = typename A::Products;
  constexpr int T = winograd_tiles;
  WinogradTiles<B, M, T> tiles;
  const auto piece = [&](int64_t s0, int64_t s1, int64_t begin, int64_t count, int64_t places) HWY_ATTR {
    const int64_t steps = B::steps((s1 - s0) * places);
    each_pair<M>([&](auto p) HWY_ATTR {
      constexpr int pair = decltype(p)::value;
      for (int64_t s = s0; s < s1; ++s) {
        const int64_t at = g.plane_row(M * s) * pitch + M * begin * A::pixel, first = (s - s0) * places;
        const auto put_to = [first](typename A::Cell* to) {
          return [=](int p, int64_t t, int u, auto... v)
                     HWY_ATTR { B::put_summands(v..., to + p * T * slab_channels, first + t, u); };
        };
        winograd_inputs<A, M, pair>(x + at, pitch, count, put_to(tiles.inputs));
        winograd_gradients<A, M, pair>(dy + at, pitch, count, put_to(tiles.gradients));
      }
      for (int64_t i = 0; i < blocks; ++i)
        for (int r = 0; r < 2; ++r) {
          const int64_t row = tiles.at(r * side, 0, slab_channels);
          const auto outer = [&](auto positions, auto at_once) HWY_ATTR {
            constexpr int P = decltype(positions)::value, O = decltype(at_once)::value;
            const int64_t calls = 2 * pairs * blocks * side / P * outputs / O;
            const int64_t share = (M * M * count * (s1 - s0) + calls - 1) / calls;
            winograd_outer<B, M, T, P, O>(d, tiles.inputs + row + i * lanes,
                                          tiles.gradients + row + i * lanes / outputs * outputs, steps, outputs,
                                          dw + i * vector + Filtering<M>::places[pair][r] * side * outputs * lanes,
                                          [&] HWY_ATTR { meanwhile(share); });
          };
          // Sums enough to hide their latency, and no more than there are registers.
          constexpr int some = many_registers ? 2 : 1;
          if (outputs % 8 != 0)
            outer(Count<2>(), Count<4>());
          else if (many_registers && outputs % 16 == 0)
            outer(Count<1>(), Count<16>());
          else
            outer(Count<some>(), Count<8>());
        }
    });
  };
  each_winograd_piece<M>(rows, g.width, winograd_summands<B>, piece);
}

}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
