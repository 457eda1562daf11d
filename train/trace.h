// trace: the window into the engine, for lectures and for comparison with other frameworks (DESIGN section 8).
#pragma once

#include "core/safetensors.h"
#include "train/config.h"

namespace mgic {

struct TraceRequest {
  TensorFile weights;  // parameters and buffers by name
  TensorFile batch;    // `input` and `labels`, or for a bare layer `input` and `cotangent`
  int64_t steps = 1;
  DType dtype = DType::f32;
  Device device = Device::cpu;
  bool activations = false;
  std::string weights_name, batch_name;  // for errors
};

// First one evaluation forward with the given state, then the training steps, all on the same batch. Gives
// logits.eval, logits.train, loss, losses, grads/NAME of the first step, after/NAME; for a bare layer output.eval,
// output.train, grads/NAME, grads/input and its buffers after one training forward; with `activations` each module's
// output of the evaluation forward as activations/NAME.
TensorFile trace(const Experiment& experiment, const TraceRequest& request);

}  // namespace mgic
