#include "models/resnet.h"

#include "autograd/ops.h"
#include "layers/linear.h"

namespace mgic {

void ResNetBodyOptions::fields(Fields& f) {
  f("stem", stem, "first layers: 3×3 for small images, 7×7 stride 2 and a max pool for large ones",
    one_of({"cifar", "imagenet"}));
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

void ResNetOptions::fields(Fields& f) {
  f("in_channels", in_channels, "channels of the images", between(1, max_count));
  f("classes", classes, "logits", between(1, max_count));
  body.fields(f);
}

void ResNetBackboneOptions::fields(Fields& f) {
  body.fields(f);
  f("output_stride", output_stride, "pixels of the image a side of one of the last feature map, by dilation",
    between(1, StrideBudget::unbounded));
}

ResNetBackbone::ResNetBackbone(const ResNetBodyOptions& o, int64_t in_channels, int64_t output_stride)
    : Backbone("resnet"), max_pool_(o.stem == "imagenet") {
  StrideBudget budget(output_stride);
  if (max_pool_ && budget.take(2) * budget.take(2) != 4)
    fail_user("resnet: output_stride must be at least the stem's, 4, not {}", output_stride);
  const ChainLinkOptions first = max_pool_ ? conv_norm_act(o.channels[0], 7, Activation::relu, 1, 2)
                                           : conv_norm_act(o.channels[0], 3, Activation::relu);
  stem_ = &add_child("stem", std::make_unique<ConvChain>("conv_chain", in_channels,
                                                         ConvChainOptions{{first}, false, Activation::none}));
  int64_t channels = o.channels[0];
  for (size_t s = 0; s < o.channels.size(); ++s) {
    Stage& stage = stages_.emplace_back();
    stage.channels = block_outputs(o.block, o.channels[s]);
    // The block that would have had the stride keeps the dilation of the stage before, as in torchvision.
    const int64_t before = budget.dilation();
    const int64_t stride = budget.take(o.strides[s]);
    for (int64_t b = 0; b < o.blocks[s]; ++b) {
      const BlockContext context{channels, o.channels[s], b == 0 ? stride : 1, b == 0 ? before : budget.dilation()};
      stage.blocks.push_back(&add_child(fmt::format("stages.{}.{}", s, b), o.block.make(context)));
      channels = stage.channels;
    }
  }
}

Backbone::Widths ResNetBackbone::widths() const {
  return {stages_[stage_from_end(2)].channels, stages_[stage_from_end(1)].channels, stages_.back().channels};
}

Features ResNetBackbone::extract(const Variable& images) {
  Variable x = (*stem_)(images);
  if (max_pool_) x = ops::pool2d(x, {Pool::max, 3, 2, 1});
  Features f;
  for (size_t s = 0; s < stages_.size(); ++s) {
    for (Module* block : stages_[s].blocks) x = (*block)(x);
    if (s == stage_from_end(2)) f.low = x;
    if (s == stage_from_end(1)) f.middle = x;
  }
  f.high = x;
  return f;
}

ResNet::ResNet(const ResNetOptions& o) : ResNetBackbone(o.body, o.in_channels, StrideBudget::unbounded) {
  classifier_ = &add_child("classifier", std::make_unique<Linear>(LinearOptions{widths().high, o.classes, true}));
}

Variable ResNet::forward(const Variable& images) {
  return (*classifier_)(ops::global_pool(extract(images).high, Pool::average));
}

}  // namespace mgic
