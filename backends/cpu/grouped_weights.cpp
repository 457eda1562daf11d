#include "backends/cpu/grouped_weights.h"

#include <bit>

#include "backends/cpu/channel_vectors.h"
#include "backends/cpu/cpu_backend.h"
#include "core/dtype.h"

namespace mgic::cpu {
namespace {

// Weights in the order of the tiles, (groups, vectors of outputs, slabs of inputs, taps, cells, lanes): value(group, o,
// u, v, i), zero where there is no such output or input. A cell is an f32, or a pair of bf16 for neighbouring inputs.
template <class F>
Scratch<uint32_t> packed_weights(const Grouped& g, bool pairs, F&& value) {
  const auto cell_of = [&](float low, float high) {
    return pairs ? bf16(low).bits | static_cast<uint32_t>(bf16(high).bits) << 16 : std::bit_cast<uint32_t>(low);
  };
  if (const int64_t lanes = quad_lanes(g); lanes > 0) {  // (vectors of groups, taps, cells, lanes)
    const int64_t cells = pairs ? 2 : 4, channels = Grouped::slabs(g.out_channels()) * slab_channels;
    Scratch<uint32_t> packed(channels * g.taps() * cells);
    uint32_t* out = packed.data();
    for (int64_t first = 0; first < channels; first += lanes)
      for (int64_t u = 0; u < g.kernel; ++u)
        for (int64_t v = 0; v < g.kernel; ++v)
          for (int64_t i = 0; i < 4; i += 4 / cells)
            for (int64_t channel = first; channel < first + lanes; ++channel) {
              const int64_t group = channel / 4, o = channel % 4;
              *out++ =
                  group < g.groups ? cell_of(value(group, o, u, v, i), pairs ? value(group, o, u, v, i + 1) : 0.0f) : 0;
            }
    return packed;
  }
  const int64_t lanes = lanes_of(g.outputs), blocks = (g.outputs + lanes - 1) / lanes, slabs = Grouped::slabs(g.inputs),
                channels = std::min(g.inputs, slab_channels), step = pairs ? 2 : 1,
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
                  *out++ = cell_of(at(o + l, u, v, i), pairs ? at(o + l, u, v, i + 1) : 0.0f);
    }
  });
  return packed;
}

}  // namespace

Scratch<uint32_t> forward_weights(const Grouped& g, bool pairs, const float* w, const float* scale) {
  return packed_weights(g, pairs, [=, &g](int64_t group, int64_t o, int64_t u, int64_t v, int64_t i) {
    const int64_t channel = group * g.outputs + o, input = g.own_input(o, i);
    if (input < 0) return 0.0f;
    const float value = w[((channel * g.kernel + u) * g.kernel + v) * (g.inputs / g.merged) + input];
    return scale == nullptr ? value : value * scale[channel];
  });
}

Scratch<uint32_t> transposed_weights(const Grouped& g, bool pairs, const float* w) {
  return packed_weights(g.transposed(), pairs, [=, &g](int64_t group, int64_t i, int64_t u, int64_t v, int64_t o) {
    const int64_t channel = group * g.outputs + o, input = g.own_input(o, i);
    if (input < 0) return 0.0f;
    return w[((channel * g.kernel + g.kernel - 1 - u) * g.kernel + g.kernel - 1 - v) * (g.inputs / g.merged) + input];
  });
}

WeightGradients::WeightGradients(const Grouped& g, int parts)
    : g_(g),
      quads_(quad_lanes(g)),
      lanes_(quads_ > 0 ? 4 : lanes_of(g.inputs)),
      vectors_((g.inputs + lanes_ - 1) / lanes_),
      outputs_(std::min(g.outputs, slab_channels)),
      size_(quads_ > 0 ? padded(g.in_channels()) * g.taps() * 4
                       : g.groups * vectors_ * Grouped::slabs(g.outputs) * g.taps() * outputs_ * lanes_),
      parts_(parts),
      memory_(parts * size_) {}

const float* WeightGradients::first_of(int64_t group, int64_t o, int64_t tap, int64_t v) const {
  if (quads_ > 0)
    return memory_.data() + ((4 * group / quads_ * g_.taps() + tap) * 4 + o) * quads_ + 4 * group % quads_;
  const int64_t own = std::min(slab_channels, g_.outputs - o / slab_channels * slab_channels);
  return memory_.data() +
         (((group * vectors_ + v) * Grouped::slabs(g_.outputs) + o / slab_channels) * g_.taps() * outputs_ + tap * own +
          o % slab_channels) *
             lanes_;
}

void WeightGradients::write(Sink sink) {
  float* dw = (*sink).data<float>();
  const bool accumulate = accumulates(sink);
  const int64_t group_weights = g_.outputs * g_.taps() * g_.inputs, own_inputs = g_.inputs / g_.merged;
  parallel_ranges(g_.groups, 4 * group_weights, [&](int64_t begin, int64_t end) {
    for (int64_t channel = begin * g_.outputs; channel < end * g_.outputs; ++channel) {
      const int64_t group = channel / g_.outputs, o = channel % g_.outputs;
      for (int64_t tap = 0; tap < g_.taps(); ++tap)
        for (int64_t v = 0; v < vectors_; ++v) {
          const float* from = first_of(group, o, tap, v);
          float* to = dw + (channel * g_.taps() + tap) * own_inputs;
          for (int64_t l = 0; l < std::min(lanes_, g_.inputs - v * lanes_); ++l) {
            const int64_t input = g_.own_input(o, v * lanes_ + l);
            if (input < 0) continue;
            float sum = accumulate ? to[input] : 0;
            for (int part = 0; part < parts_; ++part) sum += from[part * size_ + l];
            to[input] = sum;
          }
        }
    }
  });
}

}  // namespace mgic::cpu
