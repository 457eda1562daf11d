// Evaluation of a network on a data set: every sample once, in evaluation mode.
#pragma once

#include <functional>

#include "data/loader.h"
#include "layers/module.h"
#include "train/metrics.h"

namespace mgic {

// `each` sees the logits and labels of every batch.
Metrics evaluate(Module& model, DataLoader& loader, Device device, DType precision,
                 const std::function<void(const Tensor& logits, const Tensor& labels)>& each = {});

}  // namespace mgic
