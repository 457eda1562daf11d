#include "backends/cpu/grouped_weights.h"

#include <vector>

#include "backends/cpu/channel_vectors.h"
#include "backends/cpu/cpu_backend.h"
#include "core/dtype.h"

namespace mgic::cpu {
namespace {

// Where the tiles want the weight of output o, a tap and input i of a group, in elements: f32, or with pairs bf16. An
// element's place is the sum of its group's and tap's, its output's and its input's.
class Packing {
 public:
  Packing(const Grouped& g, bool pairs)
      : g_(g),
        step_(pairs ? 2 : 1),
        quads_(quad_lanes(g)),
        lanes_(quads_ > 0 ? quads_ : lanes_of(g.outputs)),
        blocks_((g.outputs + lanes_ - 1) / lanes_),
        cells_((std::min(g.inputs, slab_channels) + step_ - 1) / step_),
        tap_(cells_ * lanes_ * step_),
        block_(Grouped::slabs(g.inputs) * g.taps() * tap_) {}

  int64_t count() const {  // in cells
    return (quads_ > 0 ? padded(g_.out_channels()) / lanes_ : g_.groups * blocks_) * block_ / step_;
  }
  int64_t group(int64_t group, int64_t tap) const {
    if (quads_ > 0) return 4 * group / lanes_ * block_ + 4 * group % lanes_ * step_ + tap * tap_;
    return group * blocks_ * block_ + tap * tap_;
  }
  int64_t output(int64_t o) const { return o / lanes_ * block_ + o % lanes_ * step_; }
  int64_t input(int64_t i) const {
    const int64_t within = i % slab_channels;
    return i / slab_channels * g_.taps() * tap_ + within / step_ * lanes_ * step_ + within % step_;
  }

 private:
  const Grouped g_;
  int64_t step_, quads_, lanes_, blocks_, cells_, tap_, block_;
};

// Every weight of the convolution goes to its place; they are read in the order of memory.
template <class Element>
void pack(const Grouped& g, const Packing& packing, bool transposed, const float* w, const float* scale, Element* out) {
  const int64_t own_inputs = g.inputs / g.merged, own_outputs = g.outputs / g.merged, taps = g.taps();
  parallel_ranges(g.groups, 2 * g.outputs * taps * g.inputs, [&](int64_t begin, int64_t end) {
    std::vector<int64_t> inputs(static_cast<size_t>(g.inputs));
    for (int64_t i = 0; i < g.inputs; ++i)
      inputs[static_cast<size_t>(i)] = transposed ? packing.output(i) : packing.input(i);
    for (int64_t group = begin; group < end; ++group)
      for (int64_t o = 0; o < g.outputs; ++o) {
        const int64_t channel = group * g.outputs + o;
        const int64_t* input = inputs.data() + o / own_outputs * own_inputs;
        const float factor = scale == nullptr ? 1.0f : scale[channel];
        for (int64_t tap = 0; tap < taps; ++tap) {
          const float* from = w + (channel * taps + tap) * own_inputs;
          Element* to = out + (transposed ? packing.group(group, taps - 1 - tap) + packing.input(o)
                                          : packing.group(group, tap) + packing.output(o));
          for (int64_t i = 0; i < own_inputs; ++i) to[input[i]] = Element(from[i] * factor);
        }
      }
  });
}

Scratch<uint32_t> packed_weights(const Grouped& g, bool pairs, bool transposed, const float* w, const float* scale) {
  const Packing packing(transposed ? g.transposed() : g, pairs);
  Scratch<uint32_t> packed(packing.count());
  std::fill_n(packed.data(), packed.count(), 0u);
  if (pairs)
    pack(g, packing, transposed, w, scale, reinterpret_cast<bf16*>(packed.data()));
  else
    pack(g, packing, transposed, w, scale, reinterpret_cast<float*>(packed.data()));
  return packed;
}

}  // namespace

Scratch<uint32_t> forward_weights(const Grouped& g, bool pairs, const float* w, const float* scale) {
  return packed_weights(g, pairs, false, w, scale);
}

Scratch<uint32_t> transposed_weights(const Grouped& g, bool pairs, const float* w) {
  return packed_weights(g, pairs, true, w, nullptr);
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
  const int64_t taps = g_.taps(), own_inputs = g_.inputs / g_.merged, own_outputs = g_.outputs / g_.merged;
  parallel_ranges(g_.groups, 4 * g_.outputs * taps * g_.inputs, [&](int64_t begin, int64_t end) {
    for (int64_t channel = begin * g_.outputs; channel < end * g_.outputs; ++channel) {
      const int64_t group = channel / g_.outputs, o = channel % g_.outputs, first = o / own_outputs * own_inputs;
      for (int64_t tap = 0; tap < taps; ++tap) {
        float* to = dw + (channel * taps + tap) * own_inputs - first;
        for (int64_t i = first, v = first / lanes_; i < first + own_inputs; ++v) {
          const float* from = first_of(group, o, tap, v) - v * lanes_;
          const int64_t last = std::min((v + 1) * lanes_, first + own_inputs);
          for (; i < last; ++i) {
            float sum = accumulate ? to[i] : 0;
            for (int part = 0; part < parts_; ++part) sum += from[part * size_ + i];
            to[i] = sum;
          }
        }
      }
    }
  });
}

}  // namespace mgic::cpu
