#include "backends/cpu/grouped_weights.h"

#include <vector>

#include "backends/cpu/channel_vectors.h"
#include "backends/cpu/cpu_backend.h"
#include "core/dtype.h"

namespace mgic::cpu {
namespace {

// Where the tiles want the weight of output o, a position (a tap, or one of Winograd's) and input i of a group, in
// elements: f32, or with pairs bf16. An element's place is the sum of its group's and position's, its output's and its
// input's.
class Packing {
 public:
  Packing(const Grouped& g, bool pairs)
      : g_(g),
        step_(pairs ? 2 : 1),
        positions_(g.positions()),
        quads_(quad_lanes(g)),
        lanes_(quads_ > 0 ? quads_ : lanes_of(g.outputs)),
        blocks_((g.outputs + lanes_ - 1) / lanes_),
        cells_((std::min(g.inputs, slab_channels) + step_ - 1) / step_),
        position_(cells_ * lanes_ * step_),
        block_(Grouped::slabs(g.inputs) * positions_ * position_) {}

  int64_t count() const {  // in cells
    return (quads_ > 0 ? padded(g_.out_channels()) / lanes_ : g_.groups * blocks_) * block_ / step_;
  }
  int64_t group(int64_t group, int64_t position) const {
    if (quads_ > 0) return 4 * group / lanes_ * block_ + 4 * group % lanes_ * step_ + position * position_;
    return group * blocks_ * block_ + position * position_;
  }
  int64_t output(int64_t o) const { return o / lanes_ * block_ + o % lanes_ * step_; }
  int64_t input(int64_t i) const {
    const int64_t within = i % slab_channels;
    return i / slab_channels * positions_ * position_ + within / step_ * lanes_ * step_ + within % step_;
  }

 private:
  const Grouped g_;
  int64_t step_, positions_, quads_, lanes_, blocks_, cells_, position_, block_;
};

// G w Gᵀ, with the points of winograd-inl.h: w is (3, 3, n), `row` and `column` floats apart, out (M + 2, M + 2, n).
template <int M>
void winograd_weights(const float* w, int64_t row, int64_t column, int64_t n, float* out) {
  constexpr int side = M + 2;
  const auto transform = [](const float* g, int64_t from, float* t) {
    const float first = g[0], middle = g[from], last = g[2 * from];
    t[0] = first;
    t[1] = 0.5f * (first + last + middle);
    t[2] = 0.5f * (first + last - middle);
    if constexpr (M == 4) {
      t[0] *= 1.0f / 4;
      t[1] *= -1.0f / 3;
      t[2] *= -1.0f / 3;
      t[3] = (first + 4 * last + 2 * middle) * (1.0f / 24);
      t[4] = (first + 4 * last - 2 * middle) * (1.0f / 24);
    }
    t[side - 1] = last;
  };
  for (int64_t i = 0; i < n; ++i) {
    float columns[3][side], rows[side];
    for (int64_t v = 0; v < 3; ++v) transform(w + v * column + i, row, columns[v]);
    for (int64_t r = 0; r < side; ++r) {
      transform(&columns[0][r], side, rows);
      for (int64_t k = 0; k < side; ++k) out[(r * side + k) * n + i] = rows[k];
    }
  }
}

// Gᵀ m G: m is (M + 2, M + 2, n), rows room for (3, M + 2, n), out (3, 3, n). The loops over n lie innermost, for the
// vectors.
template <int M>
void winograd_taps(const float* m, int64_t n, float* rows, float* out) {
  constexpr int side = M + 2;
  const auto transform = [n](const float* g, int64_t from, float* t, int64_t to) {
    for (int64_t i = 0; i < n; ++i) {
      const auto at = [&](int64_t k) { return g[k * from + i]; };
      if constexpr (M == 2) {
        const float sum = 0.5f * (at(1) + at(2)), difference = 0.5f * (at(1) - at(2));
        t[i] = at(0) + sum;
        t[to + i] = difference;
        t[2 * to + i] = sum + at(3);
      } else {
        const float sum = -1.0f / 6 * (at(1) + at(2)), difference = -1.0f / 6 * (at(1) - at(2)),
                    sum2 = 1.0f / 24 * (at(3) + at(4)), difference2 = 1.0f / 12 * (at(3) - at(4));
        t[i] = 1.0f / 4 * at(0) + sum + sum2;
        t[to + i] = difference + difference2;
        t[2 * to + i] = sum + 4 * sum2 + at(5);
      }
    }
  };
  for (int64_t v = 0; v < side; ++v) transform(m + v * n, side * n, rows + v * n, side * n);
  for (int64_t u = 0; u < 3; ++u) transform(rows + side * u * n, n, out + 3 * u * n, n);
}

// Every weight of the convolution goes to its place; they are read in the order of memory.
template <class Element>
void pack(const Grouped& g, const Packing& packing, bool transposed, const float* w, const float* scale, Element* out) {
  const int64_t own_inputs = g.inputs / g.merged, own_outputs = g.outputs / g.merged, positions = g.positions();
  parallel_ranges(g.groups, 2 * g.outputs * positions * g.inputs, [&](int64_t begin, int64_t end) {
    std::vector<int64_t> inputs(static_cast<size_t>(g.inputs));
    std::vector<float> ordered(static_cast<size_t>(positions * own_inputs));
    for (int64_t i = 0; i < g.inputs; ++i)
      inputs[static_cast<size_t>(i)] = transposed ? packing.output(i) : packing.input(i);
    for (int64_t group = begin; group < end; ++group)
      for (int64_t o = 0; o < g.outputs; ++o) {
        const int64_t channel = group * g.outputs + o;
        const int64_t* input = inputs.data() + o / own_outputs * own_inputs;
        const float factor = scale == nullptr ? 1.0f : scale[channel];
        // Back from outputs to inputs, the kernel is mirrored: its taps come in the opposite order.
        const float* first = w + (channel * g.taps() + (transposed ? g.taps() - 1 : 0)) * own_inputs;
        const int64_t column = transposed ? -own_inputs : own_inputs, row = g.kernel * column;
        if (g.tile == 4)
          winograd_weights<4>(first, row, column, own_inputs, ordered.data());
        else if (g.tile == 2)
          winograd_weights<2>(first, row, column, own_inputs, ordered.data());
        for (int64_t position = 0; position < positions; ++position) {
          const float* from = g.tile > 0 ? ordered.data() + position * own_inputs : first + position * column;
          Element* to = out + packing.group(group, position) + (transposed ? packing.input(o) : packing.output(o));
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
      positions_(g.whole_tiles() ? g.positions() : g.taps()),
      quads_(quad_lanes(g)),
      lanes_(quads_ > 0 ? 4 : lanes_of(g.inputs)),
      vectors_((g.inputs + lanes_ - 1) / lanes_),
      outputs_(std::min(g.outputs, slab_channels)),
      size_(quads_ > 0 ? padded(g.in_channels()) * positions_ * 4
                       : g.groups * vectors_ * Grouped::slabs(g.outputs) * positions_ * outputs_ * lanes_),
      parts_(parts),
      memory_(parts * size_) {}

const float* WeightGradients::first_of(int64_t group, int64_t o, int64_t position, int64_t v) const {
  if (quads_ > 0)
    return memory_.data() + ((4 * group / quads_ * positions_ + position) * 4 + o) * quads_ + 4 * group % quads_;
  const int64_t own = std::min(slab_channels, g_.outputs - o / slab_channels * slab_channels);
  return memory_.data() +
         (((group * vectors_ + v) * Grouped::slabs(g_.outputs) + o / slab_channels) * positions_ * outputs_ +
          position * own + o % slab_channels) *
             lanes_;
}

void WeightGradients::write(Sink sink) {
  float* dw = (*sink).data<float>();
  const bool accumulate = accumulates(sink);
  const int64_t taps = g_.taps(), own_inputs = g_.inputs / g_.merged, own_outputs = g_.outputs / g_.merged;
  parallel_ranges(g_.groups, 4 * g_.outputs * positions_ * g_.inputs, [&](int64_t begin, int64_t end) {
    const bool winograd = positions_ != taps;
    std::vector<float> sums(static_cast<size_t>(positions_ * own_inputs)), rows(winograd ? sums.size() : 0),
        summed_taps(rows.size());
    for (int64_t channel = begin * g_.outputs; channel < end * g_.outputs; ++channel) {
      const int64_t group = channel / g_.outputs, o = channel % g_.outputs, first = o / own_outputs * own_inputs;
      for (int64_t position = 0; position < positions_; ++position)
        for (int64_t i = first, v = first / lanes_; i < first + own_inputs; ++v) {
          const float* from = first_of(group, o, position, v) + i - v * lanes_;
          float* to = sums.data() + position * own_inputs + i - first;
          const int64_t n = std::min((v + 1) * lanes_, first + own_inputs) - i;
          std::copy_n(from, n, to);
          for (int part = 1; part < parts_; ++part)
            for (int64_t l = 0; l < n; ++l) to[l] += from[part * size_ + l];
          i += n;
        }
      if (winograd && g_.tile == 4)
        winograd_taps<4>(sums.data(), own_inputs, rows.data(), summed_taps.data());
      else if (winograd)
        winograd_taps<2>(sums.data(), own_inputs, rows.data(), summed_taps.data());
      const float* result = winograd ? summed_taps.data() : sums.data();
      float* to = dw + channel * taps * own_inputs;
      for (int64_t k = 0; k < taps * own_inputs; ++k) to[k] = accumulate ? to[k] + result[k] : result[k];
    }
  });
}

}  // namespace mgic::cpu
