// Elementwise operations, sums and views.
#include "autograd/op.h"
#include "autograd/ops.h"

namespace mgic::ops {
namespace {

// A backend's tensors have a last dimension: a scalar goes there as one channel.
Tensor at_least_1d(const Tensor& t) { return t.shape().rank() == 0 ? t.reshape({1}) : t; }

}  // namespace

Variable activation(const Variable& x, Activation kind) {
  Op op("activation", {x}, {{"function", name_of(kind)}});
  Tensor y = Tensor::empty_like(x.value());
  op.run([&](Backend& b) { b.activation(kind, x.value(), y); });
  return op.result(y, {{"x", x.value()}}, [kind](Backend& b, const Tensor& dy, const SavedTensors& s, const Sinks& d) {
    if (d.wants(0)) b.activation_backward(kind, s[0], dy, d[0]);
  });
}

Variable cast(const Variable& x, DType dtype) {
  if (x.value().dtype() == dtype) return x;
  Op op("cast", {x}, {{"to", name_of(dtype)}});
  Tensor y = Tensor::empty(x.shape(), dtype, x.value().device());
  op.run([&](Backend& b) { b.cast(x.value(), y); });
  return op.result(y, {}, [](Backend& b, const Tensor& dy, const SavedTensors&, const Sinks& d) {
    if (!d.wants(0)) return;
    const Sink dx = d[0];
    if (dx.write == Write::overwrite) return b.cast(dy, *dx);
    Tensor converted = Tensor::empty_like(*dx);
    b.cast(dy, converted);
    b.scale(1.0, converted, dx);
  });
}

Variable add(const Variable& a, const Variable& b) {
  Op op("add", {a, b});
  op.rule(a.shape() == b.shape(), "both must have one shape");
  Tensor y = Tensor::empty_like(a.value());
  op.run([&](Backend& backend) {
    Tensor out = at_least_1d(y);
    backend.add(at_least_1d(a.value()), at_least_1d(b.value()), Broadcast::same, out);
  });
  return op.result(y, {}, [](Backend&, const Tensor& dy, const SavedTensors&, const Sinks& d) {
    d.take(0, dy);
    d.take(1, dy);
  });
}

Variable subtract(const Variable& a, const Variable& b) {
  Op op("subtract", {a, b});
  op.rule(a.shape() == b.shape(), "both must have one shape");
  Tensor y = Tensor::empty_like(a.value());
  op.run([&](Backend& backend) { backend.subtract(a.value(), b.value(), y); });
  return op.result(y, {}, [](Backend& backend, const Tensor& dy, const SavedTensors&, const Sinks& d) {
    d.take(0, dy);
    if (d.wants(1)) backend.scale(-1.0, dy, d[1]);
  });
}

Variable scale(const Variable& x, double alpha) {
  Op op("scale", {x}, {{"alpha", alpha}});
  Tensor y = Tensor::empty_like(x.value());
  op.run([&](Backend& b) { b.scale(alpha, x.value(), {&y}); });
  return op.result(y, {}, [alpha](Backend& b, const Tensor& dy, const SavedTensors&, const Sinks& d) {
    if (d.wants(0)) b.scale(alpha, dy, d[0]);
  });
}

Variable multiply(const Variable& a, const Variable& b) {
  Op op("multiply", {a, b});
  const Shape &s = a.shape(), &t = b.shape();
  Broadcast broadcast = Broadcast::same;
  if (s != t) {
    op.rule(s.rank() >= 2 && (t == Shape{s.last()} || t == Shape{s[0], s.last()}),
            "the second must have the first's shape, (C) or (N, C)");
    broadcast = t.rank() == 1 ? Broadcast::channel : Broadcast::sample_channel;
  }
  Tensor y = Tensor::empty_like(a.value());
  const Tensor va = at_least_1d(a.value()), vb = at_least_1d(b.value());
  op.run([&](Backend& backend) {
    Tensor out = at_least_1d(y);
    backend.multiply(va, vb, broadcast, {&out});
  });
  return op.result(y, {{"a", va}, {"b", vb}},
                   [broadcast](Backend& backend, const Tensor& dy, const SavedTensors& s, const Sinks& d) {
                     const Tensor gradient = at_least_1d(dy);
                     if (d.wants(0)) backend.multiply(gradient, s[1], broadcast, d[0]);
                     if (!d.wants(1)) return;
                     if (broadcast == Broadcast::same)
                       backend.multiply(gradient, s[0], broadcast, d[1]);
                     else
                       backend.sum_to(1.0, gradient, s[0], broadcast, d[1]);
                   });
}

Variable reshape(const Variable& x, const Shape& shape) {
  Op op("reshape", {x});
  op.rule(x.shape().count() == shape.count(), "{} elements do not fit shape {}", x.shape().count(), shape);
  return op.result(x.value().reshape(shape), {},
                   [](Backend&, const Tensor& dy, const SavedTensors&, const Sinks& d) { d.take(0, dy); });
}

Variable dropout(const Variable& x, double p, uint64_t key) {
  Op op("dropout", {x}, {{"p", p}});
  op.rule(p >= 0 && p < 1, "the probability must be at least 0 and below 1, not {}", p);
  Tensor y = Tensor::empty_like(x.value());
  op.run([&](Backend& b) { b.dropout(key, p, x.value(), {&y}); });
  return op.result(y, {}, [key, p](Backend& b, const Tensor& dy, const SavedTensors&, const Sinks& d) {
    if (d.wants(0)) b.dropout(key, p, dy, d[0]);  // the same key repeats the mask
  });
}

Variable sum(const Variable& x) {
  Tensor ones = Tensor::empty_like(x.value());
  if (ones.device() != Device::meta) ones.fill(1.0);
  return dot(x, ones);
}

Variable dot(const Variable& x, const Tensor& weights) {
  Op op("dot", {x, Variable(weights)});
  op.rule(x.shape() == weights.shape(), "both must have one shape");
  const int64_t n = x.shape().count();
  Tensor y = Tensor::empty({}, x.value().dtype(), x.value().device());
  // One channel of n rows: the sum over the rows is the dot product.
  op.run([&](Backend& b) {
    Tensor out = y.reshape({1});
    b.sum_to(1.0, x.value().reshape({n, 1}), weights.reshape({n, 1}), Broadcast::channel, {&out});
  });
  return op.result(y, {{"weights", weights}}, [n](Backend& b, const Tensor& dy, const SavedTensors& s, const Sinks& d) {
    if (!d.wants(0)) return;
    Tensor gradient = Tensor::empty_like(s[0]);
    Tensor rows = gradient.reshape({n, 1});
    b.multiply(s[0].reshape({n, 1}), dy.reshape({1}), Broadcast::channel, {&rows});
    d.take(0, gradient);
  });
}

}  // namespace mgic::ops
