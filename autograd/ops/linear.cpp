// The linear layer and the classification loss.
//   y = x wᵀ + b        loss = mean_n ( log Σ_k exp z[n, k] − z[n, label n] )
#include "autograd/op.h"
#include "autograd/ops.h"

namespace mgic::ops {

Variable linear(const Variable& map, const Variable& weight, const Variable& bias) {
  // Maps of bf16 end here: logits are f32.
  const Variable x = map.value().dtype() == DType::bf16 ? cast(map, weight.value().dtype()) : map;
  Op op("linear", {x, weight, bias});
  const Shape &s = x.shape(), &w = weight.shape();
  op.rule(s.rank() == 2 && w.rank() == 2 && s[1] == w[1], "x must be (N, in) and the weight (out, in)");
  op.rule(!bias.defined() || bias.shape() == Shape{w[0]}, "the bias must have {} elements", w[0]);
  Tensor y = Tensor::empty({s[0], w[0]}, x.value().dtype(), x.value().device());
  op.run([&](Backend& b) { b.matmul(x.value(), false, weight.value(), true, bias.value(), {&y}); });
  return op.result(y, {{"x", x.value()}, {"weight", weight.value()}},
                   [](Backend& b, const Tensor& dy, const SavedTensors& s, const Sinks& d) {
                     if (d.wants(0)) b.matmul(dy, false, s[1], false, {}, d[0]);
                     if (d.wants(1)) b.matmul(dy, true, s[0], false, {}, d[1]);
                     if (d.wants(2)) b.sum_to(1.0, dy, {}, Broadcast::channel, d[2]);
                   });
}

Variable cross_entropy(const Variable& logits, const Tensor& labels, Tensor* losses) {
  Op op("cross_entropy", {logits, Variable(labels)});
  const Shape& s = logits.shape();
  op.rule(s.rank() == 2 && s[0] >= 1 && s[1] >= 1, "the logits must be (N, K)");
  op.rule(labels.dtype() == DType::i64 && labels.shape() == Shape{s[0]}, "the labels must be i64 (N)");
  const DType dtype = logits.value().dtype();
  const Device device = logits.value().device();
  Tensor rows = Tensor::empty({s[0]}, dtype, device);
  Tensor mean = Tensor::empty({}, dtype, device);
  const double share = 1.0 / static_cast<double>(s[0]);
  op.run([&](Backend& b) {
    b.cross_entropy(logits.value(), labels, rows);
    Tensor out = mean.reshape({1});
    b.sum_to(share, rows.reshape({s[0], 1}), {}, Broadcast::channel, {&out});
  });
  if (losses != nullptr) *losses = rows;
  return op.result(mean, {{"logits", logits.value()}, {"labels", labels}},
                   [share](Backend& b, const Tensor& dy, const SavedTensors& s, const Sinks& d) {
                     if (d.wants(0)) b.cross_entropy_backward(s[0], s[1], dy.reshape({1}), share, d[0]);
                   });
}

}  // namespace mgic::ops
