#include "models/segmentation.h"

#include "autograd/ops.h"
#include "layers/dropout.h"

namespace mgic {
namespace {

constexpr int64_t aspp_channels = 256, lraspp_channels = 128;
constexpr double aspp_dropout = 0.5, auxiliary_dropout = 0.1;
constexpr int64_t auxiliary_reduction = 4;

std::unique_ptr<ConvChain> chain(int64_t in, int64_t out, int64_t kernel, int64_t dilation = 1) {
  ChainLinkOptions link = conv_norm_act(out, kernel, Activation::relu);
  link.conv.dilation = dilation;
  return std::make_unique<ConvChain>("conv_chain", in, ConvChainOptions{{link}, false, Activation::none});
}

std::unique_ptr<Conv2d> pointwise(int64_t in, int64_t out, bool last) {
  return std::make_unique<Conv2d>(
      Conv2dOptions{.in_channels = in, .out_channels = out, .kernel = 1, .padding = {}, .bias = last, .last = last});
}

// (N, H, W, C) → (N, 1, 1, C)
Variable image_mean(const Variable& x) {
  return ops::reshape(ops::global_pool(x, Pool::average), {x.shape()[0], 1, 1, x.shape().last()});
}

Variable resize_like(const Variable& x, const Variable& image) {
  return ops::resize_bilinear(x, image.shape()[1], image.shape()[2]);
}

// Atrous spatial pyramid pooling.
class Aspp final : public Module {
 public:
  Aspp(int64_t in, const std::vector<int64_t>& rates) : Module("aspp") {
    branches_.push_back(&add_child("branch.0", chain(in, aspp_channels, 1)));
    for (size_t i = 0; i < rates.size(); ++i)
      branches_.push_back(&add_child(fmt::format("branch.{}", i + 1), chain(in, aspp_channels, 3, rates[i])));
    pool_ = &add_child("pool", chain(in, aspp_channels, 1));
    project_ =
        &add_child("project", chain(static_cast<int64_t>(branches_.size() + 1) * aspp_channels, aspp_channels, 1));
    dropout_ = &add_child("dropout", std::make_unique<Dropout>(DropoutOptions{aspp_dropout}));
  }

 protected:
  Variable forward(const Variable& x) override {
    std::vector<Variable> parts;
    for (Module* branch : branches_) parts.push_back((*branch)(x));
    parts.push_back(resize_like((*pool_)(image_mean(x)), x));
    return (*dropout_)((*project_)(ops::concat_channels(parts)));
  }

 private:
  std::vector<Module*> branches_;
  Module *pool_, *project_, *dropout_;
};

// A fully convolutional head: 3×3 convolution, BN, relu, dropout, 1×1 convolution.
class AuxiliaryHead final : public Module {
 public:
  AuxiliaryHead(int64_t in, int64_t classes)
      : Module("auxiliary_head"),
        head_(add_child("head", chain(in, in / auxiliary_reduction, 3))),
        dropout_(add_child("dropout", std::make_unique<Dropout>(DropoutOptions{auxiliary_dropout}))),
        classifier_(add_child("classifier", pointwise(in / auxiliary_reduction, classes, true))) {}

 protected:
  Variable forward(const Variable& x) override { return classifier_(dropout_(head_(x))); }

 private:
  Module &head_, &dropout_, &classifier_;
};

}  // namespace

void DeepLabV3Options::fields(Fields& f) {
  f("in_channels", in_channels, "channels of the images", between(1, max_count));
  f("classes", classes, "logits of each pixel", between(1, max_count));
  f.spec("backbone", backbone, backbone_registry(), "what the feature maps come from", any().need());
  f("rates", rates, "dilations of the pyramid; the paper takes half of them at output stride 16", between(1, 255));
  f("auxiliary", auxiliary, "a second head in training, on the features before the last stage");
  f("auxiliary_weight", auxiliary_weight, "of its loss", between(0, 100));
  f.check(!rates.empty() && rates.size() <= 16, "rates", "must have 1 to 16 elements");
}

DeepLabV3::DeepLabV3(const DeepLabV3Options& o)
    : Module("deeplabv3"),
      auxiliary_weight_(o.auxiliary_weight),
      backbone_(&add_child("backbone", o.backbone.make({o.in_channels}))) {
  const Backbone::Widths widths = backbone_->widths();
  aspp_ = &add_child("aspp", std::make_unique<Aspp>(widths.high, o.rates));
  head_ = &add_child("head", chain(aspp_channels, aspp_channels, 3));
  classifier_ = &add_child("classifier", pointwise(aspp_channels, o.classes, true));
  if (!o.auxiliary) return;
  if (widths.middle < auxiliary_reduction)
    fail_user("deeplabv3: an auxiliary head needs {} channels, and the backbone has {} there", auxiliary_reduction,
              widths.middle);
  auxiliary_ = &add_child("aux", std::make_unique<AuxiliaryHead>(widths.middle, o.classes));
}

Variable DeepLabV3::forward(const Variable& images) {
  const Features f = backbone_->features(images);
  if (auxiliary_ != nullptr && training()) auxiliary_logits_ = resize_like((*auxiliary_)(f.middle), images);
  return resize_like((*classifier_)((*head_)((*aspp_)(f.high))), images);
}

Variable DeepLabV3::extra_loss(const std::function<Variable(const Variable&)>& of) {
  const Variable logits = std::exchange(auxiliary_logits_, {});
  return logits.defined() ? ops::scale(of(logits), auxiliary_weight_) : Variable();
}

void LrasppOptions::fields(Fields& f) {
  f("in_channels", in_channels, "channels of the images", between(1, max_count));
  f("classes", classes, "logits of each pixel", between(1, max_count));
  f.spec("backbone", backbone, backbone_registry(), "what the feature maps come from", any().need());
}

Lraspp::Lraspp(const LrasppOptions& o)
    : Module("lraspp"), backbone_(&add_child("backbone", o.backbone.make({o.in_channels}))) {
  const Backbone::Widths widths = backbone_->widths();
  cbr_ = &add_child("head.cbr", chain(widths.high, lraspp_channels, 1));
  scale_ = &add_child("head.scale", pointwise(widths.high, lraspp_channels, false));
  low_ = &add_child("head.low", pointwise(widths.low, o.classes, true));
  classifier_ = &add_child("classifier", pointwise(lraspp_channels, o.classes, true));
}

Variable Lraspp::forward(const Variable& images) {
  const Features f = backbone_->features(images);
  const Variable scale = ops::sigmoid((*scale_)(image_mean(f.high)));
  const Variable weighed = ops::multiply((*cbr_)(f.high), ops::reshape(scale, {scale.shape()[0], lraspp_channels}));
  const Variable logits = ops::add((*classifier_)(resize_like(weighed, f.low)), (*low_)(f.low));
  return resize_like(logits, images);
}

}  // namespace mgic
