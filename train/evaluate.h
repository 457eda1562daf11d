// Evaluation of a network on a data set: every sample once, in evaluation mode; the last partial batch counts like any
// other sample.
#pragma once

#include <functional>

#include "data/loader.h"
#include "layers/module.h"
#include "train/loss.h"

namespace mgic {

// `each` sees the output and the targets of every batch. `seed` is that of the noise, where the loss adds any.
Metrics evaluate(Module& model, const Loss& loss, DataLoader& loader, Device device, uint64_t seed = 0,
                 const std::function<void(const Tensor& output, const Targets& targets)>& each = {});

}  // namespace mgic
