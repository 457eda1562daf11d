// Losses: what training minimises, chosen by "loss" in a configuration.
//   cross_entropy  of classes, one for each sample or for each pixel; label smoothing, class weights, ignored labels
//   mse            of images: the network is given a noisy image and compared with the clean one
#pragma once

#include "core/rng.h"
#include "train/metrics.h"

namespace mgic {

// A batch as it was loaded: images (N, H, W, C) or points (N, P, C); labels (N) or (N, H, W) i64.
struct Targets {
  Tensor images, labels;
  // Of mixed images (mixup, cutmix), else undefined and 1: the loss is mix · loss(labels) + (1 − mix) · loss(mixed).
  Tensor mixed_labels;
  double mix = 1;
};

class Loss {
 public:
  virtual ~Loss() = default;
  // What the network is given.
  virtual Tensor input(const Tensor& images, Rng) const { return images; }
  // Scalar (). In evaluation without what helps training: no smoothing, no weights. rows: the single losses.
  virtual Variable of(const Variable& output, const Targets& targets, bool training, Tensor* rows) const = 0;
  // The sums that belong to it, with all there is to count or with what training shows.
  virtual MetricSums sums(Device device, bool full) const = 0;
  virtual void add(MetricSums& sums, const Tensor& rows, const Tensor& output, const Targets& targets) const = 0;
};

struct LossContext {
  Task task = Task::classification;
  int64_t classes = 0;
  std::vector<double> deviation;  // of the data's normalisation, one a channel; none: pixels are as they are
};

using LossRegistry = Registry<Loss, LossContext>;
using LossSpec = LossRegistry::SpecType;
LossRegistry& loss_registry();

// The loss that the experiment names, else the one of its model's task. UserError where the two do not fit.
std::unique_ptr<Loss> make_loss(const LossSpec& spec, const ModelSpec& model,
                                const std::vector<double>& deviation = {});

// The stream of a step's noise; training and evaluation have streams of their own.
Rng noise_stream(uint64_t seed, bool training, uint64_t step);

}  // namespace mgic
