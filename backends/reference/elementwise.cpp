// Operations on one element at a time, the sums that are their gradients, and conversions.
//
//   activation  y = f(x)              dx = dy · f'(x)
//   sigmoid     y = 1 / (1 + exp(−x)) dx = dy · y (1 − y)
//   scale       y = alpha x
//   add         y = a + b             b is stretched: as a, (C) or (N, C)
//   subtract    y = a − b
//   multiply    y = a · b             db = sum_to(1, dy, a), as b
//   sum_to      y = alpha Σ a · b     over the elements of a that share one element of y
//   dropout     y = x / (1 − p) where a random number is at least p, else 0
//
// x, y, a have any shape (N, …, C). Every y may be a sink that adds.
#include <cmath>

#include "backends/reference/kernels.h"
#include "core/rng.h"

namespace mgic {

using namespace reference;

void Backend::activation(Activation activation, const Tensor& x, Tensor& y) {
  naive("activation");
  Values v = load(x);
  for (double& e : v) e = activate(activation, e);
  store(v, y);
}

void Backend::activation_backward(Activation activation, const Tensor& x, const Tensor& dy, Sink dx) {
  naive("activation_backward");
  const Values vx = load(x);
  Values d = load(dy);
  for (size_t i = 0; i < d.size(); ++i) d[i] = activate_backward(activation, vx[i], d[i]);
  store(d, dx);
}

void Backend::scale(double alpha, const Tensor& x, Sink y) {
  naive("scale");
  Values v = load(x);
  for (double& e : v) e *= alpha;
  store(v, y);
}

void Backend::add(const Tensor& a, const Tensor& b, Broadcast broadcast, Tensor& y) {
  naive("add");
  Values v = load(a);
  const Values vb = load(b);
  for (int64_t i = 0; i < a.count(); ++i) v[i] += vb[partner(broadcast, a.shape(), i)];
  store(v, y);
}

void Backend::subtract(const Tensor& a, const Tensor& b, Tensor& y) {
  naive("subtract");
  Values v = load(a);
  const Values vb = load(b);
  for (int64_t i = 0; i < a.count(); ++i) v[i] -= vb[i];
  store(v, y);
}

void Backend::sigmoid(const Tensor& x, Tensor& y) {
  naive("sigmoid");
  Values v = load(x);
  for (double& e : v) e = 1 / (1 + std::exp(-e));
  store(v, y);
}

void Backend::sigmoid_backward(const Tensor& y, const Tensor& dy, Sink dx) {
  naive("sigmoid_backward");
  const Values vy = load(y);
  Values d = load(dy);
  for (size_t i = 0; i < d.size(); ++i) d[i] *= vy[i] * (1 - vy[i]);
  store(d, dx);
}

void Backend::multiply(const Tensor& a, const Tensor& b, Broadcast broadcast, Sink y) {
  naive("multiply");
  Values v = load(a);
  const Values vb = load(b);
  for (int64_t i = 0; i < a.count(); ++i) v[i] *= vb[partner(broadcast, a.shape(), i)];
  store(v, y);
}

void Backend::sum_to(double alpha, const Tensor& a, const Tensor& b, Broadcast broadcast, Sink y) {
  naive("sum_to");
  if (!y) return;
  const Values va = load(a), vb = load(b);
  Values sums((*y).count(), 0.0);
  for (int64_t i = 0; i < a.count(); ++i) sums[partner(broadcast, a.shape(), i)] += b.defined() ? va[i] * vb[i] : va[i];
  for (double& s : sums) s *= alpha;
  store(sums, y);
}

void Backend::dropout(uint64_t key, double p, const Tensor& x, Sink y) {
  naive("dropout");
  // The survivors are scaled up, so that the expected value stays and evaluation needs no scaling.
  Values v = load(x);
  for (int64_t i = 0; i < x.count(); ++i) v[i] = uniform_at(key, i) >= p ? v[i] / (1 - p) : 0;
  store(v, y);
}

void Backend::cast(const Tensor& x, Tensor& y) {
  naive("cast");
  // Through f32 where either side is bf16, which is the upper half of an f32.
  const Tensor source = x.dtype() == DType::bf16 ? x.to(DType::f32) : x;
  if (y.dtype() != DType::bf16) return store(load(source), y);
  const Values v = load(source);
  for (int64_t i = 0; i < x.count(); ++i) y.data<bf16>()[i] = bf16(static_cast<float>(v[i]));
}

void Backend::fill(double value, Tensor& y) {
  naive("fill");
  y.fill(value);
}

void Backend::random_uniform(uint64_t key, double low, double high, Tensor& y) {
  naive("random_uniform");
  Values v(y.count());
  for (int64_t i = 0; i < y.count(); ++i) v[i] = low + (high - low) * uniform_at(key, i);
  update(v, y);
}

}  // namespace mgic
