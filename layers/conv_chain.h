// conv_chain: links of convolution, normalisation and activation, and a residual around them; trained as one unit.
//   y = outer( link_n( … link_1(x)) + x )      link(x) = activation( BN( K x ))
// The children are conv1 bn1 conv2 bn2 …, or conv and bn where there is one link.
#pragma once

#include "layers/batch_norm.h"
#include "layers/conv2d.h"
#include "layers/module.h"

namespace mgic {

struct ChainLinkOptions {
  Conv2dOptions conv;
  bool norm = true;
  BatchNormOptions bn;
  Activation activation = Activation::none;

  void fields(Fields& f);
};

struct ConvChainOptions {
  std::vector<ChainLinkOptions> links;
  bool residual = false;
  Activation outer = Activation::none;

  void fields(Fields& f);
};

// Reads one of "none", "relu", "hswish", "hsigmoid".
void activation_field(Fields& f, std::string_view key, Activation& value, std::string_view doc);

class ConvChain : public Module {
 public:
  // The first link's in_channels is given; each further one takes what the link before puts out.
  ConvChain(std::string_view type, int64_t in_channels, ConvChainOptions options);
  int64_t out_channels() const { return out_channels_; }
  // With another tensor as the residual.
  Variable with_residual(const Variable& x, const Variable& residual);

 protected:
  Variable forward(const Variable& x) override;
  Variable chain(const Variable& x, const Variable& residual);

 private:
  struct LinkModules {
    Conv2d* conv;
    BatchNorm* norm;  // null: none
    Activation activation;
  };
  std::vector<LinkModules> links_;
  bool residual_;
  Activation outer_;
  int64_t out_channels_;
};

// A bias-free link with batch normalisation: what most networks are made of.
ChainLinkOptions conv_norm_act(int64_t out_channels, int64_t kernel, Activation activation, int64_t groups = 1,
                               int64_t stride = 1);

}  // namespace mgic
