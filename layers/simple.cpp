#include "layers/simple.h"

#include "autograd/ops.h"

namespace mgic {

ActivationLayer::ActivationLayer(Activation kind) : Module(name_of(kind)), kind_(kind) {}
Variable ActivationLayer::forward(const Variable& x) { return ops::activation(x, kind_); }

void PoolOptions::fields(Fields& f) {
  f("kernel", kernel, "pixels a side of the window", between(1, 1024));
  f("stride", stride, "pixels between two windows; default: the kernel", between(1, 1024));
  f("padding", padding, "pixels around the image", between(0, 512));
  f.check(2 * padding <= kernel, "padding", "must be at most half the kernel, {}", kernel);
}

PoolLayer::PoolLayer(Pool kind, const PoolOptions& o)
    : Module(kind == Pool::max ? "max_pool" : "average_pool"),
      params_{kind, o.kernel, o.stride.value_or(o.kernel), o.padding} {}
Variable PoolLayer::forward(const Variable& x) { return ops::pool2d(x, params_); }

void GlobalPoolOptions::fields(Fields& f) {
  f("kind", kind, "what is kept of each channel", one_of({"average", "max"}));
}

GlobalPool::GlobalPool(Pool kind) : Module("global_pool"), kind_(kind) {}
Variable GlobalPool::forward(const Variable& x) { return ops::global_pool(x, kind_); }

Flatten::Flatten() : Module("flatten") {}
Variable Flatten::forward(const Variable& x) {
  const int64_t n = x.shape()[0];
  return ops::reshape(x, {n, n == 0 ? 0 : x.shape().count() / n});
}

}  // namespace mgic
