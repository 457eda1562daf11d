// The segmentation networks: images to logits for each pixel, from the feature maps of a backbone.
//   x (N, H, W, in_channels) → logits (N, H, W, classes)
//
// deeplabv3 (Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017):
//   ASPP(high): a 1×1 and three dilated 3×3 convolutions and the image's mean, concatenated, projected, dropout 0.5;
//   head 3×3; classifier 1×1; resized to the image. In training an auxiliary head on `middle` adds its loss.
// lraspp (Howard et al., 2019, section 6.4):
//   classifier(resize(cbr(high) · sigmoid(scale(mean high)))) + low(low), resized to the image.
// Both as in torchvision. Names: backbone.…, aspp.branch.I, aspp.pool, aspp.project, head, classifier, aux.…
#pragma once

#include "layers/conv2d.h"
#include "layers/conv_chain.h"
#include "models/backbone.h"
#include "models/model.h"

namespace mgic {

struct DeepLabV3Options {
  int64_t in_channels = 3;
  int64_t classes = 21;
  BackboneSpec backbone;
  std::vector<int64_t> rates{12, 24, 36};
  bool auxiliary = false;
  double auxiliary_weight = 0.5;

  void fields(Fields& f);
};

class DeepLabV3 final : public Module, public ExtraLoss {
 public:
  explicit DeepLabV3(const DeepLabV3Options& options);
  Variable extra_loss(const std::function<Variable(const Variable&)>& of) override;

 protected:
  Variable forward(const Variable& x) override;

 private:
  double auxiliary_weight_;
  Backbone* backbone_;
  Module *aspp_, *head_, *classifier_, *auxiliary_ = nullptr;
  Variable auxiliary_logits_;  // of the last forward in training
};

struct LrasppOptions {
  int64_t in_channels = 3;
  int64_t classes = 21;
  BackboneSpec backbone;

  void fields(Fields& f);
};

class Lraspp final : public Module {
 public:
  explicit Lraspp(const LrasppOptions& options);

 protected:
  Variable forward(const Variable& x) override;

 private:
  Backbone* backbone_;
  Module *cbr_, *scale_, *low_, *classifier_;
};

}  // namespace mgic
