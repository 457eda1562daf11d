// linear: (N, in) → (N, out), y = x wᵀ + b; weight (out, in) and bias (out) from U(±1/√in).
#pragma once

#include "layers/module.h"

namespace mgic {

struct LinearOptions {
  int64_t in_features = 0;  // from the context where JSON builds the layer
  int64_t out_features = 0;
  bool bias = true;
  bool zero = false;  // not for JSON: begins as the constant 0

  void fields(Fields& f);
};

class Linear final : public Module {
 public:
  explicit Linear(const LinearOptions& options);

 protected:
  Variable forward(const Variable& x) override;

 private:
  Variable weight_, bias_;
};

}  // namespace mgic
