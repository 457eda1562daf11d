// Winograd's minimal filtering F(2×2, 3×3), compiled for every target: four outputs of a 3×3 convolution take 16
// products a pair of channels, not 36.
//
//   Y = Aᵀ [ Σ_c (G w_c Gᵀ) ⊙ (Bᵀ x_c B) ] A        Y 2×2, x 4×4, w 3×3
//
// (Lavin, Gray: Fast Algorithms for Convolutional Neural Networks, 2015, arXiv 1509.09308, section 4.1.) Some tiles at
// a time: their inputs are transformed from the planes, for each of the 16 positions a vector of weights serves all of
// them, and the products are transformed on their way to the block of outputs. Transforms and sums are in f32; with
// pairs of bf16 the transformed values are rounded to it. Errors are some roundings larger than those of the plain sum.
#if defined(MGIC_CPU_WINOGRAD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MGIC_CPU_WINOGRAD_INL_H
#undef MGIC_CPU_WINOGRAD_INL_H
#else
#define MGIC_CPU_WINOGRAD_INL_H
#endif

#include "backends/cpu/grouped-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {

// Tiles at a time, so that transformed inputs, weights and products fit the first cache: 8, or as many bytes of pairs.
constexpr int winograd_tiles = 8;
template <class A>
constexpr int winograd_summands = A::pairs ? 2 * winograd_tiles : winograd_tiles;

template <class A>
struct WinogradTiles {
  using Cell = typename A::Cell;
  HWY_ALIGN Cell inputs[winograd_positions * winograd_tiles * slab_channels];
  // Of the outputs; gradients of weights keep the transformed gradients of the outputs here.
  union {
    HWY_ALIGN float products[winograd_positions * winograd_tiles * slab_channels];
    HWY_ALIGN Cell gradients[winograd_positions * winograd_tiles * slab_channels];
  };

  static int64_t at(int64_t position, int64_t tile, int64_t pixel) {
    return (position * winograd_tiles + tile) * pixel;
  }
};

// Bᵀ d of vector u of a column of four pixels.
template <class A>
HWY_INLINE void winograd_column(const typename A::Cell* x, int64_t pitch, int u, V* t) {
  const V d0 = A::get(x, u), d1 = A::get(x + pitch, u), d2 = A::get(x + 2 * pitch, u), d3 = A::get(x + 3 * pitch, u);
  t[0] = hn::Sub(d0, d2);
  t[1] = hn::Add(d1, d2);
  t[2] = hn::Sub(d2, d1);
  t[3] = hn::Sub(d1, d3);
}

// put(position, tile, u, v, w) for pairs of `count` tiles side by side, from the plane's pixel x on: v is vector u of
// that tile, w of the next; where their number is odd, the last w is of no use, but finite. Neighbours share columns.
template <class A, class F>
HWY_INLINE void winograd_inputs(const typename A::Cell* x, int64_t pitch, int64_t count, F&& put) {
  for (int u = 0; u < slab_channels / lanes(); ++u) {
    const typename A::Cell* column = x;
    V c[6][4];
    winograd_column<A>(column, pitch, u, c[0]);
    winograd_column<A>(column + A::pixel, pitch, u, c[1]);
    for (int64_t t = 0; t < count; t += 2) {
      const bool two = t + 1 < count;
      column += 2 * A::pixel;
      winograd_column<A>(column, pitch, u, c[2]);
      winograd_column<A>(column + A::pixel, pitch, u, c[3]);
      if (two) {
        column += 2 * A::pixel;
        winograd_column<A>(column, pitch, u, c[4]);
        winograd_column<A>(column + A::pixel, pitch, u, c[5]);
      } else {
        std::copy_n(c[2], 4, c[4]);
        std::copy_n(c[3], 4, c[5]);
      }
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        put(4 * r, t, u, hn::Sub(c[0][r], c[2][r]), hn::Sub(c[2][r], c[4][r]));
        put(4 * r + 1, t, u, hn::Add(c[1][r], c[2][r]), hn::Add(c[3][r], c[4][r]));
        put(4 * r + 2, t, u, hn::Sub(c[2][r], c[1][r]), hn::Sub(c[4][r], c[3][r]));
        put(4 * r + 3, t, u, hn::Sub(c[1][r], c[3][r]), hn::Sub(c[3][r], c[5][r]));
        c[0][r] = c[4][r];
        c[1][r] = c[5][r];
      }
    }
  }
}

// products[p][t][to …] (+)= Σ_c w[p][c] inputs[p][t][from + c] for N tiles; w is (positions, cells, lanes).
template <class A, int N, bool quads, class Tag>
HWY_NOINLINE void winograd_products(Tag d, const typename A::Cell* HWY_RESTRICT w, int64_t cells, int64_t from,
                                    int64_t to, bool accumulate, WinogradTiles<A>& tiles) {
  constexpr int64_t lanes = hn::MaxLanes(d);
  for (int p = 0; p < winograd_positions; ++p) {
    const typename A::Cell* HWY_RESTRICT x = tiles.inputs + tiles.at(p, 0, A::pixel) + from;
    float* HWY_RESTRICT products = tiles.products + tiles.at(p, 0, slab_channels) + to;
    hn::Vec<Tag> sum[N];
#pragma GCC unroll 16
    for (int t = 0; t < N; ++t) sum[t] = accumulate ? hn::LoadU(d, products + t * slab_channels) : hn::Zero(d);
    if constexpr (quads) {
      quad_steps<A>(d, w, [&](auto&& step) HWY_ATTR {
#pragma GCC unroll 16
        for (int t = 0; t < N; ++t) step(sum[t], A::quads(x + t * A::pixel));
      });
      w += cells * lanes;
    } else {
#pragma GCC unroll 4
      for (int64_t c = 0; c < cells; ++c, w += lanes) {
        const auto weights = A::load(d, w);
#pragma GCC unroll 16
        for (int t = 0; t < N; ++t) sum[t] = A::step(d, sum[t], weights, x + t * A::pixel + c);
      }
    }
#pragma GCC unroll 16
    for (int t = 0; t < N; ++t) hn::StoreU(sum[t], d, products + t * slab_channels);
  }
}

template <class A, bool quads, class Tag, int... N>
HWY_INLINE void winograd_products_of(Tag d, const typename A::Cell* w, int64_t cells, int64_t from, int64_t to,
                                     bool accumulate, int64_t count, WinogradTiles<A>& tiles,
                                     std::integer_sequence<int, N...>) {
  using Function = void (*)(Tag, const typename A::Cell*, int64_t, int64_t, int64_t, bool, WinogradTiles<A>&);
  static constexpr Function table[] = {&winograd_products<A, N + 1, quads, Tag>...};
  table[count - 1](d, w, cells, from, to, accumulate, tiles);
}

// Aᵀ M A of tile t: all channels of its outputs in `rows` rows and `columns` columns, one or two.
template <class A>
HWY_INLINE void winograd_outputs(const WinogradTiles<A>& tiles, int64_t t, int64_t rows, int64_t columns, float* out,
                                 int64_t out_row) {
  const D d;
  for (int64_t u = 0; u < slab_channels; u += lanes(), out += lanes()) {
    const auto product = [&](int p)
                             HWY_ATTR { return hn::LoadU(d, tiles.products + tiles.at(p, t, slab_channels) + u); };
    V top[4], bottom[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      const V m0 = product(k), m1 = product(4 + k), m2 = product(8 + k), m3 = product(12 + k);
      top[k] = hn::Add(hn::Add(m0, m1), m2);
      bottom[k] = hn::Sub(hn::Sub(m1, m2), m3);
    }
    const auto row = [&](const V* m, float* to) HWY_ATTR {
      hn::StoreU(hn::Add(hn::Add(m[0], m[1]), m[2]), d, to);
      if (columns > 1) hn::StoreU(hn::Sub(hn::Sub(m[1], m[2]), m[3]), d, to + slab_channels);
    };
    row(top, out);
    if (rows > 1) row(bottom, out + out_row);
  }
}

// A row of tiles takes an even number of places.
inline int64_t winograd_places(int64_t tiles) { return tiles + tiles % 2; }

// Rows of tiles that are taken together for images of this width, where there are `most` places.
inline int64_t winograd_strips(int64_t width, int64_t most) {
  return std::max<int64_t>(most / winograd_places((width + 1) / 2), 1);
}

// f(strips [s0, s1), first tile of a row, tiles, places) for pieces of `rows` rows.
template <class F>
HWY_INLINE void each_winograd_piece(int64_t rows, int64_t width, int64_t most, F&& f) {
  const int64_t in_row = (width + 1) / 2, strips = (rows + 1) / 2, together = winograd_strips(width, most),
                pieces = (in_row + most - 1) / most;
  for (int64_t s = 0; s < strips; s += together)
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t begin = in_row * piece / pieces, count = in_row * (piece + 1) / pieces - begin;
      f(s, std::min(s + together, strips), begin, count, winograd_places(count));
    }
}

// All outputs of `rows` rows in `blocks` vectors of a slab of outputs, as tiles() of grouped-inl.h computes them. Every
// vector has weights of its own, and reads its own group, or groups, of the inputs' slabs. A tile at the end of an odd
// image reads pixels behind the plane; they meet only outputs that are not stored.
template <class A, bool quads, class Tag>
HWY_INLINE void winograd(Tag d, const Tiles<typename A::Cell>& in, int64_t blocks, int64_t rows, int64_t width) {
  constexpr int64_t lanes = hn::MaxLanes(d);
  const int64_t slab_weights = winograd_positions * in.cells * lanes, channels = A::pairs ? 2 * in.cells : in.cells;
  WinogradTiles<A> tiles;
  const auto piece = [&](int64_t s0, int64_t s1, int64_t begin, int64_t count, int64_t places) HWY_ATTR {
    const typename A::Cell* x = in.x + 2 * begin * A::pixel;
    for (int64_t slab = 0; slab < in.slabs; ++slab, x += in.plane) {
      for (int64_t s = s0; s < s1; ++s)
        winograd_inputs<A>(x + 2 * s * in.pitch, in.pitch, count, [&](int p, int64_t t, int u, V v, V w) HWY_ATTR {
          A::put_two(v, w, tiles.inputs + tiles.at(p, (s - s0) * places + t, A::pixel), u);
        });
      for (int64_t i = 0; i < blocks; ++i)
        winograd_products_of<A, quads>(d, in.w + (i * in.slabs + slab) * slab_weights, in.cells,
                                       A::cells(quads ? i * lanes : i * lanes / channels * channels), i * lanes,
                                       slab > 0, (s1 - s0) * places, tiles,
                                       std::make_integer_sequence<int, winograd_tiles>());
    }
    for (int64_t s = s0; s < s1; ++s)
      for (int64_t t = 0; t < count; ++t)
        winograd_outputs(tiles, (s - s0) * places + t, std::min<int64_t>(rows - 2 * s, 2),
                         std::min<int64_t>(width - 2 * (begin + t), 2),
                         in.out + 2 * s * in.out_row + 2 * (begin + t) * slab_channels, in.out_row);
  };
  each_winograd_piece(rows, width, winograd_tiles, piece);
}

// put(position, tile, u, v, w) with A dy Aᵀ for pairs of `count` tiles side by side, two pixels each way; where their
// number is odd, the last w is zero.
template <class A, class F>
HWY_INLINE void winograd_gradients(const typename A::Cell* dy, int64_t pitch, int64_t count, F&& put) {
  for (int u = 0; u < slab_channels / lanes(); ++u)
    for (int64_t t = 0; t < count; t += 2) {
      V left[2][4], right[2][4];
      const auto transform = [&](int i, V d00, V d01, V d10, V d11) HWY_ATTR {
        left[i][0] = d00, left[i][1] = hn::Add(d00, d10), left[i][2] = hn::Sub(d00, d10), left[i][3] = hn::Neg(d10);
        right[i][0] = d01, right[i][1] = hn::Add(d01, d11), right[i][2] = hn::Sub(d01, d11), right[i][3] = hn::Neg(d11);
      };
      const typename A::Cell *at = dy + 2 * t * A::pixel, *next = at + 2 * A::pixel;
      transform(0, A::get(at, u), A::get(at + A::pixel, u), A::get(at + pitch, u), A::get(at + pitch + A::pixel, u));
      if (t + 1 < count) {
        transform(1, A::get(next, u), A::get(next + A::pixel, u), A::get(next + pitch, u),
                  A::get(next + pitch + A::pixel, u));
      } else {
        const V zero = hn::Zero(D());
        transform(1, zero, zero, zero, zero);
      }
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        put(4 * r, t, u, left[0][r], left[1][r]);
        put(4 * r + 1, t, u, hn::Add(left[0][r], right[0][r]), hn::Add(left[1][r], right[1][r]));
        put(4 * r + 2, t, u, hn::Sub(left[0][r], right[0][r]), hn::Sub(left[1][r], right[1][r]));
        put(4 * r + 3, t, u, hn::Neg(right[0][r]), hn::Neg(right[1][r]));
      }
    }
}

// dw[p][o][lanes] += Σ over `steps` tiles (or pairs of them) of gradients[p][from_dy + o] · inputs[p][from_x + lanes];
// P positions and T outputs at a time, of the `outputs` that dw (positions, outputs, lanes) has.
template <class A, int P, int T, bool quads, class Tag>
HWY_NOINLINE void winograd_outer(Tag d, const WinogradTiles<A>& tiles, int64_t steps, int64_t from_x, int64_t from_dy,
                                 int64_t outputs, float* dw) {
  constexpr int64_t lanes = hn::MaxLanes(d);
  for (int p = 0; p < winograd_positions; p += P)
    for (int64_t o = 0; o < outputs; o += T) {
      const auto place = [&](int k, int i) { return dw + ((p + k) * outputs + o + i) * lanes; };
      hn::Vec<Tag> sum[P][T];
#pragma GCC unroll 16
      for (int k = 0; k < P; ++k)
#pragma GCC unroll 16
        for (int i = 0; i < T; ++i) sum[k][i] = hn::LoadU(d, place(k, i));
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
            for (int i = 0; i < T; ++i) sum[k][i] = A::step(d, sum[k][i], values, dy + i);
          }
        }
      }
#pragma GCC unroll 16
      for (int k = 0; k < P; ++k)
#pragma GCC unroll 16
        for (int i = 0; i < T; ++i) hn::StoreU(sum[k][i], d, place(k, i));
    }
}

// The gradient of the weights between a slab of inputs and one of outputs, from rows of their planes: an even number of
// an even width. `outputs` of one group, at most 16; dw holds (positions, outputs, lanes) for every vector of inputs,
// `vector` floats from one to the next.
template <class A, bool quads, class Tag>
HWY_INLINE void winograd_weights(Tag d, const typename A::Cell* x, const typename A::Cell* dy, int64_t pitch,
                                 int64_t rows, int64_t width, int64_t blocks, int64_t outputs, float* dw,
                                 int64_t vector) {
  constexpr int64_t lanes = hn::MaxLanes(d);
  WinogradTiles<A> tiles;
  const auto piece = [&](int64_t s0, int64_t s1, int64_t begin, int64_t count, int64_t places) HWY_ATTR {
    for (int64_t s = s0; s < s1; ++s) {
      const int64_t at = 2 * s * pitch + 2 * begin * A::pixel, first = (s - s0) * places;
      const auto put_to = [&](typename A::Cell* to) {
        return [=](int p, int64_t t, int u, V v, V w)
                   HWY_ATTR { A::put_summands(v, w, to + WinogradTiles<A>::at(p, 0, slab_channels), first + t, u); };
      };
      winograd_inputs<A>(x + at, pitch, count, put_to(tiles.inputs));
      winograd_gradients<A>(dy + at, pitch, count, put_to(tiles.gradients));
    }
    const int64_t steps = A::steps((s1 - s0) * places);
    for (int64_t i = 0; i < blocks; ++i) {
      const auto outer = [&](auto positions, auto at_once) HWY_ATTR {
        winograd_outer<A, decltype(positions)::value, decltype(at_once)::value, quads>(
            d, tiles, steps, i * lanes, quads ? i * lanes : i * lanes / outputs * outputs, outputs, dw + i * vector);
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
  each_winograd_piece(rows, width, winograd_summands<A>, piece);
}

}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
