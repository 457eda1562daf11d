#include "train/dry_run.h"

#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cmath>

#include "layers/dropout.h"
#include "train/evaluate.h"
#include "train/trainer.h"

namespace mgic {
namespace {

constexpr double mib = 1024.0 * 1024.0;
constexpr int64_t default_batch = 32;

// What the operations of one forward put out; backward needs most of it.
class OutputBytes final : public Recorder {
 public:
  OutputBytes() : Recorder(false) {}
  void operation(const Operation& op) override { bytes += static_cast<double>(op.output.bytes()); }
  double bytes = 0;
};

double physical_bytes() {
  return static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE));
}

}  // namespace

DryRun dry_run(const Experiment& experiment, Device device) {
  const ExperimentOptions& o = experiment.options;
  const auto seed = static_cast<uint64_t>(o.seed);
  const Shape sample = sample_shape(experiment);
  DryRun result;
  result.batch = sample.with(0, o.has_data() ? o.data.batch_size : default_batch);
  const auto model = build_model(experiment, sample);
  result.summary = summarize(*model, sample);
  {
    OutputBytes outputs;
    result.output = (*model)(Variable(Tensor::empty(result.batch, DType::f32, Device::meta))).shape();
    result.activations_mb = outputs.bytes / mib;
    if (device != Device::cuda && outputs.bytes > physical_bytes())
      fail_user(
          "{}: data.batch_size: the activations of {} samples need about {:.1f} GiB, and this machine has {:.1f}; try "
          "--set data.batch_size={}",
          experiment.file, result.batch[0], outputs.bytes / mib / 1024, physical_bytes() / mib / 1024,
          std::max<int64_t>(
              1, static_cast<int64_t>(static_cast<double>(result.batch[0]) * physical_bytes() / 4 / outputs.bytes)));
  }

  model->to(device, DType::f32);
  model->initialize(seed);
  result.weights_mb = static_cast<double>(4 * result.summary.parameters) / mib;
  const auto optimizer = o.optimizer.make({*model});
  const auto loss = make_loss(o.loss, o.model);
  Rng rng(seed, Purpose::test);
  Tensor images = Tensor::empty(result.batch, DType::f32, Device::cpu);
  for (float& v : images.span<float>()) v = static_cast<float>(rng.normal());
  images = images.to(device);
  const Targets targets{images, random_labels(o.model, result.batch, rng).to(device)};
  for (uint64_t step = 0; step < 2; ++step) {
    const RandomStep random(seed, step);
    const auto start = std::chrono::steady_clock::now();
    const Tensor input = in_precision(loss->input(images, noise_stream(seed, true, step)), {device, o.train.dtype()});
    const StepResult r = forward_backward(*model, *loss, input, targets);
    optimizer->step(optimizer->base_lr());
    result.step_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    result.loss = r.loss.value().to(Device::cpu).item();
    check(step > 0 || std::isfinite(result.loss), "{}: the first loss is not finite", experiment.file);
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  result.peak_rss_mb = static_cast<double>(usage.ru_maxrss) / 1024;
  return result;
}

}  // namespace mgic
