#include "models/resnet.h"

#include "autograd/ops.h"
#include "layers/linear.h"

namespace mgic {

void ResNetOptions::fields(Fields& f) {
  f("stem", stem, "first layers: 3×3 for small images, 7×7 stride 2 and a max pool for large ones",
    one_of({"cifar", "imagenet"}));
  f("in_channels", in_channels, "channels of the images", between(1, max_count));
  f("classes", classes, "logits", between(1, max_count));
  f("channels", channels, "width of each stage; the first is also the stem's", between(1, max_count));
  f("blocks", blocks, "blocks of each stage", between(1, 1000));
  f("strides", strides, "of the first block of each stage", between(1, 255));
  f.spec("block", block, block_registry(), "what the stages are made of", any().need());
  f.check(!channels.empty() && channels.size() <= 64, "channels", "must have 1 to 64 elements, one a stage");
  f.check(blocks.size() == channels.size(), "blocks", "must have as many elements as channels: {}, not {}",
          channels.size(), blocks.size());
  f.check(strides.size() == channels.size(), "strides", "must have as many elements as channels: {}, not {}",
          channels.size(), strides.size());
  if (block.type != "mgic" || !block.options) return;
  const std::string smoother = option_text(block.options, "smoother");
  f.check(smoother != "inverted_residual", "block.smoother",
          "inverted_residual does not fit a ResNet; use basic, bottleneck or pointwise, or the mobilenet_v3 model");
}

ResNet::ResNet(const ResNetOptions& o) : Module("resnet"), max_pool_(o.stem == "imagenet") {
  const ChainLinkOptions first = max_pool_ ? conv_norm_act(o.channels[0], 7, Activation::relu, 1, 2)
                                           : conv_norm_act(o.channels[0], 3, Activation::relu);
  stem_ = &add_child("stem", std::make_unique<ConvChain>("conv_chain", o.in_channels,
                                                         ConvChainOptions{{first}, false, Activation::none}));
  int64_t channels = o.channels[0];
  for (size_t s = 0; s < o.channels.size(); ++s)
    for (int64_t b = 0; b < o.blocks[s]; ++b) {
      const BlockContext context{channels, o.channels[s], b == 0 ? o.strides[s] : 1};
      blocks_.push_back(&add_child(fmt::format("stages.{}.{}", s, b), o.block.make(context)));
      channels = block_outputs(o.block, o.channels[s]);
    }
  classifier_ = &add_child("classifier", std::make_unique<Linear>(LinearOptions{channels, o.classes, true}));
}

Variable ResNet::forward(const Variable& images) {
  Variable x = (*stem_)(images);
  if (max_pool_) x = ops::pool2d(x, {Pool::max, 3, 2, 1});
  for (Module* block : blocks_) x = (*block)(x);
  return (*classifier_)(ops::global_pool(x, Pool::average));
}

}  // namespace mgic
