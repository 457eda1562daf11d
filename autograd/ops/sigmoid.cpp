// The activations that are no link of a chain.
//   leaky_relu: y = x where x > 0, else slope · x, composed of existing kernels: relu(x) + slope · (x − relu(x))
//   sigmoid:    y = 1 / (1 + exp(−x))
#include "autograd/op.h"
#include "autograd/ops.h"

namespace mgic::ops {

Variable leaky_relu(const Variable& x, double slope) {
  Op op("leaky_relu", {x}, {{"slope", slope}});
  op.rule(slope >= 0 && slope < 1, "the slope must be at least 0 and below 1, not {}", slope);
  Tensor y = Tensor::empty_like(x.value());
  op.run([&](Backend& b) {
    Tensor negative = Tensor::empty_like(x.value());
    b.activation(Activation::relu, x.value(), y);
    b.subtract(x.value(), y, negative);
    b.scale(slope, negative, {&y, Write::accumulate});
  });
  return op.result(y, {{"x", x.value()}}, [slope](Backend& b, const Tensor& dy, const SavedTensors& s, const Sinks& d) {
    if (!d.wants(0)) return;
    Tensor positive = Tensor::empty_like(dy);
    b.activation_backward(Activation::relu, s[0], dy, {&positive});
    b.scale(slope, dy, d[0]);
    b.scale(1 - slope, positive, d[0]);
  });
}

Variable sigmoid(const Variable& x) {
  Op op("sigmoid", {x});
  Tensor y = Tensor::empty_like(x.value());
  op.run([&](Backend& b) { b.sigmoid(x.value(), y); });
  return op.result(y, {{"y", y}}, [](Backend& b, const Tensor& dy, const SavedTensors& s, const Sinks& d) {
    if (d.wants(0)) b.sigmoid_backward(s[0], dy, d[0]);
  });
}

}  // namespace mgic::ops
