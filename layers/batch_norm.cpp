#include "layers/batch_norm.h"

namespace mgic {

void BatchNormOptions::fields(Fields& f) {
  f("eps", eps, "added to the variance", above(0));
  f("momentum", momentum, "weight of the new batch in the running statistics", between(0, 1));
}

BatchNorm::BatchNorm(int64_t channels, const BatchNormOptions& options) : Module("batch_norm"), options_(options) {
  add_parameter("weight", weight_, {channels}, {Init::constant, 1});
  add_parameter("bias", bias_, {channels}, {Init::constant, 0});
  add_buffer("running_mean", running_mean_, {channels}, {Init::constant, 0});
  add_buffer("running_var", running_var_, {channels}, {Init::constant, 1});
}

ops::NormVariables BatchNorm::variables() const {
  return {weight_, bias_, running_mean_, running_var_, options_.eps, options_.momentum};
}

Variable BatchNorm::forward(const Variable& x) { return ops::batch_norm(x, variables(), training()); }

}  // namespace mgic
