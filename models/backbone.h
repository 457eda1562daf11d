// backbone: the part of a network that turns images into feature maps; segmentation heads stand on it.
//   x (N, H, W, in_channels) → three feature maps (N, H', W', C), from fine to coarse
//
// Where the stride would exceed `output_stride`, a stage keeps its size and its kernels are dilated instead (Chen et
// al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017, section 3.2).
#pragma once

#include "layers/module.h"

namespace mgic {

// low: what LR-ASPP adds its details from. middle: where an auxiliary head stands. high: the end.
struct Features {
  Variable low, middle, high;
};

class Backbone : public Module {
 public:
  struct Widths {
    int64_t low = 0, middle = 0, high = 0;  // channels
  };
  using Module::Module;
  // Runs under this module's name.
  Features features(const Variable& x);
  virtual Widths widths() const = 0;

 protected:
  virtual Features extract(const Variable& x) = 0;
  Variable forward(const Variable& x) override { return extract(x).high; }
};

// Follows the strides through a network whose output stride is bounded.
class StrideBudget {
 public:
  static constexpr int64_t unbounded = 1 << 30;
  explicit StrideBudget(int64_t output_stride) : left_(output_stride) {}
  // The stride that a layer which wants `stride` gets; what it does not get is dilation from here on.
  int64_t take(int64_t stride);
  int64_t dilation() const { return dilation_; }

 private:
  int64_t left_, dilation_ = 1;
};

struct BackboneContext {
  int64_t in_channels = 3;
};

using BackboneRegistry = Registry<Backbone, BackboneContext>;
using BackboneSpec = BackboneRegistry::SpecType;
BackboneRegistry& backbone_registry();  // models/register.cpp

}  // namespace mgic
