#include "models/point_blocks.h"

#include <numeric>

#include "layers/linear.h"
#include "layers/mgic/mgic.h"
#include "layers/simple.h"

namespace mgic {
namespace {

using Made = std::unique_ptr<Module>;

std::unique_ptr<ConvChain> pointwise(int64_t in, int64_t out, Activation activation, int64_t groups) {
  return std::make_unique<ConvChain>(
      "conv_chain", in, ConvChainOptions{{conv_norm_act(out, 1, activation, groups)}, false, Activation::none});
}

class PointStage final : public Module {
 public:
  PointStage(const MgicOptions& options, const PointBlockContext& c) : Module("point_stage") {
    if (options.expansion() != 1)
      fail_user("block: the smoother {} carries {} times the channels, which does not fit a point cloud's network",
                options.smoother.type, options.expansion());
    if (c.in_channels != c.channels)
      transition_ = &add_child(
          "transition", pointwise(c.in_channels, c.channels, Activation::relu, std::gcd(c.in_channels, c.channels)));
    mgic_ = &add_child("mgic", std::make_unique<Mgic>(options, c.channels));
  }

 protected:
  Variable forward(const Variable& x) override { return (*mgic_)(transition_ != nullptr ? (*transition_)(x) : x); }

 private:
  Module *transition_ = nullptr, *mgic_;
};

struct PointMgicOptions {
  MgicOptions mgic;

  void fields(Fields& f) {
    mgic.smoother.type = "pointwise";
    mgic.fields(f);
  }
};

}  // namespace

PointBlockRegistry& point_block_registry() {
  static PointBlockRegistry registry = [] {
    PointBlockRegistry r("block");
    r.add(
        "conv", "dense: a 1×1 convolution and BN", +[](const NoOptions&, const PointBlockContext& c) -> Made {
          return pointwise(c.in_channels, c.channels, c.activation, 1);
        });
    r.add(
        "mgic", "a V-cycle over the channels", +[](const PointMgicOptions& o, const PointBlockContext& c) -> Made {
          return std::make_unique<PointStage>(o.mgic, c);
        });
    return r;
  }();
  return registry;
}

LinearNorm::LinearNorm(int64_t in, int64_t out, bool bias)
    : Module("linear_norm"),
      linear_(add_child("linear", std::make_unique<Linear>(LinearOptions{in, out, bias}))),
      norm_(add_child("bn", std::make_unique<BatchNorm>(out))) {}

Variable LinearNorm::forward(const Variable& x) { return norm_(linear_(x)); }

}  // namespace mgic
