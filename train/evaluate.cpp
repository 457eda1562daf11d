#include "train/evaluate.h"

#include "autograd/ops.h"
#include "train/trainer.h"

namespace mgic {

Metrics evaluate(Module& model, DataLoader& loader, Device device, DType precision,
                 const std::function<void(const Tensor&, const Tensor&)>& each) {
  const bool training = model.training();
  model.train(false);
  NoGrad no_grad;
  MetricSums sums(device);
  Batch batch;
  loader.start(0);
  while (loader.next(batch)) {
    const Tensor labels = batch.labels.to(device);
    const Variable logits = model(Variable(in_precision(batch.images, device, precision)));
    Tensor losses;
    ops::cross_entropy(logits, labels, &losses);
    sums.add(losses, logits.value(), labels);
    if (each) each(logits.value(), labels);
  }
  model.train(training);
  return sums.read();
}

}  // namespace mgic
