// mgic_stage: the MGIC block behind a transition where stride or width change.
//   transition: 3×3 convolution with gcd(in, out) groups, BN, relu
#pragma once

#include "layers/conv_chain.h"
#include "layers/mgic/mgic.h"

namespace mgic {

struct MgicStageOptions {
  MgicOptions mgic;
  std::optional<int64_t> in_channels;  // default: what arrives
  std::optional<int64_t> channels;     // w_0; default: what arrives over the expansion
  int64_t stride = 1;

  void fields(Fields& f);
};

class MgicStage final : public Module {
 public:
  MgicStage(const MgicOptions& options, int64_t in_channels, int64_t channels, int64_t stride, int64_t dilation = 1);

 protected:
  Variable forward(const Variable& x) override;

 private:
  ConvChain* transition_ = nullptr;
  Mgic* mgic_;
};

}  // namespace mgic
