// The two kernels of grouped convolutions, compiled for every target (grouped.h).
//
// A plane is (rows, pitch, 16 channels) in cells of one arithmetic:
// - f32: a cell is one channel of a pixel, and one step is acc += w · x.
// - bf16, where the machine has the dot product: a cell is two neighbouring channels, a step acc += w₀ x₀ + w₁ x₁. For
//   gradients of weights a cell is one channel of two neighbouring pixels, which makes that the same kernel too.
#if defined(MGIC_CPU_GROUPED_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MGIC_CPU_GROUPED_INL_H
#undef MGIC_CPU_GROUPED_INL_H
#else
#define MGIC_CPU_GROUPED_INL_H
#endif

#undef MGIC_HAS_BF16_DOT

#include "backends/cpu/grouped.h"
#include "backends/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {

// Vector registers set the size of a tile: sums, and a few for weights and factors.
constexpr bool many_registers = HWY_MAX_BYTES == 64;
constexpr int tile_pixels = many_registers ? 16 : 12;

struct F32 {
  using Cell = float;
  static constexpr Cell one = 1;  // every value of it
  using Products = F32;           // what multiplies the values of planes that Winograd's filtering has transformed
  static constexpr bool pairs = false;
  static constexpr int64_t pixel = slab_channels;  // cells
  static int64_t cells(int64_t channels) { return channels; }
  // Vector u of a pixel's slab goes into the plane, or comes from there.
  static HWY_INLINE void put(V v, Cell* p, int u) { hn::StoreU(v, D(), p + u * lanes()); }
  static HWY_INLINE V get(const Cell* p, int u) { return hn::LoadU(D(), p + u * lanes()); }
  // Vector u of two neighbouring pixels; and of summand t, or t and t + 1, t even, of a product of `count` that takes
  // so many steps.
  static HWY_INLINE void put(V v0, V v1, Cell* p, int u) {
    put(v0, p, u);
    put(v1, p + pixel, u);
  }
  static HWY_INLINE void put_summands(V v, Cell* p, int64_t t, int u) { put(v, p + t * slab_channels, u); }
  static HWY_INLINE void put_summands(V v0, V v1, Cell* p, int64_t t, int u) { put(v0, v1, p + t * slab_channels, u); }
  static int64_t steps(int64_t count) { return count; }
  template <class Tag>
  static HWY_INLINE auto load(Tag d, const Cell* p) {
    return hn::LoadU(d, p);
  }
  template <class Tag, class W>
  static HWY_INLINE hn::Vec<Tag> step(Tag d, hn::Vec<Tag> sum, W w, const Cell* x) {
    return hn::MulAdd(w, hn::Set(d, *x), sum);
  }
  template <class Tag>
  static HWY_INLINE hn::Vec<Tag> step(Tag, hn::Vec<Tag> sum, hn::Vec<Tag> w, hn::Vec<Tag> x) {
    return hn::MulAdd(w, x, sum);
  }
  // A pixel of several groups of four channels, and its cell c in all four lanes of every group.
  static HWY_INLINE V quads(const Cell* p) { return hn::LoadU(D(), p); }
  template <int c>
  static HWY_INLINE V in_quads(V quads) {
    return hn::Broadcast<c>(quads);
  }
};

#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
// Highway 1.0.3 lacks the dot product of pairs of bf16 that accumulates in f32.
#define MGIC_HAS_BF16_DOT 1
struct Bf16 {
  using Cell = uint32_t;
  static constexpr Cell one = 0x3f803f80;
  using Products = Bf16;
  using U = hn::ScalableTag<uint32_t>;
  static constexpr bool pairs = true;
  static constexpr int64_t pixel = slab_channels / 2;
  static int64_t cells(int64_t channels) { return (channels + 1) / 2; }
  static HWY_INLINE void put(V v, Cell* p, int u) {
    hn::StoreU(narrow(v), Half(), reinterpret_cast<uint16_t*>(p) + u * lanes());
  }
  static HWY_INLINE V get(const Cell* p, int u) {
    return widen(hn::LoadU(Half(), reinterpret_cast<const uint16_t*>(p) + u * lanes()));
  }
  static HWY_INLINE hn::Vec<U> round_two(V v0, V v1) {
    hn::Vec<U> both;
    asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(both.raw) : "v"(v0.raw), "v"(v1.raw));
    return both;
  }
  static HWY_INLINE void put(V v0, V v1, Cell* p, int) { hn::StoreU(round_two(v0, v1), U(), p); }
  // Two vectors of 16 numbers, one behind the other, as cells of both.
  static HWY_INLINE hn::Vec<U> pair(hn::Vec<U> both) {
    alignas(64) static constexpr uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const hn::Vec<U> places = hn::Load(U(), reinterpret_cast<const uint32_t*>(order));
    hn::Vec<U> pairs;  // Highway 1.0.3 permutes lanes of 32 bits and more
    asm("vpermw %1, %2, %0" : "=v"(pairs.raw) : "v"(both.raw), "v"(places.raw));
    return pairs;
  }
  // Two summands share a cell.
  static HWY_INLINE void put_summands(V v0, V v1, Cell* p, int64_t t, int) {
    hn::StoreU(pair(round_two(v0, v1)), U(), p + t / 2 * slab_channels);
  }
  static int64_t steps(int64_t count) { return (count + 1) / 2; }
  template <class Tag>
  static HWY_INLINE auto load(Tag d, const Cell* p) {
    return hn::LoadU(hn::RebindToUnsigned<Tag>(), p);
  }
  template <class Tag, class W>
  static HWY_INLINE hn::Vec<Tag> step(Tag, hn::Vec<Tag> sum, W w, const Cell* x) {
    constexpr size_t lanes = hn::MaxLanes(Tag());
    if constexpr (lanes == 16)
      asm("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(sum.raw) : "v"(w.raw), "m"(*x));
    else if constexpr (lanes == 8)
      asm("vdpbf16ps %2%{1to8%}, %1, %0" : "+v"(sum.raw) : "v"(w.raw), "m"(*x));
    else
      asm("vdpbf16ps %2%{1to4%}, %1, %0" : "+v"(sum.raw) : "v"(w.raw), "m"(*x));
    return sum;
  }
  static HWY_INLINE V step(D, V sum, hn::Vec<U> w, hn::Vec<U> x) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(w.raw), "v"(x.raw));
    return sum;
  }
  // A group's two cells go to lanes 0 and 2 of its four.
  static HWY_INLINE hn::Vec<U> quads(const Cell* p) {
    const hn::ScalableTag<uint64_t> d;
    return hn::BitCast(U(), hn::PromoteTo(d, hn::LoadU(hn::Rebind<uint32_t, decltype(d)>(), p)));
  }
  template <int c>
  static HWY_INLINE hn::Vec<U> in_quads(hn::Vec<U> quads) {
    return hn::Broadcast<2 * c>(quads);
  }
};

// Planes of f32 for Winograd's filtering, whose transforms are in f32: only their results are pairs.
struct Bf16InF32Planes : Bf16 {
  static constexpr int64_t pixel = slab_channels;
  static HWY_INLINE void put(V v, Cell* p, int u) { F32::put(v, reinterpret_cast<float*>(p), u); }
  static HWY_INLINE V get(const Cell* p, int u) { return F32::get(reinterpret_cast<const float*>(p), u); }
};

// Pairs of neighbouring pixels, 16 cells each, of `rows` rows of a plane from column `from` on; what lies beyond the
// plane is zero.
HWY_INLINE void pair_pixels(const uint32_t* plane, int64_t rows, int64_t pitch, int64_t from, int64_t pairs,
                            uint32_t* out) {
  const hn::ScalableTag<uint32_t> d;
  const hn::Rebind<uint16_t, decltype(d)> half;
  for (int64_t row = 0; row < rows; ++row, plane += pitch * Bf16::pixel)
    for (int64_t p = 0; p < pairs; ++p, out += slab_channels) {
      const int64_t column = from + 2 * p;
      const auto* first = reinterpret_cast<const uint16_t*>(plane + column * Bf16::pixel);
      for (int64_t u = 0; u < slab_channels; u += hn::Lanes(d)) {
        const auto low = column < pitch ? hn::PromoteTo(d, hn::LoadU(half, first + u)) : hn::Zero(d);
        const auto high =
            column + 1 < pitch ? hn::PromoteTo(d, hn::LoadU(half, first + slab_channels + u)) : hn::Zero(d);
        hn::StoreU(hn::Or(low, hn::ShiftLeft<16>(high)), d, out + u);
      }
    }
}
#else
#define MGIC_HAS_BF16_DOT 0
#endif

// A vector of cells.
template <class A>
using Cells = decltype(A::load(D(), static_cast<const typename A::Cell*>(nullptr)));

// A value as a map of that type stores it.
HWY_INLINE V stored_as(V v, float) { return v; }
HWY_INLINE V stored_as(V v, bf16) { return widen(narrow(v)); }

// Lanes of the vectors that hold n results of a group.
template <class F>
HWY_INLINE void with_result_lanes(int64_t n, F&& f) {
  if (n > 8 && hn::Lanes(D()) >= 16) return f(hn::CappedTag<float, 16>());
  if (n > 4 && hn::Lanes(D()) >= 8) return f(hn::CappedTag<float, 8>());
  f(hn::CappedTag<float, 4>());
}
inline HWY_ATTR int64_t result_lanes(int64_t n) { return std::min<int64_t>(lanes(), n > 8 ? 16 : n > 4 ? 8 : 4); }

// What a group's tiles have in common. x is the group's first cell of the pixel at the block's upper left corner, in
// the first of its slabs; weights are (slabs, taps, cells, lanes).
template <class Cell>
struct Tiles {
  const Cell* x;
  int64_t plane, pitch;  // cells from one slab to the next, and from one row to the next
  int64_t slabs, kernel, cells;
  const Cell* w;
  float* out;  // (rows, width, 16)
  int64_t out_row;
  const Grouped* conv;  // whose row `first` of a plane is at x
  int64_t first;

  const Cell* row(int64_t y) const { return x + (conv->plane_row(first + y) - conv->plane_row(first)) * pitch; }
};

// each(step) with step(sum, pixel): all cells of several groups of four channels, whose weights (cells, lanes) are
// loaded once for all sums.
template <class A, class Tag, class F>
HWY_INLINE void quad_steps([[maybe_unused]] Tag d, [[maybe_unused]] const typename A::Cell* w,
                           [[maybe_unused]] F&& each) {
#if HWY_TARGET != HWY_SCALAR
  constexpr int64_t lanes = hn::MaxLanes(d);
  const auto w0 = A::load(d, w), w1 = A::load(d, w + lanes);
  if constexpr (A::pairs) {
    each([&](hn::Vec<Tag>& sum, auto pixel) HWY_ATTR {
      sum = A::step(d, sum, w0, A::template in_quads<0>(pixel));
      sum = A::step(d, sum, w1, A::template in_quads<1>(pixel));
    });
  } else {
    const auto w2 = A::load(d, w + 2 * lanes), w3 = A::load(d, w + 3 * lanes);
    each([&](hn::Vec<Tag>& sum, auto pixel) HWY_ATTR {
      sum = A::step(d, sum, w0, A::template in_quads<0>(pixel));
      sum = A::step(d, sum, w1, A::template in_quads<1>(pixel));
      sum = A::step(d, sum, w2, A::template in_quads<2>(pixel));
      sum = A::step(d, sum, w3, A::template in_quads<3>(pixel));
    });
  }
#endif
}

// R × Q outputs, side by side so that many sums hide the latency of one, and a vector of weights serves them all. A
// vector is of one group, or of several groups of four channels.
template <class A, int R, int Q, bool quads, class Tag>
HWY_NOINLINE void tile(Tag d, const Tiles<typename A::Cell>& t, int64_t y, int64_t x0) {
  using Cell = typename A::Cell;
  hn::Vec<Tag> sum[R][Q];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int q = 0; q < Q; ++q) sum[r][q] = hn::Zero(d);
  const Cell* HWY_RESTRICT w = t.w;
  const int64_t pitch = t.pitch, cells = t.cells, kernel = t.kernel;
  const Cell* slab = t.x + y * pitch + x0 * A::pixel;
  for (int64_t s = 0; s < t.slabs; ++s, slab += t.plane)
    for (int64_t u = 0; u < kernel; ++u)
      for (int64_t v = 0; v < kernel; ++v) {
        const Cell* HWY_RESTRICT x = slab + u * pitch + v * A::pixel;
#if HWY_TARGET != HWY_SCALAR
        if constexpr (quads) {
          quad_steps<A>(d, w, [&](auto&& step) HWY_ATTR {
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
              for (int q = 0; q < Q; ++q) step(sum[r][q], A::quads(x + r * pitch + q * A::pixel));
          });
          w += cells * hn::MaxLanes(d);
          continue;
        }
#endif
#pragma GCC unroll 4
        for (int64_t c = 0; c < cells; ++c, w += hn::MaxLanes(d)) {
          const auto weights = A::load(d, w);
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
            for (int q = 0; q < Q; ++q) sum[r][q] = A::step(d, sum[r][q], weights, x + r * pitch + q * A::pixel + c);
        }
      }
  float* out = t.out + y * t.out_row + x0 * slab_channels;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int q = 0; q < Q; ++q) hn::StoreU(sum[r][q], d, out + r * t.out_row + q * slab_channels);
}

// tile<A, R, q> for a q that is known at run time only.
template <class A, int R, bool quads, class Tag, int... Q>
HWY_INLINE void tile_of(Tag d, const Tiles<typename A::Cell>& t, int64_t y, int64_t x0, int64_t q,
                        std::integer_sequence<int, Q...>) {
  using Function = void (*)(Tag, const Tiles<typename A::Cell>&, int64_t, int64_t);
  static constexpr Function table[] = {&tile<A, R, Q + 1, quads, Tag>...};
  table[q - 1](d, t, y, x0);
}

// Rows of a tile for images of this width.
inline int64_t tile_rows(int64_t width) { return 4 * width <= tile_pixels ? 4 : 2 * width <= tile_pixels ? 2 : 1; }

// All outputs of `rows` rows.
template <class A, bool quads = false, class Tag>
HWY_INLINE void tiles(Tag d, const Tiles<typename A::Cell>& t, int64_t rows, int64_t width) {
  const int64_t columns = (width + tile_pixels - 1) / tile_pixels;
  int64_t y = 0;
  const auto rows_of = [&](auto count) HWY_ATTR {
    constexpr int R = decltype(count)::value;
    for (; y + R <= rows; y += R)
      for (int64_t i = 0; i < columns; ++i) {
        const int64_t begin = width * i / columns, end = width * (i + 1) / columns;
        tile_of<A, R, quads>(d, t, y, begin, end - begin, std::make_integer_sequence<int, tile_pixels / R>());
      }
  };
  if (4 * width <= tile_pixels) rows_of(Count<4>());
  if (2 * width <= tile_pixels) rows_of(Count<2>());
  rows_of(Count<1>());
}

// What the tiles of a weight gradient have in common. x[0] and x[1] are where even and odd columns of the kernel begin
// to read, `stride` the cells from one of them to the next of its kind.
template <class Cell>
struct Outers {
  const Cell* x[2];
  int64_t stride, pitch;
  const Cell* dy;
  int64_t dy_pitch;
  int64_t rows, count, kernel;  // pixels (or pairs of them) in a row
  int64_t row, height;          // of the image: the first row, and all of them
  float* dw;                    // (taps, outputs, lanes)
  int64_t outputs;
};

// sum[o] += values · dy[o], each group's own o of four.
template <class A, class Tag, class Values>
HWY_INLINE void quad_outer([[maybe_unused]] Tag d, [[maybe_unused]] hn::Vec<Tag>* sum, [[maybe_unused]] Values values,
                           [[maybe_unused]] Values dy) {
#if HWY_TARGET != HWY_SCALAR
  sum[0] = A::step(d, sum[0], values, hn::Broadcast<0>(dy));
  sum[1] = A::step(d, sum[1], values, hn::Broadcast<1>(dy));
  sum[2] = A::step(d, sum[2], values, hn::Broadcast<2>(dy));
  sum[3] = A::step(d, sum[3], values, hn::Broadcast<3>(dy));
#endif
}

// K columns of the kernel, T outputs: dw[u, v … v + K, o … o + T, lanes] += Σ dy[o] x[lanes]. With quads, the lanes are
// of several groups of four inputs, and dy[o] is each group's own.
template <class A, int K, int T, bool quads, class Tag>
HWY_NOINLINE void outer_tile(Tag d, const Outers<typename A::Cell>& t, int64_t u, int64_t v, int64_t o) {
  using Cell = typename A::Cell;
  constexpr int64_t lanes = hn::MaxLanes(d);
  hn::Vec<Tag> sum[K][T];
  float* dw = t.dw + ((u * t.kernel + v) * t.outputs + o) * lanes;
#pragma GCC unroll 16
  for (int k = 0; k < K; ++k)
#pragma GCC unroll 16
    for (int i = 0; i < T; ++i) sum[k][i] = hn::LoadU(d, dw + (k * t.outputs + i) * lanes);
  // Rows whose input is a row of the image, and columns alike where they can be told: elsewhere the input is zero.
  const int64_t border = t.kernel / 2, row_begin = std::max<int64_t>(border - u - t.row, 0),
                row_end = std::min(t.rows, t.height + border - u - t.row);
  const bool whole = K > 1 || A::pairs;
  const int64_t begin = whole ? 0 : std::max<int64_t>(border - v, 0),
                end = whole ? t.count : std::min(t.count, t.count + border - v);
  const Cell* x[K];
  for (int k = 0; k < K; ++k) x[k] = t.x[(v + k) & 1] + ((v + k) >> 1) * t.stride + (u + row_begin) * t.pitch;
  for (int64_t row = row_begin; row < row_end; ++row) {
    const Cell* HWY_RESTRICT dy = t.dy + row * t.dy_pitch + begin * slab_channels + o;
    for (int64_t p = begin; p < end; ++p, dy += slab_channels) {
      if constexpr (quads) {
        const auto all = A::load(d, dy);
#pragma GCC unroll 16
        for (int k = 0; k < K; ++k) quad_outer<A>(d, sum[k], A::load(d, x[k] + p * slab_channels), all);
        continue;
      }
#pragma GCC unroll 16
      for (int k = 0; k < K; ++k) {
        const auto values = A::load(d, x[k] + p * slab_channels);
#pragma GCC unroll 16
        for (int i = 0; i < T; ++i) sum[k][i] = A::step(d, sum[k][i], values, dy + i);
      }
    }
    for (int k = 0; k < K; ++k) x[k] += t.pitch;
  }
#pragma GCC unroll 16
  for (int k = 0; k < K; ++k)
#pragma GCC unroll 16
    for (int i = 0; i < T; ++i) hn::StoreU(sum[k][i], d, dw + (k * t.outputs + i) * lanes);
}

// The whole gradient of one group's weights, for one vector of its inputs; with quads, of a vector of groups.
template <class A, bool quads = false, class Tag>
HWY_INLINE void outers(Tag d, const Outers<typename A::Cell>& t) {
  for (int64_t u = 0; u < t.kernel; ++u) {
    int64_t o = 0;
    const auto tiles_of = [&](auto outputs, auto columns) HWY_ATTR {
      constexpr int T = decltype(outputs)::value, K = decltype(columns)::value;
      for (; o + T <= t.outputs; o += T) {
        int64_t v = 0;
        for (; v + K <= t.kernel; v += K) outer_tile<A, K, T, quads>(d, t, u, v, o);
        for (; v < t.kernel; ++v) outer_tile<A, 1, T, quads>(d, t, u, v, o);
      }
    };
    // Few outputs take several columns at once, to have sums enough.
    if constexpr (quads) {
      tiles_of(Count<4>(), Count<3>());
    } else if constexpr (many_registers) {
      tiles_of(Count<16>(), Count<1>());
      tiles_of(Count<8>(), Count<3>());
      tiles_of(Count<4>(), Count<3>());
    } else {
      tiles_of(Count<8>(), Count<1>());
      tiles_of(Count<4>(), Count<3>());
    }
    if constexpr (!quads) tiles_of(Count<1>(), Count<3>());
  }
}

}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
