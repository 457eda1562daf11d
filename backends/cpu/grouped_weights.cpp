#include "backends/cpu/grouped_weights.h"

#include <vector>

#include "backends/cpu/channel_vectors.h"
#include "backends/cpu/cpu_backend.h"
#include "core/dtype.h"

namespace mgic::cpu {
namespace {

// Where the tiles want the weight of output o, a tap (or Winograd's position) and input i of a group, in elements: f32,
// or with pairs bf16. An element's place is the sum of its group's and tap's, its output's and its input's.
class Packing {
 public:
  Packing(const Grouped& g, bool pairs)
      : g_(g),
        step_(pairs ? 2 : 1),
        taps_(g.winograd() ? winograd_positions : g.taps()),
        quads_(quad_lanes(g)),
        lanes_(quads_ > 0 ? quads_ : lanes_of(g.outputs)),
        blocks_((g.outputs + lanes_ - 1) / lanes_),
        cells_((std::min(g.inputs, slab_channels) + step_ - 1) / step_),
        tap_(cells_ * lanes_ * step_),
        block_(Grouped::slabs(g.inputs) * taps_ * tap_) {}

  int64_t count() const {  // in cells
    return (quads_ > 0 ? padded(g_.out_channels()) / lanes_ : g_.groups * blocks_) * block_ / step_;
  }
  int64_t taps() const { return taps_; }
  // The tap of the convolution back from outputs to inputs. Mirroring a row of taps exchanges positions 0 and 3 of its
  // transform.
  int64_t mirrored(int64_t tap) const {
    if (taps_ == g_.taps()) return taps_ - 1 - tap;
    const auto mirror = [](int64_t p) { return p % 3 == 0 ? 3 - p : p; };
    return 4 * mirror(tap / 4) + mirror(tap % 4);
  }
  int64_t group(int64_t group, int64_t tap) const {
    if (quads_ > 0) return 4 * group / lanes_ * block_ + 4 * group % lanes_ * step_ + tap * tap_;
    return group * blocks_ * block_ + tap * tap_;
  }
  int64_t output(int64_t o) const { return o / lanes_ * block_ + o % lanes_ * step_; }
  int64_t input(int64_t i) const {
    const int64_t within = i % slab_channels;
    return i / slab_channels * taps_ * tap_ + within / step_ * lanes_ * step_ + within % step_;
  }

 private:
  const Grouped g_;
  int64_t step_, taps_, quads_, lanes_, blocks_, cells_, tap_, block_;
};

// G w Gᵀ: w is (3, 3, n), out (4, 4, n).
void winograd_weights(const float* w, int64_t n, float* out) {
  const auto transform = [](const float* g, int64_t from, float* t, int64_t to) {
    const float ends = g[0] + g[2 * from];
    t[0] = g[0];
    t[to] = 0.5f * (ends + g[from]);
    t[2 * to] = 0.5f * (ends - g[from]);
    t[3 * to] = g[2 * from];
  };
  for (int64_t i = 0; i < n; ++i) {
    float rows[4][3];
    for (int64_t v = 0; v < 3; ++v) transform(w + v * n + i, 3 * n, &rows[0][v], 3);
    for (int64_t u = 0; u < 4; ++u) transform(rows[u], 1, out + 4 * u * n + i, n);
  }
}

// Gᵀ m G: m is (4, 4, n), rows room for (3, 4, n), out (3, 3, n). The loops over n lie innermost, for the vectors.
void winograd_taps(const float* m, int64_t n, float* rows, float* out) {
  const auto transform = [n](const float* g, int64_t from, float* t, int64_t to) {
    for (int64_t i = 0; i < n; ++i) {
      const float sum = 0.5f * (g[from + i] + g[2 * from + i]), difference = 0.5f * (g[from + i] - g[2 * from + i]);
      t[i] = g[i] + sum;
      t[to + i] = difference;
      t[2 * to + i] = sum + g[3 * from + i];
    }
  };
  for (int64_t v = 0; v < 4; ++v) transform(m + v * n, 4 * n, rows + v * n, 4 * n);
  for (int64_t u = 0; u < 3; ++u) transform(rows + 4 * u * n, n, out + 3 * u * n, n);
}

// Every weight of the convolution goes to its place; they are read in the order of memory.
template <class Element>
void pack(const Grouped& g, const Packing& packing, bool transposed, const float* w, const float* scale, Element* out) {
  const int64_t own_inputs = g.inputs / g.merged, own_outputs = g.outputs / g.merged, taps = packing.taps();
  const bool winograd = taps != g.taps();
  parallel_ranges(g.groups, 2 * g.outputs * taps * g.inputs, [&](int64_t begin, int64_t end) {
    std::vector<int64_t> inputs(static_cast<size_t>(g.inputs));
    std::vector<float> positions(static_cast<size_t>(winograd ? taps * own_inputs : 0));
    for (int64_t i = 0; i < g.inputs; ++i)
      inputs[static_cast<size_t>(i)] = transposed ? packing.output(i) : packing.input(i);
    for (int64_t group = begin; group < end; ++group)
      for (int64_t o = 0; o < g.outputs; ++o) {
        const int64_t channel = group * g.outputs + o;
        const int64_t* input = inputs.data() + o / own_outputs * own_inputs;
        const float factor = scale == nullptr ? 1.0f : scale[channel];
        const float* weights = w + channel * g.taps() * own_inputs;
        if (winograd) {
          winograd_weights(weights, own_inputs, positions.data());
          weights = positions.data();
        }
        for (int64_t tap = 0; tap < taps; ++tap) {
          const float* from = weights + tap * own_inputs;
          Element* to = out + (transposed ? packing.group(group, packing.mirrored(tap)) + packing.input(o)
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
      taps_(g.winograd_weights() ? winograd_positions : g.taps()),
      quads_(quad_lanes(g)),
      lanes_(quads_ > 0 ? 4 : lanes_of(g.inputs)),
      vectors_((g.inputs + lanes_ - 1) / lanes_),
      outputs_(std::min(g.outputs, slab_channels)),
      size_(quads_ > 0 ? padded(g.in_channels()) * taps_ * 4
                       : g.groups * vectors_ * Grouped::slabs(g.outputs) * taps_ * outputs_ * lanes_),
      parts_(parts),
      memory_(parts * size_) {}

const float* WeightGradients::first_of(int64_t group, int64_t o, int64_t tap, int64_t v) const {
  if (quads_ > 0) return memory_.data() + ((4 * group / quads_ * taps_ + tap) * 4 + o) * quads_ + 4 * group % quads_;
  const int64_t own = std::min(slab_channels, g_.outputs - o / slab_channels * slab_channels);
  return memory_.data() +
         (((group * vectors_ + v) * Grouped::slabs(g_.outputs) + o / slab_channels) * taps_ * outputs_ + tap * own +
          o % slab_channels) *
             lanes_;
}

void WeightGradients::write(Sink sink) {
  float* dw = (*sink).data<float>();
  const bool accumulate = accumulates(sink);
  const int64_t taps = g_.taps(), own_inputs = g_.inputs / g_.merged, own_outputs = g_.outputs / g_.merged;
  parallel_ranges(g_.groups, 4 * g_.outputs * taps_ * g_.inputs, [&](int64_t begin, int64_t end) {
    const bool winograd = taps_ != taps;
    std::vector<float> sums(static_cast<size_t>(taps_ * own_inputs)), rows(winograd ? sums.size() : 0),
        summed_taps(rows.size());
    for (int64_t channel = begin * g_.outputs; channel < end * g_.outputs; ++channel) {
      const int64_t group = channel / g_.outputs, o = channel % g_.outputs, first = o / own_outputs * own_inputs;
      for (int64_t tap = 0; tap < taps_; ++tap)
        for (int64_t i = first, v = first / lanes_; i < first + own_inputs; ++v) {
          const float* from = first_of(group, o, tap, v) + i - v * lanes_;
          float* to = sums.data() + tap * own_inputs + i - first;
          const int64_t n = std::min((v + 1) * lanes_, first + own_inputs) - i;
          std::copy_n(from, n, to);
          for (int part = 1; part < parts_; ++part)
            for (int64_t l = 0; l < n; ++l) to[l] += from[part * size_ + l];
          i += n;
        }
      if (winograd) winograd_taps(sums.data(), own_inputs, rows.data(), summed_taps.data());
      const float* result = winograd ? summed_taps.data() : sums.data();
      float* to = dw + channel * taps * own_inputs;
      for (int64_t k = 0; k < taps * own_inputs; ++k) to[k] = accumulate ? to[k] + result[k] : result[k];
    }
  });
}

}  // namespace mgic::cpu
