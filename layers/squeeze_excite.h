// squeeze_excite: y = x · hsigmoid( fc2 relu( fc1 mean(x)))  (Hu et al., 2018; MobileNetV3's form, Howard et al., 2019)
// x (N, H, W, m); fc1 (h, m), fc2 (m, h), both linear with bias; h = make_divisible(floor(m / 4), 8).
#pragma once

#include "layers/linear.h"

namespace mgic {

int64_t make_divisible(double value, int64_t divisor = 8);

class SqueezeExcite final : public Module {
 public:
  explicit SqueezeExcite(int64_t channels);

 protected:
  Variable forward(const Variable& x) override;

 private:
  Linear &fc1_, &fc2_;
};

}  // namespace mgic
