// Pooling over windows and over whole images.
#include "autograd/op.h"
#include "autograd/ops.h"

namespace mgic::ops {
namespace {

std::string_view name_of(Pool kind) { return kind == Pool::max ? "max" : "average"; }

}  // namespace

Variable pool2d(const Variable& x, const PoolParams& p) {
  Op op("pool2d", {x}, {{"kind", name_of(p.kind)}, {"kernel", p.kernel}, {"stride", p.stride}, {"padding", p.padding}});
  const Shape& s = x.shape();
  op.rule(s.rank() == 4 && s[1] >= 1 && s[2] >= 1, "x must be (N, H, W, C) with at least one pixel");
  op.rule(p.kernel >= 1 && p.stride >= 1 && p.padding >= 0 && 2 * p.padding <= p.kernel,
          "kernel and stride must be at least 1, padding at least 0 and at most half the kernel");
  const int64_t h = s[1] + 2 * p.padding - p.kernel, w = s[2] + 2 * p.padding - p.kernel;
  op.rule(h >= 0 && w >= 0, "the window of {} pixels does not fit the image", p.kernel);
  const Shape shape{s[0], h / p.stride + 1, w / p.stride + 1, s[3]};
  Tensor y = Tensor::empty(shape, x.value().dtype(), x.value().device());
  Tensor indices;
  if (p.kind == Pool::max) indices = Tensor::empty(shape, DType::i64, y.device());
  op.run([&](Backend& b) { b.pool2d(p, x.value(), y, indices); });
  return op.result(y, {{"indices", indices}}, [p](Backend& b, const Tensor& dy, const SavedTensors& s, const Sinks& d) {
    if (d.wants(0)) b.pool2d_backward(p, dy, s[0], d[0]);
  });
}

Variable global_pool(const Variable& x, Pool kind) {
  Op op("global_pool", {x}, {{"kind", name_of(kind)}});
  const Shape& s = x.shape();
  op.rule(s.rank() >= 3 && s.rows() > 0, "x must be (N, …, C) with at least one pixel");
  const Shape shape{s[0], s.last()};
  Tensor y = Tensor::empty(shape, x.value().dtype(), x.value().device());
  Tensor indices;
  if (kind == Pool::max) indices = Tensor::empty(shape, DType::i64, y.device());
  op.run([&](Backend& b) { b.global_pool(kind, x.value(), y, indices); });
  return op.result(y, {{"indices", indices}},
                   [kind](Backend& b, const Tensor& dy, const SavedTensors& s, const Sinks& d) {
                     if (d.wants(0)) b.global_pool_backward(kind, dy, s[0], d[0]);
                   });
}

}  // namespace mgic::ops
