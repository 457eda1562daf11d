#include "layers/linear.h"

#include <cmath>

#include "autograd/ops.h"

namespace mgic {

void LinearOptions::fields(Fields& f) {
  f("out_features", out_features, "elements of the output", between(1, max_count).need());
  f("bias", bias, "adds a learned constant to each output");
}

Linear::Linear(const LinearOptions& o) : Module("linear") {
  const Init init = o.zero ? Init{} : Init{Init::uniform, 1.0 / std::sqrt(static_cast<double>(o.in_features))};
  add_parameter("weight", weight_, {o.out_features, o.in_features}, init);
  if (o.bias) add_parameter("bias", bias_, {o.out_features}, init);
}

Variable Linear::forward(const Variable& x) { return ops::linear(x, weight_, bias_); }

}  // namespace mgic
