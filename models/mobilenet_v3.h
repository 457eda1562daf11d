// mobilenet_v3 (Howard et al., 2019): stem, inverted residuals after a table, tail, head, classifier.
//   x (N, H, W, in_channels) → logits (N, classes)
//
// block inverted_residual is torchvision's network, block mgic that of the MGIC paper's authors: each row of the table
// is a 1×1 transition where shape changes and a V-cycle of inverted residuals.
// stem imagenet, cifar: 3×3 with stride 2 and 1, hard-swish; tail, average pool, head, hard-swish, dropout 0.2.
// stem released (the authors' code): 1×1 stride 1, relu; tail, head, relu, global maximum.
// Names: stem.conv, stem.bn, blocks.I.… , tail.conv, tail.bn, head, classifier.
#pragma once

#include "layers/conv2d.h"
#include "layers/conv_chain.h"
#include "models/backbone.h"

namespace mgic {

// One row of the table, resolved: what a block is built for.
struct MobileBlockContext {
  int64_t in_channels = 0, mid_channels = 0, channels = 0;
  int64_t kernel = 3, stride = 1, dilation = 1;
  bool squeeze_excite = false;
  Activation activation = Activation::relu;
};

using MobileBlockRegistry = Registry<Module, MobileBlockContext>;
using MobileBlockSpec = MobileBlockRegistry::SpecType;
MobileBlockRegistry& mobile_block_registry();

struct MobileBodyOptions {
  std::string size = "large";
  std::string stem = "imagenet";
  double width = 1.0;
  MobileBlockSpec block;

  void fields(Fields& f);
  bool dense() const { return block.type != "mgic"; }
};

struct MobileNetV3Options {
  MobileBodyOptions body;
  int64_t in_channels = 3;
  int64_t classes = 10;

  void fields(Fields& f);
};

struct MobileBackboneOptions {
  MobileBodyOptions body;
  int64_t output_stride = 16;

  void fields(Fields& f);
};

// low and middle: the output of the third last block with a stride, as in torchvision; high: the tail's.
class MobileBackbone : public Backbone {
 public:
  MobileBackbone(const MobileBodyOptions& options, int64_t in_channels, int64_t output_stride);
  Widths widths() const override { return {low_channels_, low_channels_, tail_->out_channels()}; }

 protected:
  Features extract(const Variable& x) override;

 private:
  ConvChain *stem_, *tail_;
  std::vector<Module*> blocks_;
  size_t low_ = 0;
  int64_t low_channels_ = 0;
};

class MobileNetV3 final : public MobileBackbone {
 public:
  explicit MobileNetV3(const MobileNetV3Options& options);

 protected:
  Variable forward(const Variable& x) override;

 private:
  bool released_;
  Conv2d* head_;
  Module *dropout_, *classifier_;
};

}  // namespace mgic
