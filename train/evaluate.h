// Evaluation of a network on a data set: every sample once, in evaluation mode; the last partial batch counts like any
// other sample.
#pragma once

#include "data/loader.h"
#include "layers/module.h"
#include "train/loss.h"
#include "train/sliding.h"

namespace mgic {

// Where a network runs, and the element type of what it is given.
struct Placing {
  Device device;
  DType precision = DType::f32;
};
Tensor in_precision(const Tensor& images, Placing placing);

// seed: of the noise, where the loss adds any. full: with all that can be counted, not only what training shows.
Metrics evaluate(Module& model, const Loss& loss, DataLoader& loader, Placing placing, uint64_t seed, bool full,
                 const EvaluationOptions& options = {});

}  // namespace mgic
