// What the fused drivers of chains (chain.cpp) tell their kernels. Vectors of channel parameters are padded with zeros
// to whole slabs, so that they can be read a slab at a time. Maps are (N, H, W, C) of T, f32 or bf16; packed weights
// are in the cells of the arithmetic (grouped-inl.h).
#pragma once

#include "backends/cpu/grouped.h"

namespace mgic::cpu {

// A batch is walked in items: bands of rows of one image, whose planes fit a thread's own cache.
struct Bands {
  int64_t batch, height, rows, per_image;

  Bands(int64_t batch, int64_t height, int64_t rows)
      : batch(batch), height(height), rows(rows), per_image((height + rows - 1) / rows) {}
  int64_t items() const { return batch * per_image; }
  int64_t image(int64_t item) const { return item / per_image; }
  int64_t begin(int64_t item) const { return item % per_image * rows; }
  int64_t end(int64_t item) const { return std::min(begin(item) + rows, height); }
};

// What a convolution reads: x, x − minus, or activation((x − mean) · scale + beta).
template <class T>
struct Input {
  const T* x;
  const T* minus = nullptr;
  const float *mean = nullptr, *scale = nullptr, *beta = nullptr;  // null: no normalisation
  Activation activation = Activation::none;
};

// The gradient of a raw convolution output, made of that of the value behind its normalisation and activation:
//   scale · dz − shift − (raw − mean) · slope,   dz = dy · activation'((raw − mean) · scale + beta)
template <class T>
struct OutputGradient {
  const T* dy;
  const T* raw = nullptr;  // null: dy is the gradient itself
  const float *mean = nullptr, *scale = nullptr, *beta = nullptr, *shift = nullptr, *slope = nullptr;
  Activation activation = Activation::none;
};

// One link forward, in training: raw outputs, and their moments where asked for.
template <class T>
struct ForwardCall {
  Grouped conv;
  Input<T> in;
  const void* weights;
  T* raw;
  bool moments;
  // Every phase walks the items in the opposite direction of the one before: what that touched last is still in cache.
  bool backwards;
};

// One link backward.
template <class T>
struct BackwardCall {
  Grouped conv;  // of the forward direction
  OutputGradient<T> gradient;
  bool wants_weights, backwards;
  Input<T> in;          // what the convolution has read; for the weights alone
  const void* weights;  // of the transposed convolution; null: no gradient of the input is wanted
  // The gradient of the input goes to dx and, negated, to dminus; or, where the input was made by a link before this
  // one, through that link's activation to dx, with the sums that its normalisation needs.
  T *dx = nullptr, *dminus = nullptr;
  bool accumulate_dx = false, accumulate_dminus = false;
  const T* before = nullptr;  // the raw output of the link before
  const float *mean = nullptr, *scale = nullptr, *beta = nullptr;
  Activation activation = Activation::none;
};

// One link of a chain that is evaluated only: the normalisation lies in the weights and the bias.
struct FoldedLink {
  Grouped conv;
  const void* weights;
  const float* bias;
  Activation activation;  // of the last link: the inner one
};
template <class T>
struct EvaluationCall {
  const FoldedLink* links;
  int64_t count;
  Input<T> in;
  const T* residual;
  Activation outer;
  T* y;
};

// The kernels for maps of T on the machine at hand. scratch holds planes (and pairs of pixels behind them), block the
// outputs on their way out.
template <class T>
struct ChainKernels {
  void (*forward)(const ForwardCall<T>&, const Bands&, int64_t begin, int64_t end, void* scratch, float* block,
                  float* moments);
  void (*backward)(const BackwardCall<T>&, const Bands&, int64_t begin, int64_t end, void* scratch, float* block,
                   float* dw, double* sums);
  void (*evaluate)(const EvaluationCall<T>&, const Bands&, int64_t begin, int64_t end, void* scratch,
                   int64_t planes_of_a_link, float* block);
  int64_t (*pair_room)(const Grouped&, int64_t plane_rows);
  bool pairs;  // whether weights are pairs of bf16
};

template <class T>
ChainKernels<T> chain_kernels();
template <>
ChainKernels<float> chain_kernels();
template <>
ChainKernels<bf16> chain_kernels();

}  // namespace mgic::cpu
