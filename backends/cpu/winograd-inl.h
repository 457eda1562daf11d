// Winograd's minimal filtering F(2×2, 3×3), compiled for every target: four outputs of a 3×3 convolution take 16
// products a pair of channels, not 36.
//
//   Y = Aᵀ [ Σ_c (G w_c Gᵀ) ⊙ (Bᵀ x_c B) ] A        Y 2×2, x 4×4, w 3×3
//
// (Lavin, Gray: Fast Algorithms for Convolutional Neural Networks, 2015, arXiv 1509.09308, section 4.1.) Some tiles at
// a time: their inputs are transformed from the planes, for each of the 16 positions a vector of weights serves all of
// them, and the products are transformed on their way to the block of outputs. In f32, errors are some roundings larger
// than those of the plain sum.
#if defined(MGIC_CPU_WINOGRAD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MGIC_CPU_WINOGRAD_INL_H
#undef MGIC_CPU_WINOGRAD_INL_H
#else
#define MGIC_CPU_WINOGRAD_INL_H
#endif

#include "backends/cpu/grouped-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {

constexpr int winograd_tiles = 8;  // at a time: transformed inputs, weights and products fit the first cache

struct WinogradTiles {
  using Map = float[winograd_positions][winograd_tiles][slab_channels];
  HWY_ALIGN Map inputs;
  HWY_ALIGN Map products;  // or, for gradients of weights, the transformed gradients of the outputs
};

// Bᵀ d of a column of four pixels.
HWY_INLINE void winograd_column(const float* x, int64_t pitch, V* t) {
  const V d0 = hn::LoadU(D(), x), d1 = hn::LoadU(D(), x + pitch), d2 = hn::LoadU(D(), x + 2 * pitch),
          d3 = hn::LoadU(D(), x + 3 * pitch);
  t[0] = hn::Sub(d0, d2);
  t[1] = hn::Add(d1, d2);
  t[2] = hn::Sub(d2, d1);
  t[3] = hn::Sub(d1, d3);
}

// `count` tiles side by side, from the plane's pixel x on, become the tiles from `first` on. Neighbours share columns.
HWY_INLINE void winograd_inputs(const float* x, int64_t pitch, int64_t first, int64_t count, WinogradTiles& tiles) {
  for (int64_t u = 0; u < slab_channels; u += lanes()) {
    const float* column = x + u;
    V c0[4], c1[4], c2[4], c3[4];
    winograd_column(column, pitch, c0);
    winograd_column(column + slab_channels, pitch, c1);
    for (int64_t t = first; t < first + count; ++t) {
      column += 2 * slab_channels;
      winograd_column(column, pitch, c2);
      winograd_column(column + slab_channels, pitch, c3);
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        hn::StoreU(hn::Sub(c0[r], c2[r]), D(), tiles.inputs[4 * r][t] + u);
        hn::StoreU(hn::Add(c1[r], c2[r]), D(), tiles.inputs[4 * r + 1][t] + u);
        hn::StoreU(hn::Sub(c2[r], c1[r]), D(), tiles.inputs[4 * r + 2][t] + u);
        hn::StoreU(hn::Sub(c1[r], c3[r]), D(), tiles.inputs[4 * r + 3][t] + u);
        c0[r] = c2[r];
        c1[r] = c3[r];
      }
    }
  }
}

// products[p][t] (+)= Σ_c w[p][c] inputs[p][t][c] for N tiles; w is (positions, 16, lanes).
template <int N, class Tag>
HWY_NOINLINE void winograd_products(Tag d, const float* HWY_RESTRICT w, bool accumulate, WinogradTiles& tiles) {
  for (int p = 0; p < winograd_positions; ++p) {
    hn::Vec<Tag> sum[N];
#pragma GCC unroll 16
    for (int t = 0; t < N; ++t) sum[t] = accumulate ? hn::LoadU(d, tiles.products[p][t]) : hn::Zero(d);
#pragma GCC unroll 4
    for (int c = 0; c < slab_channels; ++c, w += hn::MaxLanes(d)) {
      const auto weights = hn::LoadU(d, w);
#pragma GCC unroll 16
      for (int t = 0; t < N; ++t) sum[t] = hn::MulAdd(weights, hn::Set(d, tiles.inputs[p][t][c]), sum[t]);
    }
#pragma GCC unroll 16
    for (int t = 0; t < N; ++t) hn::StoreU(sum[t], d, tiles.products[p][t]);
  }
}

template <class Tag, int... N>
HWY_INLINE void winograd_products_of(Tag d, const float* w, bool accumulate, int64_t count, WinogradTiles& tiles,
                                     std::integer_sequence<int, N...>) {
  using Function = void (*)(Tag, const float*, bool, WinogradTiles&);
  static constexpr Function table[] = {&winograd_products<N + 1, Tag>...};
  table[count - 1](d, w, accumulate, tiles);
}

// Aᵀ M A of tile t: its outputs in `rows` rows and `columns` columns, one or two.
template <class Tag>
HWY_INLINE void winograd_outputs(Tag d, const WinogradTiles& tiles, int64_t t, int64_t rows, int64_t columns,
                                 float* out, int64_t out_row) {
  hn::Vec<Tag> top[4], bottom[4];
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const auto m0 = hn::LoadU(d, tiles.products[k][t]), m1 = hn::LoadU(d, tiles.products[4 + k][t]),
               m2 = hn::LoadU(d, tiles.products[8 + k][t]), m3 = hn::LoadU(d, tiles.products[12 + k][t]);
    top[k] = hn::Add(hn::Add(m0, m1), m2);
    bottom[k] = hn::Sub(hn::Sub(m1, m2), m3);
  }
  const auto row = [&](const hn::Vec<Tag>* m, float* to) HWY_ATTR {
    hn::StoreU(hn::Add(hn::Add(m[0], m[1]), m[2]), d, to);
    if (columns > 1) hn::StoreU(hn::Sub(hn::Sub(m[1], m[2]), m[3]), d, to + slab_channels);
  };
  row(top, out);
  if (rows > 1) row(bottom, out + out_row);
}

// Rows of tiles that are taken together for images of this width.
inline int64_t winograd_strips(int64_t width) { return std::max<int64_t>(winograd_tiles / ((width + 1) / 2), 1); }

// f(strips [s0, s1), first tile of a row, tiles) for pieces of at most winograd_tiles tiles of `rows` rows.
template <class F>
HWY_INLINE void each_winograd_piece(int64_t rows, int64_t width, F&& f) {
  const int64_t in_row = (width + 1) / 2, strips = (rows + 1) / 2, together = winograd_strips(width),
                pieces = (in_row + winograd_tiles - 1) / winograd_tiles;
  for (int64_t s = 0; s < strips; s += together)
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t begin = in_row * piece / pieces, end = in_row * (piece + 1) / pieces;
      f(s, std::min(s + together, strips), begin, end - begin);
    }
}

// All outputs of `rows` rows, as tiles() of grouped-inl.h computes them. A tile at the end of an odd image reads pixels
// behind the plane; they meet only outputs that are not stored.
template <class Tag>
HWY_INLINE void winograd(Tag d, const Tiles<float>& in, int64_t rows, int64_t width) {
  WinogradTiles tiles;
  each_winograd_piece(rows, width, [&](int64_t s0, int64_t s1, int64_t begin, int64_t count) HWY_ATTR {
    const float *x = in.x + 2 * begin * slab_channels, *w = in.w;
    for (int64_t slab = 0; slab < in.slabs; ++slab, x += in.plane) {
      for (int64_t s = s0; s < s1; ++s) winograd_inputs(x + 2 * s * in.pitch, in.pitch, (s - s0) * count, count, tiles);
      winograd_products_of(d, w, slab > 0, (s1 - s0) * count, tiles, std::make_integer_sequence<int, winograd_tiles>());
      w += winograd_positions * slab_channels * hn::MaxLanes(d);
    }
    for (int64_t s = s0; s < s1; ++s)
      for (int64_t t = 0; t < count; ++t)
        winograd_outputs(d, tiles, (s - s0) * count + t, std::min<int64_t>(rows - 2 * s, 2),
                         std::min<int64_t>(width - 2 * (begin + t), 2),
                         in.out + 2 * s * in.out_row + 2 * (begin + t) * slab_channels, in.out_row);
  });
}

// A dy Aᵀ of `count` tiles side by side, two pixels each way, into the products from `first` on.
HWY_INLINE void winograd_gradients(const float* dy, int64_t pitch, int64_t first, int64_t count, WinogradTiles& tiles) {
  for (int64_t u = 0; u < slab_channels; u += lanes())
    for (int64_t t = 0; t < count; ++t) {
      const float* at = dy + 2 * t * slab_channels + u;
      const V d00 = hn::LoadU(D(), at), d01 = hn::LoadU(D(), at + slab_channels), d10 = hn::LoadU(D(), at + pitch),
              d11 = hn::LoadU(D(), at + pitch + slab_channels);
      const V left[4] = {d00, hn::Add(d00, d10), hn::Sub(d00, d10), hn::Neg(d10)},
              right[4] = {d01, hn::Add(d01, d11), hn::Sub(d01, d11), hn::Neg(d11)};
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        hn::StoreU(left[r], D(), tiles.products[4 * r][first + t] + u);
        hn::StoreU(hn::Add(left[r], right[r]), D(), tiles.products[4 * r + 1][first + t] + u);
        hn::StoreU(hn::Sub(left[r], right[r]), D(), tiles.products[4 * r + 2][first + t] + u);
        hn::StoreU(hn::Neg(right[r]), D(), tiles.products[4 * r + 3][first + t] + u);
      }
    }
}

// dw[p][o][lanes] += Σ over the tiles of gradient[p][o] · input[p][from … from + lanes); dw is (positions, 16, lanes).
template <class Tag>
HWY_NOINLINE void winograd_outer(Tag d, const WinogradTiles& tiles, int64_t count, int64_t from, float* dw) {
  constexpr int T = many_registers ? 16 : 8;
  for (int p = 0; p < winograd_positions; ++p)
    for (int o = 0; o < slab_channels; o += T, dw += T * hn::MaxLanes(d)) {
      hn::Vec<Tag> sum[T];
#pragma GCC unroll 16
      for (int i = 0; i < T; ++i) sum[i] = hn::LoadU(d, dw + i * hn::MaxLanes(d));
      for (int64_t t = 0; t < count; ++t) {
        const auto values = hn::LoadU(d, tiles.inputs[p][t] + from);
#pragma GCC unroll 16
        for (int i = 0; i < T; ++i) sum[i] = hn::MulAdd(hn::Set(d, tiles.products[p][t][o + i]), values, sum[i]);
      }
#pragma GCC unroll 16
      for (int i = 0; i < T; ++i) hn::StoreU(sum[i], d, dw + i * hn::MaxLanes(d));
    }
}

// The gradient of the weights between a slab of inputs and one of outputs, from rows of their planes: an even number of
// an even width. dw is (vectors of inputs, …, positions, 16, lanes), `vector` floats from one vector to the next.
template <class Tag>
HWY_INLINE void winograd_weights(Tag d, const float* x, const float* dy, int64_t pitch, int64_t rows, int64_t width,
                                 float* dw, int64_t vector) {
  WinogradTiles tiles;
  each_winograd_piece(rows, width, [&](int64_t s0, int64_t s1, int64_t begin, int64_t count) HWY_ATTR {
    for (int64_t s = s0; s < s1; ++s) {
      const int64_t at = 2 * s * pitch + 2 * begin * slab_channels;
      winograd_inputs(x + at, pitch, (s - s0) * count, count, tiles);
      winograd_gradients(dy + at, pitch, (s - s0) * count, count, tiles);
    }
    for (int64_t from = 0; from < slab_channels; from += hn::MaxLanes(d))
      winograd_outer(d, tiles, (s1 - s0) * count, from, dw + from / hn::MaxLanes(d) * vector);
  });
}

}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
