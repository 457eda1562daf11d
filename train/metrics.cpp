#include "train/metrics.h"

#include "backends/backend.h"

namespace mgic {

MetricSums::MetricSums(Device device) : sums_(Tensor::zeros({3}, DType::f64, device)) {}

void MetricSums::add(const Tensor& losses, const Tensor& logits, const Tensor& labels) {
  backend_of(sums_.device()).accumulate_metrics(losses, logits, labels, sums_);
}

Metrics MetricSums::read() const {
  const Tensor host = sums_.to(Device::cpu);
  const double* v = host.data<double>();
  const auto samples = static_cast<int64_t>(v[2]);
  if (samples == 0) return {};
  return {v[0] / v[2], v[1] / v[2], samples};
}

void MetricSums::reset() { sums_.fill(0); }

}  // namespace mgic
