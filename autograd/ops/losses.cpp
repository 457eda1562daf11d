// The losses beside plain cross-entropy (autograd/ops/linear.cpp).
//   cross_entropy, general: per row n with label y, smoothing ε, class weights w and p = softmax(logits)
//     loss_n = −(1 − ε) w_y log p_y − ε/K Σ_k w_k log p_k         mean = Σ loss_n / Σ w_y over the rows that count
//   mean_squared_error: mean of (x − target)²
#include <algorithm>

#include "autograd/op.h"
#include "autograd/ops.h"

namespace mgic::ops {

Variable cross_entropy(const Variable& logits, const Tensor& labels, const CrossEntropyParams& p, const Tensor& weights,
                       Tensor* losses) {
  Op op("weighted_cross_entropy", {logits, Variable(labels), weights.defined() ? Variable(weights) : Variable()},
        {{"smoothing", p.smoothing}, {"ignore_index", p.ignore_index}});
  const Shape& s = logits.shape();
  op.rule(s.rank() >= 2 && s.rows() >= 1, "the logits must be (…, K) with at least one row");
  op.rule(labels.dtype() == DType::i64 && labels.shape().rank() == s.rank() - 1 &&
              std::ranges::equal(labels.shape().sizes(), s.sizes().first(static_cast<size_t>(s.rank() - 1))),
          "the labels must be i64 with the logits' shape but for the last dimension");
  op.rule(p.smoothing >= 0 && p.smoothing < 1, "the smoothing must be at least 0 and below 1, not {}", p.smoothing);
  const int64_t n = s.rows(), classes = s.last();
  op.rule(!weights.defined() || weights.shape() == Shape{classes}, "there must be {} weights, one a class", classes);
  const DType dtype = logits.value().dtype();
  const Device device = logits.value().device();
  const Tensor rows = logits.value().reshape({n, classes}), flat_labels = labels.reshape({n});
  Tensor each = Tensor::empty({n}, dtype, device), mean = Tensor::empty({1}, dtype, device),
         total = Tensor::empty({1}, dtype, device);
  op.run([&](Backend& b) { b.weighted_cross_entropy(p, rows, flat_labels, weights, each, mean, total); });
  if (losses != nullptr) *losses = each.reshape(labels.shape());
  return op.result(
      mean.reshape({}), {{"logits", rows}, {"labels", flat_labels}, {"weights", weights}, {"total", total}},
      [p, s](Backend& b, const Tensor& dy, const SavedTensors& saved, const Sinks& d) {
        if (!d.wants(0)) return;
        Tensor gradient = Tensor::empty_like(saved[0]);
        b.weighted_cross_entropy_backward(p, saved[0], saved[1], saved[2], saved[3], dy.reshape({1}), {&gradient});
        d.take(0, gradient.reshape(s));
      });
}

Variable mean_squared_error(const Variable& x, const Tensor& target) {
  Op op("mean_squared_error", {x, Variable(target)});
  op.rule(x.shape() == target.shape() && x.shape().count() >= 1, "both must have one shape, with at least one element");
  const int64_t n = x.shape().count();
  const double share = 1.0 / static_cast<double>(n);
  Tensor difference = Tensor::empty({n, 1}, x.value().dtype(), x.value().device());
  Tensor mean = Tensor::empty({1}, x.value().dtype(), x.value().device());
  op.run([&](Backend& b) {
    b.subtract(x.value().reshape({n, 1}), target.reshape({n, 1}), difference);
    b.sum_to(share, difference, difference, Broadcast::channel, {&mean});
  });
  return op.result(mean.reshape({}), {{"difference", difference}},
                   [share, shape = x.shape()](Backend& b, const Tensor& dy, const SavedTensors& s, const Sinks& d) {
                     if (!d.wants(0)) return;
                     Tensor rows = Tensor::empty_like(s[0]);
                     b.multiply(s[0], dy.reshape({1}), Broadcast::channel, {&rows});
                     Tensor gradient = Tensor::empty_like(rows);
                     b.scale(2 * share, rows, {&gradient});
                     d.take(0, gradient.reshape(shape));
                   });
}

}  // namespace mgic::ops
