// The blocks of point cloud networks, which see each point (or edge) alone: 1×1 convolutions and their MGIC twins.
//   x (N, P, in) or (N, P, k, in) → the same with `channels`
//   conv   BN(K x), then the activation asked for
//   mgic   where the width changes a transition relu(BN(K x)) with gcd(in, out) groups, then the V-cycle, whose
//   smoother
//          is pointwise by default
#pragma once

#include "layers/conv_chain.h"
#include "layers/module.h"

namespace mgic {

struct PointBlockContext {
  int64_t in_channels = 0, channels = 0;
  Activation activation = Activation::none;  // of the dense block; an MGIC block ends in a relu
};

using PointBlockRegistry = Registry<Module, PointBlockContext>;
using PointBlockSpec = PointBlockRegistry::SpecType;
PointBlockRegistry& point_block_registry();

// The classifiers' layer: linear, BN.
class LinearNorm final : public Module {
 public:
  LinearNorm(int64_t in, int64_t out, bool bias);

 protected:
  Variable forward(const Variable& x) override;

 private:
  Module &linear_, &norm_;
};

}  // namespace mgic
