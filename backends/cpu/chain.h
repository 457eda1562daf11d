// What the fused drivers of chains (chain.cpp) tell their kernels. Vectors of channel parameters are padded with zeros
// to whole slabs, so that they can be read a slab at a time. Maps are (N, H, W, C) in f32.
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
struct Input {
  const float* x;
  const float* minus = nullptr;
  const float *mean = nullptr, *scale = nullptr, *beta = nullptr;  // null: no normalisation
  Activation activation = Activation::none;
};

// The gradient of a raw convolution output, made of that of the value behind its normalisation and activation:
//   scale · dz − shift − (raw − mean) · slope,   dz = dy · activation'((raw − mean) · scale + beta)
struct OutputGradient {
  const float* dy;
  const float* raw = nullptr;  // null: dy is the gradient itself
  const float *mean = nullptr, *scale = nullptr, *beta = nullptr, *shift = nullptr, *slope = nullptr;
  Activation activation = Activation::none;
};

// One link forward, in training: raw outputs, and their moments where asked for.
struct ForwardCall {
  Grouped conv;
  Input in;
  const float* weights;  // packed
  float* raw;
  bool moments;
  // Every phase walks the items in the opposite direction of the one before: what that touched last is still in cache.
  bool backwards;
};

// One link backward.
struct BackwardCall {
  Grouped conv;  // of the forward direction
  OutputGradient gradient;
  bool wants_weights, backwards;
  Input in;               // what the convolution has read; for the weights alone
  const float* weights;   // packed for the transposed convolution; null: no gradient of the input is wanted
  // The gradient of the input goes to dx and, negated, to dminus; or, where the input was made by a link before this
  // one, through that link's activation to dx, with the sums that its normalisation needs.
  float *dx = nullptr, *dminus = nullptr;
  bool accumulate_dx = false, accumulate_dminus = false;
  const float* before = nullptr;  // the raw output of the link before
  const float *mean = nullptr, *scale = nullptr, *beta = nullptr;
  Activation activation = Activation::none;
};

// One link of a chain that is evaluated only: the normalisation lies in the weights and the bias.
struct FoldedLink {
  Grouped conv;
  const float* weights;
  const float* bias;
  Activation activation;  // of the last link: the inner one
};
struct EvaluationCall {
  const FoldedLink* links;
  int64_t count;
  Input in;
  const float* residual;
  Activation outer;
  float* y;
};

}  // namespace mgic::cpu
