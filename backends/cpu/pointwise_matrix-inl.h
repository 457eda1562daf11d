// The two walks over rows of bf16 (pointwise.h) by multiplying matrices (amx.h), compiled for the targets whose
// machines may have that.
//   maps   C (16 rows, 16 results) += A (16 rows, up to 32 factors) · B (the same factors, 16 results)
//   sums   C (16 channels, 16 others) += A (16 channels, 32 rows) · B (32 rows, 16 others)
// A map's factors are read where they lie. Where 16 results are of several groups, B has zeros between them, and a
// difference is two products, with the weights and their negatives, so that it is not rounded.
#if defined(MGIC_CPU_POINTWISE_MATRIX_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MGIC_CPU_POINTWISE_MATRIX_INL_H
#undef MGIC_CPU_POINTWISE_MATRIX_INL_H
#else
#define MGIC_CPU_POINTWISE_MATRIX_INL_H
#endif

#include "backends/cpu/ahead.h"
#include "backends/cpu/matrix-inl.h"
#include "backends/cpu/pointwise.h"

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {

#if MGIC_HAS_MATRICES

// ---- Maps ----

// For a map of so many rows at a time: sums in registers 0 and 1, the terms' factors in 4 and 5, their weights in 6
// and 7.
inline AmxRegisters row_registers(const RowMap<bf16>& map, int64_t rows) {
  AmxRegisters::Shape shapes[8] = {};
  shapes[0] = shapes[1] = {static_cast<uint8_t>(rows), 64};
  for (size_t t = 0; t < map.terms.size(); ++t) {
    const int64_t factors = std::min<int64_t>(map.tiles[0].groups * map.terms[t].depth, 32);
    shapes[4 + t] = {static_cast<uint8_t>(rows), static_cast<uint16_t>(2 * factors)};
    shapes[6 + t] = {static_cast<uint8_t>(factors / 2), 64};
  }
  return AmxRegisters(shapes);
}

// Tile i of `runs` times as many rows as the registers have, 16 of them, into out (rows, 16).
template <int runs>
HWY_INLINE void row_products(const RowMap<bf16>& map, size_t i, int64_t row, float* out) {
  const Tile& tile = map.tiles[i];
  each_register<runs>([](auto n) HWY_ATTR { amx_zero<n.value>(); });
  size_t t = 0;
  const auto add = [&](auto factors, auto weights) HWY_ATTR {
    const auto& term = map.terms[t++];
    const int64_t depth = tile.groups * term.depth, stride = map.groups * term.depth, cells = depth / 2 * slab_channels;
    const auto* w = static_cast<const uint32_t*>(term.packed) + static_cast<int64_t>(i) * cells;
    const bf16* x = term.rows.x;
    for (int side = 0; side < 2 && x != nullptr; ++side) {
      for (int64_t k = 0; k < depth; k += 32) {
        const bf16* from = x + row * stride + tile.group * term.depth + k;
        amx_load<weights.value>(w + k / 2 * slab_channels, line);
        each_register<runs>([&](auto n) HWY_ATTR {
          amx_load<factors.value>(from + n.value * slab_channels * stride, stride * static_cast<int64_t>(sizeof(bf16)));
          amx_multiply<n.value, factors.value, weights.value>();
        });
      }
      x = term.rows.minus;
      w += static_cast<int64_t>(map.tiles.size()) * cells;  // negatives lie behind
    }
  };
  add(Count<4>(), Count<6>());
  if (map.terms.size() == 2) add(Count<5>(), Count<7>());
  each_register<runs>([&](auto n) HWY_ATTR { amx_store<n.value>(out + n.value * matrix_cells, line); });
}

// ---- Sums ----

// One of the factors of an outer product: rows of x − minus − centre, and where their sums go, if they are wanted.
struct SumSide {
  Rows<bf16> rows;
  const float* centre;
  int64_t channels, group;  // all, and of a group
  float* sums;
};

constexpr int64_t summed_rows = 128, summed_cells = summed_rows / 2 * slab_channels;

// 16 channels of `rows` rows, 32 or fewer, as pairs of rows, zeros behind them.
HWY_INLINE void pair_rows(const SumSide& side, int64_t channel, int64_t row, int64_t rows, uint32_t* out) {
  const Whole memory;
  const int64_t stride = side.channels, at = row * stride + channel;
  const bf16 *x = side.rows.x + at, *minus = side.rows.minus == nullptr ? nullptr : side.rows.minus + at;
  V sum = hn::Zero(D());
  const hn::Vec<Bf16::U> ones = hn::Set(Bf16::U(), Bf16::one);
  const auto pairs_of = [&](auto&& pair) HWY_ATTR {
    const auto put = [&](hn::Vec<Bf16::U> both) HWY_ATTR {
      hn::Store(both, Bf16::U(), out);
      if (side.sums != nullptr) sum = Bf16::step(D(), sum, both, ones);
      out += slab_channels;
    };
    int64_t r = 0;
    for (; r + 2 <= rows; r += 2) put(pair(r, r + 1));
    if (r < rows) put(hn::And(pair(r, r), hn::Set(Bf16::U(), 0xffff)));
    for (r = (rows + 1) / 2 * 2; r < summand_pixels; r += 2) put(hn::Zero(Bf16::U()));
  };
  if (minus == nullptr && side.centre == nullptr) {
    const hn::Half<hn::Repartition<uint16_t, Bf16::U>> half;
    pairs_of([&](int64_t r, int64_t s) HWY_ATTR {
      const auto load = [&](int64_t i)
                            HWY_ATTR { return hn::LoadU(half, reinterpret_cast<const uint16_t*>(x + i * stride)); };
      return Bf16::pair(hn::BitCast(Bf16::U(), hn::Combine(hn::Repartition<uint16_t, Bf16::U>(), load(s), load(r))));
    });
  } else {
    const V centre = side.centre == nullptr ? hn::Zero(D()) : memory.load(side.centre + channel);
    const auto with = [&](auto&& value) HWY_ATTR {
      pairs_of([&](int64_t r, int64_t s) HWY_ATTR { return Bf16::pair(Bf16::round_two(value(r), value(s))); });
    };
    if (minus == nullptr)
      with([&](int64_t r) HWY_ATTR { return hn::Sub(memory.load(x + r * stride), centre); });
    else
      with([&](int64_t r) HWY_ATTR {
        return hn::Sub(hn::Sub(memory.load(x + r * stride), memory.load(minus + r * stride)), centre);
      });
  }
  if (side.sums != nullptr) memory.store(hn::Add(memory.load(side.sums + channel), sum), side.sums + channel);
}

// How the channels of two sides meet: 16 of the smaller one's, and the one or two slabs of the larger one's that are
// coupled with some of them.
struct Meeting {
  int64_t smaller, larger;  // channels a group
  int64_t slabs() const { return larger / smaller; }
};

// acc (slabs of the smaller side, slabs that meet them, 16, 16) += Σ over `rows` rows. ahead.fetch() for every 32 rows
// of a slab of the smaller side. A slab is multiplied when the next one has been made ready: right behind its stores,
// registers would wait for them.
HWY_INLINE void sum_products(const SumSide& smaller, const SumSide& larger, int64_t row, int64_t rows, Ahead& ahead,
                             float* acc) {
  struct Ready {
    HWY_ALIGN uint32_t turned[summed_cells], pairs[3 * summed_cells];
  };
  Ready ready[2];
  const bool same = smaller.rows.x == larger.rows.x;
  const int64_t slabs = Meeting{smaller.group, larger.group}.slabs(), all = smaller.channels / slab_channels,
                products = (rows + summand_pixels - 1) / summand_pixels;
  const auto make_ready = [&](int64_t slab) HWY_ATTR {
    const int64_t channel = slab * slab_channels;
    Ready& to = ready[slab % 2];
    for (int64_t p = 0; p < products; ++p) {
      ahead.fetch();
      const int64_t done = p * summand_pixels, some = std::min(rows - done, summand_pixels), at = p * matrix_cells;
      pair_rows(smaller, channel, row + done, some, to.pairs + at);
      for (int64_t j = 0; j < slabs && !same; ++j)
        pair_rows(larger, channel * slabs + j * slab_channels, row + done, some,
                  to.pairs + (1 + j) * summed_cells + at);
      hn::Vec<Bf16::U> pair[16];
#pragma GCC unroll 16
      for (int k = 0; k < 16; ++k) pair[k] = hn::Load(Bf16::U(), to.pairs + at + k * slab_channels);
      transpose(pair, to.turned + at);
    }
  };
  const auto multiply = [&](auto count, int64_t slab) HWY_ATTR {
    constexpr int n = decltype(count)::value;
    const Ready& from = ready[slab % 2];
    const uint32_t *turned = from.turned, *others = from.pairs + (same ? 0 : summed_cells);
    float* to = acc + slab * n * matrix_cells;
    each_register<n>([&](auto j) HWY_ATTR { amx_load<sums + j.value>(to + j.value * matrix_cells, line); });
    for (int64_t p = 0; p < products; ++p, turned += matrix_cells, others += matrix_cells) {
      amx_load<pixels>(turned, line);
      each_register<n>([&](auto j) HWY_ATTR {
        amx_load<weights>(others + j.value * summed_cells, line);
        amx_multiply<sums + j.value, pixels, weights>();
      });
    }
    each_register<n>([&](auto j) HWY_ATTR { amx_store<sums + j.value>(to + j.value * matrix_cells, line); });
  };
  for (int64_t slab = 0; slab <= all; ++slab) {
    if (slab < all) make_ready(slab);
    if (slab == 0) continue;
    slabs == 1 ? multiply(Count<1>(), slab - 1) : multiply(Count<2>(), slab - 1);
  }
}

// products (groups, smaller, larger) += what acc has of them.
inline void add_products(const Meeting& m, int64_t channels, const float* acc, float* products) {
  for (int64_t slab = 0; slab < channels; slab += slab_channels, acc += m.slabs() * matrix_cells)
    for (int64_t c = 0; c < slab_channels; ++c) {
      const int64_t first = c / m.smaller * m.larger;  // of the group, in the slabs that meet this one
      for (int64_t o = first; o < first + m.larger; ++o)
        *products++ += acc[o / slab_channels * matrix_cells + c * slab_channels + o % slab_channels];
    }
}

#endif  // MGIC_HAS_MATRICES

}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
