// conv2d: (N, H, W, I) → (N, H', W', O); weight (O, kH, kW, I/groups), bias (O) where asked for.
// Drawn from N(0, 2 / (O·kH·kW)), as the authors' released code does; or like a linear layer where it is a network's
// last, whose few outputs would begin far too large.
#pragma once

#include "layers/module.h"

namespace mgic {

struct Conv2dOptions {
  int64_t in_channels = 0;  // from the context where JSON builds the layer
  int64_t out_channels = 0;
  int64_t kernel = 3;
  int64_t stride = 1;
  std::optional<int64_t> padding;  // default: keeps the size at stride 1
  int64_t dilation = 1;
  int64_t groups = 1;
  bool bias = false;
  bool last = false;  // not for JSON: weights from U(±1/√inputs)

  void fields(Fields& f);
  ConvParams params() const { return {stride, padding.value_or(dilation * (kernel - 1) / 2), dilation, groups}; }
};

class Conv2d final : public Module {
 public:
  explicit Conv2d(const Conv2dOptions& options);
  const Variable& weight() const { return weight_; }
  const ConvParams& params() const { return params_; }

 protected:
  Variable forward(const Variable& x) override;

 private:
  ConvParams params_;
  Variable weight_, bias_;
};

// The deviation of a convolution's initial weights.
double kaiming_deviation(int64_t out_channels, int64_t kernel);

}  // namespace mgic
