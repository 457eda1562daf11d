#include "layers/squeeze_excite.h"

#include <algorithm>

#include "autograd/ops.h"

namespace mgic {

int64_t make_divisible(double value, int64_t divisor) {
  const auto rounded = static_cast<int64_t>(value + static_cast<double>(divisor) / 2) / divisor * divisor;
  const int64_t n = std::max(divisor, rounded);
  return static_cast<double>(n) < 0.9 * value ? n + divisor : n;
}

SqueezeExcite::SqueezeExcite(int64_t channels)
    : Module("squeeze_excite"),
      fc1_(add_child("fc1", std::make_unique<Linear>(
                                LinearOptions{channels, make_divisible(static_cast<double>(channels / 4)), true}))),
      fc2_(add_child("fc2", std::make_unique<Linear>(
                                LinearOptions{make_divisible(static_cast<double>(channels / 4)), channels, true}))) {}

Variable SqueezeExcite::forward(const Variable& x) {
  const Variable squeezed = ops::global_pool(x, Pool::average);
  const Variable excitation = ops::activation(fc2_(ops::relu(fc1_(squeezed))), Activation::hsigmoid);
  return ops::multiply(x, excitation);
}

}  // namespace mgic
