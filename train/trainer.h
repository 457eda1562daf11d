// The training of an experiment: epochs, evaluation, metrics, checkpoints, and going on after an interruption.
#pragma once

#include <filesystem>
#include <memory>

#include "data/options.h"
#include "train/config.h"
#include "train/run_folder.h"

namespace mgic {

struct TrainRequest {
  std::filesystem::path out;  // empty: runs/NAME
  bool resume = false;
};

struct TrainOutcome {
  bool interrupted = false;
  bool was_finished = false;  // nothing was left to do
  std::filesystem::path folder;
  double test_accuracy = 0, best_accuracy = 0;
};

TrainOutcome train(const Experiment& experiment, const TrainRequest& request);

// One optimizer step on one batch: forward, loss, backward, update. What `train` repeats, `trace` and `bench` use.
struct StepResult {
  Variable logits, loss;
  Tensor losses;  // (N)
};
// The images as the network computes: in train.precision, on the device.
Tensor in_precision(const Tensor& images, Device device, DType dtype);

StepResult forward_backward(Module& model, const Tensor& images, const Tensor& labels);

// Opens the data and judges what only open data can tell; throws UserError with all faults.
std::unique_ptr<DataSource> open_and_check(const Experiment& experiment);

// "PATH (operation)" of the first output that is not finite, in a forward pass of this batch; "" where all are.
std::string first_not_finite(Module& model, const Tensor& images);

}  // namespace mgic
