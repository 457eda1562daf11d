// resnet (He et al., 2016): stem, stages of blocks, global average pool, linear classifier.
//   x (N, H, W, in_channels) → logits (N, classes)
// stem: cifar 3×3; imagenet 7×7 stride 2 and a 3×3 stride-2 max pool; channels[0] outputs, BN, relu.
// Names: stem.conv, stem.bn, stages.S.B.…, classifier.
#pragma once

#include "models/backbone.h"
#include "models/blocks.h"

namespace mgic {

struct ResNetBodyOptions {
  std::string stem = "cifar";
  std::vector<int64_t> channels{64, 128, 256, 512};
  std::vector<int64_t> blocks{2, 2, 2, 2};
  std::vector<int64_t> strides{1, 2, 2, 2};
  BlockSpec block;

  void fields(Fields& f);
};

struct ResNetOptions {
  ResNetBodyOptions body;
  int64_t in_channels = 3;
  int64_t classes = 10;

  void fields(Fields& f);
};

// As a backbone: without the classifier, and with a bounded stride.
struct ResNetBackboneOptions {
  ResNetBodyOptions body;
  int64_t output_stride = 8;

  void fields(Fields& f);
};

// low, middle, high: the outputs of the third last, second last and last stage, as far as there are so many.
class ResNetBackbone : public Backbone {
 public:
  ResNetBackbone(const ResNetBodyOptions& options, int64_t in_channels, int64_t output_stride);
  Widths widths() const override;

 protected:
  Features extract(const Variable& x) override;

 private:
  struct Stage {
    std::vector<Module*> blocks;
    int64_t channels;  // that it puts out
  };
  size_t stage_from_end(size_t n) const { return stages_.size() > n ? stages_.size() - 1 - n : 0; }

  ConvChain* stem_;
  bool max_pool_;
  std::vector<Stage> stages_;
};

class ResNet final : public ResNetBackbone {
 public:
  explicit ResNet(const ResNetOptions& options);

 protected:
  Variable forward(const Variable& x) override;

 private:
  Module* classifier_;
};

}  // namespace mgic
