// A layer of one's own, out of the tree: a smoother for the V-cycle, registered at run time and then named in JSON.
//
//   y = relu( x + ω ⊙ (P relu( BN( D x))))        x, y (N, H, W, C)
//
// D is a depthwise k×k convolution, P a 1×1 convolution in the level's groups, and ω one learned factor a channel: the
// damping of the correction, as in damped Jacobi. docs/extending.md explains this file piece by piece.
#include <fmt/core.h>

#include <exception>
#include <memory>
#include <vector>

#include "autograd/gradcheck.h"
#include "autograd/ops.h"
#include "core/rng.h"
#include "layers/batch_norm.h"
#include "layers/conv2d.h"
#include "layers/module.h"

using namespace mgic;

// ---- The options: each field is named once, and that reads, checks and documents it ----

struct DampedOptions {
  int64_t kernel = 3;
  double damping = 0.1;

  void fields(Fields& f) {
    f("kernel", kernel, "pixels a side of the depthwise kernel", between(1, 31));
    f("damping", damping, "the factor ω that training begins with", between(0, 1));
    f.check(kernel % 2 == 1, "kernel", "must be odd, so that the image keeps its size");
  }
};

// ---- The layer: children and parameters in the constructor, the formula in forward ----

class DampedSmoother final : public Module {
 public:
  DampedSmoother(const DampedOptions& options, const LayerContext& context)
      : Module("damped"),
        depthwise_(add_child("depthwise", convolution(context.channels, options.kernel, context.channels))),
        norm_(add_child("bn", std::make_unique<BatchNorm>(context.channels))),
        pointwise_(add_child("pointwise", convolution(context.channels, 1, context.groups))) {
    add_parameter("damping", damping_, {context.channels}, {Init::constant, options.damping});
  }

 protected:
  Variable forward(const Variable& x) override {
    const Variable correction = pointwise_(ops::relu(norm_(depthwise_(x))));
    return ops::relu(ops::add(x, ops::multiply(correction, damping_)));
  }

 private:
  static std::unique_ptr<Conv2d> convolution(int64_t channels, int64_t kernel, int64_t groups) {
    Conv2dOptions o;
    o.in_channels = o.out_channels = channels;
    o.kernel = kernel;
    o.groups = groups;
    return std::make_unique<Conv2d>(o);
  }

  Conv2d& depthwise_;
  BatchNorm& norm_;
  Conv2d& pointwise_;
  Variable damping_;  // (C)
};

// ---- The registration: after this, "smoother": "damped" is as good as the built-in ones ----

void register_damped() {
  layer_registry().add(
      "damped", "smoother: a damped correction by a depthwise and a grouped pointwise convolution",
      +[](const DampedOptions& options, const LayerContext& context) -> std::unique_ptr<Module> {
        return std::make_unique<DampedSmoother>(options, context);
      });
}

// ---- Its use: inside an MGIC block that JSON describes ----

std::unique_ptr<Module> build_block() {
  const LayerSpec spec = layer_registry().parse(R"({
    "type": "mgic", "smoother": "damped", "kernel": 3, "damping": 0.25,
    "group_size": 4, "coarsest_width": 4
  })");
  LayerContext context;
  context.channels = 8;
  return spec.make(context);
}

// ---- Its check: every gradient, of the input and of all parameters, against central differences ----

void check_gradients(Module& block, const Shape& shape) {
  block.to(Device::reference, DType::f64);
  block.initialize(1);
  Rng rng(1, Purpose::test);
  Tensor x = Tensor::empty(shape, DType::f64, Device::reference);
  for (double& v : x.span<double>()) v = rng.normal();

  std::vector<Tensor> inputs{x};
  block.each_parameter([&](const std::string&, Variable& p) { inputs.push_back(p.value()); });
  gradcheck(
      [&](const std::vector<Variable>& v) {
        size_t next = 1;
        block.each_parameter([&](const std::string&, Variable& p) { p = v[next++]; });
        return block(v[0]);
      },
      inputs);
}

int main() {
  try {
    register_damped();
    const std::unique_ptr<Module> block = build_block();
    block->each_parameter(
        [](const std::string& name, Variable& p) { fmt::print("{:<30} {}\n", name, p.shape().str()); });
    check_gradients(*block, {2, 4, 3, 8});
    fmt::print("{} parameters; all gradients agree with central differences\n", block->parameter_count());
    return 0;
  } catch (const std::exception& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 1;
  }
}
