// Backend: one function per operation, chosen by the device of its arguments.
//
// Shapes are settled by autograd's operations before a backend is called: every output comes in allocated, and a
// backend computes and never infers. Feature maps are (N, H, W, C) or any shape whose last dimension is the channels;
// "rows" are all dimensions but the last. Statistics and per-channel vectors are (C). Unless a function says
// otherwise, all its tensors have one dtype and none of its outputs overlaps an input.
//
// The default bodies are the naive loops of backends/reference, and for the fused units compositions: an operation
// declared here and written there runs on `reference` and, said once in the log, on `cpu` (docs/extending.md).
#pragma once

#include <string_view>
#include <vector>

#include "core/tensor.h"

namespace mgic {

enum class Activation : uint8_t { none, relu, hswish, hsigmoid };
std::string_view name_of(Activation activation);

// How a gradient goes into its tensor: the first contribution overwrites, further ones add.
enum class Write : uint8_t { overwrite, accumulate };

// Where a gradient is wanted; empty where it is not, and then nothing is computed for it.
struct Sink {
  Tensor* tensor = nullptr;
  Write write = Write::overwrite;
  explicit operator bool() const { return tensor != nullptr; }
  Tensor& operator*() const { return *tensor; }
};

// The same in both directions of the image. Output size: (in + 2 padding − dilation (kernel − 1) − 1) / stride + 1.
struct ConvParams {
  int64_t stride = 1, padding = 0, dilation = 1, groups = 1;
  bool operator==(const ConvParams&) const = default;
};

// What a normalisation needs beside its input; all (C). mean and variance are those of the batch (variance biased) in
// training and the running ones in evaluation.
struct Norm {
  Tensor gamma, beta, mean, variance;
  double eps = 1e-5;
};

// y = outer(inner(z) + residual) for a value z; residual may be undefined, then y = inner(z).
struct Epilogue {
  Activation inner = Activation::none;
  Tensor residual;
  Activation outer = Activation::none;
};

// A link of a chain: a convolution, then batch normalisation where gamma is defined, then an activation.
struct Link {
  ConvParams conv;
  Tensor weight;                     // (O, kH, kW, I/groups)
  Tensor gamma, beta;                // (O) or undefined: no normalisation
  Tensor running_mean, running_var;  // updated in training
  double eps = 1e-5, momentum = 0.1;
  Activation activation = Activation::none;
};

// links_n ∘ … ∘ links_1 (x − minus), then + residual and `outer`. With `minus` and one link this is the V-cycle's
// coarse correction x_l + N(P_l(x_{l+1} − r_l)); with two, residual = x and outer = relu it is the basic smoother.
struct Chain {
  std::vector<Link> links;
  Activation outer = Activation::none;  // applied where a residual is added
  bool training = false;                // batch statistics and updated running ones, else the running ones as they are
  bool saves = true;                    // whether a backward may follow; if none does, nobody looks at the states
};

// What exists between links: the raw convolution output, and its statistics in training. The next link normalises and
// activates on load.
struct LinkState {
  Tensor raw;             // (N, H', W', O)
  Tensor mean, variance;  // (O); undefined where the link has no normalisation
};

// The link's normalisation: the batch's statistics in training, else the running ones.
Norm norm_of(const Link& link, const LinkState& state, bool training);

struct ChainInput {
  Tensor x, minus, residual;  // minus and residual may be undefined
};

struct LinkSinks {
  Sink weight, gamma, beta;
};
struct ChainSinks {
  Sink x, minus, residual;
  std::vector<LinkSinks> links;
};

enum class Pool : uint8_t { max, average };
struct PoolParams {
  Pool kind = Pool::max;
  int64_t kernel = 2, stride = 2, padding = 0;  // average counts padded pixels as zeros
};

// What the second factor of an elementwise operation is stretched over: itself, (C) or (N, C).
enum class Broadcast : uint8_t { same, channel, sample_channel };

// Labels equal to ignore_index do not count (none by default). smoothing: the share of the target spread over all
// classes (Szegedy et al., 2016).
struct CrossEntropyParams {
  double smoothing = 0;
  int64_t ignore_index = -1;
};

// One parameter's update. State tensors belong to the optimizer; second is AdamW's alone.
struct Update {
  Tensor parameter, gradient, first, second;
  double weight_decay = 0;
};
struct SgdParams {
  double lr = 0.1, momentum = 0;
  bool nesterov = false, first_step = false;  // first_step: momentum buffers are not there yet
};
struct AdamWParams {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  int64_t step = 1;  // from 1
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string_view name() const = 0;
  virtual int threads() const { return 1; }  // that an operation may use now
  // Whether `op` takes tensors of this dtype here; asked by the operations before every call.
  virtual bool supports(std::string_view op, DType dtype) const = 0;

  // y = activation(conv(x, w) + bias + residual). x (N, H, W, I), w (O, kH, kW, I/groups), y (N, H', W', O); bias (O)
  // and residual (as y) may be undefined. May allocate scratch.
  virtual void conv2d(const ConvParams& p, const Tensor& x, const Tensor& w, const Tensor& bias, const Tensor& residual,
                      Activation activation, Tensor& y);
  virtual void conv2d_backward_data(const ConvParams& p, const Tensor& dy, const Tensor& w, Sink dx);
  virtual void conv2d_backward_weights(const ConvParams& p, const Tensor& x, const Tensor& dy, Sink dw);

  // Mean and biased variance over the rows of x; combined by Chan's formula, never as E[x²] − E[x]².
  virtual void norm_statistics(const Tensor& x, Tensor& mean, Tensor& variance);
  // running ← (1 − momentum) running + momentum · batch, the variance unbiased by rows / (rows − 1).
  virtual void update_running(const Tensor& mean, const Tensor& variance, int64_t rows, double momentum,
                              Tensor& running_mean, Tensor& running_var);
  // y = epilogue(gamma (x − mean) / sqrt(variance + eps) + beta) in one pass.
  virtual void normalize(const Norm& norm, const Tensor& x, const Epilogue& epilogue, Tensor& y);
  // Through `normalize`; with `training` also through the statistics. Two passes over x and dy. dresidual is written
  // before dx, for the two may be one tensor (overwritten, then accumulated).
  virtual void normalize_backward(const Norm& norm, bool training, const Tensor& x, const Epilogue& epilogue,
                                  const Tensor& dy, Sink dx, Sink dgamma, Sink dbeta, Sink dresidual);

  // The training unit. y and the states' tensors come allocated; a chain that ends in a bare convolution has
  // states.back().raw = y. A backend whose backward does without a link's raw output may clear it, or keep
  // there what it needs instead: backward takes the states of the same backend's forward. The default bodies
  // compose the functions above and allocate the activated inputs of the later links; a fused driver allocates none.
  // Sinks may share a tensor, so they are written in this order: residual, the links' from last to first, x, minus.
  virtual void conv_chain(const Chain& chain, const ChainInput& in, std::vector<LinkState>& states, Tensor& y);
  virtual void conv_chain_backward(const Chain& chain, const ChainInput& in, const std::vector<LinkState>& states,
                                   const Tensor& dy, const ChainSinks& sinks);

  virtual void activation(Activation activation, const Tensor& x, Tensor& y);
  virtual void activation_backward(Activation activation, const Tensor& x, const Tensor& dy, Sink dx);
  // y = 1 / (1 + exp(−x)); backward from y: dx = dy · y (1 − y).
  virtual void sigmoid(const Tensor& x, Tensor& y);
  virtual void sigmoid_backward(const Tensor& y, const Tensor& dy, Sink dx);
  // y (+)= alpha x: copies, negates, accumulates.
  virtual void scale(double alpha, const Tensor& x, Sink y);
  virtual void add(const Tensor& a, const Tensor& b, Broadcast broadcast, Tensor& y);
  virtual void subtract(const Tensor& a, const Tensor& b, Tensor& y);
  virtual void multiply(const Tensor& a, const Tensor& b, Broadcast broadcast, Sink y);
  // y (+)= alpha Σ a·b over what `broadcast` stretched: gradients of biases and of channel scales, means. b may be
  // undefined (a factor of one).
  virtual void sum_to(double alpha, const Tensor& a, const Tensor& b, Broadcast broadcast, Sink y);

  // x (N, H, W, C), y (N, H', W', C); indices (as y, i64): which pixel h·W + w won, for max alone.
  virtual void pool2d(const PoolParams& p, const Tensor& x, Tensor& y, Tensor& indices);
  virtual void pool2d_backward(const PoolParams& p, const Tensor& dy, const Tensor& indices, Sink dx);
  // x (N, …, C), y (N, C); indices (N, C) as above.
  virtual void global_pool(Pool kind, const Tensor& x, Tensor& y, Tensor& indices);
  virtual void global_pool_backward(Pool kind, const Tensor& dy, const Tensor& indices, Sink dx);

  // y (+)= op(a) op(b) + bias for matrices; bias (columns of y) may be undefined.
  virtual void matmul(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, const Tensor& bias, Sink y);

  // logits (N, K), labels (N) i64 in 0 … K−1, losses (N): −log softmax(logits)[label].
  virtual void cross_entropy(const Tensor& logits, const Tensor& labels, Tensor& losses);
  // dlogits (+)= scale[0] · alpha · (softmax(logits) − onehot(labels)); scale holds one element.
  virtual void cross_entropy_backward(const Tensor& logits, const Tensor& labels, const Tensor& scale, double alpha,
                                      Sink dlogits);
  // sums (3) f64 += (Σ losses, number of rows whose largest logit is the label's, rows): read at log intervals alone.
  virtual void accumulate_metrics(const Tensor& losses, const Tensor& logits, const Tensor& labels, Tensor& sums);

  // The general form. weights (K) or undefined; losses (N), mean (1) = Σ losses / total, total (1) = Σ weights[label]
  // over the rows that count; both 0 where none does.
  virtual void weighted_cross_entropy(const CrossEntropyParams& p, const Tensor& logits, const Tensor& labels,
                                      const Tensor& weights, Tensor& losses, Tensor& mean, Tensor& total);
  // dlogits (+)= scale[0] · dmean/dlogits.
  virtual void weighted_cross_entropy_backward(const CrossEntropyParams& p, const Tensor& logits, const Tensor& labels,
                                               const Tensor& weights, const Tensor& total, const Tensor& scale,
                                               Sink dlogits);
  // sums (4 + K²) f64 += (Σ losses, rows whose largest logit is the label's, rows, rows whose label is among the five
  // largest logits, the confusion matrix [label][prediction]), over the rows whose label is not ignore_index.
  virtual void accumulate_confusion(int64_t ignore_index, const Tensor& losses, const Tensor& logits,
                                    const Tensor& labels, Tensor& sums);

  // y (+)= x / (1 − p) where uniform_at(key, i) ≥ p, else 0; the same key repeats the same mask.
  virtual void dropout(uint64_t key, double p, const Tensor& x, Sink y);

  // Channels [from, from + count) of x go to channels [to, to + count) of y: concatenation and slices.
  virtual void copy_channels(const Tensor& x, int64_t from, int64_t count, Sink y, int64_t to);
  // 1×1 weights group by group: x (O, 1, 1, I/g) to y (I, 1, 1, O/g); its own inverse. For tied transfers P = Rᵀ.
  virtual void transpose_groups(int64_t groups, const Tensor& x, Sink y);
  // Bilinear resize of (N, H, W, C) to y's (H', W'); align_corners as in PyTorch.
  virtual void resize_bilinear(bool align_corners, const Tensor& x, Tensor& y);
  virtual void resize_bilinear_backward(bool align_corners, const Tensor& dy, Sink dx);

  // x (N, P, C); indices (N, P, k) i64: the k nearest points by Euclidean distance, nearest first and ties by the
  // lower index.
  virtual void nearest_neighbours(const Tensor& x, Tensor& indices);
  // y (N, P, k, 2C): (x_j − x_i, x_i) for the neighbours j of i; the edge features of DGCNN (Wang et al., 2019, eq. 8).
  virtual void edge_features(const Tensor& x, const Tensor& indices, Tensor& y);
  virtual void edge_features_backward(const Tensor& dy, const Tensor& indices, Sink dx);
  // x (N, P, k, C) → y (N, P, C), the maximum over k; winners as y, i64 in 0 … k−1, the first of equals.
  virtual void neighbourhood_max(const Tensor& x, Tensor& y, Tensor& winners);
  virtual void neighbourhood_max_backward(const Tensor& dy, const Tensor& winners, Sink dx);

  // PyTorch's SGD: g ← g + decay·p; v ← momentum·v + g; p ← p − lr (nesterov ? g + momentum·v : v).
  virtual void sgd_update(const SgdParams& p, std::vector<Update>& updates);
  // Loshchilov & Hutter: decoupled decay.
  virtual void adamw_update(const AdamWParams& p, std::vector<Update>& updates);

  virtual void cast(const Tensor& x, Tensor& y);  // between f32, f64 and bf16
  virtual void fill(double value, Tensor& y);
  virtual void random_uniform(uint64_t key, double low, double high, Tensor& y);

 protected:
  // y from the last raw output: normalisation, residual, activations.
  void end_chain(const Chain& chain, const ChainInput& in, const std::vector<LinkState>& states, Tensor& y);

  // Called first by every naive body: `reference` has nothing to add, a backend with kernels of its own says once that
  // `op` has none yet, and one whose tensors are not in host memory throws.
  virtual void naive(std::string_view op) = 0;
};

Backend& backend_of(Device device);           // throws for meta, and for cuda where there is none
Device choose_device(std::string_view name);  // "auto" → cuda where one is usable, else cpu

}  // namespace mgic
