#include "train/evaluate.h"

namespace mgic {

Metrics evaluate(Module& model, const Loss& loss, DataLoader& loader, Device device, uint64_t seed, bool full) {
  const bool training = model.training();
  model.train(false);
  NoGrad no_grad;
  MetricSums sums = loss.sums(device, full);
  Batch batch;
  int64_t samples = 0;
  loader.start(0);
  for (uint64_t step = 0; loader.next(batch); ++step) {
    const Targets targets{batch.images.to(device), batch.labels.to(device)};
    const Variable output = model(Variable(loss.input(targets.images, noise_stream(seed, false, step))));
    Tensor rows;
    loss.of(output, targets, false, &rows);
    loss.add(sums, rows, output.value(), targets);
    samples += targets.images.shape()[0];
  }
  model.train(training);
  Metrics metrics = sums.read();
  metrics.samples = samples;
  return metrics;
}

}  // namespace mgic
