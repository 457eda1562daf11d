// The blocks of a ResNet's stages (He et al., 2016), dense and MGIC; "block" in a configuration chooses one.
//   basic       relu(BN(K2 relu(BN(K1 x))) + shortcut(x)), 3×3 kernels, the stride on K1
//   bottleneck  1×1, 3×3 with the stride, 1×1 to 4·channels
//   mgic        a transition where shape changes, then the V-cycle (layers/mgic/stage.h)
// shortcut: 1×1 convolution with the stride and BN where shape changes, else the identity.
#pragma once

#include "layers/conv_chain.h"
#include "layers/mgic/stage.h"
#include "layers/module.h"

namespace mgic {

struct BlockContext {
  int64_t in_channels = 0;
  int64_t channels = 0;  // the stage's width
  int64_t stride = 1;
  int64_t dilation = 1;  // of its spatial kernels
};

using BlockRegistry = Registry<Module, BlockContext>;
using BlockSpec = BlockRegistry::SpecType;
BlockRegistry& block_registry();

// Channels that a block of this width puts out.
int64_t block_outputs(const BlockSpec& block, int64_t channels);

class DenseBlock final : public ConvChain {
 public:
  DenseBlock(std::string_view type, const std::vector<ChainLinkOptions>& links, const BlockContext& context);

 protected:
  Variable forward(const Variable& x) override;

 private:
  ConvChain* shortcut_ = nullptr;
};

}  // namespace mgic
