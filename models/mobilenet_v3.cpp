#include "models/mobilenet_v3.h"

#include <array>

#include "autograd/ops.h"
#include "layers/dropout.h"
#include "layers/linear.h"
#include "layers/squeeze_excite.h"

namespace mgic {
namespace {

// kernel, middle width over the input's, output width, squeeze-excite, hard-swish, stride (Howard et al., tables 1, 2;
// the ratios are those of the MGIC authors' code).
struct Row {
  int64_t kernel;
  double ratio;
  int64_t channels;
  bool squeeze_excite, hswish;
  int64_t stride;
};

constexpr std::array large{
    Row{3, 1, 16, false, false, 1},  Row{3, 4, 24, false, false, 2},  Row{3, 3, 24, false, false, 1},
    Row{5, 3, 40, true, false, 2},   Row{5, 3, 40, true, false, 1},   Row{5, 3, 40, true, false, 1},
    Row{3, 6, 80, false, true, 2},   Row{3, 2.5, 80, false, true, 1}, Row{3, 2.3, 80, false, true, 1},
    Row{3, 2.3, 80, false, true, 1}, Row{3, 6, 112, true, true, 1},   Row{3, 6, 112, true, true, 1},
    Row{5, 6, 160, true, true, 2},   Row{5, 6, 160, true, true, 1},   Row{5, 6, 160, true, true, 1}};

constexpr std::array small{
    Row{3, 1, 16, true, false, 2}, Row{3, 4.5, 24, false, false, 2}, Row{3, 3.67, 24, false, false, 1},
    Row{5, 4, 40, true, true, 2},  Row{5, 6, 40, true, true, 1},     Row{5, 6, 40, true, true, 1},
    Row{5, 3, 48, true, true, 1},  Row{5, 3, 48, true, true, 1},     Row{5, 6, 96, true, true, 2},
    Row{5, 6, 96, true, true, 1},  Row{5, 6, 96, true, true, 1}};

constexpr int64_t stem_channels = 16, dense_tail_factor = 6;
constexpr double dropout_probability = 0.2;

int64_t scaled(double channels, double width) { return make_divisible(channels * width); }

}  // namespace

void MobileBodyOptions::fields(Fields& f) {
  f("size", size, "the table that the blocks are made after", one_of({"large", "small"}));
  f("stem", stem, "first layers: 3×3 with stride 2 or 1, or the MGIC authors' 1×1",
    one_of({"imagenet", "cifar", "released"}));
  f("width", width, "multiplies the table's widths, rounded to multiples of 8", between(0.01, 64));
  f.spec("block", block, mobile_block_registry(), "what the network is made of", any().need());
}

void MobileNetV3Options::fields(Fields& f) {
  f("in_channels", in_channels, "channels of the images", between(1, max_count));
  f("classes", classes, "logits", between(1, max_count));
  body.fields(f);
}

void MobileBackboneOptions::fields(Fields& f) {
  body.fields(f);
  f("output_stride", output_stride, "pixels of the image a side of one of the last feature map, by dilation",
    between(1, StrideBudget::unbounded));
}

MobileBackbone::MobileBackbone(const MobileBodyOptions& o, int64_t in_channels, int64_t output_stride)
    : Backbone("mobilenet_v3") {
  const bool released = o.stem == "released", dense = o.dense();
  auto chain = [&](const char* name, int64_t in, int64_t out, int64_t kernel, int64_t stride) {
    ChainLinkOptions link = conv_norm_act(out, kernel, released ? Activation::relu : Activation::hswish, 1, stride);
    if (dense) link.bn = {.eps = 1e-3, .momentum = 0.01};  // torchvision's
    return &add_child(name,
                      std::make_unique<ConvChain>("conv_chain", in, ConvChainOptions{{link}, false, Activation::none}));
  };
  StrideBudget budget(output_stride);
  int64_t channels = scaled(stem_channels, o.width);
  stem_ = chain("stem", in_channels, channels, released ? 1 : 3, o.stem == "imagenet" ? budget.take(2) : 1);

  const std::vector<Row> rows =
      o.size == "large" ? std::vector<Row>(large.begin(), large.end()) : std::vector<Row>(small.begin(), small.end());
  int64_t unscaled = stem_channels;
  std::vector<size_t> strided;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    MobileBlockContext c;
    c.in_channels = channels;
    // torchvision scales the table's middle widths, the MGIC authors take them from the scaled input.
    c.mid_channels = dense ? scaled(static_cast<double>(scaled(static_cast<double>(unscaled), row.ratio)), o.width)
                           : scaled(static_cast<double>(channels), row.ratio);
    c.channels = scaled(static_cast<double>(row.channels), o.width);
    c.kernel = row.kernel;
    c.stride = budget.take(row.stride);
    c.dilation = budget.dilation();
    c.squeeze_excite = row.squeeze_excite;
    c.activation = row.hswish ? Activation::hswish : Activation::relu;
    blocks_.push_back(&add_child(fmt::format("blocks.{}", i), o.block.make(c)));
    if (row.stride > 1) strided.push_back(i);
    channels = c.channels;
    unscaled = row.channels;
  }
  low_ = strided[strided.size() - 3];
  low_channels_ = scaled(static_cast<double>(rows[low_].channels), o.width);
  tail_ = chain("tail", channels, dense && !released ? dense_tail_factor * channels : channels, 1, 1);
}

Features MobileBackbone::extract(const Variable& images) {
  Features f;
  Variable x = (*stem_)(images);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    x = (*blocks_[i])(x);
    if (i == low_) f.low = f.middle = x;
  }
  f.high = (*tail_)(x);
  return f;
}

MobileNetV3::MobileNetV3(const MobileNetV3Options& o)
    : MobileBackbone(o.body, o.in_channels, StrideBudget::unbounded), released_(o.body.stem == "released") {
  const int64_t nominal = o.body.size == "large" ? 1280 : 1024;
  const int64_t width = o.body.dense() ? scaled(static_cast<double>(nominal), o.body.width) : nominal;
  head_ = &add_child(
      "head", std::make_unique<Conv2d>(Conv2dOptions{
                  .in_channels = widths().high, .out_channels = width, .kernel = 1, .padding = {}, .bias = true}));
  dropout_ = &add_child("dropout", std::make_unique<Dropout>(DropoutOptions{dropout_probability}));
  classifier_ = &add_child("classifier", std::make_unique<Linear>(LinearOptions{width, o.classes, true}));
}

Variable MobileNetV3::forward(const Variable& images) {
  Variable x = extract(images).high;
  if (released_) return (*classifier_)(ops::global_pool(ops::relu((*head_)(x)), Pool::max));
  x = ops::global_pool(x, Pool::average);
  const int64_t n = x.shape()[0], channels = x.shape()[1];
  x = ops::activation((*head_)(ops::reshape(x, {n, 1, 1, channels})), Activation::hswish);
  return (*classifier_)((*dropout_)(ops::reshape(x, {n, x.shape().last()})));
}

}  // namespace mgic
