// The reference backend: naive loops in f32 and f64. The oracle that every other backend is tested against, the
// device of gradient checks, and teaching material.
#pragma once

#include "backends/backend.h"

namespace mgic {

class ReferenceBackend final : public Backend {
 public:
  std::string_view name() const override { return "reference"; }
  bool supports(std::string_view op, DType dtype) const override;

  void conv2d(const ConvParams& p, const Tensor& x, const Tensor& w, const Tensor& bias, const Tensor& residual,
              Activation activation, Tensor& y) override;
  void conv2d_backward_data(const ConvParams& p, const Tensor& dy, const Tensor& w, Sink dx) override;
  void conv2d_backward_weights(const ConvParams& p, const Tensor& x, const Tensor& dy, Sink dw) override;

  void norm_statistics(const Tensor& x, Tensor& mean, Tensor& variance) override;
  void update_running(const Tensor& mean, const Tensor& variance, int64_t rows, double momentum, Tensor& running_mean,
                      Tensor& running_var) override;
  void normalize(const Norm& norm, const Tensor& x, const Epilogue& epilogue, Tensor& y) override;
  void normalize_backward(const Norm& norm, bool training, const Tensor& x, const Epilogue& epilogue, const Tensor& dy,
                          Sink dx, Sink dgamma, Sink dbeta, Sink dresidual) override;

  void activation(Activation activation, const Tensor& x, Tensor& y) override;
  void activation_backward(Activation activation, const Tensor& x, const Tensor& dy, Sink dx) override;
  void scale(double alpha, const Tensor& x, Sink y) override;
  void add(const Tensor& a, const Tensor& b, Broadcast broadcast, Tensor& y) override;
  void subtract(const Tensor& a, const Tensor& b, Tensor& y) override;
  void multiply(const Tensor& a, const Tensor& b, Broadcast broadcast, Sink y) override;
  void sum_to(double alpha, const Tensor& a, const Tensor& b, Broadcast broadcast, Sink y) override;

  void pool2d(const PoolParams& p, const Tensor& x, Tensor& y, Tensor& indices) override;
  void pool2d_backward(const PoolParams& p, const Tensor& dy, const Tensor& indices, Sink dx) override;
  void global_pool(Pool kind, const Tensor& x, Tensor& y, Tensor& indices) override;
  void global_pool_backward(Pool kind, const Tensor& dy, const Tensor& indices, Sink dx) override;

  void matmul(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, const Tensor& bias,
              Sink y) override;
  void cross_entropy(const Tensor& logits, const Tensor& labels, Tensor& losses) override;
  void cross_entropy_backward(const Tensor& logits, const Tensor& labels, const Tensor& scale, double alpha,
                              Sink dlogits) override;
  void accumulate_metrics(const Tensor& losses, const Tensor& logits, const Tensor& labels, Tensor& sums) override;

  void dropout(uint64_t key, double p, const Tensor& x, Sink y) override;
  void copy_channels(const Tensor& x, int64_t from, int64_t count, Sink y, int64_t to) override;
  void transpose_groups(int64_t groups, const Tensor& x, Sink y) override;
  void resize_bilinear(bool align_corners, const Tensor& x, Tensor& y) override;
  void resize_bilinear_backward(bool align_corners, const Tensor& dy, Sink dx) override;
  void nearest_neighbours(const Tensor& x, Tensor& indices) override;
  void edge_features(const Tensor& x, const Tensor& indices, Tensor& y) override;
  void edge_features_backward(const Tensor& dy, const Tensor& indices, Sink dx) override;
  void neighbourhood_max(const Tensor& x, Tensor& y, Tensor& winners) override;
  void neighbourhood_max_backward(const Tensor& dy, const Tensor& winners, Sink dx) override;

  void sgd_update(const SgdParams& p, std::vector<Update>& updates) override;
  void adamw_update(const AdamWParams& p, std::vector<Update>& updates) override;
  void cast(const Tensor& x, Tensor& y) override;
  void fill(double value, Tensor& y) override;
  void random_uniform(uint64_t key, double low, double high, Tensor& y) override;
};

Backend& reference_backend();

}  // namespace mgic
