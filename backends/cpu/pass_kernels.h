// What one thread does with its items of a pass (passes.h), for the machine at hand. Packed weights are in the cells of
// the arithmetic (grouped-inl.h).
#pragma once

#include <optional>

#include "backends/cpu/passes.h"

namespace mgic::cpu {

// A batch is walked in items: bands of rows of one image, whose planes fit a thread's own cache, or some small images.
struct Bands {
  int64_t batch, height, rows, stacked, per_image;

  Bands(const Grouped& g, int64_t rows)
      : batch(g.batch),
        height(g.height),
        rows(g.stacked > 1 ? g.stacked * height : rows),
        stacked(g.stacked),
        per_image(stacked > 1 ? 1 : (height + rows - 1) / rows) {}
  int64_t items() const { return (batch + stacked - 1) / stacked * per_image; }
  int64_t image(int64_t item) const { return item / per_image * stacked; }  // the first one
  int64_t begin(int64_t item) const { return item % per_image * rows; }
  int64_t end(int64_t item) const { return std::min(begin(item) + rows, bottom(item)); }
  int64_t bottom(int64_t item) const { return std::min(stacked, batch - image(item)) * height; }
};

// Items [begin, end), and bundles [first, last) of each.
struct Chunk {
  int64_t begin = 0, end = 0, first = 0, last = 0;
};

// The items of a chunk in the order in which they are walked, and the chunk that its thread will probably take up
// behind it; an empty one where there is none. cold: whether there was none before.
struct Walk {
  Chunk own, after;
  bool backwards, cold;

  int64_t count() const { return own.end - own.begin; }
  int64_t item(int64_t i) const { return item_of(own, i); }
  // What is walked behind item i: one item.
  std::optional<Chunk> behind(int64_t i) const {
    const Chunk& c = i + 1 < count() ? own : after;
    if (c.begin == c.end) return {};
    const int64_t item = item_of(c, i + 1 < count() ? i + 1 : 0);
    return Chunk{item, item + 1, c.first, c.last};
  }

 private:
  int64_t item_of(const Chunk& c, int64_t i) const { return backwards ? c.end - 1 - i : c.begin + i; }
};

// Rows that tiles of 4 outputs read and compute for so many rows: where a chain is evaluated, its bands have halos.
inline int64_t whole_tiles(const Grouped& g, int64_t rows) { return g.tile_height() == 4 ? (rows + 3) / 4 * 4 : rows; }

// Room that the kernels need in front of a block, for a bundle's outputs that wait for the next one's.
inline int64_t waiting_size(const Grouped& g, const Bands& bands) { return bands.rows * g.width * slab_channels; }

// The kernels for maps of T on the machine at hand. scratch holds planes (and pairs of pixels behind them), block what
// waits and, behind it, the outputs on their way out.
template <class T>
struct PassKernels {
  void (*forward)(const ForwardCall<T>&, const Bands&, const Walk&, void* scratch, float* block, float* moments);
  void (*backward)(const BackwardCall<T>&, const Bands&, const Walk&, void* scratch, float* block, float* dw,
                   double* sums);
  void (*evaluate)(const EvaluationCall<T>&, const Bands&, const Walk&, void* scratch, int64_t planes_of_a_link,
                   float* block);
  // Cells that one bundle's planes need beside them, for gradients of weights.
  int64_t (*room_beside_planes)(const Grouped&, int64_t plane_rows);
  Arithmetic best;
};

template <class T>
PassKernels<T> pass_kernels();
template <>
PassKernels<float> pass_kernels();
template <>
PassKernels<bf16> pass_kernels();

}  // namespace mgic::cpu
