// autoencoder: an image is brought to few pixels with many channels, and back (Hinton & Salakhutdinov, 2006); trained
// with noisy inputs and clean targets it removes noise (Vincent et al., 2008).
//   x (N, H, W, in_channels) → y (N, H, W, in_channels)
//
//   encoder.I: a block to channels[I], with stride 2 but for the first
//   decoder.I: resize to the size of the encoder's next finer map, then a block to its channels
//   output: 3×3 convolution with bias
// Names: encoder.I.…, decoder.I.…, output.
#pragma once

#include "models/blocks.h"

namespace mgic {

struct AutoencoderOptions {
  int64_t in_channels = 1;
  std::vector<int64_t> channels{32, 64, 128};
  BlockSpec block;

  void fields(Fields& f);
};

class Autoencoder final : public Module {
 public:
  explicit Autoencoder(const AutoencoderOptions& options);

 protected:
  Variable forward(const Variable& x) override;

 private:
  std::vector<Module*> encoder_, decoder_;
  Module* output_;
};

}  // namespace mgic
