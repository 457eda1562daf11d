// Grouped convolutions by multiplying matrices of bf16 (amx.h), compiled for the targets whose machines may have that.
//
// A plane (grouped.h) is read as one row of pixels, borders and all: what is computed at a border is never looked at,
// and gradients there are zero. So no shape of an image is a special case.
//   outputs   C (16 pixels, 16 outputs) += A (16 pixels, 2 taps side by side × 16 inputs) · B (the same, 16 outputs)
//   weights   C (16 outputs, 16 inputs) += A (16 outputs, 32 pixels) · B (32 pixels, 16 inputs)      for every tap
#if defined(MGIC_CPU_MATRIX_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MGIC_CPU_MATRIX_INL_H
#undef MGIC_CPU_MATRIX_INL_H
#else
#define MGIC_CPU_MATRIX_INL_H
#endif

#undef MGIC_HAS_MATRICES

#include "backends/cpu/amx.h"
#include "backends/cpu/grouped-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {

#if MGIC_HAS_BF16_DOT && defined(__x86_64__)
#define MGIC_HAS_MATRICES 1

constexpr int64_t summand_pixels = 32;                            // of a product for weights
constexpr int64_t matrix_cells = slab_channels * slab_channels;   // 16 rows of 16 cells
constexpr int64_t tap_cells = slab_channels / 2 * slab_channels;  // of a tap's weights
constexpr int64_t run_cells = slab_channels * Bf16::pixel;        // of 16 pixels
constexpr int64_t line = slab_channels * sizeof(float);           // bytes

// The registers: sums, pixels with two taps or one, weights of two taps or one.
enum Register { sums, pixels = 4, single_pixels, weights, single_weights };
constexpr AmxRegisters::Shape register_shapes[8] = {{16, 64}, {16, 64}, {16, 64}, {16, 64},
                                                    {16, 64}, {16, 32}, {16, 64}, {8, 64}};

// f(Count<0>) … f(Count<n − 1>): registers are named by constants.
template <int n, class F>
HWY_INLINE void each_register(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) HWY_ATTR { (f(Count<i>()), ...); }
  (std::make_integer_sequence<int, n>());
}

// N runs of 16 neighbouring pixels, from cell `at` of the plane on.
template <int N>
HWY_INLINE void matrix_runs(const Tiles<uint32_t>& t, int64_t at, float* out) {
  each_register<N>([](auto n) HWY_ATTR { amx_zero<sums + n.value>(); });
  const uint32_t *w = t.w, *slab = t.x + at;
  for (int64_t s = 0; s < t.slabs; ++s, slab += t.plane)
    for (int64_t u = 0; u < t.kernel; ++u) {
      const uint32_t* x = slab + u * t.pitch;
      int64_t v = 0;
      for (; v + 2 <= t.kernel; v += 2, x += 2 * Bf16::pixel, w += 2 * tap_cells) {
        amx_load<weights>(w, line);
        each_register<N>([&](auto n) HWY_ATTR {
          amx_load<pixels>(x + n.value * run_cells, line / 2);
          amx_multiply<sums + n.value, pixels, weights>();
        });
      }
      if (v == t.kernel) continue;
      amx_load<single_weights>(w, line);
      each_register<N>([&](auto n) HWY_ATTR {
        amx_load<single_pixels>(x + n.value * run_cells, line / 2);
        amx_multiply<sums + n.value, single_pixels, single_weights>();
      });
      w += tap_cells;
    }
  each_register<N>([&](auto n) HWY_ATTR { amx_store<sums + n.value>(out + n.value * matrix_cells, line); });
}

// Rows whose outputs stay in the first cache.
inline int64_t matrix_rows(const Grouped& g) {
  const int64_t rows = 160 / g.pitch();
  return std::max<int64_t>(g.stacked > 1 ? rows * g.height / (g.height + g.border()) : rows, 1);
}

// Outputs of `rows` rows as they lie in a plane, a slab of them: (rows of the plane, pitch, 16), and up to 15 pixels of
// no use behind them. meanwhile(pixels) is called many times, with the share of them that is done.
template <class Meanwhile>
HWY_INLINE void matrix_outputs(const Tiles<uint32_t>& t, int64_t rows, int64_t width, Meanwhile&& meanwhile) {
  const int64_t from = t.conv->plane_row(t.first), last = t.conv->plane_row(t.first + rows - 1) - from;
  const int64_t runs = (last * t.conv->pitch() + width + slab_channels - 1) / slab_channels;
  for (int64_t i = 0; i < runs;) {
    const auto next = [&](auto n) HWY_ATTR {
      matrix_runs<decltype(n)::value>(t, i * run_cells, t.out + i * matrix_cells);
      i += n.value;
      meanwhile(n.value * slab_channels);
    };
    switch (std::min<int64_t>(runs - i, 4)) {
      case 1:
        next(Count<1>());
        break;
      case 2:
        next(Count<2>());
        break;
      case 3:
        next(Count<3>());
        break;
      default:
        next(Count<4>());
    }
  }
}

// What the weights' gradients are summed over, for `rows` rows of a plane but its borders.
struct MatrixSummands {
  int64_t all, gradients, inputs;  // pixels of the plane, and those that are read: whole products of gradients
  MatrixSummands(const Grouped& g, int64_t plane_rows)
      : all(plane_rows * g.pitch()),
        gradients((all - 2 * g.border() * g.pitch() + summand_pixels - 1) / summand_pixels * summand_pixels),
        inputs(gradients + 2 * g.border() * (g.pitch() + 1)) {}
  // Cells of a slab of inputs in pairs of pixels, which begin at even and at odd ones, and of a slab of gradients.
  int64_t half() const { return (inputs / 2 + 1) * slab_channels; }
  int64_t input_cells() const { return 2 * half(); }
  int64_t gradient_cells() const { return gradients / 2 * slab_channels; }
};

// Two neighbouring pixels as pairs.
HWY_INLINE hn::Vec<Bf16::U> pair_of(const uint32_t* pixel) { return Bf16::pair(hn::LoadU(Bf16::U(), pixel)); }

// All pixels of a plane's slab in pairs from the even ones on, and, half() behind them, from the odd ones on; zeros
// behind the plane.
HWY_INLINE void pair_inputs(const MatrixSummands& s, const uint32_t* plane, uint32_t* out) {
  uint32_t *even = out, *odd = out + s.half();
  const uint32_t* const end = odd;
  const int64_t whole = (s.all - 1) / 2;
  for (int64_t i = 0; i < whole; ++i, plane += 2 * Bf16::pixel, even += slab_channels, odd += slab_channels) {
    hn::StoreU(pair_of(plane), Bf16::U(), even);
    hn::StoreU(pair_of(plane + Bf16::pixel), Bf16::U(), odd);
  }
  uint32_t rest[4 * Bf16::pixel] = {};
  std::copy_n(plane, (s.all - 2 * whole) * Bf16::pixel, rest);
  for (; even < end; even += slab_channels, odd += slab_channels) {
    hn::StoreU(pair_of(rest), Bf16::U(), even);
    hn::StoreU(pair_of(rest + Bf16::pixel), Bf16::U(), odd);
    std::fill(std::begin(rest), std::end(rest), 0);
  }
}

// 16 rows of 16 cells, the other way round.
HWY_INLINE void transpose(hn::Vec<Bf16::U> (&row)[16], uint32_t* out) {
  const Bf16::U d;
  const hn::ScalableTag<uint64_t> d64;
  const auto lower64 = [&](auto a, auto b) HWY_ATTR {
    return hn::BitCast(d, hn::InterleaveLower(d64, hn::BitCast(d64, a), hn::BitCast(d64, b)));
  };
  const auto upper64 = [&](auto a, auto b) HWY_ATTR {
    return hn::BitCast(d, hn::InterleaveUpper(d64, hn::BitCast(d64, a), hn::BitCast(d64, b)));
  };
  // Within blocks of four cells: row[r + k] holds columns k, 4 + k, … of rows r … r + 3.
#pragma GCC unroll 4
  for (int r = 0; r < 16; r += 4) {
    const auto a = hn::InterleaveLower(d, row[r], row[r + 1]), b = hn::InterleaveUpper(d, row[r], row[r + 1]),
               c = hn::InterleaveLower(d, row[r + 2], row[r + 3]), e = hn::InterleaveUpper(d, row[r + 2], row[r + 3]);
    row[r] = lower64(a, c);
    row[r + 1] = upper64(a, c);
    row[r + 2] = lower64(b, e);
    row[r + 3] = upper64(b, e);
  }
  // And the blocks.
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const auto a = row[k], b = row[4 + k], c = row[8 + k], e = row[12 + k];
    const auto even = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(b), a),
               odd = hn::OddEvenBlocks(b, hn::SwapAdjacentBlocks(a)),
               even2 = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(e), c),
               odd2 = hn::OddEvenBlocks(e, hn::SwapAdjacentBlocks(c));
    hn::StoreU(hn::ConcatLowerLower(d, even2, even), d, out + k * slab_channels);
    hn::StoreU(hn::ConcatLowerLower(d, odd2, odd), d, out + (4 + k) * slab_channels);
    hn::StoreU(hn::ConcatUpperUpper(d, even2, even), d, out + (8 + k) * slab_channels);
    hn::StoreU(hn::ConcatUpperUpper(d, odd2, odd), d, out + (12 + k) * slab_channels);
  }
}

// Gradients from the first pixel that is none of a border on, as matrices (16 outputs, 32 pixels); zeros behind the
// last one. The borders between are zeros.
HWY_INLINE void turn_gradients(const MatrixSummands& s, const Grouped& g, const uint32_t* dy, uint32_t* out) {
  const int64_t valid = s.all - 2 * g.border() * (g.pitch() + 1);
  for (int64_t p = 0; p < s.gradients; p += summand_pixels, out += matrix_cells) {
    const uint32_t* from = dy + p * Bf16::pixel;
    HWY_ALIGN uint32_t rest[summand_pixels * Bf16::pixel];
    if (p + summand_pixels > valid) {
      std::ranges::fill(rest, 0);
      if (p < valid) std::copy_n(from, (valid - p) * Bf16::pixel, rest);
      from = rest;
    }
    hn::Vec<Bf16::U> row[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) row[i] = pair_of(from + 2 * i * Bf16::pixel);
    transpose(row, out);
  }
}

// K neighbouring taps: dw (taps, 16 outputs, 16 inputs) += Σ over all pixels. x begins at the first tap's pixel, which
// the pairs at x[0] begin with, and those at x[1] with the one after it.
template <int K, class Meanwhile>
HWY_INLINE void matrix_taps(const MatrixSummands& s, const uint32_t* dy, const uint32_t* const (&x)[2], float* dw,
                            Meanwhile&& meanwhile) {
  each_register<K>([&](auto k) HWY_ATTR { amx_load<sums + k.value>(dw + k.value * matrix_cells, line); });
  for (int64_t at = 0; at < s.gradients / 2 * slab_channels; at += matrix_cells) {
    amx_load<pixels>(dy + at, line);
    each_register<K>([&](auto k) HWY_ATTR {
      amx_load<weights>(x[k.value % 2] + k.value / 2 * slab_channels + at, line);
      amx_multiply<sums + k.value, pixels, weights>();
    });
    meanwhile();
  }
  each_register<K>([&](auto k) HWY_ATTR { amx_store<sums + k.value>(dw + k.value * matrix_cells, line); });
}

// The gradient of the weights of one group, whose slabs are `plane` cells from each other; dw (slabs of inputs, slabs
// of outputs, taps, 16 outputs, 16 inputs). meanwhile(pixels) as above.
template <class Meanwhile>
HWY_INLINE void matrix_weights(const Grouped& g, const uint32_t* x, const uint32_t* dy, int64_t plane, int64_t rows,
                               uint32_t* room, float* dw, Meanwhile&& meanwhile) {
  const MatrixSummands s(g, g.plane_rows(rows));
  const int64_t in_slabs = g.in_slabs(), out_slabs = g.out_slabs();
  uint32_t* turned = room + in_slabs * s.input_cells();
  for (int64_t i = 0; i < in_slabs; ++i) pair_inputs(s, x + i * plane, room + i * s.input_cells());
  for (int64_t o = 0; o < out_slabs; ++o)
    turn_gradients(s, g, dy + o * plane + g.border() * (g.pitch() + 1) * Bf16::pixel, turned + o * s.gradient_cells());
  const int64_t sweeps = in_slabs * out_slabs * g.kernel * ((g.kernel + 2) / 3);
  const auto share = [&] HWY_ATTR { meanwhile((summand_pixels + sweeps - 1) / sweeps); };
  for (int64_t i = 0; i < in_slabs; ++i)
    for (int64_t o = 0; o < out_slabs; ++o)
      for (int64_t u = 0; u < g.kernel; ++u)
        for (int64_t v = 0; v < g.kernel; v += 3) {
          const uint32_t* even = room + i * s.input_cells();
          const int64_t first = u * g.pitch() + v, pair = first / 2 * slab_channels;
          const uint32_t* const odd = even + s.half();
          const uint32_t* const from[2] = {(first % 2 == 0 ? even : odd) + pair,
                                           first % 2 == 0 ? odd + pair : even + pair + slab_channels};
          const uint32_t* gradients = turned + o * s.gradient_cells();
          const int64_t taps = std::min<int64_t>(g.kernel - v, 3);
          if (taps == 3)
            matrix_taps<3>(s, gradients, from, dw, share);
          else if (taps == 2)
            matrix_taps<2>(s, gradients, from, dw, share);
          else
            matrix_taps<1>(s, gradients, from, dw, share);
          dw += taps * matrix_cells;
        }
}
#else
#define MGIC_HAS_MATRICES 0
#endif

}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
