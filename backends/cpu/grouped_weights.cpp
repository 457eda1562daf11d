#include "backends/cpu/grouped_weights.h"

#include <cstring>
#include <vector>

#include "backends/cpu/channel_vectors.h"
#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/weight_kernels.h"
#include "core/dtype.h"

namespace mgic::cpu {
namespace {

// Rows of n numbers times a factor, on top of what is there if asked for. They are short: in fours, without a call.
void copy_rows(const float* from, int64_t from_stride, int64_t rows, int64_t n, float* to, int64_t to_stride,
               float factor = 1, bool accumulate = false) {
  constexpr int64_t run = 4;
  for (int64_t r = 0; r < rows; ++r, from += from_stride, to += to_stride) {
    int64_t k = 0;
    for (; k + run <= n; k += run) {
      float v[run], old[run] = {};
      std::memcpy(v, from + k, sizeof v);
      if (accumulate) std::memcpy(old, to + k, sizeof old);
      for (int64_t i = 0; i < run; ++i) v[i] = old[i] + factor * v[i];
      std::memcpy(to + k, v, sizeof v);
    }
    for (; k < n; ++k) to[k] = (accumulate ? to[k] : 0.0f) + factor * from[k];
  }
}

// Where the tiles want the weights, in elements: f32, or with pairs bf16. Every vector of results has a block of its
// own: (slabs of summands, positions, cells, lanes), where a position is a tap or one of Winograd's.
class Packing {
 public:
  explicit Packing(const Grouped& g)
      : g_(g),
        step_(g.arithmetic == Arithmetic::f32 ? 1 : 2),
        shared_(g.in_rows ? lanes_of(slab_channels) : quad_lanes(g)),
        lanes_(shared_ > 0 ? shared_ : lanes_of(g.outputs)),
        vectors_((g.outputs + lanes_ - 1) / lanes_),
        position_((std::min(g.inputs, slab_channels) + step_ - 1) / step_ * lanes_ * step_) {}

  int64_t position() const { return position_; }  // elements of one
  int64_t slabs() const { return Grouped::slabs(g_.inputs); }
  int64_t lanes() const { return lanes_; }
  // Whether a position of a block is one group's matrix (summands, lanes).
  bool matrices() const {
    return step_ == 1 && shared_ == 0 && g_.merged == 1 && g_.inputs % 4 == 0 && g_.outputs % 4 == 0;
  }
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
  // An element's place in its block is the sum of its position's, its result's and its summand's.
  int64_t step() const { return step_; }  // from one result of a group to the next
  int64_t result(int64_t group, int64_t o) const { return (shared_ > 0 ? g_.outputs * group + o : o) % lanes_ * step_; }
  int64_t summand(int64_t i, int64_t positions) const {
    const int64_t within = i % slab_channels;
    return i / slab_channels * positions * position_ + within / step_ * lanes_ * step_ + within % step_;
  }

 private:
  const Grouped g_;
  int64_t step_, shared_, lanes_, vectors_, position_;
};

// What pack() below does where groups are turned.
void pack_turned(const Grouped& g, const Packing& packing, int64_t block, bool transposed, const float* w,
                 const float* scale, float* to) {
  const int64_t own_inputs = g.inputs / g.merged, own_outputs = g.outputs / g.merged, taps = g.taps(),
                position = packing.position();
  const Packing::Results results = packing.results(block);
  for (int64_t group = results.first_group; group < results.last_group; ++group) {
    float* own = to + packing.result(group, 0);
    for (int64_t o = 0; o < g.outputs; ++o, own += packing.lanes()) {
      const int64_t channel = group * g.outputs + o, first = g.merged == 1 ? 0 : o / own_outputs * own_inputs;
      copy_rows(w + channel * taps * own_inputs, own_inputs, taps, own_inputs,
                own + first + (transposed ? (taps - 1) * position : 0), transposed ? -position : position,
                scale == nullptr ? 1.0f : scale[channel]);
    }
  }
  turn(g.inputs, transposed, taps, to);
}

// And where a block is one group's, and a tap's weights a matrix of it.
void pack_matrices(const Grouped& g, const Packing& packing, int64_t block, bool transposed, const float* w,
                   const float* scale, float* to) {
  const Packing::Results results = packing.results(block);
  const int64_t taps = g.taps(), lanes = packing.lanes(), first = results.first_group * g.outputs,
                count = results.end - results.begin, summands = transposed ? g.outputs : g.inputs;
  for (int64_t begin = 0; begin < summands; begin += slab_channels)
    for (int64_t tap = 0; tap < taps; ++tap, to += packing.position()) {
      const int64_t end = std::min(begin + slab_channels, summands);
      if (transposed)
        copy_rows(w + ((first + begin) * taps + taps - 1 - tap) * g.inputs + results.begin, taps * g.inputs,
                  end - begin, count, to, lanes);
      else
        transpose(w + ((first + results.begin) * taps + tap) * g.inputs + begin, count, end - begin, taps * g.inputs,
                  scale == nullptr ? nullptr : scale + first + results.begin, to, lanes);
    }
}

// The weights of one block's taps go to their places, which are zero. `summands` are the places of a group's summands.
template <class Element>
void pack(const Grouped& g, const Packing& packing, const std::vector<int64_t>& summands, int64_t block,
          bool transposed, const float* w, const float* scale, Element* to) {
  if constexpr (std::is_same_v<Element, float>)
    if (g.in_rows || packing.matrices())
      return (g.in_rows ? pack_turned : pack_matrices)(g, packing, block, transposed, w, scale, to);
  const int64_t own_inputs = g.inputs / g.merged, own_outputs = g.outputs / g.merged, taps = g.taps();
  const Packing::Results results = packing.results(block);
  const int64_t first_output = transposed ? 0 : results.begin, last_output = transposed ? g.outputs : results.end;
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
          out += summands[static_cast<size_t>(o)];
          for (int64_t i = begin; i < end; ++i, out += packing.step()) *out = Element(from[i] * factor);
        } else {
          Element* out = to + tap * packing.position() + packing.result(group, o);
          for (int64_t i = begin; i < end; ++i) out[summands[static_cast<size_t>(i)]] = Element(from[i] * factor);
        }
      }
    }
}

template <class Element>
Scratch<uint32_t> packed_weights(const Grouped& g, bool transposed, const float* w, const float* scale) {
  const Grouped own = transposed ? g.transposed() : g;
  const Packing packing(own);
  const int64_t n = packing.position(), slabs = packing.slabs(), size = slabs * own.positions() * n;
  // Elements of a block as they are packed: in rows, those that are rounded share a cell in pairs.
  const int64_t packed_size = g.rounded ? size / 2 : size;
  Scratch<uint32_t> packed(packing.blocks() * packed_size * static_cast<int64_t>(sizeof(Element)) / 4);
  auto* blocks = reinterpret_cast<Element*>(packed.data());
  std::vector<int64_t> summands;
  for (int64_t i = 0; i < (transposed ? g.outputs : g.inputs); ++i) summands.push_back(packing.summand(i, g.taps()));
  parallel_ranges(packing.blocks(), 2 * size, [&](int64_t begin, int64_t end) {
    // Through Winograd's transform all places of a block's taps go at once.
    std::vector<float> taps(static_cast<size_t>(g.tile == 0 ? 0 : slabs * g.taps() * n));
    std::vector<float> positions(static_cast<size_t>(g.rounded ? size : 0));
    for (int64_t block = begin; block < end; ++block) {
      Element* out = blocks + block * packed_size;
      if (g.tile == 0) {
        std::fill_n(out, size, Element());
        pack(g, packing, summands, block, transposed, w, scale, out);
        continue;
      }
      std::ranges::fill(taps, 0.0f);
      pack(g, packing, summands, block, transposed, w, scale, taps.data());
      if (g.rounded) {
        winograd_of_taps(own, taps.data(), n, positions.data());
        pair(size / (2 * packing.lanes()), positions.data(), packed.data() + block * packed_size);
        continue;
      }
      for (int64_t slab = 0; slab < slabs; ++slab)
        winograd_of_taps(own, taps.data() + slab * g.taps() * n, n, out + slab * own.positions() * n);
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
      run_(shared_ > 0 ? g.inputs : lanes_of(g.inputs)),
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

void WeightGradients::write(Sink sink) {
  float* dw = (*sink).data<float>();
  const bool accumulate = accumulates(sink);
  const int64_t taps = g_.taps(), own_inputs = g_.inputs / g_.merged, own_outputs = g_.outputs / g_.merged,
                slabs = shared_ > 0 ? 1 : Grouped::slabs(g_.outputs), groups = shared_ > 0 ? shared_ / g_.outputs : 1,
                row = shared_ > 0 ? shared_ : run_,  // from one output to the next
      size = positions_ * outputs_ * row, block = vectors_ * slabs * size;
  // An output's weights of inputs of vector v, of which the first position's are at `from`.
  const auto put = [&](int64_t group, int64_t o, int64_t v, const float* from, int64_t position) {
    const int64_t first = g_.merged == 1 ? 0 : o / own_outputs * own_inputs, i = std::max(first, v * run_),
                  n = std::min(first + own_inputs, (v + 1) * run_) - i;
    float* to = dw + (group * g_.outputs + o) * taps * own_inputs + i - first;
    copy_rows(from + i - v * run_, position, taps, n, to, own_inputs, 1, accumulate);
  };
  // A block holds whole groups.
  parallel_ranges(size_ / block, (parts_ + 2) * block, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      float* sums = memory_.data() + b * block;
      for (int64_t k = 0; k < block; k += size) sum_parts(sums + k, outputs_ * row);
      const int64_t last_group = std::min((b + 1) * groups, g_.groups);
      for (int64_t group = b * groups; group < last_group; ++group, sums += g_.inputs)
        for (int64_t v = 0; v < vectors_; ++v)
          for (int64_t slab = 0; slab < slabs; ++slab) {
            const int64_t first = slab * outputs_, last = std::min(first + outputs_, g_.outputs);
            const float* from = sums + (v * slabs + slab) * size;
            for (int64_t o = first; o < last; ++o, from += row) put(group, o, v, from, (last - first) * row);
          }
    }
  });
}

// The first part's n numbers of every position become the sums of all parts, and Winograd's positions the taps that
// they belong to.
void WeightGradients::sum_parts(float* sum, int64_t n) {
  for (int part = 1; part < parts_; ++part)
    for (int64_t k = 0; k < positions_ * n; ++k) sum[k] += sum[part * size_ + k];
  if (positions_ != g_.taps()) winograd_to_taps(g_, sum, n);
  if (turned_) turn_back(g_.inputs, g_.taps(), sum);
}

}  // namespace mgic::cpu
