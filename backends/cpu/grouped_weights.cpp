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
  Packing(const Grouped& g, bool pairs, int64_t positions)
      : g_(g),
        step_(pairs ? 2 : 1),
        positions_(positions),
        quads_(quad_lanes(g)),
        lanes_(quads_ > 0 ? quads_ : lanes_of(g.outputs)),
        blocks_((g.outputs + lanes_ - 1) / lanes_),
        cells_((std::min(g.inputs, slab_channels) + step_ - 1) / step_),
        position_(cells_ * lanes_ * step_),
        block_(Grouped::slabs(g.inputs) * positions_ * position_) {}

  int64_t position() const { return position_; }  // elements of one
  // Runs of all positions, one behind the other.
  int64_t runs() const {
    return (quads_ > 0 ? padded(g_.out_channels()) / lanes_ : g_.groups * blocks_) * Grouped::slabs(g_.inputs);
  }
  int64_t count() const { return runs() * positions_ * position_; }
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

// G w Gᵀ, with the points of winograd-inl.h: w is (3, 3, n), rows room for (M + 2, 3, n), out (M + 2, M + 2, n). Here
// and below, the loops over n lie innermost, for the vectors.
template <int M, class Element>
void winograd_weights(const float* w, int64_t n, float* rows, Element* out) {
  constexpr int side = M + 2;
  const auto transform = [n](const float* g, int64_t from, auto* t, int64_t to) {
    using Result = std::remove_pointer_t<decltype(t)>;
    for (int64_t i = 0; i < n; ++i) {
      const float first = g[i], middle = g[from + i], last = g[2 * from + i], ends = first + last;
      if constexpr (M == 2) {
        t[i] = Result(first);
        t[to + i] = Result(0.5f * (ends + middle));
        t[2 * to + i] = Result(0.5f * (ends - middle));
      } else {
        const float far = first + 4 * last;
        t[i] = Result(1.0f / 4 * first);
        t[to + i] = Result(-1.0f / 6 * (ends + middle));
        t[2 * to + i] = Result(-1.0f / 6 * (ends - middle));
        t[3 * to + i] = Result(1.0f / 24 * (far + 2 * middle));
        t[4 * to + i] = Result(1.0f / 24 * (far - 2 * middle));
      }
      t[(side - 1) * to + i] = Result(last);
    }
  };
  for (int64_t v = 0; v < 3; ++v) transform(w + v * n, 3 * n, rows + v * n, 3 * n);
  for (int64_t u = 0; u < side; ++u) transform(rows + 3 * u * n, n, out + side * u * n, n);
}

// Gᵀ m G: m is (M + 2, M + 2, n), rows room for (3, M + 2, n), out (3, 3, n).
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
  const int64_t own_inputs = g.inputs / g.merged, own_outputs = g.outputs / g.merged, taps = g.taps();
  std::fill_n(out, packing.count(), Element());
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
          // Back from outputs to inputs, the kernel is mirrored: its taps come in the opposite order.
          Element* to = out + (transposed ? packing.group(group, taps - 1 - tap) + packing.input(o)
                                          : packing.group(group, tap) + packing.output(o));
          for (int64_t i = 0; i < own_inputs; ++i) to[input[i]] = Element(from[i] * factor);
        }
      }
  });
}

template <class Element>
Scratch<uint32_t> packed_weights(const Grouped& g, bool pairs, bool transposed, const float* w, const float* scale) {
  const Grouped own = transposed ? g.transposed() : g;
  const Packing taps(own, pairs, g.taps()), packing(own, pairs, g.positions());
  Scratch<uint32_t> packed(packing.count() * static_cast<int64_t>(sizeof(Element)) / 4);
  auto* out = reinterpret_cast<Element*>(packed.data());
  if (g.tile == 0) {
    pack(g, taps, transposed, w, scale, out);
    return packed;
  }
  // The taps in their places, and then all places at once through the transform.
  Scratch<float> plain(taps.count());
  pack(g, taps, transposed, w, scale, plain.data());
  const int64_t n = packing.position();
  parallel_ranges(packing.runs(), 2 * g.positions() * n, [&](int64_t begin, int64_t end) {
    std::vector<float> rows(static_cast<size_t>((g.tile + 2) * 3 * n));
    for (int64_t run = begin; run < end; ++run) {
      const float* from = plain.data() + run * g.taps() * n;
      Element* to = out + run * g.positions() * n;
      g.tile == 4 ? winograd_weights<4>(from, n, rows.data(), to) : winograd_weights<2>(from, n, rows.data(), to);
    }
  });
  return packed;
}

Scratch<uint32_t> packed_weights(const Grouped& g, bool pairs, bool transposed, const float* w, const float* scale) {
  return pairs ? packed_weights<bf16>(g, pairs, transposed, w, scale)
               : packed_weights<float>(g, pairs, transposed, w, scale);
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
  sum_parts();
  parallel_ranges(g_.groups, 2 * g_.outputs * taps * g_.inputs, [&](int64_t begin, int64_t end) {
    for (int64_t channel = begin * g_.outputs; channel < end * g_.outputs; ++channel) {
      const int64_t group = channel / g_.outputs, o = channel % g_.outputs, first = o / own_outputs * own_inputs;
      for (int64_t tap = 0; tap < taps; ++tap)
        for (int64_t i = first, v = first / lanes_; i < first + own_inputs; ++v) {
          const float* from = first_of(group, o, tap, v) + i - v * lanes_;
          float* to = dw + (channel * taps + tap) * own_inputs + i - first;
          const int64_t n = std::min((v + 1) * lanes_, first + own_inputs) - i;
          for (int64_t l = 0; l < n; ++l) to[l] = accumulate ? to[l] + from[l] : from[l];
          i += n;
        }
    }
  });
}

// The first part becomes the sum of all, and Winograd's positions the taps that they belong to.
void WeightGradients::sum_parts() {
  const int64_t n = quads_ > 0 ? 4 * quads_ : outputs_ * lanes_, run = positions_ * n;
  parallel_ranges(size_ / run, (parts_ + 2) * run, [&](int64_t begin, int64_t end) {
    std::vector<float> rows(static_cast<size_t>(3 * (g_.tile + 2) * n)), transformed(static_cast<size_t>(9 * n));
    for (int64_t r = begin; r < end; ++r) {
      float* sum = memory_.data() + r * run;
      for (int part = 1; part < parts_; ++part)
        for (int64_t k = 0; k < run; ++k) sum[k] += sum[part * size_ + k];
      if (positions_ == g_.taps()) continue;
      g_.tile == 4 ? winograd_taps<4>(sum, n, rows.data(), transformed.data())
                   : winograd_taps<2>(sum, n, rows.data(), transformed.data());
      std::copy(transformed.begin(), transformed.end(), sum);
    }
  });
}

}  // namespace mgic::cpu
