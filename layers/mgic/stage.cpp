#include "layers/mgic/stage.h"

#include <numeric>

namespace mgic {

void MgicStageOptions::fields(Fields& f) {
  f("in_channels", in_channels, "input channels; default: what arrives", between(1, max_count));
  f("channels", channels, "width w_0 of the block; default: what arrives", between(1, max_count));
  f("stride", stride, "of the transition", between(1, 255));
  mgic.fields(f);
}

MgicStage::MgicStage(const MgicOptions& options, int64_t in_channels, int64_t channels, int64_t stride,
                     int64_t dilation)
    : Module("mgic_stage") {
  auto mgic = std::make_unique<Mgic>(options, channels, dilation);
  const int64_t out = options.expansion() * channels;
  if (stride != 1 || in_channels != out) {
    ChainLinkOptions link = conv_norm_act(out, 3, Activation::relu, std::gcd(in_channels, out), stride);
    link.conv.dilation = dilation;
    transition_ = &add_child(
        "transition",
        std::make_unique<ConvChain>("conv_chain", in_channels, ConvChainOptions{{link}, false, Activation::none}));
  }
  mgic_ = &add_child("mgic", std::move(mgic));
}

Variable MgicStage::forward(const Variable& x) { return (*mgic_)(transition_ != nullptr ? (*transition_)(x) : x); }

}  // namespace mgic
