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
  HWY_ALIGN float inputs[winograd_positions][winograd_tiles][slab_channels];
  HWY_ALIGN float products[winograd_positions][winograd_tiles][slab_channels];
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

// All outputs of `rows` rows, as tiles() of grouped-inl.h computes them. A tile at the end of an odd image reads pixels
// behind the plane; they meet only outputs that are not stored.
template <class Tag>
HWY_INLINE void winograd(Tag d, const Tiles<float>& in, int64_t rows, int64_t width) {
  WinogradTiles tiles;
  const int64_t in_row = (width + 1) / 2, strips = (rows + 1) / 2, together = winograd_strips(width),
                pieces = (in_row + winograd_tiles - 1) / winograd_tiles;
  for (int64_t s0 = 0; s0 < strips; s0 += together) {
    const int64_t s1 = std::min(s0 + together, strips);
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t begin = in_row * piece / pieces, count = in_row * (piece + 1) / pieces - begin;
      const float *x = in.x + 2 * begin * slab_channels, *w = in.w;
      for (int64_t slab = 0; slab < in.slabs; ++slab, x += in.plane) {
        for (int64_t s = s0; s < s1; ++s)
          winograd_inputs(x + 2 * s * in.pitch, in.pitch, (s - s0) * count, count, tiles);
        winograd_products_of(d, w, slab > 0, (s1 - s0) * count, tiles,
                             std::make_integer_sequence<int, winograd_tiles>());
        w += winograd_positions * slab_channels * hn::MaxLanes(d);
      }
      for (int64_t s = s0; s < s1; ++s)
        for (int64_t t = 0; t < count; ++t)
          winograd_outputs(d, tiles, (s - s0) * count + t, std::min<int64_t>(rows - 2 * s, 2),
                           std::min<int64_t>(width - 2 * (begin + t), 2),
                           in.out + 2 * s * in.out_row + 2 * (begin + t) * slab_channels, in.out_row);
    }
  }
}

}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
