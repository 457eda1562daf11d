// The differentiable operations, with their shape rules. Feature maps are (N, H, W, C); (N, P, C) stands for
// (N, P, 1, C) in the convolutions. Errors name the operation, the module and the shapes.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "autograd/variable.h"

namespace mgic::ops {

// y = conv(x, weight) + bias. weight (O, kH, kW, I/groups); bias (O) may be undefined.
Variable conv2d(const Variable& x, const Variable& weight, const Variable& bias, const ConvParams& params);

// The parameters and running statistics (C) of a batch normalisation.
struct NormVariables {
  Variable gamma, beta;
  Tensor running_mean, running_var;
  double eps = 1e-5, momentum = 0.1;
};

// y = outer(inner(norm(x)) + residual); x of any shape (…, C). In training the batch's statistics are used and the
// running ones updated (Ioffe & Szegedy, 2015).
struct NormEpilogue {
  Activation inner = Activation::none;
  Variable residual;
  Activation outer = Activation::none;
};
Variable batch_norm(const Variable& x, const NormVariables& norm, bool training, const NormEpilogue& epilogue = {});

// A link of a chain, as autograd sees it. The names are those of the modules that own the parameters, so that an
// expanding Recorder sees each under its own path.
struct ChainLink {
  Variable weight;
  ConvParams conv;
  NormVariables norm;  // gamma undefined: none
  Activation activation = Activation::none;
  std::string conv_name, norm_name;
};

// links applied to x, then outer(… + residual) where a residual is given: the training unit (Backend::conv_chain).
Variable conv_chain(const Variable& x, const std::vector<ChainLink>& links, const Variable& residual, Activation outer,
                    bool training);

// The V-cycle's coarse correction x + N(P(a − b)): P and N are the link's.
Variable coarse_correction(const Variable& x, const Variable& a, const Variable& b, const ChainLink& prolongation,
                           bool training);

Variable activation(const Variable& x, Activation activation);
inline Variable relu(const Variable& x) { return activation(x, Activation::relu); }
Variable leaky_relu(const Variable& x, double slope);  // x where it is positive, else slope · x
Variable sigmoid(const Variable& x);                   // 1 / (1 + exp(−x))
Variable add(const Variable& a, const Variable& b);
Variable subtract(const Variable& a, const Variable& b);
Variable scale(const Variable& x, double alpha);
Variable cast(const Variable& x, DType dtype);  // x itself where it has that type
// x, in f32 where it is bf16: logits and whatever else a loss is made of.
inline Variable full_precision(const Variable& x) { return x.value().dtype() == DType::bf16 ? cast(x, DType::f32) : x; }
// b: as a, (C) or (N, C), stretched over the rest.
Variable multiply(const Variable& a, const Variable& b);

Variable pool2d(const Variable& x, const PoolParams& params);
Variable global_pool(const Variable& x, Pool kind);  // (N, …, C) → (N, C)
// x (N, in), weight (out, in), bias (out) or undefined → (N, out).
Variable linear(const Variable& x, const Variable& weight, const Variable& bias);
// Matrix by matrix: a (N, P, Q), b (N, Q, R), or (N, R, Q) transposed → (N, P, R).
Variable batched_matmul(const Variable& a, const Variable& b, bool transpose_b = false);
Variable reshape(const Variable& x, const Shape& shape);
Variable dropout(const Variable& x, double p, uint64_t key);

// Scalar (): the mean over the rows of −log softmax(logits)[label]. logits (N, K), labels (N) i64.
Variable cross_entropy(const Variable& logits, const Tensor& labels, Tensor* losses = nullptr);
// The same with softened targets, classes that count more than others, and labels that do not count. logits (…, K),
// labels (…) i64, weights (K) or undefined. The mean is weighted by the labels' weights, as in PyTorch; 0 where no
// label counts. losses (…): 0 where the label is ignored.
Variable cross_entropy(const Variable& logits, const Tensor& labels, const CrossEntropyParams& params,
                       const Tensor& weights, Tensor* losses = nullptr);
Variable mean_squared_error(const Variable& x, const Tensor& target);  // scalar (): the mean of (x − target)²
Variable sum(const Variable& x);                                       // scalar ()
Variable dot(const Variable& x, const Tensor& weights);                // scalar (): Σ x·weights

Variable concat_channels(const std::vector<Variable>& parts);
Variable slice_channels(const Variable& x, int64_t begin, int64_t end);
Variable resize_bilinear(const Variable& x, int64_t height, int64_t width, bool align_corners = false);

// (N, P, C) → indices (N, P, k) of the nearest points; not differentiable.
Tensor nearest_neighbours(const Tensor& x, int64_t k);
Variable edge_features(const Variable& x, const Tensor& indices);  // (N, P, C) → (N, P, k, 2C)
Variable neighbourhood_max(const Variable& x);                     // (N, P, k, C) → (N, P, C)

// A per-channel weight of a 1×1 grouped convolution, transposed group by group: (O, 1, 1, I/g) → (I, 1, 1, O/g).
Variable transpose_groups(const Variable& weight, int64_t groups);

}  // namespace mgic::ops
