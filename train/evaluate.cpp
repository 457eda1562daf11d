#include "train/evaluate.h"

#include "autograd/ops.h"

namespace mgic {

Tensor in_precision(const Tensor& images, Placing placing) {
  const Tensor there = images.to(placing.device);
  if (there.dtype() == placing.precision) return there;
  Tensor converted = Tensor::empty(there.shape(), placing.precision, placing.device);
  backend_of(placing.device).cast(there, converted);
  return converted;
}

Metrics evaluate(Module& model, const Loss& loss, DataLoader& loader, Placing placing, uint64_t seed, bool full,
                 const EvaluationOptions& options) {
  const bool training = model.training();
  model.train(false);
  NoGrad no_grad;
  MetricSums sums = loss.sums(placing.device, full);
  Batch batch;
  int64_t samples = 0;
  loader.start(0);
  for (uint64_t step = 0; loader.next(batch); ++step) {
    const Targets targets{batch.images.to(placing.device), batch.labels.to(placing.device)};
    const Tensor input = in_precision(loss.input(targets.images, noise_stream(seed, false, step)), placing);
    const Variable output = options.slides() ? Variable(sliding_logits(model, input, options))
                                             : ops::full_precision(model(Variable(input)));
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
