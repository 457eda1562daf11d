// Evaluation of a network on a data set: every sample once, in evaluation mode; the last partial batch counts like any
// other sample.
#pragma once

#include "data/loader.h"
#include "layers/module.h"
#include "train/loss.h"

namespace mgic {

// seed: of the noise, where the loss adds any. full: with all that can be counted, not only what training shows.
Metrics evaluate(Module& model, const Loss& loss, DataLoader& loader, Device device, uint64_t seed, bool full);

}  // namespace mgic
