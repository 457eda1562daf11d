// Neighbourhoods of point clouds (Wang et al., "Dynamic graph CNN for learning on point clouds", 2019, section 3).
#include "autograd/op.h"
#include "autograd/ops.h"

namespace mgic::ops {

Tensor nearest_neighbours(const Tensor& x, int64_t k) {
  Op op("nearest_neighbours", {Variable(x)}, {{"k", k}});
  const Shape& s = x.shape();
  op.rule(s.rank() == 3 && k >= 1 && k <= s[1], "x must be (N, P, C) with at least k = {} points", k);
  Tensor indices = Tensor::empty({s[0], s[1], k}, DType::i64, x.device());
  op.run([&](Backend& b) { b.nearest_neighbours(x, indices); });
  return op.result(indices, {}, nullptr).value();
}

Variable edge_features(const Variable& x, const Tensor& indices) {
  Op op("edge_features", {x, Variable(indices)});
  const Shape &s = x.shape(), &i = indices.shape();
  op.rule(s.rank() == 3 && i.rank() == 3 && i[0] == s[0] && i[1] == s[1] && indices.dtype() == DType::i64,
          "x must be (N, P, C) and the indices i64 (N, P, k)");
  Tensor y = Tensor::empty({s[0], s[1], i[2], 2 * s[2]}, x.value().dtype(), x.value().device());
  op.run([&](Backend& b) { b.edge_features(x.value(), indices, y); });
  return op.result(y, {{"indices", indices}}, [](Backend& b, const Tensor& dy, const SavedTensors& s, const Sinks& d) {
    if (d.wants(0)) b.edge_features_backward(dy, s[0], d[0]);
  });
}

Variable neighbourhood_max(const Variable& x) {
  Op op("neighbourhood_max", {x});
  const Shape& s = x.shape();
  op.rule(s.rank() == 4 && s[2] >= 1, "x must be (N, P, k, C)");
  Tensor y = Tensor::empty({s[0], s[1], s[3]}, x.value().dtype(), x.value().device());
  Tensor winners = Tensor::empty(y.shape(), DType::i64, y.device());
  op.run([&](Backend& b) { b.neighbourhood_max(x.value(), y, winners); });
  return op.result(y, {{"winners", winners}}, [](Backend& b, const Tensor& dy, const SavedTensors& s, const Sinks& d) {
    if (d.wants(0)) b.neighbourhood_max_backward(dy, s[0], d[0]);
  });
}

}  // namespace mgic::ops
