// Every layer that JSON can name. Adding one: its header, its source, and its line here (docs/extending.md).
#include "layers/batch_norm.h"
#include "layers/conv2d.h"
#include "layers/conv_chain.h"
#include "layers/dropout.h"
#include "layers/linear.h"
#include "layers/mgic/mgic.h"
#include "layers/mgic/smoothers.h"
#include "layers/mgic/stage.h"
#include "layers/sequential.h"
#include "layers/simple.h"
#include "layers/squeeze_excite.h"

namespace mgic {
namespace {

using Made = std::unique_ptr<Module>;
using Context = LayerContext;

void add_all(LayerRegistry& r) {
  r.add(
      "conv2d", "convolution", +[](const Conv2dOptions& given, const Context& c) -> Made {
        Conv2dOptions o = given;
        o.in_channels = c.channels;
        return std::make_unique<Conv2d>(o);
      });
  r.add(
      "linear", "fully connected layer", +[](const LinearOptions& given, const Context& c) -> Made {
        LinearOptions o = given;
        o.in_features = c.channels;
        return std::make_unique<Linear>(o);
      });
  r.add(
      "batch_norm", "batch normalisation",
      +[](const BatchNormOptions& o, const Context& c) -> Made { return std::make_unique<BatchNorm>(c.channels, o); });
  r.add(
      "conv_chain", "convolutions with normalisation and activation, trained as one unit",
      +[](const ConvChainOptions& o, const Context& c) -> Made {
        return std::make_unique<ConvChain>("conv_chain", c.channels, o);
      });
  r.add(
      "relu", "max(x, 0)",
      +[](const NoOptions&, const Context&) -> Made { return std::make_unique<ActivationLayer>(Activation::relu); });
  r.add(
      "hswish", "x · hsigmoid(x)",
      +[](const NoOptions&, const Context&) -> Made { return std::make_unique<ActivationLayer>(Activation::hswish); });
  r.add(
      "hsigmoid", "min(max(x + 3, 0), 6) / 6", +[](const NoOptions&, const Context&) -> Made {
        return std::make_unique<ActivationLayer>(Activation::hsigmoid);
      });
  r.add(
      "max_pool", "maximum over windows",
      +[](const PoolOptions& o, const Context&) -> Made { return std::make_unique<PoolLayer>(Pool::max, o); });
  r.add(
      "average_pool", "mean over windows",
      +[](const PoolOptions& o, const Context&) -> Made { return std::make_unique<PoolLayer>(Pool::average, o); });
  r.add(
      "global_pool", "mean or maximum over the image", +[](const GlobalPoolOptions& o, const Context&) -> Made {
        return std::make_unique<GlobalPool>(o.kind == "max" ? Pool::max : Pool::average);
      });
  r.add(
      "dropout", "zeroes elements at random in training",
      +[](const DropoutOptions& o, const Context&) -> Made { return std::make_unique<Dropout>(o); });
  r.add(
      "squeeze_excite", "weighs channels by their image-wide means",
      +[](const NoOptions&, const Context& c) -> Made { return std::make_unique<SqueezeExcite>(c.channels); });
  r.add(
      "flatten", "(N, …) to (N, elements)",
      +[](const NoOptions&, const Context&) -> Made { return std::make_unique<Flatten>(); });
  r.add(
      "sequential", "layers one after another", +[](const SequentialOptions& o, const Context& c) -> Made {
        return std::make_unique<Sequential>("sequential", o, c);
      });
  r.add(
      "add", "a residual around layers that keep the shape",
      +[](const SequentialOptions& o, const Context& c) -> Made { return std::make_unique<Add>(o, c); });
  r.add(
      "basic", "smoother: two 3×3 convolutions in a residual",
      +[](const NoOptions&, const Context& c) -> Made { return std::make_unique<BasicSmoother>("basic", 3, c); });
  r.add(
      "pointwise", "smoother: two 1×1 convolutions in a residual",
      +[](const NoOptions&, const Context& c) -> Made { return std::make_unique<BasicSmoother>("pointwise", 1, c); });
  r.add(
      "bottleneck", "smoother: 1×1, 3×3, 1×1 in a residual",
      +[](const BottleneckOptions& o, const Context& c) -> Made { return std::make_unique<BottleneckSmoother>(o, c); });
  r.add(
      "inverted_residual", "smoother: expansion, depthwise, projection in a double residual",
      +[](const InvertedResidualOptions& o, const Context& c) -> Made {
        return std::make_unique<InvertedResidualSmoother>(o, c);
      });
  r.add(
      "mgic", "one V-cycle over the channels",
      +[](const MgicOptions& o, const Context& c) -> Made { return std::make_unique<Mgic>(o, c.channels); });
  r.add(
      "mgic_stage", "a transition where stride or width change, then the V-cycle",
      +[](const MgicStageOptions& o, const Context& c) -> Made {
        const int64_t arriving = c.input.rank() > 0 ? c.input.last() : c.channels * o.mgic.expansion();
        return std::make_unique<MgicStage>(o.mgic, o.in_channels.value_or(arriving), o.channels.value_or(c.channels),
                                           o.stride);
      });
}

}  // namespace

LayerRegistry& layer_registry() {
  static LayerRegistry registry = [] {
    LayerRegistry r("layer");
    add_all(r);
    return r;
  }();
  return registry;
}

}  // namespace mgic
