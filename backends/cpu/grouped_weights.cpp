#include "backends/cpu/grouped_weights.h"

#include <vector>

#include "backends/cpu/channel_vectors.h"
#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/weight_kernels.h"
#include "core/dtype.h"

namespace mgic::cpu {
namespace {

// Where the tiles want the weights, in elements: f32, or with pairs bf16. Every vector of results has a block of its
// own: (slabs of summands, positions, cells, lanes), where a position is a tap or one of Winograd's.
class Packing {
 public:
  explicit Packing(const Grouped& g)
      : g_(g),
        step_(g.arithmetic == Arithmetic::f32 ? 1 : 2),
        turned_(g.in_rows),
        shared_(turned_ ? lanes_of(slab_channels) : quad_lanes(g)),
        lanes_(shared_ > 0 ? shared_ : lanes_of(g.outputs)),
        vectors_((g.outputs + lanes_ - 1) / lanes_),
        position_((std::min(g.inputs, slab_channels) + step_ - 1) / step_ * lanes_ * step_) {}

  int64_t position() const { return position_; }  // elements of one
  int64_t slabs() const { return Grouped::slabs(g_.inputs); }
  int64_t blocks() const { return shared_ > 0 ? padded(g_.out_channels()) / lanes_ : g_.groups * vectors_; }

  // A block's results: [begin, end) of every one of its groups.
  struct Results {
    int64_t first_group, last_group, begin, end;
  };
  Results results(int64_t block) const {
    const int64_t n = g_.outputs;
    if (shared_ > 0) return {block * lanes_ / n, std::min((block + 1) * lanes_ / n, g_.groups), 0, n};
    const int64_t begin = block % vectors_ * lanes_;
    return {block / vectors_, block / vectors_ + 1, begin, std::min(begin + lanes_, n)};
  }
  // An element's place in its block is the sum of its position's, its result's and its summand's, which is that of
  // result o too where groups are turned.
  int64_t step() const { return turned_ ? 0 : step_; }  // from one result of a group to the next
  int64_t result(int64_t group, int64_t o) const {
    return (shared_ > 0 ? g_.outputs * group + (turned_ ? 0 : o) : o) % lanes_ * step_;
  }
  int64_t summand(int64_t i, int64_t o, int64_t positions) const {
    if (turned_) return turned_vector(o, i) * lanes_ + turned_lane(o, i);
    const int64_t within = i % slab_channels;
    return i / slab_channels * positions * position_ + within / step_ * lanes_ * step_ + within % step_;
  }
  // Results that have places of their own for summands.
  int64_t kinds() const { return turned_ ? g_.outputs : 1; }

  // Where groups are turned (winograd_rows-inl.h), the vector of weights, and the lane of the group in it, that couple
  // output o with channel i.
  static int64_t turned_vector(int64_t o, int64_t i) { return ((o ^ i) & ~1) | (i & 1); }
  static int64_t turned_lane(int64_t o, int64_t i) { return (i & ~1) | (o & 1); }

 private:
  const Grouped g_;
  int64_t step_;
  bool turned_;
  int64_t shared_, lanes_, vectors_, position_;
};

// The weights of one block's taps go to their places, which are zero. `summands` are the places of a group's summands,
// for every kind of result.
template <class Element>
void pack(const Grouped& g, const Packing& packing, const std::vector<int64_t>& summands, int64_t block,
          bool transposed, const float* w, const float* scale, Element* to) {
  const int64_t own_inputs = g.inputs / g.merged, own_outputs = g.outputs / g.merged, taps = g.taps();
  const Packing::Results results = packing.results(block);
  const int64_t first_output = transposed ? 0 : results.begin, last_output = transposed ? g.outputs : results.end;
  const int64_t of_kind = packing.kinds() > 1 ? static_cast<int64_t>(summands.size()) / packing.kinds() : 0;
  for (int64_t group = results.first_group; group < results.last_group; ++group)
    for (int64_t o = first_output; o < last_output; ++o) {
      const int64_t channel = group * g.outputs + o, base = o / own_outputs * own_inputs;
      const int64_t begin = std::max(base, transposed ? results.begin : 0),
                    end = std::min(base + own_inputs, transposed ? results.end : g.inputs);
      const float factor = scale == nullptr ? 1.0f : scale[channel];
      for (int64_t tap = 0; tap < taps; ++tap) {
        const float* from = w + (channel * taps + tap) * own_inputs - base;
        if (transposed) {  // back from outputs to inputs, the kernel is mirrored: its taps come in the opposite order
          Element* out = to + (taps - 1 - tap) * packing.position() + packing.result(group, begin);
          const int64_t* places = summands.data() + o;
          for (int64_t i = begin; i < end; ++i, out += packing.step())
            out[places[i * of_kind]] = Element(from[i] * factor);
        } else {
          Element* out = to + tap * packing.position() + packing.result(group, o);
          const int64_t* places = summands.data() + o * of_kind;
          for (int64_t i = begin; i < end; ++i) out[places[i]] = Element(from[i] * factor);
        }
      }
    }
}

template <class Element>
Scratch<uint32_t> packed_weights(const Grouped& g, bool transposed, const float* w, const float* scale) {
  const Packing packing(transposed ? g.transposed() : g);
  const int64_t n = packing.position(), slabs = packing.slabs(), size = slabs * g.positions() * n;
  Scratch<uint32_t> packed(packing.blocks() * size * static_cast<int64_t>(sizeof(Element)) / 4);
  auto* blocks = reinterpret_cast<Element*>(packed.data());
  std::vector<int64_t> summands;
  for (int64_t o = 0; o < packing.kinds(); ++o)
    for (int64_t i = 0; i < (transposed ? g.outputs : g.inputs); ++i)
      summands.push_back(packing.summand(i, o, g.taps()));
  parallel_ranges(packing.blocks(), 2 * size, [&](int64_t begin, int64_t end) {
    // Through Winograd's transform all places of a block's taps go at once.
    std::vector<float> taps(static_cast<size_t>(g.tile == 0 ? 0 : slabs * g.taps() * n));
    for (int64_t block = begin; block < end; ++block) {
      Element* out = blocks + block * size;
      if (g.tile == 0) {
        std::fill_n(out, size, Element());
        pack(g, packing, summands, block, transposed, w, scale, out);
        continue;
      }
      std::ranges::fill(taps, 0.0f);
      pack(g, packing, summands, block, transposed, w, scale, taps.data());
      for (int64_t slab = 0; slab < slabs; ++slab)
        winograd_of_taps(g, taps.data() + slab * g.taps() * n, n, out + slab * g.positions() * n);
    }
  });
  return packed;
}

Scratch<uint32_t> packed_weights(const Grouped& g, bool transposed, const float* w, const float* scale) {
  return g.arithmetic == Arithmetic::f32 ? packed_weights<float>(g, transposed, w, scale)
                                         : packed_weights<bf16>(g, transposed, w, scale);
}

}  // namespace

Scratch<uint32_t> forward_weights(const Grouped& g, const float* w, const float* scale) {
  return packed_weights(g, false, w, scale);
}

Scratch<uint32_t> transposed_weights(const Grouped& g, const float* w) { return packed_weights(g, true, w, nullptr); }

WeightGradients::WeightGradients(const Grouped& g, int parts)
    : g_(g),
      positions_(g.weight_positions()),
      turned_(g.in_rows && g.whole_tiles()),
      shared_(turned_ ? lanes_of(slab_channels) : quad_lanes(g)),
      run_(shared_ > 0 ? 4 : lanes_of(g.inputs)),
      vectors_((g.inputs + run_ - 1) / run_),
      outputs_(std::min(g.outputs, slab_channels)),
      size_(shared_ > 0 ? padded(g.in_channels()) * positions_ * g.outputs
                        : g.groups * vectors_ * Grouped::slabs(g.outputs) * positions_ * outputs_ * run_),
      parts_(parts),
      memory_(parts * size_) {}

void WeightGradients::clear(int i, int64_t first_bundle, int64_t last_bundle) {
  const int64_t bundle = shared_ > 0 ? slab_channels * positions_ * g_.outputs : size_ / g_.groups * g_.bundle();
  std::fill(part(i) + std::min(first_bundle * bundle, size_), part(i) + std::min(last_bundle * bundle, size_), 0.0f);
}

const float* WeightGradients::first_of(int64_t group, int64_t o, int64_t position, int64_t v) const {
  if (shared_ > 0) {
    const int64_t n = g_.outputs, channel = n * group;
    return memory_.data() + ((channel / shared_ * positions_ + position) * n + o) * shared_ + channel % shared_;
  }
  const int64_t own = std::min(slab_channels, g_.outputs - o / slab_channels * slab_channels);
  return memory_.data() +
         (((group * vectors_ + v) * Grouped::slabs(g_.outputs) + o / slab_channels) * positions_ * outputs_ +
          position * own + o % slab_channels) *
             run_;
}

void WeightGradients::write(Sink sink) {
  float* dw = (*sink).data<float>();
  const bool accumulate = accumulates(sink);
  const int64_t taps = g_.taps(), own_inputs = g_.inputs / g_.merged, own_outputs = g_.outputs / g_.merged;
  sum_parts();
  std::vector<int64_t> turned;  // where a group keeps a gradient, for every output and input
  if (turned_)
    for (int64_t o = 0; o < g_.outputs; ++o)
      for (int64_t i = 0; i < g_.inputs; ++i)
        turned.push_back(Packing::turned_vector(o, i) * shared_ + Packing::turned_lane(o, i));
  const auto put = [&](float& to, float gradient) { to = accumulate ? to + gradient : gradient; };
  parallel_ranges(g_.groups, 2 * g_.outputs * taps * g_.inputs, [&](int64_t begin, int64_t end) {
    for (int64_t channel = begin * g_.outputs; channel < end * g_.outputs; ++channel) {
      const int64_t group = channel / g_.outputs, o = channel % g_.outputs, first = o / own_outputs * own_inputs;
      float* own = dw + channel * taps * own_inputs;
      if (turned_) {
        const float* from = first_of(group, 0, 0, 0);
        const int64_t* places = turned.data() + o * g_.inputs + first;
        for (int64_t tap = 0; tap < taps; ++tap, from += g_.outputs * shared_, own += own_inputs)
          for (int64_t i = 0; i < own_inputs; ++i) put(own[i], from[places[i]]);
        continue;
      }
      for (int64_t tap = 0; tap < taps; ++tap, own += own_inputs)
        for (int64_t i = first, v = first / run_; i < first + own_inputs; ++v) {
          const float* from = first_of(group, o, tap, v) + i - v * run_;
          float* to = own + i - first;
          const int64_t n = std::min((v + 1) * run_, first + own_inputs) - i;
          for (int64_t l = 0; l < n; ++l) put(to[l], from[l]);
          i += n;
        }
    }
  });
}

// The first part becomes the sum of all, and Winograd's positions the taps that they belong to.
void WeightGradients::sum_parts() {
  const int64_t n = shared_ > 0 ? g_.outputs * shared_ : outputs_ * run_, run = positions_ * n;
  parallel_ranges(size_ / run, (parts_ + 2) * run, [&](int64_t begin, int64_t end) {
    std::vector<float> taps(static_cast<size_t>(g_.taps() * n));
    for (int64_t r = begin; r < end; ++r) {
      float* sum = memory_.data() + r * run;
      for (int part = 1; part < parts_; ++part)
        for (int64_t k = 0; k < run; ++k) sum[k] += sum[part * size_ + k];
      if (positions_ == g_.taps()) continue;
      winograd_to_taps(g_, sum, n, taps.data());
      std::copy(taps.begin(), taps.end(), sum);
    }
  });
}

}  // namespace mgic::cpu
