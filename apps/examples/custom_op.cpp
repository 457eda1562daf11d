// A differentiable operation of one's own, out of the tree: a gate.
//
//   y = x ⊙ hsigmoid(g)        dx = dy ⊙ hsigmoid(g)        dg = (dy ⊙ x) ⊙ hsigmoid'(g)
//
// x, g, y have one shape. The same could be written with ops::multiply and ops::activation; as one operation it is one
// Node, and keeps the two inputs alone. docs/extending.md explains this file piece by piece.
#include <fmt/core.h>

#include <exception>
#include <vector>

#include "autograd/gradcheck.h"
#include "autograd/op.h"
#include "autograd/ops.h"
#include "core/rng.h"

using namespace mgic;

// ---- The operation: shape rule, output, forward, backward ----

Variable gate(const Variable& x, const Variable& g) {
  Op op("gate", {x, g});
  op.rule(x.shape() == g.shape(), "x and g must have one shape");
  Tensor y = Tensor::empty_like(x.value());
  op.run([&](Backend& b) {
    Tensor opening = Tensor::empty_like(g.value());
    b.activation(Activation::hsigmoid, g.value(), opening);
    b.multiply(x.value(), opening, Broadcast::same, {&y});
  });
  return op.result(y, {{"x", x.value()}, {"g", g.value()}},
                   [](Backend& b, const Tensor& dy, const SavedTensors& saved, const Sinks& d) {
                     const Tensor &x = saved[0], &g = saved[1];
                     Tensor scratch = Tensor::empty_like(dy);
                     if (d.wants(0)) {
                       b.activation(Activation::hsigmoid, g, scratch);
                       b.multiply(dy, scratch, Broadcast::same, d[0]);
                     }
                     if (d.wants(1)) {
                       b.multiply(dy, x, Broadcast::same, {&scratch});
                       b.activation_backward(Activation::hsigmoid, g, scratch, d[1]);
                     }
                   });
}

// ---- Its checks: the gradients, a gradient that arrives twice, and the message of a broken shape rule ----

Tensor random_tensor(const Shape& shape, uint64_t seed) {
  Rng rng(seed, Purpose::test);
  Tensor t = Tensor::empty(shape, DType::f64, Device::reference);
  for (double& v : t.span<double>()) v = 2 * rng.normal();  // wide enough to close and to open some gates fully
  return t;
}

int main() {
  try {
    const Shape shape{2, 3, 5, 4};
    gradcheck([](const std::vector<Variable>& v) { return gate(v[0], v[1]); },
              {random_tensor(shape, 1), random_tensor(shape, 2)});
    // x gates itself: both contributions go to one gradient, the first overwrites and the second adds.
    gradcheck([](const std::vector<Variable>& v) { return gate(v[0], v[0]); }, {random_tensor(shape, 3)});
    fmt::print("gate: all gradients agree with central differences\n");
    try {
      gate(Variable(random_tensor({2, 4}, 4)), Variable(random_tensor({2, 3}, 5)));
    } catch (const Error& e) {
      fmt::print("a broken rule reads: {}\n", e.what());
      return 0;
    }
    fmt::print(stderr, "error: the shape rule did not hold\n");
  } catch (const std::exception& e) {
    fmt::print(stderr, "error: {}\n", e.what());
  }
  return 1;
}
