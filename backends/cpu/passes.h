// Passes over a batch with grouped convolutions (grouped.h): every pass is one parallel region, in which the threads
// walk items of their own, each in its own cache. A chain in training is one pass a link and direction, with the
// barrier that its statistics need behind it; an evaluated chain, and a convolution alone, are one pass.
//
// Vectors of channel parameters are padded with zeros to whole slabs, so that they can be read a slab at a time. Maps
// are (N, H, W, C) of T, f32 or bf16.
#pragma once

#include <vector>

#include "backends/cpu/grouped.h"
#include "backends/cpu/normalization.h"

namespace mgic::cpu {

// What a convolution reads: x, x − minus, or activation((x − mean) · scale + beta).
template <class T>
struct Input {
  const T* x;
  const T* minus = nullptr;
  const float *mean = nullptr, *scale = nullptr, *beta = nullptr;  // null: no normalisation
  Activation activation = Activation::none;

  bool plain() const { return minus == nullptr && scale == nullptr && activation == Activation::none; }  // x itself
};

// The gradient of a raw convolution output, made of that of the value behind its normalisation and activation:
//   scale · dz − shift − (raw − mean) · slope,   dz = dy · activation'((raw − mean) · scale + beta)
template <class T>
struct OutputGradient {
  const T* dy;
  const T* raw = nullptr;  // null: dy is the gradient itself
  const float *mean = nullptr, *scale = nullptr, *beta = nullptr, *shift = nullptr, *slope = nullptr;
  Activation activation = Activation::none;

  bool plain() const { return raw == nullptr; }
};

// One link forward, in training: raw outputs, and their moments where asked for.
template <class T>
struct ForwardCall {
  Grouped conv;
  Input<T> in;
  const void* weights;
  T* raw;
  float *mean, *variance;  // of the raw outputs, a value a channel; null where they are not asked for
  // Every pass walks the items in the opposite direction of the one before: what that touched last is still in cache.
  bool backwards;
};

// One link backward.
template <class T>
struct BackwardCall {
  Grouped conv;  // of the forward direction
  OutputGradient<T> gradient;
  Sink dw;
  bool backwards;
  Input<T> in;          // what the convolution has read; for dw alone
  const void* weights;  // of the transposed convolution; null: no gradient of the input is wanted
  // The gradient of the input goes to dx and, negated, to dminus; or, where the input was made by a link before this
  // one, through that link's activation to dx, with the sums that its normalisation needs.
  T *dx = nullptr, *dminus = nullptr;
  bool accumulate_dx = false, accumulate_dminus = false;
  const T* before = nullptr;  // the raw output of the link before
  const float *mean = nullptr, *scale = nullptr, *beta = nullptr;
  Activation activation = Activation::none;
  NormSums* sums = nullptr;
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
  std::vector<FoldedLink> links;
  Input<T> in;
  const T* residual;
  Activation outer;
  T* y;
};

// What the machine at hand is fastest with for maps of T, wherever that suits.
template <class T>
Arithmetic best_arithmetic();

template <class T>
void run(const ForwardCall<T>& call);
template <class T>
void run(const BackwardCall<T>& call);
template <class T>
void run(const EvaluationCall<T>& call);

// A convolution alone.
template <class T>
void grouped_forward(const ConvParams& p, const Tensor& x, const Tensor& w, const Tensor& bias, const Tensor& residual,
                     Activation activation, Tensor& y);
template <class T>
void grouped_backward_data(const ConvParams& p, const Tensor& dy, const Tensor& w, Sink dx);
template <class T>
void grouped_backward_weights(const ConvParams& p, const Tensor& x, const Tensor& dy, Sink dw);

}  // namespace mgic::cpu
