// The blocks of MobileNetV3: the dense inverted residual (Howard et al., 2019, as in torchvision), and the V-cycle
// whose smoother is one.
#include "autograd/ops.h"
#include "layers/mgic/mgic.h"
#include "layers/simple.h"
#include "layers/squeeze_excite.h"
#include "models/mobilenet_v3.h"

namespace mgic {
namespace {

using Made = std::unique_ptr<Module>;

// torchvision's normalisation in MobileNetV3.
constexpr BatchNormOptions dense_norm{.eps = 1e-3, .momentum = 0.01};

//   y = project( SE( depthwise( expand(x)))), + x where shape stays; the activation stands before SE.
class InvertedResidual final : public Module {
 public:
  explicit InvertedResidual(const MobileBlockContext& c)
      : Module("inverted_residual_block"), residual_(c.stride == 1 && c.in_channels == c.channels) {
    auto chain = [&](const char* name, int64_t in, ChainLinkOptions link) {
      link.bn = dense_norm;
      return &add_child(
          name, std::make_unique<ConvChain>("conv_chain", in, ConvChainOptions{{link}, false, Activation::none}));
    };
    if (c.mid_channels != c.in_channels)
      expand_ = chain("expand", c.in_channels, conv_norm_act(c.mid_channels, 1, c.activation));
    ChainLinkOptions depthwise = conv_norm_act(c.mid_channels, c.kernel, c.activation, c.mid_channels, c.stride);
    depthwise.conv.dilation = c.dilation;
    depthwise_ = chain("depthwise", c.mid_channels, depthwise);
    if (c.squeeze_excite) squeeze_excite_ = &add_child("se", std::make_unique<SqueezeExcite>(c.mid_channels));
    project_ = chain("project", c.mid_channels, conv_norm_act(c.channels, 1, Activation::none));
  }

 protected:
  Variable forward(const Variable& x) override {
    Variable y = expand_ != nullptr ? (*expand_)(x) : x;
    y = (*depthwise_)(y);
    if (squeeze_excite_ != nullptr) y = (*squeeze_excite_)(y);
    return residual_ ? project_->with_residual(y, x) : (*project_)(y);
  }

 private:
  bool residual_;
  ConvChain *expand_ = nullptr, *depthwise_, *project_;
  Module* squeeze_excite_ = nullptr;
};

//   x → V-cycle(transition(x)); the transition is a bare 1×1 convolution with the stride.
class MobileStage final : public Module {
 public:
  MobileStage(MgicOptions options, const MobileBlockContext& c) : Module("mobile_stage") {
    options.smoother = layer_registry().parse(
        fmt::format(R"({{"type": "inverted_residual", "mid_channels": {}, "kernel": {}, "squeeze_excite": {},
                         "activation": "{}"}})",
                    c.mid_channels, c.kernel, c.squeeze_excite, name_of(c.activation)));
    if (!options.restrict_norm) options.restrict_norm = true;
    if (c.stride != 1 || c.in_channels != c.channels) {
      ChainLinkOptions link = conv_norm_act(c.channels, 1, Activation::none, 1, c.stride);
      link.norm = false;
      transition_ = &add_child(
          "transition",
          std::make_unique<ConvChain>("conv_chain", c.in_channels, ConvChainOptions{{link}, false, Activation::none}));
    }
    mgic_ = &add_child("mgic", std::make_unique<Mgic>(options, c.channels, c.dilation));
  }

 protected:
  Variable forward(const Variable& x) override { return (*mgic_)(transition_ != nullptr ? (*transition_)(x) : x); }

 private:
  ConvChain* transition_ = nullptr;
  Mgic* mgic_;
};

// The one smoother that fits, whose options come from the table.
const LayerRegistry& table_smoothers() {
  static const LayerRegistry registry = [] {
    LayerRegistry r("smoother");
    r.add(
        "inverted_residual", "expansion, depthwise, projection in a double residual",
        +[](const NoOptions&, const LayerContext&) -> Made { fail("built from MobileNetV3's table alone"); });
    return r;
  }();
  return registry;
}

struct MobileMgicOptions {
  MgicOptions mgic;

  void fields(Fields& f) {
    mgic.smoother.type = "inverted_residual";
    mgic.hierarchy_fields(f);
    f.spec_beside("smoother", mgic.smoother, table_smoothers(), "the layer B_l of every level, set by the table");
    for (const char* key : {"mid_channels", "kernel", "squeeze_excite", "activation"})
      if (f.reading() && f.has(key)) {
        f.accept(key);
        f.fault(key, "comes from MobileNetV3's table; remove it");
      }
  }
};

}  // namespace

MobileBlockRegistry& mobile_block_registry() {
  static MobileBlockRegistry registry = [] {
    MobileBlockRegistry r("block");
    r.add(
        "inverted_residual", "dense: 1×1 expansion, depthwise, squeeze-excite, 1×1 projection",
        +[](const NoOptions&, const MobileBlockContext& c) -> Made { return std::make_unique<InvertedResidual>(c); });
    r.add(
        "mgic", "a V-cycle of inverted residuals over the channels",
        +[](const MobileMgicOptions& o, const MobileBlockContext& c) -> Made {
          return std::make_unique<MobileStage>(o.mgic, c);
        });
    return r;
  }();
  return registry;
}

}  // namespace mgic
