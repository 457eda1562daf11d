#include "layers/mgic/smoothers.h"

#include "autograd/ops.h"
#include "layers/squeeze_excite.h"

namespace mgic {

namespace {

ChainLinkOptions dilated(ChainLinkOptions link, int64_t dilation) {
  link.conv.dilation = dilation;
  return link;
}

}  // namespace

BasicSmoother::BasicSmoother(std::string_view type, int64_t kernel, const LayerContext& c)
    : ConvChain(type, c.channels,
                {{dilated(conv_norm_act(c.channels, kernel, Activation::relu, c.groups), c.dilation),
                  dilated(conv_norm_act(c.channels, kernel, Activation::none, c.groups), c.dilation)},
                 true,
                 Activation::relu}) {}

void BottleneckOptions::fields(Fields& f) {
  f("expansion", expansion, "channels outside of the bottleneck over those inside", between(1, 64));
}

BottleneckSmoother::BottleneckSmoother(const BottleneckOptions& o, const LayerContext& c)
    : ConvChain(
          "bottleneck", o.expansion * c.channels,
          {{conv_norm_act(c.channels, 1, Activation::relu, c.groups),
            dilated(conv_norm_act(c.channels, 3, Activation::relu, c.groups), c.dilation),
            conv_norm_act(o.expansion * c.channels, 1, c.coarsest ? Activation::relu : Activation::none, c.groups)},
           true,
           Activation::relu}) {}

void InvertedResidualOptions::fields(Fields& f) {
  f("mid_channels", mid_channels, "channels of the depthwise convolution on level 0", between(1, max_count).need());
  f("kernel", kernel, "pixels a side of the depthwise kernel", between(1, 31));
  f("squeeze_excite", squeeze_excite, "weighs channels by their image-wide means");
  activation_field(f, "activation", activation, "behind the expansion and the depthwise convolution");
  f.check(activation == Activation::relu || activation == Activation::hswish, "activation", "must be relu or hswish");
  f.check(kernel % 2 == 1, "kernel", "must be odd, so that the image keeps its size");
}

InvertedResidualSmoother::InvertedResidualSmoother(const InvertedResidualOptions& o, const LayerContext& c)
    : Module("inverted_residual"), activation_(o.activation) {
  const int64_t middle = o.mid_channels >> c.level;
  if (middle == 0) fail_user("inverted_residual: mid_channels {} halved {} times is 0", o.mid_channels, c.level);
  auto chain = [&](const char* name, int64_t in, const ChainLinkOptions& link, bool residual, Activation outer) {
    return &add_child(name, std::make_unique<ConvChain>("conv_chain", in, ConvChainOptions{{link}, residual, outer}));
  };
  // Squeeze-excite stands before the activation where there is an expansion, else behind it.
  if (middle != c.channels)
    expand_ = chain("expand", c.channels, conv_norm_act(middle, 1, activation_, c.groups), false, Activation::none);
  const bool activation_waits = o.squeeze_excite && expand_ != nullptr;
  depthwise_ = chain(
      "depthwise", middle,
      dilated(conv_norm_act(middle, o.kernel, activation_waits ? Activation::none : activation_, middle), c.dilation),
      false, Activation::none);
  if (o.squeeze_excite) squeeze_excite_ = &add_child("se", std::make_unique<SqueezeExcite>(middle));
  project_ =
      chain("project", middle, conv_norm_act(c.channels, 1, Activation::none, c.groups), false, Activation::relu);
}

Variable InvertedResidualSmoother::forward(const Variable& x) {
  Variable y = expand_ != nullptr ? (*expand_)(x) : x;
  y = (*depthwise_)(y);
  if (squeeze_excite_ != nullptr) {
    y = (*squeeze_excite_)(y);
    if (expand_ != nullptr) y = ops::activation(y, activation_);
  }
  return ops::add(project_->with_residual(y, x), x);
}

}  // namespace mgic
