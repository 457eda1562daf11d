// The class behind cpu_backend(). f32; `cast` also bf16. f64 is refused, never converted.
//
// Convolutions and matrix products go to oneDNN (onednn.h) or, where that is weak, to kernels of our own; everything
// bound by memory is a SIMD kernel over a range of rows (simd-inl.h), and parallel.h deals the ranges to the threads.
// Results are bitwise repeatable for a given number of threads. Called from one compute thread at a time; that thread
// and the workers flush denormals from the first call on.
#pragma once

#include <initializer_list>

#include "backends/backend.h"

namespace mgic {

class CpuBackend final : public Backend {
 public:
  std::string_view name() const override { return "cpu"; }
  bool supports(std::string_view op, DType dtype) const override;
  int threads() const override;

  // convolution.cpp
  void conv2d(const ConvParams& p, const Tensor& x, const Tensor& w, const Tensor& bias, const Tensor& residual,
              Activation activation, Tensor& y) override;
  void conv2d_backward_data(const ConvParams& p, const Tensor& dy, const Tensor& w, Sink dx) override;
  void conv2d_backward_weights(const ConvParams& p, const Tensor& x, const Tensor& dy, Sink dw) override;

  // chain.cpp
  void conv_chain(const Chain& chain, const ChainInput& in, std::vector<LinkState>& states, Tensor& y) override;
  void conv_chain_backward(const Chain& chain, const ChainInput& in, const std::vector<LinkState>& states,
                           const Tensor& dy, const ChainSinks& sinks) override;

  // normalization.cpp
  void norm_statistics(const Tensor& x, Tensor& mean, Tensor& variance) override;
  void update_running(const Tensor& mean, const Tensor& variance, int64_t rows, double momentum, Tensor& running_mean,
                      Tensor& running_var) override;
  void normalize(const Norm& norm, const Tensor& x, const Epilogue& epilogue, Tensor& y) override;
  void normalize_backward(const Norm& norm, bool training, const Tensor& x, const Epilogue& epilogue, const Tensor& dy,
                          Sink dx, Sink dgamma, Sink dbeta, Sink dresidual) override;

  // elementwise.cpp
  void activation(Activation activation, const Tensor& x, Tensor& y) override;
  void activation_backward(Activation activation, const Tensor& x, const Tensor& dy, Sink dx) override;
  void sigmoid(const Tensor& x, Tensor& y) override;
  void sigmoid_backward(const Tensor& y, const Tensor& dy, Sink dx) override;
  void scale(double alpha, const Tensor& x, Sink y) override;
  void add(const Tensor& a, const Tensor& b, Broadcast broadcast, Tensor& y) override;
  void subtract(const Tensor& a, const Tensor& b, Tensor& y) override;
  void multiply(const Tensor& a, const Tensor& b, Broadcast broadcast, Sink y) override;
  void copy_channels(const Tensor& x, int64_t from, int64_t count, Sink y, int64_t to) override;
  void cast(const Tensor& x, Tensor& y) override;
  void fill(double value, Tensor& y) override;

  // reduction.cpp
  void sum_to(double alpha, const Tensor& a, const Tensor& b, Broadcast broadcast, Sink y) override;

  // pooling.cpp
  void pool2d(const PoolParams& p, const Tensor& x, Tensor& y, Tensor& indices) override;
  void pool2d_backward(const PoolParams& p, const Tensor& dy, const Tensor& indices, Sink dx) override;
  void global_pool(Pool kind, const Tensor& x, Tensor& y, Tensor& indices) override;
  void global_pool_backward(Pool kind, const Tensor& dy, const Tensor& indices, Sink dx) override;

  // points.cpp
  void nearest_neighbours(const Tensor& x, Tensor& indices) override;
  void edge_features(const Tensor& x, const Tensor& indices, Tensor& y) override;
  void edge_features_backward(const Tensor& dy, const Tensor& indices, Sink dx) override;
  void neighbourhood_max(const Tensor& x, Tensor& y, Tensor& winners) override;
  void neighbourhood_max_backward(const Tensor& dy, const Tensor& winners, Sink dx) override;

  // resize.cpp
  void resize_bilinear(bool align_corners, const Tensor& x, Tensor& y) override;
  void resize_bilinear_backward(bool align_corners, const Tensor& dy, Sink dx) override;

  // matmul.cpp
  void matmul(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, const Tensor& bias,
              Sink y) override;

  // loss.cpp
  void cross_entropy(const Tensor& logits, const Tensor& labels, Tensor& losses) override;
  void cross_entropy_backward(const Tensor& logits, const Tensor& labels, const Tensor& scale, double alpha,
                              Sink dlogits) override;
  void accumulate_metrics(const Tensor& losses, const Tensor& logits, const Tensor& labels, Tensor& sums) override;
  void weighted_cross_entropy(const CrossEntropyParams& p, const Tensor& logits, const Tensor& labels,
                              const Tensor& weights, Tensor& losses, Tensor& mean, Tensor& total) override;
  void weighted_cross_entropy_backward(const CrossEntropyParams& p, const Tensor& logits, const Tensor& labels,
                                       const Tensor& weights, const Tensor& total, const Tensor& scale,
                                       Sink dlogits) override;
  void accumulate_confusion(int64_t ignore_index, const Tensor& losses, const Tensor& logits, const Tensor& labels,
                            Tensor& sums) override;

  // random.cpp
  void dropout(uint64_t key, double p, const Tensor& x, Sink y) override;
  void random_uniform(uint64_t key, double low, double high, Tensor& y) override;

  // optimizer.cpp
  void sgd_update(const SgdParams& p, std::vector<Update>& updates) override;
  void adamw_update(const AdamWParams& p, std::vector<Update>& updates) override;

 private:
  void evaluate_folded(const Chain& chain, const ChainInput& in, std::vector<LinkState>& states, Tensor& y);

 protected:
  void naive(std::string_view op) override;  // says it once per operation
};

namespace cpu {

// Every defined tensor is f32 and on the host, else an error that names the operation.
void require_f32(std::string_view op, std::initializer_list<const Tensor*> tensors);

inline bool accumulates(Sink sink) { return sink.write == Write::accumulate; }
template <class T = float>
const T* data_or_null(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

// f(T()) with the element type of a map, f32 or bf16.
template <class F>
auto with_storage(const Tensor& map, F&& f) {
  return map.dtype() == DType::bf16 ? f(bf16()) : f(float());
}

}  // namespace cpu
}  // namespace mgic
