// dry_run: what an experiment asks of this machine, found without its data: every shape is inferred, and one real step
// is made on one synthetic batch.
#pragma once

#include "models/summary.h"
#include "train/config.h"

namespace mgic {

struct DryRun {
  Summary summary;
  Shape batch, output;  // of the network
  double loss = 0;      // of the step
  double step_ms = 0;   // the second step: the first one also allocates and creates primitives
  double weights_mb = 0, activations_mb = 0, peak_rss_mb = 0;
};

// UserError where what backward needs would exceed the machine's memory.
DryRun dry_run(const Experiment& experiment, Device device);

}  // namespace mgic
