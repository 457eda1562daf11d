// batch_norm: y = γ (x − mean) / sqrt(variance + eps) + β for each channel of (N, …, C).
// In training the batch's statistics are used and the running ones updated; in evaluation the running ones are used.
#pragma once

#include "autograd/ops.h"
#include "layers/module.h"

namespace mgic {

struct BatchNormOptions {
  double eps = 1e-5;
  double momentum = 0.1;  // of the new batch in the running statistics

  void fields(Fields& f);
};

class BatchNorm final : public Module {
 public:
  explicit BatchNorm(int64_t channels, const BatchNormOptions& options = {});
  ops::NormVariables variables() const;

 protected:
  Variable forward(const Variable& x) override;

 private:
  BatchNormOptions options_;
  Variable weight_, bias_;
  Tensor running_mean_, running_var_;
};

}  // namespace mgic
