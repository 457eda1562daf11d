// The smoothers B_l of the V-cycle. Each keeps its shape, has no biases and works in its level's groups.
//   basic, pointwise   relu(x + BN(K2 relu(BN(K1 x)))), kernels 3×3 and 1×1
//   bottleneck         1×1 e·w → w, 3×3 w → w, 1×1 w → e·w, each with BN, relu behind the first two; relu(x + …);
//                      on the coarsest level one more relu before the addition
//   inverted_residual  1×1 expansion to m, depthwise k×k, squeeze-excite, 1×1 projection; relu(y + x) + x
#pragma once

#include "layers/conv_chain.h"
#include "layers/module.h"

namespace mgic {

class BasicSmoother final : public ConvChain {
 public:
  BasicSmoother(std::string_view type, int64_t kernel, const LayerContext& context);
};

struct BottleneckOptions {
  int64_t expansion = 4;

  void fields(Fields& f);
};

// Levels carry expansion · context.channels.
class BottleneckSmoother final : public ConvChain {
 public:
  BottleneckSmoother(const BottleneckOptions& options, const LayerContext& context);
};

struct InvertedResidualOptions {
  int64_t mid_channels = 0;  // of level 0; halves with the level
  int64_t kernel = 3;
  bool squeeze_excite = false;
  Activation activation = Activation::relu;

  void fields(Fields& f);
};

class InvertedResidualSmoother final : public Module {
 public:
  InvertedResidualSmoother(const InvertedResidualOptions& options, const LayerContext& context);

 protected:
  Variable forward(const Variable& x) override;

 private:
  Activation activation_;
  ConvChain* expand_ = nullptr;  // absent where the middle width is the level's
  ConvChain* depthwise_;
  Module* squeeze_excite_ = nullptr;
  ConvChain* project_;
};

}  // namespace mgic
