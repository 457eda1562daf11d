// Running sums of an epoch, kept on the device and read at log intervals alone.
#pragma once

#include "core/tensor.h"

namespace mgic {

struct Metrics {
  double loss = 0;      // mean over the samples
  double accuracy = 0;  // share in [0, 1]
  int64_t samples = 0;
};

class MetricSums {
 public:
  explicit MetricSums(Device device);
  void add(const Tensor& losses, const Tensor& logits, const Tensor& labels);
  Metrics read() const;
  void reset();
  Tensor& tensor() { return sums_; }  // (3) f64, for checkpoints

 private:
  Tensor sums_;
};

}  // namespace mgic
