// resnet (He et al., 2016): stem, stages of blocks, global average pool, linear classifier.
//   x (N, H, W, in_channels) → logits (N, classes)
// stem: cifar 3×3; imagenet 7×7 stride 2 and a 3×3 stride-2 max pool; channels[0] outputs, BN, relu.
// Names: stem.conv, stem.bn, stages.S.B.…, classifier.
#pragma once

#include "models/blocks.h"

namespace mgic {

struct ResNetOptions {
  std::string stem = "cifar";
  int64_t in_channels = 3;
  int64_t classes = 10;
  std::vector<int64_t> channels{64, 128, 256, 512};
  std::vector<int64_t> blocks{2, 2, 2, 2};
  std::vector<int64_t> strides{1, 2, 2, 2};
  BlockSpec block;

  void fields(Fields& f);
};

class ResNet final : public Module {
 public:
  explicit ResNet(const ResNetOptions& options);

 protected:
  Variable forward(const Variable& x) override;

 private:
  ConvChain* stem_;
  bool max_pool_;
  std::vector<Module*> blocks_;
  Module* classifier_;
};

}  // namespace mgic
