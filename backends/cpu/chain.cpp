// Chains of grouped convolutions, fused (backend.h, "the training unit").
//
// Every phase is one pass of the threads over items of their own, each in its own cache; between two phases lies the
// barrier that the statistics need. Forward, a link a phase: the input is normalised and activated while it is packed,
// the moments of the output are gathered while it is stored. Backward, a link a phase, last to first: the gradient is
// taken through activation and normalisation while it is packed, serves the weights and the input, and on its way out
// goes through the activation of the link before, whose sums are gathered. Evaluation: a whole chain in one phase.
//
// Chains with other convolutions run as Backend composes them.
#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/chain.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include "backends/cpu/simd-inl.h"
#include "backends/cpu/grouped-inl.h"
#include "backends/cpu/chain.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {
namespace {

constexpr int slab_vectors = slab_channels / static_cast<int>(hn::MaxLanes(D()));

struct SlabParameter {
  V v[slab_vectors];
  SlabParameter() = default;
  HWY_INLINE explicit SlabParameter(const float* p) {
    for (int u = 0; u < slab_vectors; ++u) v[u] = p == nullptr ? hn::Zero(D()) : hn::LoadU(D(), p + u * lanes());
  }
  HWY_INLINE V operator[](int u) const { return v[u]; }
};

// f(u, memory) for the vectors of a slab, whole or of `valid` channels.
template <class A>
struct FullSlab {
  template <class F>
  HWY_INLINE void each(F&& f) const {
    for (int u = 0; u < slab_vectors; ++u) f(u, WholeOf<A>());
  }
};
struct PartSlab {
  int64_t valid;
  template <class F>
  HWY_INLINE void each(F&& f) const {
    for (int u = 0; u < slab_vectors; ++u) f(u, Part{std::clamp<int64_t>(valid - u * lanes(), 0, lanes())});
  }
};
template <class A, class F>
HWY_INLINE void with_slab(int64_t valid, F&& f) {
  if (valid >= slab_channels) return f(FullSlab<A>());
  f(PartSlab{valid});
}

// ---- Packing ----

// Where a slab lies: `channels` to a pixel of the map, `valid` of them from `first` on.
struct Slab {
  int64_t channels, first;
  int64_t valid() const { return std::min(slab_channels, channels - first); }
};

// plane ← value(element, u, memory) for rows [y0 − border, y1 + border) of image n, zeros outside of the image.
template <class A, class F>
HWY_INLINE void pack(const Grouped& g, Slab slab, int64_t n, int64_t y0, int64_t y1, F&& value,
                     typename A::Cell* plane) {
  using Cell = typename A::Cell;
  const int64_t border = g.border(), row_cells = g.pitch() * A::pixel;
  with_slab<A>(slab.valid(), [&](auto vectors) HWY_ATTR {
    for (int64_t y = y0 - border; y < y1 + border; ++y, plane += row_cells) {
      if (y < 0 || y >= g.height) {
        std::fill_n(plane, row_cells, Cell{});
        continue;
      }
      std::fill_n(plane, border * A::pixel, Cell{});
      std::fill_n(plane + row_cells - border * A::pixel, border * A::pixel, Cell{});
      int64_t at = (n * g.height + y) * g.width * slab.channels + slab.first;
      Cell* out = plane + border * A::pixel;
      for (int64_t x = 0; x < g.width; ++x, at += slab.channels, out += A::pixel)
        vectors.each([&](int u, auto memory) HWY_ATTR { A::put(value(at + u * lanes(), u, memory), out, u); });
    }
  });
}

template <class A, class T>
void pack_input(const Grouped& g, const Input<T>& in, int64_t first, int64_t n, int64_t y0, int64_t y1,
                typename A::Cell* plane) {
  const Slab slab{g.in_channels(), first};
  const T* x = in.x;
  if (in.scale != nullptr) {
    const SlabParameter mean(in.mean + first), scale(in.scale + first), beta(in.beta + first);
    return with_activation(in.activation, [&](auto activation) HWY_ATTR {
      pack<A>(
          g, slab, n, y0, y1,
          [&](int64_t at, int u, auto memory) HWY_ATTR {
            return activation.value(hn::MulAdd(hn::Sub(memory.load(x + at), mean[u]), scale[u], beta[u]));
          },
          plane);
    });
  }
  if (in.minus != nullptr)
    return pack<A>(
        g, slab, n, y0, y1,
        [&](int64_t at, int, auto memory) HWY_ATTR { return hn::Sub(memory.load(x + at), memory.load(in.minus + at)); },
        plane);
  with_activation(in.activation, [&](auto activation) HWY_ATTR {
    pack<A>(
        g, slab, n, y0, y1,
        [&](int64_t at, int, auto memory) HWY_ATTR { return activation.value(memory.load(x + at)); }, plane);
  });
}

template <class A, class T>
void pack_gradient(const Grouped& g, const OutputGradient<T>& in, int64_t first, int64_t n, int64_t y0, int64_t y1,
                   typename A::Cell* plane) {
  const Slab slab{g.out_channels(), first};
  if (in.raw == nullptr)
    return pack<A>(
        g, slab, n, y0, y1, [&](int64_t at, int, auto memory) HWY_ATTR { return memory.load(in.dy + at); }, plane);
  with_activation(in.activation, [&](auto activation) HWY_ATTR {
    if (in.scale == nullptr)
      return pack<A>(
          g, slab, n, y0, y1,
          [&](int64_t at, int, auto memory)
              HWY_ATTR { return activation.gradient(memory.load(in.raw + at), memory.load(in.dy + at)); },
          plane);
    const SlabParameter mean(in.mean + first), scale(in.scale + first), beta(in.beta + first), shift(in.shift + first),
        slope(in.slope + first);
    pack<A>(
        g, slab, n, y0, y1,
        [&](int64_t at, int u, auto memory) HWY_ATTR {
          const V centred = hn::Sub(memory.load(in.raw + at), mean[u]);
          const V dz = activation.gradient(hn::MulAdd(centred, scale[u], beta[u]), memory.load(in.dy + at));
          return hn::NegMulAdd(centred, slope[u], hn::MulSub(dz, scale[u], shift[u]));
        },
        plane);
  });
}

// ---- Fetching ahead ----

// The arithmetic of one unit (an item's bundle) leaves memory idle, so it asks for the next unit's lines meanwhile, a
// few rows with every block of rows. Without it, half of the packing's time was waiting: a slab is a short piece of
// every pixel, which the hardware does not foresee.
struct Ahead {
  static constexpr int most = 5;
  struct Map {
    const std::byte* first = nullptr;        // of the slabs' channels in pixel 0
    int64_t pixel = 0, slabs = 0, slab = 0;  // bytes of a pixel, slabs, bytes of a slab
    bool written = false;
  };
  Map maps[most];
  int count = 0;
  int64_t from = 0, to = 0;  // pixels

  template <class T>
  void add(const T* p, int64_t first_channel, int64_t channels, int64_t slabs, bool written = false) {
    constexpr int64_t size = sizeof(T);
    if (p != nullptr)
      maps[count++] = {reinterpret_cast<const std::byte*>(p + first_channel), channels * size, slabs,
                       slab_channels * size, written};
  }
  // The next `pixels` pixels.
  HWY_INLINE void fetch(int64_t pixels) {
    const int64_t end = std::min(from + pixels, to);
    for (int i = 0; i < count; ++i) {
      const Map& m = maps[i];
      for (int64_t p = from; p < end; ++p)
        for (int64_t s = 0; s < m.slabs; ++s) {
          const std::byte* line = m.first + p * m.pixel + s * m.slab;
          if (m.written)
            __builtin_prefetch(line, 1, 2);
          else
            __builtin_prefetch(line, 0, 2);
        }
    }
    from = end;
  }
};

// The unit behind (item, bundle) in the order of the walk; its first pixels, or none at the end.
struct Unit {
  int64_t item, bundle;
};
HWY_INLINE Ahead ahead_of(const Grouped& g, const Bands& bands, Unit next) {
  Ahead a;
  a.from = bands.image(next.item) * g.image_pixels() + bands.begin(next.item) * g.width;
  a.to = a.from + (bands.end(next.item) - bands.begin(next.item)) * g.width;
  return a;
}

HWY_INLINE Unit next_unit(const Grouped& g, int64_t bundle, int64_t item, bool last, bool backwards) {
  if (bundle + 1 < g.bundles() || last) return {item, std::min(bundle + 1, g.bundles() - 1)};
  return {backwards ? item - 1 : item + 1, 0};
}

// ---- Computing ----

// Rows that are computed before they are stored: enough for the tiles, few enough for the first cache.
inline int64_t block_rows(const Grouped& g) {
  const int64_t tile = tile_rows(g.width);
  return std::max<int64_t>(64 / g.width / tile, 1) * tile;
}

// Outputs of rows [y, y + rows) of a slab of a bundle, into (rows, width, 16). The planes begin at row `top` − border.
template <class A>
void compute_rows(const Grouped& g, const typename A::Cell* planes, int64_t plane, int64_t top,
                  const typename A::Cell* weights, int64_t bundle, int64_t slab, int64_t y, int64_t rows, float* out) {
  const int64_t row_cells = g.pitch() * A::pixel;
  const int64_t groups = std::min(g.bundle(), g.groups - bundle * g.bundle());
  with_result_lanes(g.outputs, [&](auto d) HWY_ATTR {
    constexpr int64_t lanes = hn::MaxLanes(d);
    const int64_t blocks = (g.outputs + lanes - 1) / lanes;
    const int64_t cells = A::cells(std::min(g.inputs, slab_channels)), slabs = Grouped::slabs(g.inputs);
    for (int64_t lane = 0; lane < slab_channels; lane += lanes) {
      const int64_t channel = slab * slab_channels + lane, group = channel / g.outputs, o = channel % g.outputs;
      if (group >= groups) break;
      const int64_t in = group * g.inputs;
      const int64_t block = (bundle * g.bundle() + group) * blocks + o / lanes;
      const Tiles<typename A::Cell> t{
          planes + in / slab_channels * plane + (y - top) * row_cells + A::cells(in % slab_channels),
          plane,
          row_cells,
          slabs,
          g.kernel,
          cells,
          weights + block * slabs * g.taps() * cells * lanes,
          out + lane,
          g.width * slab_channels};
      tiles<A>(d, t, rows, g.width);
    }
  });
}

// f(first element, pixels, block of outputs) for every block of rows of one slab.
template <class A, class F>
HWY_INLINE void each_block_of_rows(const Grouped& g, const typename A::Cell* planes, int64_t plane, const void* weights,
                                   int64_t bundle, int64_t slab, int64_t n, int64_t y0, int64_t y1, float* block,
                                   F&& f) {
  const int64_t step = block_rows(g);
  for (int64_t y = y0; y < y1; y += step) {
    const int64_t rows = std::min(step, y1 - y);
    compute_rows<A>(g, planes, plane, y0, static_cast<const typename A::Cell*>(weights), bundle, slab, y, rows, block);
    f((n * g.height + y) * g.width, rows * g.width, block);
  }
}

// Chan's formula: a slab's part of an item joins what the thread has seen.
HWY_INLINE void combine_moments(int64_t before, int64_t count, const SlabParameter& shift, const SlabParameter& sum,
                                const SlabParameter& square, float* mean, float* squares) {
  const D d;
  const float total = static_cast<float>(before + count), n = static_cast<float>(count);
  const V inverse = hn::Set(d, 1 / n), weight = hn::Set(d, n / total),
          cross = hn::Set(d, static_cast<float>(before) * n / total);
  for (int u = 0; u < slab_vectors; ++u) {
    float *m = mean + u * lanes(), *s = squares + u * lanes();
    const V offset = hn::Mul(sum[u], inverse);
    const V own = hn::NegMulAdd(sum[u], offset, square[u]);
    const V delta = hn::Sub(hn::Add(shift[u], offset), hn::LoadU(d, m));
    hn::StoreU(hn::MulAdd(delta, weight, hn::LoadU(d, m)), d, m);
    hn::StoreU(hn::MulAdd(hn::Mul(delta, delta), cross, hn::Add(own, hn::LoadU(d, s))), d, s);
  }
}

// moments is (2, padded channels): mean and squared deviations of the items' outputs.
template <class A, class T>
void forward_items(const ForwardCall<T>& call, const Bands& bands, int64_t begin, int64_t end, void* scratch,
                   float* block, float* moments) {
  auto* planes = static_cast<typename A::Cell*>(scratch);
  const Grouped& g = call.conv;
  const int64_t plane = (bands.rows + 2 * g.border()) * g.pitch() * A::pixel;
  const int64_t channels = g.out_channels(), padded = Grouped::slabs(channels) * slab_channels;
  int64_t done = 0;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t item = call.backwards ? begin + end - 1 - i : i;
    const int64_t n = bands.image(item), y0 = bands.begin(item), y1 = bands.end(item), pixels = (y1 - y0) * g.width;
    for (int64_t b = 0; b < g.bundles(); ++b) {
      const int64_t in = b * g.bundle() * g.inputs, out = b * g.bundle() * g.outputs;
      const Unit next = next_unit(g, b, item, i + 1 == end, call.backwards);
      Ahead ahead = ahead_of(g, bands, next);
      for (const T* x : {call.in.x, call.in.minus})
        ahead.add(x, next.bundle * g.bundle() * g.inputs, g.in_channels(), g.in_slabs());
      ahead.add(call.raw, next.bundle * g.bundle() * g.outputs, channels, g.out_slabs(), true);
      for (int64_t s = 0; s < g.in_slabs() && in + s * slab_channels < g.in_channels(); ++s)
        pack_input<A>(g, call.in, in + s * slab_channels, n, y0, y1, planes + s * plane);
      for (int64_t s = 0; s < g.out_slabs() && out + s * slab_channels < channels; ++s) {
        const Slab slab{channels, out + s * slab_channels};
        SlabParameter shift(nullptr), sum(nullptr), square(nullptr);
        bool first = true;
        each_block_of_rows<A>(g, planes, plane, call.weights, b, s, n, y0, y1, block,
                              [&](int64_t pixel, int64_t count, const float* values) HWY_ATTR {
                                if (s == 0) ahead.fetch(count);
                                if (first) shift = SlabParameter(values);
                                first = false;
                                T* raw = call.raw + pixel * channels + slab.first;
                                with_slab<A>(slab.valid(), [&](auto vectors) HWY_ATTR {
                                  for (int64_t i = 0; i < count; ++i, raw += channels, values += slab_channels)
                                    vectors.each([&](int u, auto memory) HWY_ATTR {
                                      const V v = stored_as<A>(hn::LoadU(D(), values + u * lanes()), T());
                                      memory.store(v, raw + u * lanes());
                                      const V offset = hn::Sub(v, shift[u]);
                                      sum.v[u] = hn::Add(sum[u], offset);
                                      square.v[u] = hn::MulAdd(offset, offset, square[u]);
                                    });
                                });
                              });
        if (call.moments)
          combine_moments(done, pixels, shift, sum, square, moments + slab.first, moments + padded + slab.first);
      }
    }
    done += pixels;
  }
}

// Room that the pairs of one bundle's planes take beside them, in cells.
template <class A>
int64_t pair_room(const Grouped& g, int64_t plane_rows) {
  return A::pairs ? (2 * g.in_slabs() + g.out_slabs()) * plane_rows * (g.pitch() / 2 + 1) * slab_channels : 0;
}

// The gradient of a bundle's weights from its planes; dw (groups, vectors of inputs, slabs of outputs, taps, outputs,
// lanes). `room` takes the pairs of pixels where the arithmetic wants them.
template <class A>
void backward_weights(const Grouped& g, const typename A::Cell* x_planes, const typename A::Cell* dy_planes,
                      int64_t plane, int64_t bundle, int64_t rows, typename A::Cell* room, float* dw) {
  using Cell = typename A::Cell;
  const int64_t border = g.border(), groups = std::min(g.bundle(), g.groups - bundle * g.bundle());
  // Where a slab's cells begin for even and for odd columns of the kernel, and from one row to the next.
  const Cell *x_even = x_planes, *x_odd = x_planes + A::pixel, *dy = dy_planes + border * (g.pitch() + 1) * A::pixel;
  int64_t x_plane = plane, dy_plane = plane, row_cells = g.pitch() * A::pixel, stride = 2 * A::pixel, count = g.width;
#if MGIC_HAS_BF16_DOT
  if constexpr (A::pairs) {
    const int64_t pairs = g.pitch() / 2 + 1, in_rows = rows + 2 * border;
    row_cells = pairs * slab_channels;
    x_plane = 2 * in_rows * row_cells;
    dy_plane = rows * row_cells;
    stride = slab_channels;
    count = (g.width + 1) / 2;
    for (int64_t s = 0; s < g.in_slabs(); ++s)
      for (int64_t odd = 0; odd < std::min<int64_t>(g.kernel, 2); ++odd)
        pair_pixels(x_planes + s * plane, in_rows, g.pitch(), odd, pairs,
                    room + s * x_plane + odd * in_rows * row_cells);
    Cell* dy_pairs = room + g.in_slabs() * x_plane;
    for (int64_t s = 0; s < g.out_slabs(); ++s)
      pair_pixels(dy_planes + s * plane + border * g.pitch() * A::pixel, rows, g.pitch(), border, pairs,
                  dy_pairs + s * dy_plane);
    x_even = room;
    x_odd = room + in_rows * row_cells;
    dy = dy_pairs;
  }
#endif
  // Blocks of rows whose planes and gradient stay in the first cache.
  const int64_t step = std::max<int64_t>(64 / g.width, 1);
  with_result_lanes(g.inputs, [&](auto d) HWY_ATTR {
    constexpr int64_t lanes = hn::MaxLanes(d);
    const int64_t vectors = (g.inputs + lanes - 1) / lanes;
    for (int64_t group = 0; group < groups; ++group)
      for (int64_t v = 0; v < vectors; ++v)
        for (int64_t o = 0; o < g.outputs; o += slab_channels) {
          const int64_t in = group * g.inputs + v * lanes, out = group * g.outputs + o;
          const int64_t x_at = in / slab_channels * x_plane + in % slab_channels,
                        dy_at = out / slab_channels * dy_plane + out % slab_channels;
          float* target =
              dw + (((bundle * g.bundle() + group) * vectors + v) * Grouped::slabs(g.outputs) + o / slab_channels) *
                       g.taps() * std::min(g.outputs, slab_channels) * lanes;
          for (int64_t y = 0; y < rows; y += step) {
            const Outers<Cell> t{{x_even + x_at + y * row_cells, x_odd + x_at + y * row_cells},
                                 stride,
                                 row_cells,
                                 dy + dy_at + y * row_cells,
                                 row_cells,
                                 std::min(step, rows - y),
                                 count,
                                 g.kernel,
                                 target,
                                 std::min(g.outputs - o, slab_channels)};
            outers<A>(d, t);
          }
        }
  });
}

// dw: the thread's own; sums (2, padded channels of the input): Σ dz and Σ dz (raw − mean) of the link before.
template <class A, class T>
void backward_items(const BackwardCall<T>& call, const Bands& bands, int64_t begin, int64_t end, void* scratch,
                    float* block, float* dw, double* sums) {
  auto* planes = static_cast<typename A::Cell*>(scratch);
  const Grouped g = call.conv, t = g.transposed();
  const int64_t plane = (bands.rows + 2 * g.border()) * g.pitch() * A::pixel;
  const int64_t channels = g.in_channels(), padded = Grouped::slabs(channels) * slab_channels;
  auto* x_planes = planes + g.out_slabs() * plane;
  auto* pairs = x_planes + g.in_slabs() * plane + slab_channels;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t item = call.backwards ? begin + end - 1 - i : i;
    const int64_t n = bands.image(item), y0 = bands.begin(item), y1 = bands.end(item);
    for (int64_t b = 0; b < g.bundles(); ++b) {
      const int64_t in = b * g.bundle() * g.inputs, out = b * g.bundle() * g.outputs;
      const Unit next = next_unit(g, b, item, i + 1 == end, call.backwards);
      const int64_t next_in = next.bundle * g.bundle() * g.inputs, next_out = next.bundle * g.bundle() * g.outputs;
      Ahead ahead = ahead_of(g, bands, next);
      for (const T* p : {call.gradient.dy, call.gradient.raw}) ahead.add(p, next_out, g.out_channels(), g.out_slabs());
      if (call.wants_weights) ahead.add(call.in.x, next_in, channels, g.in_slabs());
      ahead.add(call.dx, next_in, channels, g.in_slabs(), true);
      for (int64_t s = 0; s < g.out_slabs() && out + s * slab_channels < g.out_channels(); ++s)
        pack_gradient<A>(g, call.gradient, out + s * slab_channels, n, y0, y1, planes + s * plane);
      if (call.wants_weights) {
        for (int64_t s = 0; s < g.in_slabs() && in + s * slab_channels < channels; ++s)
          pack_input<A>(g, call.in, in + s * slab_channels, n, y0, y1, x_planes + s * plane);
        backward_weights<A>(g, x_planes, planes, plane, b, y1 - y0, pairs, dw);
      }
      if (call.weights == nullptr) continue;
      for (int64_t s = 0; s < g.in_slabs() && in + s * slab_channels < channels; ++s) {
        const Slab slab{channels, in + s * slab_channels};
        const auto each = [&](auto&& finish) HWY_ATTR {
          each_block_of_rows<A>(t, planes, plane, call.weights, b, s, n, y0, y1, block,
                                [&](int64_t pixel, int64_t count, const float* values) HWY_ATTR {
                                  if (s == 0) ahead.fetch(count);
                                  int64_t at = pixel * channels + slab.first;
                                  with_slab<A>(slab.valid(), [&](auto vectors) HWY_ATTR {
                                    for (int64_t i = 0; i < count; ++i, at += channels, values += slab_channels)
                                      vectors.each([&](int u, auto memory) HWY_ATTR {
                                        finish(hn::LoadU(D(), values + u * lanes()), at + u * lanes(), u, memory);
                                      });
                                  });
                                });
        };
        if (call.before == nullptr) {
          each([&](V v, int64_t at, int, auto memory) HWY_ATTR {
            if (call.dx != nullptr) put(v, call.accumulate_dx, memory, call.dx + at);
            if (call.dminus != nullptr) put(hn::Neg(v), call.accumulate_dminus, memory, call.dminus + at);
          });
          continue;
        }
        with_activation(call.activation, [&](auto activation) HWY_ATTR {
          if (call.scale == nullptr)
            return each([&](V v, int64_t at, int, auto memory) HWY_ATTR {
              memory.store(activation.gradient(memory.load(call.before + at), v), call.dx + at);
            });
          const SlabParameter mean(call.mean + slab.first), scale(call.scale + slab.first),
              beta(call.beta + slab.first);
          SlabParameter sum(nullptr), centred_sum(nullptr);
          each([&](V v, int64_t at, int u, auto memory) HWY_ATTR {
            const V centred = hn::Sub(memory.load(call.before + at), mean[u]);
            const V dz = stored_as<A>(activation.gradient(hn::MulAdd(centred, scale[u], beta[u]), v), T());
            memory.store(dz, call.dx + at);
            sum.v[u] = hn::Add(sum[u], dz);
            centred_sum.v[u] = hn::MulAdd(dz, centred, centred_sum[u]);
          });
          HWY_ALIGN float own[2 * slab_channels];
          for (int u = 0; u < slab_vectors; ++u) {
            hn::Store(sum[u], D(), own + u * lanes());
            hn::Store(centred_sum[u], D(), own + slab_channels + u * lanes());
          }
          for (int64_t i = 0; i < slab.valid(); ++i) {
            sums[slab.first + i] += own[i];
            sums[padded + slab.first + i] += own[slab_channels + i];
          }
        });
      }
    }
  }
}

// Whole chains, bundle by bundle: every link's output goes straight into the planes of the next.
template <class A, class T>
void evaluate_items(const EvaluationCall<T>& call, const Bands& bands, int64_t begin, int64_t end, void* scratch,
                    int64_t planes_of_a_link, float* block) {
  using Cell = typename A::Cell;
  auto* planes = static_cast<Cell*>(scratch);
  const FoldedLink& last = call.links[call.count - 1];
  const Grouped& final_conv = last.conv;
  const int64_t channels = final_conv.out_channels();
  for (int64_t item = begin; item < end; ++item) {
    const int64_t n = bands.image(item);
    for (int64_t b = 0; b < final_conv.bundles(); ++b) {
      // Rows that the links behind this one will read.
      int64_t halo = 0;
      for (int64_t i = 1; i < call.count; ++i) halo += call.links[i].conv.border();
      int64_t y0 = std::max<int64_t>(bands.begin(item) - halo, 0),
              y1 = std::min(bands.end(item) + halo, final_conv.height);
      Cell *from = planes, *to = planes + planes_of_a_link;
      const Grouped& head = call.links[0].conv;
      const Unit next_of = next_unit(final_conv, b, item, item + 1 == end, false);
      Ahead ahead = ahead_of(head, bands, next_of);
      for (const T* x : {call.in.x, call.in.minus})
        ahead.add(x, next_of.bundle * head.bundle() * head.inputs, head.in_channels(), head.in_slabs());
      if (call.residual != call.in.x)
        ahead.add(call.residual, next_of.bundle * final_conv.bundle() * final_conv.outputs, channels,
                  final_conv.out_slabs());
      ahead.add(call.y, next_of.bundle * final_conv.bundle() * final_conv.outputs, channels, final_conv.out_slabs(),
                true);
      const Grouped& first = call.links[0].conv;
      const auto plane_of = [&](const Grouped& g, int64_t rows) {
        return (rows + 2 * g.border()) * g.pitch() * A::pixel;
      };
      for (int64_t s = 0; s < first.in_slabs(); ++s) {
        const int64_t channel = b * first.bundle() * first.inputs + s * slab_channels;
        if (channel < first.in_channels())
          pack_input<A>(first, call.in, channel, n, y0, y1, from + s * plane_of(first, y1 - y0));
      }
      for (int64_t i = 0; i < call.count; ++i) {
        const FoldedLink& link = call.links[i];
        const Grouped& g = link.conv;
        const bool is_last = i + 1 == call.count;
        const int64_t plane = plane_of(g, y1 - y0);
        // The next link's planes: rows [z0 − border, z1 + border).
        const Grouped& next = call.links[is_last ? i : i + 1].conv;
        halo -= is_last ? 0 : next.border();
        const int64_t z0 = is_last ? y0 : std::max<int64_t>(bands.begin(item) - halo, 0),
                      z1 = is_last ? y1 : std::min(bands.end(item) + halo, g.height);
        const int64_t next_plane = plane_of(next, z1 - z0), next_row = next.pitch() * A::pixel;
        for (int64_t s = 0; s < g.out_slabs(); ++s) {
          const Slab slab{g.out_channels(), b * g.bundle() * g.outputs + s * slab_channels};
          if (slab.first >= slab.channels) continue;
          const SlabParameter bias(link.bias + slab.first);
          if (!is_last) std::fill_n(to + s * next_plane, next_plane, Cell{});
          with_activation(link.activation, [&](auto inner) HWY_ATTR {
            each_block_of_rows<A>(
                g, from, plane, link.weights, b, s, n, y0, y1, block,
                [&](int64_t pixel, int64_t count, const float* values) HWY_ATTR {
                  if (i == 0 && s == 0) ahead.fetch(count);
                  if (!is_last) {
                    const int64_t y = pixel / g.width - n * g.height;
                    for (int64_t row = 0; row < count / g.width; ++row) {
                      Cell* out =
                          to + s * next_plane + (y + row - z0 + next.border()) * next_row + next.border() * A::pixel;
                      for (int64_t x = 0; x < g.width; ++x, values += slab_channels, out += A::pixel)
                        for (int u = 0; u < slab_vectors; ++u)
                          A::put(inner.value(hn::Add(hn::LoadU(D(), values + u * lanes()), bias[u])), out, u);
                    }
                    return;
                  }
                  const auto finish = [&](auto&& end_of) HWY_ATTR {
                    int64_t at = pixel * channels + slab.first;
                    with_slab<A>(slab.valid(), [&](auto vectors) HWY_ATTR {
                      for (int64_t k = 0; k < count; ++k, at += channels, values += slab_channels)
                        vectors.each([&](int u, auto memory) HWY_ATTR {
                          const V z = inner.value(hn::Add(hn::LoadU(D(), values + u * lanes()), bias[u]));
                          memory.store(end_of(z, at + u * lanes(), memory), call.y + at + u * lanes());
                        });
                    });
                  };
                  if (call.residual == nullptr) return finish([](V z, int64_t, auto) HWY_ATTR { return z; });
                  with_activation(call.outer, [&](auto outer) HWY_ATTR {
                    finish([&](V z, int64_t at, auto memory)
                               HWY_ATTR { return outer.value(hn::Add(z, memory.load(call.residual + at))); });
                  });
                });
          });
        }
        std::swap(from, to);
        y0 = z0;
        y1 = z1;
      }
    }
  }
}

int64_t lanes_of(int64_t results) { return result_lanes(results); }

// f(arithmetic) for maps of T. bf16 is computed in f32 where the machine has no dot product for it.
template <class T, class F>
HWY_INLINE void with_arithmetic(bool pairs, F&& f) {
#if MGIC_HAS_BF16_DOT
  if constexpr (std::is_same_v<T, bf16>)
    if (pairs) return f(Bf16());
#endif
  f(F32());
}

template <class T>
void fill_kernels(bool pairs, ChainKernels<T>& k) {
  with_arithmetic<T>(pairs, [&](auto arithmetic) HWY_ATTR {
    using A = decltype(arithmetic);
    k = {&forward_items<A, T>, &backward_items<A, T>, &evaluate_items<A, T>, &pair_room<A>, A::pairs};
  });
}
void kernels_f32(bool, ChainKernels<float>& k) { fill_kernels(false, k); }
void kernels_bf16(bool pairs, ChainKernels<bf16>& k) { fill_kernels(pairs, k); }

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <array>
#include <bit>
#include <cmath>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/normalization.h"
#include "backends/cpu/parallel.h"

namespace mgic {
namespace cpu {
namespace {

HWY_EXPORT(lanes_of);
HWY_EXPORT(kernels_f32);
HWY_EXPORT(kernels_bf16);

bool has_bf16_dot() {
#if defined(__x86_64__)
  static const bool has = __builtin_cpu_supports("avx512bf16");
  return has;
#else
  return false;
#endif
}

template <class T>
ChainKernels<T> kernels_of() {
  ChainKernels<T> k;
  if constexpr (std::is_same_v<T, float>)
    HWY_DYNAMIC_DISPATCH(kernels_f32)(false, k);
  else
    HWY_DYNAMIC_DISPATCH(kernels_bf16)(has_bf16_dot(), k);
  return k;
}

int64_t padded(int64_t channels) { return Grouped::slabs(channels) * slab_channels; }

// f(c) for every channel, zeros behind them.
template <class F>
Scratch<float> channel_vector(int64_t channels, F&& f) {
  Scratch<float> v(padded(channels));
  for (int64_t c = 0; c < v.count(); ++c) v[c] = c < channels ? static_cast<float>(f(c)) : 0.0f;
  return v;
}

// What a normalisation subtracts, multiplies and adds.
struct NormVectors {
  Scratch<float> mean, scale, beta;
  explicit NormVectors(const Norm& n)
      : mean(channel_vector(n.gamma.count(), [p = n.mean.data<float>()](int64_t c) { return p[c]; })),
        scale(channel_vector(n.gamma.count(),
                             [&, g = n.gamma.data<float>(), v = n.variance.data<float>()](int64_t c) {
                               return g[c] / std::sqrt(static_cast<double>(v[c]) + n.eps);
                             })),
        beta(channel_vector(n.gamma.count(), [p = n.beta.data<float>()](int64_t c) { return p[c]; })) {}
};

Norm norm_of(const Link& link, const LinkState& state, bool training) {
  return {link.gamma, link.beta, training ? state.mean : link.running_mean,
          training ? state.variance : link.running_var, link.eps};
}

// Weights in the order of the tiles, (groups, vectors of outputs, slabs of inputs, taps, cells, lanes): value(group, o,
// u, v, i), zero where there is no such output or input. A cell is an f32, or a pair of bf16 for neighbouring inputs.
template <class F>
Scratch<uint32_t> packed_weights(const Grouped& g, bool pairs, F&& value) {
  const int64_t lanes = HWY_DYNAMIC_DISPATCH(lanes_of)(g.outputs), blocks = (g.outputs + lanes - 1) / lanes,
                slabs = Grouped::slabs(g.inputs), channels = std::min(g.inputs, slab_channels), step = pairs ? 2 : 1,
                group_size = blocks * slabs * g.taps() * ((channels + step - 1) / step) * lanes;
  Scratch<uint32_t> packed(g.groups * group_size);
  parallel_ranges(g.groups, 2 * group_size, [&](int64_t begin, int64_t end) {
    uint32_t* out = packed.data() + begin * group_size;
    for (int64_t group = begin; group < end; ++group) {
      const auto at = [&](int64_t o, int64_t u, int64_t v, int64_t i) {
        return o < g.outputs && i < g.inputs ? value(group, o, u, v, i) : 0.0f;
      };
      for (int64_t o = 0; o < blocks * lanes; o += lanes)
        for (int64_t i0 = 0; i0 < slabs * slab_channels; i0 += slab_channels)
          for (int64_t u = 0; u < g.kernel; ++u)
            for (int64_t v = 0; v < g.kernel; ++v)
              for (int64_t i = i0; i < i0 + channels; i += step)
                for (int64_t l = 0; l < lanes; ++l)
                  *out++ = pairs ? bf16(at(o + l, u, v, i)).bits |
                                       static_cast<uint32_t>(bf16(at(o + l, u, v, i + 1)).bits) << 16
                                 : std::bit_cast<uint32_t>(at(o + l, u, v, i));
    }
  });
  return packed;
}

Scratch<uint32_t> forward_weights(const Grouped& g, bool pairs, const float* w, const float* scale = nullptr) {
  return packed_weights(g, pairs, [=, &g](int64_t group, int64_t o, int64_t u, int64_t v, int64_t i) {
    const int64_t channel = group * g.outputs + o;
    const float value = w[((channel * g.kernel + u) * g.kernel + v) * g.inputs + i];
    return scale == nullptr ? value : value * scale[channel];
  });
}

// For gradients of the input: mirrored, and with inputs and outputs exchanged.
Scratch<uint32_t> transposed_weights(const Grouped& g, bool pairs, const float* w) {
  return packed_weights(g.transposed(), pairs, [=, &g](int64_t group, int64_t i, int64_t u, int64_t v, int64_t o) {
    const int64_t channel = group * g.outputs + o;
    return w[((channel * g.kernel + g.kernel - 1 - u) * g.kernel + g.kernel - 1 - v) * g.inputs + i];
  });
}

// ---- What evaluation makes of a link once, and not at every call ----

// The link's weights with its normalisation in them, and what is left of that to be added.
struct Folded {
  Tensor weight, bias;       // as the link's; where its convolution runs in oneDNN
  Scratch<uint32_t> packed;  // where it runs here
  Scratch<float> padded_bias;
};

// Kept by the weights they were made of, for as long as none of a link's tensors changes. The handles keep a storage's
// address from being used again; storages that nobody else holds any more are dropped as new ones come.
class FoldCache {
 public:
  static FoldCache& instance() {
    static FoldCache cache;
    return cache;
  }
  template <class F>
  std::shared_ptr<const Folded> get(const Link& link, int64_t kind, F&& make) {
    std::lock_guard lock(mutex_);
    Entry& e = entries_[{link.weight.raw(), kind}];
    if (e.folded && e.versions == versions(link) && same(e.link, link)) return e.folded;
    const auto folded = std::make_shared<const Folded>(make());
    e = {link, versions(link), folded};
    if (entries_.size() > sweep_at_) {
      std::erase_if(entries_, [](const auto& item) { return item.second.link.weight.unique(); });
      sweep_at_ = std::max<size_t>(2 * entries_.size(), 256);
    }
    return folded;
  }

 private:
  using Versions = std::array<uint64_t, 5>;
  struct Entry {
    Link link;
    Versions versions{};
    std::shared_ptr<const Folded> folded;
  };
  static std::array<const Tensor*, 5> tensors(const Link& l) {
    return {&l.weight, &l.gamma, &l.beta, &l.running_mean, &l.running_var};
  }
  static Versions versions(const Link& l) {
    Versions v{};
    for (size_t i = 0; i < v.size(); ++i)
      if (tensors(l)[i]->defined()) v[i] = tensors(l)[i]->version();
    return v;
  }
  static bool same(const Link& a, const Link& b) {
    for (size_t i = 0; i < 5; ++i) {
      const Tensor &x = *tensors(a)[i], &y = *tensors(b)[i];
      if (x.defined() != y.defined() || (x.defined() && x.raw() != y.raw())) return false;
    }
    return a.eps == b.eps;
  }

  std::mutex mutex_;
  std::map<std::pair<const void*, int64_t>, Entry> entries_;
  size_t sweep_at_ = 256;
};

// Gradients of weights as the kernels hold them, one set a thread.
class WeightGradients {
 public:
  WeightGradients(const Grouped& g, int parts)
      : g_(g),
        lanes_(HWY_DYNAMIC_DISPATCH(lanes_of)(g.inputs)),
        vectors_((g.inputs + lanes_ - 1) / lanes_),
        outputs_(std::min(g.outputs, slab_channels)),
        size_(g.groups * vectors_ * Grouped::slabs(g.outputs) * g.taps() * outputs_ * lanes_),
        parts_(parts),
        memory_(parts * size_) {}

  float* part(int i) { return memory_.data() + i * size_; }
  int64_t size() const { return size_; }

  // dw (+)= the sum of the parts, in their order.
  void write(Sink sink) {
    float* dw = (*sink).data<float>();
    const bool accumulate = accumulates(sink);
    const int64_t group_weights = g_.outputs * g_.taps() * g_.inputs;
    parallel_ranges(g_.groups, 4 * group_weights, [&](int64_t begin, int64_t end) {
      for (int64_t channel = begin * g_.outputs; channel < end * g_.outputs; ++channel) {
        const int64_t group = channel / g_.outputs, o = channel % g_.outputs;
        const int64_t own = std::min(slab_channels, g_.outputs - o / slab_channels * slab_channels);
        for (int64_t tap = 0; tap < g_.taps(); ++tap)
          for (int64_t v = 0; v < vectors_; ++v) {
            const float* from =
                memory_.data() +
                (((group * vectors_ + v) * Grouped::slabs(g_.outputs) + o / slab_channels) * g_.taps() * outputs_ +
                 tap * own + o % slab_channels) *
                    lanes_;
            float* to = dw + (channel * g_.taps() + tap) * g_.inputs + v * lanes_;
            const int64_t n = std::min(lanes_, g_.inputs - v * lanes_);
            for (int64_t l = 0; l < n; ++l) {
              float sum = accumulate ? to[l] : 0;
              for (int part = 0; part < parts_; ++part) sum += from[part * size_ + l];
              to[l] = sum;
            }
          }
      }
    });
  }

 private:
  Grouped g_;
  int64_t lanes_, vectors_, outputs_, size_;
  int parts_;
  Scratch<float> memory_;
};

// Bands whose planes, `slabs` of them, stay in a thread's own cache; the first cache where there are no halos to pay
// for. At least one for every thread.
Bands bands_of(const Grouped& g, int64_t slabs) {
  const int64_t bytes = g.kernel == 1 ? 24 * 1024 : 384 * 1024;
  const int64_t fit = bytes / (slabs * g.pitch() * slab_channels * static_cast<int64_t>(sizeof(float)));
  int64_t rows = std::clamp<int64_t>(fit - 2 * g.border(), 8, g.height);
  const int64_t per_image = (threads() + g.batch - 1) / g.batch;
  rows = std::max<int64_t>(std::min(rows, (g.height + per_image - 1) / per_image), 1);
  return {g.batch, g.height, std::min(rows, g.height)};
}

// In cells; planes of pairs take half as many, and leave room.
int64_t plane_size(const Grouped& g, const Bands& bands) {
  return (bands.rows + 2 * g.border()) * g.pitch() * slab_channels;
}

// Vectors may reach a little beyond the last pixel; the blocks of outputs lie behind the planes.
constexpr int64_t slack = 4 * slab_channels;
int64_t block_size(const Grouped& g) { return (64 + 16 * g.width) * slab_channels; }

// The value that link i reads.
template <class T>
struct LinkInput {
  Input<T> in;
  std::optional<NormVectors> norm;
};
template <class T>
LinkInput<T> input_of(const Chain& chain, const ChainInput& in, const std::vector<LinkState>& states, size_t i) {
  LinkInput<T> result;
  if (i == 0) {
    result.in = {in.x.data<T>(), data_or_null<T>(in.minus)};
    return result;
  }
  const Link& before = chain.links[i - 1];
  result.in.x = states[i - 1].raw.template data<T>();
  result.in.activation = before.activation;
  if (before.gamma.defined()) {
    result.norm.emplace(norm_of(before, states[i - 1], chain.training));
    result.in.mean = result.norm->mean.data();
    result.in.scale = result.norm->scale.data();
    result.in.beta = result.norm->beta.data();
  }
  return result;
}

bool fuses(const Chain& chain, const ChainInput& in) {
  Shape x = in.x.shape();
  if (x.count() == 0) return false;
  for (const Link& link : chain.links) {
    if (!grouped_suits(link.conv, x, link.weight.shape())) return false;
    x = {x[0], x[1], x[2], link.weight.shape()[0]};
  }
  return true;
}

// Moments of the parts, each of so many rows, as one: Chan's formula.
void combine(const float* moments, const std::vector<int64_t>& rows, int64_t stride, int64_t channels, float* mean,
             float* variance) {
  for (int64_t c = 0; c < channels; ++c) {
    double count = 0, m = 0, squares = 0;
    for (size_t part = 0; part < rows.size(); ++part) {
      const float* own = moments + static_cast<int64_t>(part) * 2 * stride;
      const double n = static_cast<double>(rows[part]), total = count + n, delta = own[c] - m;
      if (n == 0) continue;
      m += delta * n / total;
      squares += own[stride + c] + delta * delta * count * n / total;
      count = total;
    }
    mean[c] = static_cast<float>(m);
    variance[c] = static_cast<float>(squares / count);
  }
}

template <class T>
void forward_link(const Chain& chain, const ChainInput& in, std::vector<LinkState>& states, size_t i) {
  const Link& link = chain.links[i];
  LinkState& state = states[i];
  const auto kernels = kernels_of<T>();
  const Grouped g = grouped_of(link.conv, i == 0 ? in.x.shape() : states[i - 1].raw.shape(), link.weight.shape());
  const LinkInput<T> input = input_of<T>(chain, in, states, i);
  const auto weights = forward_weights(g, kernels.pairs, link.weight.data<float>());
  const bool moments = link.gamma.defined() && chain.training;
  const ForwardCall<T> call{g, input.in, weights.data(), state.raw.data<T>(), moments, i % 2 == 1};

  const Bands bands = bands_of(g, g.in_slabs());
  const int parts = chunks_of(bands.items());
  const int64_t planes = g.in_slabs() * plane_size(g, bands) + slack, room = planes + block_size(g);
  const int64_t stride = padded(g.out_channels());
  Scratch<float> scratch(threads() * room), partial(parts * 2 * stride);
  std::vector<int64_t> rows(static_cast<size_t>(parts), 0);
  parallel_chunks(bands.items(), parts, call.backwards, [&](int part, int thread, int64_t begin, int64_t end) {
    float *own = scratch.data() + thread * room, *own_moments = partial.data() + part * 2 * stride;
    std::fill_n(own_moments, 2 * stride, 0.0f);
    kernels.forward(call, bands, begin, end, own, own + planes, own_moments);
    for (int64_t item = begin; item < end; ++item)
      rows[static_cast<size_t>(part)] += (bands.end(item) - bands.begin(item)) * g.width;
  });
  if (!moments) return;
  combine(partial.data(), rows, stride, g.out_channels(), state.mean.data<float>(), state.variance.data<float>());
}

template <class T>
void evaluate(const Chain& chain, const ChainInput& in, Tensor& y) {
  const auto kernels = kernels_of<T>();
  std::vector<FoldedLink> links;
  std::vector<std::shared_ptr<const Folded>> keep;
  int64_t slabs = 1, halo = 0;
  Shape x = in.x.shape();
  for (const Link& link : chain.links) {
    const Grouped g = grouped_of(link.conv, x, link.weight.shape());
    x = {x[0], x[1], x[2], g.out_channels()};
    const int64_t lanes = HWY_DYNAMIC_DISPATCH(lanes_of)(g.outputs);
    keep.push_back(FoldCache::instance().get(link, 2 * lanes + kernels.pairs, [&] {
      const float* w = link.weight.data<float>();
      if (!link.gamma.defined())
        return Folded{{}, {}, forward_weights(g, kernels.pairs, w), channel_vector(g.out_channels(), [](int64_t) {
                        return 0.0f;
                      })};
      const NormVectors norm(norm_of(link, {}, false));
      return Folded{
          {},
          {},
          forward_weights(g, kernels.pairs, w, norm.scale.data()),
          channel_vector(g.out_channels(), [&](int64_t c) { return norm.beta[c] - norm.mean[c] * norm.scale[c]; })};
    }));
    links.push_back({g, keep.back()->packed.data(), keep.back()->padded_bias.data(), link.activation});
    slabs = std::max({slabs, g.in_slabs(), g.out_slabs()});
    if (links.size() > 1) halo += g.border();
  }
  const Bands bands = bands_of(links[0].conv, 2 * slabs);
  int64_t link_planes = 0, block = 0;
  for (const FoldedLink& l : links) {
    const int64_t rows = bands.rows + 2 * halo + 2 * l.conv.border();
    link_planes = std::max(link_planes, slabs * rows * l.conv.pitch() * slab_channels + slack);
    block = std::max(block, block_size(l.conv));
  }
  const EvaluationCall<T> call{links.data(),
                               static_cast<int64_t>(links.size()),
                               {in.x.data<T>(), data_or_null<T>(in.minus)},
                               data_or_null<T>(in.residual),
                               chain.outer,
                               y.data<T>()};
  const int64_t room = 2 * link_planes + block;
  Scratch<float> scratch(threads() * room);
  parallel_chunks(bands.items(), chunks_of(bands.items()), false, [&](int, int thread, int64_t begin, int64_t end) {
    float* own = scratch.data() + thread * room;
    kernels.evaluate(call, bands, begin, end, own, link_planes, own + 2 * link_planes);
  });
}

// Link i's part of backward. `gradient` is that of its output: behind its activation, but of the last link in front of
// it. `before` takes that of the link before's output, behind its activation, and `sums` those of its normalisation.
template <class T>
void backward_link(const Chain& chain, const ChainInput& in, const std::vector<LinkState>& states, size_t i,
                   const Tensor& gradient, const ChainSinks& sinks, std::optional<NormSums>& sums, Tensor& before) {
  const Link& link = chain.links[i];
  const LinkState& state = states[i];
  const LinkSinks& own = sinks.links[i];
  const bool last = i + 1 == chain.links.size();
  const auto kernels = kernels_of<T>();
  const Grouped g = grouped_of(link.conv, i == 0 ? in.x.shape() : states[i - 1].raw.shape(), link.weight.shape());
  const LinkInput<T> input = input_of<T>(chain, in, states, i);
  BackwardCall<T> call{
      g, {gradient.data<T>()}, static_cast<bool>(own.weight), (chain.links.size() - i) % 2 == 1, input.in, nullptr};

  std::optional<NormVectors> norm;
  std::optional<NormCoefficients> through;
  if (last) call.gradient.activation = link.activation;
  if (link.gamma.defined()) {
    const Norm of = norm_of(link, state, chain.training);
    norm.emplace(of);
    through.emplace(of, *sums, chain.training, state.raw.shape().rows(), padded(g.out_channels()));
    write_norm_gradients(of, *sums, own.gamma, own.beta);
    call.gradient.raw = state.raw.data<T>();
    call.gradient.mean = norm->mean.data();
    call.gradient.scale = norm->scale.data();
    call.gradient.beta = norm->beta.data();
    call.gradient.shift = through->shift.data();
    call.gradient.slope = through->slope.data();
  } else if (last && link.activation != Activation::none) {
    call.gradient.raw = state.raw.data<T>();
  }

  if (before.defined()) {
    call.dx = before.data<T>();
    call.before = input.in.x;
    call.mean = input.in.mean;
    call.scale = input.in.scale;
    call.beta = input.in.beta;
    call.activation = input.in.activation;
  } else {
    if (sinks.x) call.dx = (*sinks.x).data<T>(), call.accumulate_dx = accumulates(sinks.x);
    if (sinks.minus) call.dminus = (*sinks.minus).data<T>(), call.accumulate_dminus = accumulates(sinks.minus);
  }
  const bool wants_input = call.dx != nullptr || call.dminus != nullptr;
  if (!wants_input && !call.wants_weights) return;
  const auto weights =
      wants_input ? transposed_weights(g, kernels.pairs, link.weight.data<float>()) : Scratch<uint32_t>(0);
  if (wants_input) call.weights = weights.data();

  const int64_t slabs = g.in_slabs() + g.out_slabs();
  const Bands bands = bands_of(g, slabs);
  const int parts = chunks_of(bands.items());
  const int64_t planes = slabs * plane_size(g, bands) + kernels.pair_room(g, bands.rows + 2 * g.border()) + slack,
                room = planes + block_size(g), stride = padded(g.in_channels());
  WeightGradients dw(g, call.wants_weights ? parts : 0);
  Scratch<float> scratch(threads() * room);
  Scratch<double> partial(parts * 2 * stride);
  parallel_chunks(bands.items(), parts, call.backwards, [&](int part, int thread, int64_t begin, int64_t end) {
    float *planes_of = scratch.data() + thread * room, *dw_of = call.wants_weights ? dw.part(part) : nullptr;
    double* sums_of = partial.data() + part * 2 * stride;
    if (call.wants_weights) std::fill_n(dw_of, dw.size(), 0.0f);
    std::fill_n(sums_of, 2 * stride, 0.0);
    kernels.backward(call, bands, begin, end, planes_of, planes_of + planes, dw_of, sums_of);
  });
  if (call.wants_weights) dw.write(own.weight);
  if (i == 0 || !chain.links[i - 1].gamma.defined()) return;
  sums.emplace(g.in_channels());
  for (int64_t c = 0; c < g.in_channels(); ++c)
    for (int part = 0; part < parts; ++part) {
      sums->sum[c] += partial[part * 2 * stride + c];
      sums->centred_sum[c] += partial[(part * 2 + 1) * stride + c];
    }
}

// Whether the links' bundles lie over each other, so that a chain can be evaluated bundle by bundle.
bool aligned(const Chain& chain, const ChainInput& in) {
  Shape x = in.x.shape();
  int64_t bundles = 0, channels = 0;
  for (const Link& link : chain.links) {
    const Grouped g = grouped_of(link.conv, x, link.weight.shape());
    x = {x[0], x[1], x[2], g.out_channels()};
    if (bundles != 0 && (g.bundles() != bundles || g.bundle() * g.inputs != channels)) return false;
    bundles = g.bundles();
    channels = g.bundle() * g.outputs;
  }
  return true;
}

}  // namespace

bool grouped_suits(const ConvParams& p, const Shape& x, const Shape& w) {
  const int64_t kernel = w[1], inputs = w[3], outputs = w[0] / p.groups;
  if (p.stride != 1 || p.dilation != 1 || w[2] != kernel || kernel % 2 == 0 || p.padding != kernel / 2) return false;
  if (x.count() == 0) return false;
  const auto fits = [](int64_t n) { return n == 4 || n == 8 || (n % slab_channels == 0 && n <= 64); };
  return p.groups > 1 ? fits(inputs) && fits(outputs) : inputs <= 32 && outputs <= 64;
}

Grouped grouped_of(const ConvParams& p, const Shape& x, const Shape& w) {
  return {x[0], x[1], x[2], p.groups, w[3], w[0] / p.groups, w[1]};
}

}  // namespace cpu

using namespace cpu;

void CpuBackend::conv_chain(const Chain& chain, const ChainInput& in, std::vector<LinkState>& states, Tensor& y) {
  if (!fuses(chain, in)) {
    if (!chain.saves && !chain.training && !in.minus.defined()) return evaluate_folded(chain, in, states, y);
    return Backend::conv_chain(chain, in, states, y);
  }
  if (!chain.saves && !chain.training && aligned(chain, in))
    return with_storage(y, [&](auto zero) { evaluate<decltype(zero)>(chain, in, y); });
  for (size_t i = 0; i < chain.links.size(); ++i) {
    const Link& link = chain.links[i];
    LinkState& state = states[i];
    with_storage(y, [&](auto zero) { forward_link<decltype(zero)>(chain, in, states, i); });
    if (!link.gamma.defined() || !chain.training) continue;
    Tensor mean = link.running_mean, variance = link.running_var;  // handles: the storage is the module's
    update_running(state.mean, state.variance, state.raw.shape().rows(), link.momentum, mean, variance);
  }
  end_chain(chain, in, states, y);
}

// Link by link, the normalisation in weights and bias, activations and the residual in the convolution's own epilogue.
void CpuBackend::evaluate_folded(const Chain& chain, const ChainInput& in, std::vector<LinkState>& states, Tensor& y) {
  Tensor x = in.x;
  for (size_t i = 0; i < chain.links.size(); ++i) {
    const Link& link = chain.links[i];
    const bool last = i + 1 == chain.links.size(), adds = last && in.residual.defined();
    const int64_t outputs = link.weight.shape()[0], count = link.weight.count() / std::max<int64_t>(outputs, 1);
    Tensor weight = link.weight, bias;
    if (link.gamma.defined()) {
      const auto folded = FoldCache::instance().get(link, 0, [&] {
        const NormVectors norm(norm_of(link, {}, false));
        Folded f{Tensor::empty_like(link.weight), Tensor::empty_like(link.beta), Scratch<uint32_t>(0),
                 Scratch<float>(0)};
        const float* w = link.weight.data<float>();
        for (int64_t o = 0; o < outputs; ++o) {
          for (int64_t k = o * count; k < (o + 1) * count; ++k) f.weight.data<float>()[k] = w[k] * norm.scale[o];
          f.bias.data<float>()[o] = norm.beta[o] - norm.mean[o] * norm.scale[o];
        }
        return f;
      });
      weight = folded->weight;
      bias = folded->bias;
    }
    // An activation in front of the residual stands between the convolution and the addition.
    const bool apart = adds && link.activation != Activation::none;
    Tensor& out = last ? y : states[i].raw;
    conv2d(link.conv, x, weight, bias, adds && !apart ? in.residual : Tensor(),
           adds && !apart ? chain.outer : link.activation, out);
    if (apart) {
      add(out, in.residual, Broadcast::same, out);
      if (chain.outer != Activation::none) activation(chain.outer, out, out);
    }
    x = out;
  }
}

void CpuBackend::conv_chain_backward(const Chain& chain, const ChainInput& in, const std::vector<LinkState>& states,
                                     const Tensor& dy, const ChainSinks& sinks) {
  if (!fuses(chain, in)) return Backend::conv_chain_backward(chain, in, states, dy, sinks);
  const size_t n = chain.links.size();
  const Link& last = chain.links.back();

  // Through the residual's addition and the activation behind it. Where nothing is behind it, dy is the gradient.
  Tensor gradient = dy;
  const bool behind = in.residual.defined() && chain.outer != Activation::none;
  std::optional<NormSums> sums;
  if (last.gamma.defined()) {
    const Norm norm = norm_of(last, states.back(), chain.training);
    const Epilogue end{last.activation, in.residual, chain.outer};
    // The residual's own gradient is that one too: kept in its place where nothing is there and nothing else will be
    // added before it has been read.
    const bool keeps = sinks.residual && !accumulates(sinks.residual) &&
                       !(n == 1 && sinks.x && (*sinks.x).shares_storage(*sinks.residual));
    if (behind) gradient = keeps ? *sinks.residual : Tensor::empty_like(dy);
    sums.emplace(norm_gradient_sums(norm, states.back().raw, end, dy, behind ? &gradient : nullptr));
    if (sinks.residual && !(behind && keeps)) scale(1.0, gradient, sinks.residual);
  } else if (in.residual.defined()) {
    if (behind) {
      Tensor sum = Tensor::empty_like(dy);
      add(states.back().raw, in.residual, Broadcast::same, sum);
      gradient = Tensor::empty_like(dy);
      activation_backward(chain.outer, sum, dy, {&gradient});
    }
    if (sinks.residual) scale(1.0, gradient, sinks.residual);
  }

  for (size_t i = n; i-- > 0;) {
    Tensor before;  // the gradient behind the link before
    if (i > 0) before = Tensor::empty_like(states[i - 1].raw);
    with_storage(
        dy, [&](auto zero) { backward_link<decltype(zero)>(chain, in, states, i, gradient, sinks, sums, before); });
    gradient = before;
  }
}

}  // namespace mgic
#endif  // HWY_ONCE
