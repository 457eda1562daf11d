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
struct FullSlab {
  template <class F>
  HWY_INLINE void each(F&& f) const {
    for (int u = 0; u < slab_vectors; ++u) f(u, Whole());
  }
};
struct PartSlab {
  int64_t valid;
  template <class F>
  HWY_INLINE void each(F&& f) const {
    for (int u = 0; u < slab_vectors; ++u) f(u, Part{std::clamp<int64_t>(valid - u * lanes(), 0, lanes())});
  }
};
template <class F>
HWY_INLINE void with_slab(int64_t valid, F&& f) {
  if (valid >= slab_channels) return f(FullSlab());
  f(PartSlab{valid});
}

// ---- Packing ----

// Where a slab lies: `channels` to a pixel of the map, `valid` of them from `first` on.
struct Slab {
  int64_t channels, first;
  int64_t valid() const { return std::min(slab_channels, channels - first); }
};

// plane ← value(element, u, memory) for rows [y0 − border, y1 + border) of image n, zeros outside of the image.
template <class F>
HWY_INLINE void pack(const Grouped& g, Slab slab, int64_t n, int64_t y0, int64_t y1, F&& value, float* plane) {
  const int64_t border = g.border(), row_cells = g.pitch() * slab_channels;
  with_slab(slab.valid(), [&](auto vectors) HWY_ATTR {
    for (int64_t y = y0 - border; y < y1 + border; ++y, plane += row_cells) {
      if (y < 0 || y >= g.height) {
        std::fill_n(plane, row_cells, 0.0f);
        continue;
      }
      std::fill_n(plane, border * slab_channels, 0.0f);
      std::fill_n(plane + row_cells - border * slab_channels, border * slab_channels, 0.0f);
      int64_t at = (n * g.height + y) * g.width * slab.channels + slab.first;
      float* out = plane + border * slab_channels;
      for (int64_t x = 0; x < g.width; ++x, at += slab.channels, out += slab_channels)
        vectors.each([&](int u, auto memory) HWY_ATTR {
          hn::StoreU(value(at + u * lanes(), u, memory), D(), out + u * lanes());
        });
    }
  });
}

void pack_input(const Grouped& g, const Input& in, int64_t first, int64_t n, int64_t y0, int64_t y1, float* plane) {
  const Slab slab{g.in_channels(), first};
  const float* x = in.x;
  if (in.scale != nullptr) {
    const SlabParameter mean(in.mean + first), scale(in.scale + first), beta(in.beta + first);
    return with_activation(in.activation, [&](auto activation) HWY_ATTR {
      pack(g, slab, n, y0, y1,
           [&](int64_t at, int u, auto memory) HWY_ATTR {
             return activation.value(hn::MulAdd(hn::Sub(memory.load(x + at), mean[u]), scale[u], beta[u]));
           },
           plane);
    });
  }
  if (in.minus != nullptr)
    return pack(g, slab, n, y0, y1,
                [&](int64_t at, int, auto memory)
                    HWY_ATTR { return hn::Sub(memory.load(x + at), memory.load(in.minus + at)); },
                plane);
  with_activation(in.activation, [&](auto activation) HWY_ATTR {
    pack(g, slab, n, y0, y1,
         [&](int64_t at, int, auto memory) HWY_ATTR { return activation.value(memory.load(x + at)); }, plane);
  });
}

void pack_gradient(const Grouped& g, const OutputGradient& in, int64_t first, int64_t n, int64_t y0, int64_t y1,
                   float* plane) {
  const Slab slab{g.out_channels(), first};
  if (in.raw == nullptr)
    return pack(g, slab, n, y0, y1, [&](int64_t at, int, auto memory) HWY_ATTR { return memory.load(in.dy + at); },
                plane);
  with_activation(in.activation, [&](auto activation) HWY_ATTR {
    if (in.scale == nullptr)
      return pack(g, slab, n, y0, y1,
                  [&](int64_t at, int, auto memory) HWY_ATTR {
                    return activation.gradient(memory.load(in.raw + at), memory.load(in.dy + at));
                  },
                  plane);
    const SlabParameter mean(in.mean + first), scale(in.scale + first), beta(in.beta + first), shift(in.shift + first),
        slope(in.slope + first);
    pack(g, slab, n, y0, y1,
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
    const float* first = nullptr;  // of the slabs' channels in pixel 0
    int64_t channels = 0, slabs = 0;
    bool written = false;
  };
  Map maps[most];
  int count = 0;
  int64_t from = 0, to = 0;  // pixels

  void add(const float* p, int64_t first_channel, int64_t channels, int64_t slabs, bool written = false) {
    if (p != nullptr) maps[count++] = {p + first_channel, channels, slabs, written};
  }
  // The next `pixels` pixels.
  HWY_INLINE void fetch(int64_t pixels) {
    const int64_t end = std::min(from + pixels, to);
    for (int i = 0; i < count; ++i) {
      const Map& m = maps[i];
      for (int64_t p = from; p < end; ++p)
        for (int64_t s = 0; s < m.slabs; ++s) {
          const float* line = m.first + p * m.channels + s * slab_channels;
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
void compute_rows(const Grouped& g, const float* planes, int64_t plane, int64_t top, const float* weights,
                  int64_t bundle, int64_t slab, int64_t y, int64_t rows, float* out) {
  const int64_t row_cells = g.pitch() * slab_channels;
  const int64_t groups = std::min(g.bundle(), g.groups - bundle * g.bundle());
  with_result_lanes(g.outputs, [&](auto d) HWY_ATTR {
    constexpr int64_t lanes = hn::MaxLanes(d);
    const int64_t blocks = (g.outputs + lanes - 1) / lanes;
    const int64_t cells = std::min(g.inputs, slab_channels), slabs = Grouped::slabs(g.inputs);
    for (int64_t lane = 0; lane < slab_channels; lane += lanes) {
      const int64_t channel = slab * slab_channels + lane, group = channel / g.outputs, o = channel % g.outputs;
      if (group >= groups) break;
      const int64_t in = group * g.inputs;
      const int64_t block = (bundle * g.bundle() + group) * blocks + o / lanes;
      const Tiles<float> t{planes + in / slab_channels * plane + (y - top) * row_cells + in % slab_channels,
                           plane,
                           row_cells,
                           slabs,
                           g.kernel,
                           cells,
                           weights + block * slabs * g.taps() * cells * lanes,
                           out + lane,
                           g.width * slab_channels};
      tiles<F32>(d, t, rows, g.width);
    }
  });
}

// f(first element, pixels, block of outputs) for every block of rows of one slab.
template <class F>
HWY_INLINE void each_block_of_rows(const Grouped& g, const float* planes, int64_t plane, const float* weights,
                                   int64_t bundle, int64_t slab, int64_t n, int64_t y0, int64_t y1, float* block,
                                   F&& f) {
  const int64_t step = block_rows(g);
  for (int64_t y = y0; y < y1; y += step) {
    const int64_t rows = std::min(step, y1 - y);
    compute_rows(g, planes, plane, y0, weights, bundle, slab, y, rows, block);
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
void forward_items(const ForwardCall& call, const Bands& bands, int64_t begin, int64_t end, float* planes, float* block,
                   float* moments) {
  const Grouped& g = call.conv;
  const int64_t plane = (bands.rows + 2 * g.border()) * g.pitch() * slab_channels;
  const int64_t channels = g.out_channels(), padded = Grouped::slabs(channels) * slab_channels;
  int64_t done = 0;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t item = call.backwards ? begin + end - 1 - i : i;
    const int64_t n = bands.image(item), y0 = bands.begin(item), y1 = bands.end(item), pixels = (y1 - y0) * g.width;
    for (int64_t b = 0; b < g.bundles(); ++b) {
      const int64_t in = b * g.bundle() * g.inputs, out = b * g.bundle() * g.outputs;
      const Unit next = next_unit(g, b, item, i + 1 == end, call.backwards);
      Ahead ahead = ahead_of(g, bands, next);
      for (const float* x : {call.in.x, call.in.minus})
        ahead.add(x, next.bundle * g.bundle() * g.inputs, g.in_channels(), g.in_slabs());
      ahead.add(call.raw, next.bundle * g.bundle() * g.outputs, channels, g.out_slabs(), true);
      for (int64_t s = 0; s < g.in_slabs() && in + s * slab_channels < g.in_channels(); ++s)
        pack_input(g, call.in, in + s * slab_channels, n, y0, y1, planes + s * plane);
      for (int64_t s = 0; s < g.out_slabs() && out + s * slab_channels < channels; ++s) {
        const Slab slab{channels, out + s * slab_channels};
        SlabParameter shift(nullptr), sum(nullptr), square(nullptr);
        bool first = true;
        each_block_of_rows(g, planes, plane, call.weights, b, s, n, y0, y1, block,
                           [&](int64_t pixel, int64_t count, const float* values) HWY_ATTR {
                             if (s == 0) ahead.fetch(count);
                             if (first) shift = SlabParameter(values);
                             first = false;
                             float* raw = call.raw + pixel * channels + slab.first;
                             with_slab(slab.valid(), [&](auto vectors) HWY_ATTR {
                               for (int64_t i = 0; i < count; ++i, raw += channels, values += slab_channels)
                                 vectors.each([&](int u, auto memory) HWY_ATTR {
                                   const V v = hn::LoadU(D(), values + u * lanes());
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

// The gradient of a bundle's weights from its planes; dw (groups, vectors of inputs, taps, outputs, lanes).
void backward_weights(const Grouped& g, const float* x_planes, const float* dy_planes, int64_t plane, int64_t bundle,
                      int64_t rows, float* dw) {
  const int64_t row_cells = g.pitch() * slab_channels, groups = std::min(g.bundle(), g.groups - bundle * g.bundle());
  // Blocks of rows whose planes and gradient stay in the first cache.
  const int64_t step = std::max<int64_t>(64 / g.width, 1);
  with_result_lanes(g.inputs, [&](auto d) HWY_ATTR {
    constexpr int64_t lanes = hn::MaxLanes(d);
    const int64_t vectors = (g.inputs + lanes - 1) / lanes;
    for (int64_t group = 0; group < groups; ++group)
      for (int64_t v = 0; v < vectors; ++v)
        for (int64_t o = 0; o < g.outputs; o += slab_channels) {
          const int64_t in = group * g.inputs + v * lanes, out = group * g.outputs + o;
          const float* x = x_planes + in / slab_channels * plane + in % slab_channels;
          const float* dy = dy_planes + out / slab_channels * plane + out % slab_channels +
                            g.border() * (row_cells + slab_channels);
          float* target = dw + (((bundle * g.bundle() + group) * vectors + v) * Grouped::slabs(g.outputs) * g.taps() *
                                    std::min(g.outputs, slab_channels) +
                                o / slab_channels * g.taps() * slab_channels) *
                                   lanes;
          for (int64_t y = 0; y < rows; y += step) {
            const Outers<float> t{{x + y * row_cells, x + y * row_cells + slab_channels},
                                  2 * slab_channels,
                                  row_cells,
                                  dy + y * row_cells,
                                  row_cells,
                                  std::min(step, rows - y),
                                  g.width,
                                  g.kernel,
                                  target,
                                  std::min(g.outputs - o, slab_channels)};
            outers<F32>(d, t);
          }
        }
  });
}

// dw: the thread's own; sums (2, padded channels of the input): Σ dz and Σ dz (raw − mean) of the link before.
void backward_items(const BackwardCall& call, const Bands& bands, int64_t begin, int64_t end, float* planes,
                    float* block, float* dw, double* sums) {
  const Grouped g = call.conv, t = g.transposed();
  const int64_t plane = (bands.rows + 2 * g.border()) * g.pitch() * slab_channels;
  const int64_t channels = g.in_channels(), padded = Grouped::slabs(channels) * slab_channels;
  float* x_planes = planes + g.out_slabs() * plane;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t item = call.backwards ? begin + end - 1 - i : i;
    const int64_t n = bands.image(item), y0 = bands.begin(item), y1 = bands.end(item);
    for (int64_t b = 0; b < g.bundles(); ++b) {
      const int64_t in = b * g.bundle() * g.inputs, out = b * g.bundle() * g.outputs;
      const Unit next = next_unit(g, b, item, i + 1 == end, call.backwards);
      const int64_t next_in = next.bundle * g.bundle() * g.inputs, next_out = next.bundle * g.bundle() * g.outputs;
      Ahead ahead = ahead_of(g, bands, next);
      for (const float* p : {call.gradient.dy, call.gradient.raw}) ahead.add(p, next_out, g.out_channels(), g.out_slabs());
      if (call.wants_weights) ahead.add(call.in.x, next_in, channels, g.in_slabs());
      ahead.add(call.dx, next_in, channels, g.in_slabs(), true);
      for (int64_t s = 0; s < g.out_slabs() && out + s * slab_channels < g.out_channels(); ++s)
        pack_gradient(g, call.gradient, out + s * slab_channels, n, y0, y1, planes + s * plane);
      if (call.wants_weights) {
        for (int64_t s = 0; s < g.in_slabs() && in + s * slab_channels < channels; ++s)
          pack_input(g, call.in, in + s * slab_channels, n, y0, y1, x_planes + s * plane);
        backward_weights(g, x_planes, planes, plane, b, y1 - y0, dw);
      }
      if (call.weights == nullptr) continue;
      for (int64_t s = 0; s < g.in_slabs() && in + s * slab_channels < channels; ++s) {
        const Slab slab{channels, in + s * slab_channels};
        const auto each = [&](auto&& finish) HWY_ATTR {
          each_block_of_rows(t, planes, plane, call.weights, b, s, n, y0, y1, block,
                             [&](int64_t pixel, int64_t count, const float* values) HWY_ATTR {
                               if (s == 0) ahead.fetch(count);
                               int64_t at = pixel * channels + slab.first;
                               with_slab(slab.valid(), [&](auto vectors) HWY_ATTR {
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
            const V dz = activation.gradient(hn::MulAdd(centred, scale[u], beta[u]), v);
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
void evaluate_items(const EvaluationCall& call, const Bands& bands, int64_t begin, int64_t end, float* planes,
                    int64_t planes_of_a_link, float* block) {
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
      float *from = planes, *to = planes + planes_of_a_link;
      const Grouped& head = call.links[0].conv;
      const Unit next_of = next_unit(final_conv, b, item, item + 1 == end, false);
      Ahead ahead = ahead_of(head, bands, next_of);
      for (const float* x : {call.in.x, call.in.minus})
        ahead.add(x, next_of.bundle * head.bundle() * head.inputs, head.in_channels(), head.in_slabs());
      if (call.residual != call.in.x)
        ahead.add(call.residual, next_of.bundle * final_conv.bundle() * final_conv.outputs, channels,
                  final_conv.out_slabs());
      ahead.add(call.y, next_of.bundle * final_conv.bundle() * final_conv.outputs, channels, final_conv.out_slabs(), true);
      const Grouped& first = call.links[0].conv;
      const auto plane_of = [&](const Grouped& g, int64_t rows) {
        return (rows + 2 * g.border()) * g.pitch() * slab_channels;
      };
      for (int64_t s = 0; s < first.in_slabs(); ++s) {
        const int64_t channel = b * first.bundle() * first.inputs + s * slab_channels;
        if (channel < first.in_channels())
          pack_input(first, call.in, channel, n, y0, y1, from + s * plane_of(first, y1 - y0));
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
        const int64_t next_plane = plane_of(next, z1 - z0), next_row = next.pitch() * slab_channels;
        for (int64_t s = 0; s < g.out_slabs(); ++s) {
          const Slab slab{g.out_channels(), b * g.bundle() * g.outputs + s * slab_channels};
          if (slab.first >= slab.channels) continue;
          const SlabParameter bias(link.bias + slab.first);
          if (!is_last) std::fill_n(to + s * next_plane, next_plane, 0.0f);
          with_activation(link.activation, [&](auto inner) HWY_ATTR {
            each_block_of_rows(
                g, from, plane, link.weights, b, s, n, y0, y1, block,
                [&](int64_t pixel, int64_t count, const float* values) HWY_ATTR {
                  if (i == 0 && s == 0) ahead.fetch(count);
                  if (!is_last) {
                    const int64_t y = pixel / g.width - n * g.height;
                    for (int64_t row = 0; row < count / g.width; ++row) {
                      float* out = to + s * next_plane + (y + row - z0 + next.border()) * next_row +
                                   next.border() * slab_channels;
                      for (int64_t x = 0; x < g.width; ++x, values += slab_channels, out += slab_channels)
                        for (int u = 0; u < slab_vectors; ++u)
                          hn::StoreU(inner.value(hn::Add(hn::LoadU(D(), values + u * lanes()), bias[u])), D(),
                                     out + u * lanes());
                    }
                    return;
                  }
                  const auto finish = [&](auto&& end_of) HWY_ATTR {
                    int64_t at = pixel * channels + slab.first;
                    with_slab(slab.valid(), [&](auto vectors) HWY_ATTR {
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

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/normalization.h"
#include "backends/cpu/parallel.h"

#include <cmath>
#include <optional>

namespace mgic {
namespace cpu {
namespace {

HWY_EXPORT(forward_items);
HWY_EXPORT(backward_items);
HWY_EXPORT(evaluate_items);
HWY_EXPORT(lanes_of);

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

// Weights in the order of the tiles, (groups, vectors of outputs, slabs of inputs, taps, cells, lanes):
// value(group, o, u, v, i), zero where there is no such output or input.
template <class F>
Scratch<float> packed_weights(const Grouped& g, F&& value) {
  const int64_t lanes = HWY_DYNAMIC_DISPATCH(lanes_of)(g.outputs), blocks = (g.outputs + lanes - 1) / lanes,
                slabs = Grouped::slabs(g.inputs), cells = std::min(g.inputs, slab_channels),
                group_size = blocks * slabs * g.taps() * cells * lanes;
  Scratch<float> packed(g.groups * group_size);
  parallel_ranges(g.groups, 2 * group_size, [&](int64_t begin, int64_t end) {
    float* out = packed.data() + begin * group_size;
    for (int64_t group = begin; group < end; ++group)
      for (int64_t o = 0; o < blocks * lanes; o += lanes)
        for (int64_t i0 = 0; i0 < slabs * slab_channels; i0 += slab_channels)
          for (int64_t u = 0; u < g.kernel; ++u)
            for (int64_t v = 0; v < g.kernel; ++v)
              for (int64_t i = i0; i < i0 + cells; ++i)
                for (int64_t l = 0; l < lanes; ++l)
                  *out++ = o + l < g.outputs && i < g.inputs ? value(group, o + l, u, v, i) : 0.0f;
  });
  return packed;
}

Scratch<float> forward_weights(const Grouped& g, const float* w, const float* scale = nullptr) {
  return packed_weights(g, [=, &g](int64_t group, int64_t o, int64_t u, int64_t v, int64_t i) {
    const int64_t channel = group * g.outputs + o;
    const float value = w[((channel * g.kernel + u) * g.kernel + v) * g.inputs + i];
    return scale == nullptr ? value : value * scale[channel];
  });
}

// For gradients of the input: mirrored, and with inputs and outputs exchanged.
Scratch<float> transposed_weights(const Grouped& g, const float* w) {
  return packed_weights(g.transposed(), [=, &g](int64_t group, int64_t i, int64_t u, int64_t v, int64_t o) {
    const int64_t channel = group * g.outputs + o;
    return w[((channel * g.kernel + g.kernel - 1 - u) * g.kernel + g.kernel - 1 - v) * g.inputs + i];
  });
}

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

int64_t plane_size(const Grouped& g, const Bands& bands) {
  return (bands.rows + 2 * g.border()) * g.pitch() * slab_channels;
}

// Vectors may reach a little beyond the last pixel; the blocks of outputs lie behind the planes.
constexpr int64_t slack = 2 * slab_channels;
int64_t block_size(const Grouped& g) { return (64 + 16 * g.width) * slab_channels; }

// The value that link i reads.
struct LinkInput {
  Input in;
  std::optional<NormVectors> norm;
};
LinkInput input_of(const Chain& chain, const ChainInput& in, const std::vector<LinkState>& states, size_t i) {
  LinkInput result;
  if (i == 0) {
    result.in = {in.x.data<float>(), data_or_null(in.minus)};
    return result;
  }
  const Link& before = chain.links[i - 1];
  result.in.x = states[i - 1].raw.data<float>();
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

void forward_link(const Chain& chain, const ChainInput& in, std::vector<LinkState>& states, size_t i) {
  const Link& link = chain.links[i];
  LinkState& state = states[i];
  const Grouped g = grouped_of(link.conv, i == 0 ? in.x.shape() : states[i - 1].raw.shape(), link.weight.shape());
  const LinkInput input = input_of(chain, in, states, i);
  const auto weights = forward_weights(g, link.weight.data<float>());
  const bool moments = link.gamma.defined() && chain.training;
  const ForwardCall call{g, input.in, weights.data(), state.raw.data<float>(), moments, i % 2 == 1};

  const Bands bands = bands_of(g, g.in_slabs());
  const int parts = chunks_of(bands.items());
  const int64_t planes = g.in_slabs() * plane_size(g, bands) + slack, room = planes + block_size(g);
  const int64_t stride = padded(g.out_channels());
  Scratch<float> scratch(threads() * room), partial(parts * 2 * stride);
  std::vector<int64_t> rows(static_cast<size_t>(parts), 0);
  parallel_chunks(bands.items(), parts, call.backwards, [&](int part, int thread, int64_t begin, int64_t end) {
    float *own = scratch.data() + thread * room, *own_moments = partial.data() + part * 2 * stride;
    std::fill_n(own_moments, 2 * stride, 0.0f);
    HWY_DYNAMIC_DISPATCH(forward_items)(call, bands, begin, end, own, own + planes, own_moments);
    for (int64_t item = begin; item < end; ++item)
      rows[static_cast<size_t>(part)] += (bands.end(item) - bands.begin(item)) * g.width;
  });
  if (!moments) return;
  combine(partial.data(), rows, stride, g.out_channels(), state.mean.data<float>(), state.variance.data<float>());
}

void evaluate(const Chain& chain, const ChainInput& in, Tensor& y) {
  std::vector<FoldedLink> links;
  std::vector<Scratch<float>> keep;
  int64_t slabs = 1, halo = 0;
  Shape x = in.x.shape();
  for (const Link& link : chain.links) {
    const Grouped g = grouped_of(link.conv, x, link.weight.shape());
    x = {x[0], x[1], x[2], g.out_channels()};
    const int64_t channels = g.out_channels();
    if (link.gamma.defined()) {
      const NormVectors norm(norm_of(link, {}, false));
      keep.push_back(forward_weights(g, link.weight.data<float>(), norm.scale.data()));
      keep.push_back(channel_vector(channels, [&](int64_t c) { return norm.beta[c] - norm.mean[c] * norm.scale[c]; }));
    } else {
      keep.push_back(forward_weights(g, link.weight.data<float>()));
      keep.push_back(channel_vector(channels, [](int64_t) { return 0.0f; }));
    }
    links.push_back({g, keep[keep.size() - 2].data(), keep.back().data(), link.activation});
    slabs = std::max({slabs, g.in_slabs(), g.out_slabs()});
    if (links.size() > 1) halo += g.border();
  }
  const Grouped& g = links[0].conv;
  const Bands bands = bands_of(g, 2 * slabs);
  int64_t link_planes = slack, block = 0;
  for (const FoldedLink& l : links) {
    link_planes = std::max(link_planes, slabs * (bands.rows + 2 * halo + 2 * l.conv.border()) * l.conv.pitch() *
                                                slab_channels +
                                            slack);
    block = std::max(block, block_size(l.conv));
  }
  const EvaluationCall call{links.data(), static_cast<int64_t>(links.size()), {in.x.data<float>(), data_or_null(in.minus)},
                            data_or_null(in.residual), chain.outer, y.data<float>()};
  const int parts = chunks_of(bands.items());
  const int64_t room = 2 * link_planes + block;
  Scratch<float> scratch(threads() * room);
  parallel_chunks(bands.items(), parts, false, [&](int, int thread, int64_t begin, int64_t end) {
    float* own = scratch.data() + thread * room;
    HWY_DYNAMIC_DISPATCH(evaluate_items)(call, bands, begin, end, own, link_planes, own + 2 * link_planes);
  });
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
  if (!fuses(chain, in)) return Backend::conv_chain(chain, in, states, y);
  require_f32("conv_chain", {&in.x, &in.minus, &in.residual, &y});
  if (!chain.saves && !chain.training && aligned(chain, in)) return evaluate(chain, in, y);
  for (size_t i = 0; i < chain.links.size(); ++i) {
    const Link& link = chain.links[i];
    LinkState& state = states[i];
    forward_link(chain, in, states, i);
    if (!link.gamma.defined() || !chain.training) continue;
    Tensor mean = link.running_mean, variance = link.running_var;  // handles: the storage is the module's
    update_running(state.mean, state.variance, state.raw.shape().rows(), link.momentum, mean, variance);
  }
  end_chain(chain, in, states, y);
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
    const Link& link = chain.links[i];
    const LinkState& state = states[i];
    const LinkSinks& own = sinks.links[i];
    const Grouped g = grouped_of(link.conv, i == 0 ? in.x.shape() : states[i - 1].raw.shape(), link.weight.shape());
    const LinkInput input = input_of(chain, in, states, i);
    BackwardCall call{g, {gradient.data<float>()}, static_cast<bool>(own.weight), (n - i) % 2 == 1, input.in, nullptr};

    // Through this link's activation and normalisation. Of links before the last one, and where a residual follows,
    // `gradient` is behind the activation already.
    std::optional<NormVectors> norm;
    std::optional<NormCoefficients> through;
    const bool activated = i + 1 == n;
    if (activated) call.gradient.activation = link.activation;
    if (link.gamma.defined()) {
      const Norm of = norm_of(link, state, chain.training);
      norm.emplace(of);
      through.emplace(of, *sums, chain.training, state.raw.shape().rows(), padded(g.out_channels()));
      write_norm_gradients(of, *sums, own.gamma, own.beta);
      call.gradient.raw = state.raw.data<float>();
      call.gradient.mean = norm->mean.data();
      call.gradient.scale = norm->scale.data();
      call.gradient.beta = norm->beta.data();
      call.gradient.shift = through->shift.data();
      call.gradient.slope = through->slope.data();
    } else if (activated && link.activation != Activation::none) {
      call.gradient.raw = state.raw.data<float>();
    }

    Scratch<float> weights(0);
    Tensor before;  // the gradient behind the link before
    if (i > 0) {
      before = Tensor::empty_like(states[i - 1].raw);
      call.dx = before.data<float>();
      call.before = input.in.x;
      call.mean = input.in.mean;
      call.scale = input.in.scale;
      call.beta = input.in.beta;
      call.activation = input.in.activation;
    } else {
      if (sinks.x) call.dx = (*sinks.x).data<float>(), call.accumulate_dx = accumulates(sinks.x);
      if (sinks.minus) call.dminus = (*sinks.minus).data<float>(), call.accumulate_dminus = accumulates(sinks.minus);
    }
    if (call.dx != nullptr || call.dminus != nullptr) {
      weights = transposed_weights(g, link.weight.data<float>());
      call.weights = weights.data();
    } else if (!call.wants_weights) {
      continue;
    }

    const Bands bands = bands_of(g, g.in_slabs() + g.out_slabs());
    const int parts = chunks_of(bands.items());
    const int64_t planes = (g.in_slabs() + g.out_slabs()) * plane_size(g, bands) + slack, room = planes + block_size(g);
    const int64_t stride = padded(g.in_channels());
    WeightGradients dw(g, call.wants_weights ? parts : 0);
    Scratch<float> scratch(threads() * room);
    Scratch<double> partial(parts * 2 * stride);
    parallel_chunks(bands.items(), parts, call.backwards, [&](int part, int thread, int64_t begin, int64_t end) {
      float *planes_of = scratch.data() + thread * room, *dw_of = call.wants_weights ? dw.part(part) : nullptr;
      double* sums_of = partial.data() + part * 2 * stride;
      if (call.wants_weights) std::fill_n(dw_of, dw.size(), 0.0f);
      std::fill_n(sums_of, 2 * stride, 0.0);
      HWY_DYNAMIC_DISPATCH(backward_items)(call, bands, begin, end, planes_of, planes_of + planes, dw_of, sums_of);
    });
    if (call.wants_weights) dw.write(own.weight);
    if (i > 0) {
      gradient = before;
      if (chain.links[i - 1].gamma.defined()) {
        sums.emplace(g.in_channels());
        for (int64_t c = 0; c < g.in_channels(); ++c)
          for (int part = 0; part < parts; ++part) {
            sums->sum[c] += partial[part * 2 * stride + c];
            sums->centred_sum[c] += partial[(part * 2 + 1) * stride + c];
          }
      }
    }
  }
}

}  // namespace mgic
#endif  // HWY_ONCE
