#include "models/blocks.h"

#include "layers/simple.h"

namespace mgic {
namespace {

constexpr int64_t bottleneck_expansion = 4;

// The dense bottleneck's expansion is fixed, and listed among its options so that block_outputs() finds it.
struct DenseBottleneckOptions {
  int64_t expansion = bottleneck_expansion;
  void fields(Fields& f) {
    f("expansion", expansion, "output channels over width", between(bottleneck_expansion, bottleneck_expansion));
  }
};

ChainLinkOptions spatial(const BlockContext& c, Activation activation, int64_t stride) {
  ChainLinkOptions link = conv_norm_act(c.channels, 3, activation, 1, stride);
  link.conv.dilation = c.dilation;
  return link;
}

void add_all(BlockRegistry& r) {
  using Made = std::unique_ptr<Module>;
  r.add(
      "basic", "dense: two 3×3 convolutions", +[](const NoOptions&, const BlockContext& c) -> Made {
        return std::make_unique<DenseBlock>(
            "basic_block", std::vector{spatial(c, Activation::relu, c.stride), spatial(c, Activation::none, 1)}, c);
      });
  r.add(
      "bottleneck", "dense: 1×1, 3×3, 1×1 convolutions",
      +[](const DenseBottleneckOptions&, const BlockContext& c) -> Made {
        return std::make_unique<DenseBlock>(
            "bottleneck_block",
            std::vector{conv_norm_act(c.channels, 1, Activation::relu), spatial(c, Activation::relu, c.stride),
                        conv_norm_act(bottleneck_expansion * c.channels, 1, Activation::none)},
            c);
      });
  r.add(
      "mgic", "a V-cycle over the channels", +[](const MgicOptions& o, const BlockContext& c) -> Made {
        return std::make_unique<MgicStage>(o, c.in_channels, c.channels, c.stride, c.dilation);
      });
}

}  // namespace

BlockRegistry& block_registry() {
  static BlockRegistry registry = [] {
    BlockRegistry r("block");
    add_all(r);
    return r;
  }();
  return registry;
}

int64_t block_outputs(const BlockSpec& block, int64_t channels) {
  return channels * option_or(block.options, "expansion", 1);
}

DenseBlock::DenseBlock(std::string_view type, const std::vector<ChainLinkOptions>& links, const BlockContext& c)
    : ConvChain(type, c.in_channels, {links, true, Activation::relu}) {
  if (c.stride == 1 && c.in_channels == out_channels()) return;
  const ChainLinkOptions link = conv_norm_act(out_channels(), 1, Activation::none, 1, c.stride);
  shortcut_ = &add_child("shortcut", std::make_unique<ConvChain>("conv_chain", c.in_channels,
                                                                 ConvChainOptions{{link}, false, Activation::none}));
}

Variable DenseBlock::forward(const Variable& x) { return chain(x, shortcut_ != nullptr ? (*shortcut_)(x) : x); }

}  // namespace mgic
