// Grouped convolutions as MGIC has them: stride 1, images that keep their size, few channels a group.
//
//   y[n, i, j, o] = Σ_{u, v, c} w[o, u, v, c] · x[n, i + u − p, j + v − p, group(o) + c]      p = kernel / 2
//
// All of their work is two small kernels (grouped-inl.h): a tile of neighbouring outputs, and a tile of the weights'
// gradient. They read planes: sixteen channels of one image, a vector a pixel, with a border of zeros, packed for the
// occasion by each thread in its own cache. Since every value passes through that packing, whatever has to happen to it
// on the way (a difference, a normalisation, an activation, the gradient through them) happens there, and what has to
// happen to a result happens on its way out: that is how a whole chain needs no pass over memory of its own between
// two convolutions. Only filtering along rows, which reads a value once, does without a plane where nothing has to
// happen.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "backends/backend.h"

namespace mgic::cpu {

constexpr int64_t slab_channels = 16;
constexpr int64_t row_pixels = 16;  // of a row where an image can have any shape

// How products are computed: in f32, in dot products of pairs of bf16 (grouped-inl.h), or by multiplying matrices of
// bf16 (matrix-inl.h).
enum class Arithmetic { f32, pairs, matrices };
// The fastest for maps of bf16 on the machine at hand, or the one that inspect.h has chosen.
Arithmetic bf16_arithmetic();

struct Grouped {
  int64_t batch, height, width;
  int64_t groups, inputs, outputs;  // inputs and outputs of one group
  int64_t kernel;
  // Groups of the convolution that are one here, with zeros between them: where they have fewer than four channels, or
  // for matrices fewer than a slab.
  int64_t merged = 1;
  Arithmetic arithmetic = Arithmetic::f32;
  // Outputs on a side of Winograd's tiles (winograd-inl.h), 2 or 4; 0: the plain sum. In rows, tiles are one output
  // high (winograd_rows-inl.h): where groups of four or eight share a vector, and planes are in f32. There, transformed
  // values may be rounded to bf16 and multiplied in pairs.
  int64_t tile = 0;
  bool in_rows = false, rounded = false;
  // Small images have few tiles. So many of them lie below each other in one plane, with a border between them, as one
  // image of so many times the height.
  int64_t stacked = 1;

  int64_t border() const { return kernel / 2; }
  int64_t taps() const { return kernel * kernel; }
  int64_t pitch() const { return width + 2 * border(); }  // pixels from one row of a plane to the next
  // Row y of a plane's images, counted from the first, and all rows of a plane with `rows` of them.
  int64_t plane_row(int64_t y) const { return stacked > 1 ? y + y / height * border() : y; }
  int64_t plane_rows(int64_t rows) const { return stacked > 1 ? plane_row(rows) + border() : rows + 2 * border(); }
  // Weights of a pair of channels: those of the kernel, or of a tile's transform.
  int64_t positions() const { return tile > 0 ? (in_rows ? kernel : tile + 2) * (tile + 2) : taps(); }
  bool whole_tiles() const { return tile > 0 && height % tile_height() == 0 && width % tile == 0; }
  int64_t tile_height() const { return in_rows ? 1 : tile; }
  // Of a pair's gradient: weights go through Winograd's filtering too where whole tiles cover the image.
  int64_t weight_positions() const { return whole_tiles() ? positions() : taps(); }
  int64_t in_channels() const { return groups * inputs; }
  int64_t out_channels() const { return groups * outputs; }
  int64_t image_pixels() const { return height * width; }

  // Groups that are computed together: the fewest whose channels fill slabs on both sides.
  int64_t bundle() const { return std::min(groups, filling(inputs, outputs)); }
  int64_t bundles() const { return (groups + bundle() - 1) / bundle(); }
  int64_t in_slabs() const { return slabs(bundle() * inputs); }  // of a bundle
  int64_t out_slabs() const { return slabs(bundle() * outputs); }

  // The same for 1×1 convolutions, where an image's shape does not matter: one image with rows of a tile's length,
  // where the pixels fill them.
  Grouped flattened() const {
    Grouped f = *this;
    if (const int64_t pixels = batch * height * width; kernel == 1 && pixels % row_pixels == 0) {
      f.batch = 1;
      f.height = pixels / row_pixels;
      f.width = row_pixels;
    }
    return f;
  }

  // The convolution that takes gradients of outputs to gradients of inputs. Where values are rounded it has the smaller
  // tiles: of a gradient sums are taken that all but cancel, and with the larger ones those were twice as far off.
  Grouped transposed() const {
    Grouped t = *this;
    std::swap(t.inputs, t.outputs);
    if (rounded) t.tile = 2;
    return t;
  }

  static int64_t filling(int64_t inputs, int64_t outputs) {
    // Powers of two; by bits, since kernels ask at every turn.
    static_assert(slab_channels == 16);
    const auto fill = [](int64_t n) {
      return slab_channels >> std::min(std::countr_zero(static_cast<uint64_t>(n)), 4);
    };
    return std::max(fill(inputs), fill(outputs));
  }
  static int64_t slabs(int64_t channels) { return (channels + slab_channels - 1) / slab_channels; }
};

// Groups that have to become one for at least four channels on either side; 0 where their number is no multiple of
// that.
int64_t merged_groups(int64_t groups, int64_t inputs, int64_t outputs);

// Whether these kernels take the convolution, in all three directions.
bool grouped_suits(const ConvParams& p, const Shape& x, const Shape& w);
// `best`: the arithmetic to use where it suits.
Grouped grouped_of(const ConvParams& p, const Shape& x, const Shape& w, Arithmetic best);

// Lanes of the vectors that hold so many results of a group, on the machine at hand.
int64_t lanes_of(int64_t results);

// Groups with four channels on either side fill a whole vector with several groups, a block of four lanes each: lanes
// of that vector, or 0 where the groups have other sizes or the machine's vectors hold one block only.
int64_t quad_lanes(const Grouped& g);

}  // namespace mgic::cpu
