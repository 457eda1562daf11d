// Weights and their gradients in the order in which the kernels of grouped convolutions hold them.
#pragma once

#include "backends/cpu/grouped.h"
#include "backends/cpu/parallel.h"

namespace mgic::cpu {

// (groups, vectors of outputs, slabs of inputs, positions, cells, lanes), zero where there is no
// such output or input. A cell is an f32 or, where the arithmetic is of bf16, two of them for neighbouring inputs.
// Where tiles are in rows, a cell is a vector of weights of one turn (winograd_rows-inl.h).
// scale: a factor for each output channel; may be null.
Scratch<uint32_t> forward_weights(const Grouped& g, const float* w, const float* scale = nullptr);
// For gradients of the input: mirrored, and with inputs and outputs exchanged.
Scratch<uint32_t> transposed_weights(const Grouped& g, const float* w);

// One set of gradients for every part of the items.
class WeightGradients {
 public:
  WeightGradients(const Grouped& g, int parts);

  float* part(int i) { return memory_.data() + i * size_; }
  void clear(int part, int64_t first_bundle, int64_t last_bundle);  // those of bundles [first, last)
  void write(Sink sink);                                            // dw (+)= the sum of the parts, in their order

 private:
  void sum_parts(float* sum, int64_t n);

  Grouped g_;
  int64_t positions_;
  bool turned_;
  int64_t shared_, run_, vectors_, outputs_, size_;  // run_: inputs that lie side by side
  int parts_;
  Scratch<float> memory_;
};

}  // namespace mgic::cpu
