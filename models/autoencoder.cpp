#include "models/autoencoder.h"

#include "autograd/ops.h"
#include "layers/conv2d.h"

namespace mgic {

void AutoencoderOptions::fields(Fields& f) {
  f("in_channels", in_channels, "channels of the images, in and out", between(1, max_count));
  f("channels", channels, "width of each level, from fine to coarse", between(1, max_count));
  f.spec("block", block, block_registry(), "what encoder and decoder are made of", any().need());
  f.check(!channels.empty() && channels.size() <= 16, "channels", "must have 1 to 16 elements, one a level");
  if (block.type == "mgic" && block.options)
    f.check(option_text(block.options, "smoother") != "inverted_residual", "block.smoother",
            "inverted_residual does not fit here; use basic, bottleneck or pointwise");
}

Autoencoder::Autoencoder(const AutoencoderOptions& o) : Module("autoencoder") {
  int64_t channels = o.in_channels;
  auto block = [&](int64_t width, int64_t stride) {
    auto made = o.block.make({channels, width, stride});
    channels = block_outputs(o.block, width);
    return made;
  };
  const size_t levels = o.channels.size();
  for (size_t i = 0; i < levels; ++i)
    encoder_.push_back(&add_child(fmt::format("encoder.{}", i), block(o.channels[i], i == 0 ? 1 : 2)));
  for (size_t i = 0; i + 1 < levels; ++i)
    decoder_.push_back(&add_child(fmt::format("decoder.{}", i), block(o.channels[levels - 2 - i], 1)));
  output_ = &add_child(
      "output",
      std::make_unique<Conv2d>(Conv2dOptions{
          .in_channels = channels, .out_channels = o.in_channels, .padding = {}, .bias = true, .last = true}));
}

Variable Autoencoder::forward(const Variable& images) {
  std::vector<Shape> sizes;
  Variable x = images;
  for (Module* block : encoder_) {
    x = (*block)(x);
    sizes.push_back(x.shape());
  }
  for (Module* block : decoder_) {
    sizes.pop_back();
    x = (*block)(ops::resize_bilinear(x, sizes.back()[1], sizes.back()[2]));
  }
  return (*output_)(x);
}

}  // namespace mgic
