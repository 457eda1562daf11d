// bench: how long a network takes, as a whole and layer by layer, on one resident batch without data loading.
#pragma once

#include <string>
#include <vector>

#include "train/config.h"

namespace mgic {

struct LayerTiming {
  std::string name;
  double forward_ms = 0, backward_ms = 0;  // of a training step
  double infer_ms = 0;
  double gflops = 0;  // 2·macs of forward and backward over their time
};

struct BenchResult {
  double train_step_ms = 0, infer_ms = 0;  // medians
  // Of the training steps that were timed layer by layer: medians of the whole step, of the optimizer's part of it, and
  // of the share of the step that is spent inside calls of the backend.
  double profiled_step_ms = 0, update_ms = 0, kernel_share = 0;
  // After warming up, in all steps of training and of inference: blocks of memory that the allocator did not have, and
  // oneDNN primitives that were not in the cache.
  int64_t system_allocations = 0, primitives_created = 0;
  double images_per_second = 0;  // of training
  double peak_rss_mb = 0;
  double gflops = 0;  // of the training step: 2 · 3 · macs · batch / time
  int64_t batch = 0, parameters = 0, macs = 0;
  int threads = 0;
  std::vector<LayerTiming> layers;
};

BenchResult bench(const Experiment& experiment, int64_t batch, const Shape& sample, Device device, int64_t runs);

}  // namespace mgic
