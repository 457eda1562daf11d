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
  Task task = Task::classification;
  double test_score = 0, best_score = 0;  // of the task's measure
};

TrainOutcome train(const Experiment& experiment, const TrainRequest& request);

// One optimizer step on one batch: forward, loss, backward. What `train` repeats, `trace` and `bench` use.
struct StepResult {
  Variable logits, loss;
  Tensor losses;  // (N), or (N, H, W); undefined where the loss has no rows
};
// input: what Loss::input made of targets.images. The model's extra loss is added, and in `loss`.
StepResult forward_backward(Module& model, const Loss& loss, const Tensor& input, const Targets& targets);

// Opens the data and judges what only open data can tell; throws UserError with all faults.
std::unique_ptr<DataSource> open_and_check(const Experiment& experiment);

// Labels (N) or, in segmentation, (N, H, W) for a batch of this shape: what a synthetic batch needs.
Tensor random_labels(const ModelSpec& model, const Shape& batch, Rng& rng);

// "PATH (operation)" of the first output that is not finite, in a forward pass of this batch; "" where all are.
std::string first_not_finite(Module& model, const Tensor& images);

}  // namespace mgic
