#include "train/bench.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>

#include "autograd/ops.h"
#include "backends/cpu/inspect.h"
#include "core/allocator.h"
#include "core/rng.h"
#include "layers/dropout.h"
#include "models/summary.h"
#include "train/evaluate.h"
#include "train/trainer.h"

namespace mgic {
namespace {

constexpr int64_t warm_up = 2;

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double time_ms(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

double median_ms(int64_t runs, const std::function<void()>& f) {
  std::vector<double> times;
  for (int64_t i = 0; i < runs; ++i) times.push_back(time_ms(f));
  return median(times);
}

// Counts while it lives what steady state must not do.
class SteadyState {
 public:
  explicit SteadyState(BenchResult& result) : result_(result) {}
  ~SteadyState() {
    result_.system_allocations += Allocator::host().stats().system_allocations - allocations_;
    result_.primitives_created += cpu::primitive_counters().created - primitives_;
  }
  SteadyState(const SteadyState&) = delete;
  SteadyState& operator=(const SteadyState&) = delete;

 private:
  BenchResult& result_;
  int64_t allocations_ = Allocator::host().stats().system_allocations;
  int64_t primitives_ = cpu::primitive_counters().created;
};

// Times of one training step by the path that the operations ran under.
class Timer final : public Recorder {
 public:
  struct Times {
    double forward = 0, backward = 0;
  };
  Timer() : Recorder(false) {}
  void operation(const Operation& op) override { row(op.path).forward += 1e3 * op.seconds; }
  void backward_done(std::string_view, std::string_view path, double seconds) override {
    row(path).backward += 1e3 * seconds;
  }
  void update_done(double seconds) override { update = 1e3 * seconds; }

  double all() const {
    double sum = update;
    for (const auto& [path, t] : times) sum += t.forward + t.backward;
    return sum;
  }

  double update = 0;
  std::vector<std::string> order;
  std::map<std::string, Times> times;

 private:
  Times& row(std::string_view path) {
    auto [it, added] = times.try_emplace(std::string(path));
    if (added) order.emplace_back(path);
    return it->second;
  }
};

}  // namespace

BenchResult bench(const Experiment& experiment, int64_t batch, const Shape& sample, Device device, int64_t runs) {
  BenchResult result;
  const auto model = build_model(experiment, sample);
  const Summary summary = summarize(*model, sample);
  model->to(device, DType::f32);
  model->initialize(static_cast<uint64_t>(experiment.options.seed));
  const auto optimizer =
      experiment.options.optimizer.make != nullptr
          ? experiment.options.optimizer.make({*model})
          : optimizer_registry().parse(R"({"type": "sgd", "lr": 0.01, "momentum": 0.9})").make({*model});

  Rng rng(static_cast<uint64_t>(experiment.options.seed), Purpose::test);
  Tensor images = Tensor::empty(sample.with(0, batch), DType::f32, Device::cpu);
  for (float& v : images.span<float>()) v = static_cast<float>(rng.normal());
  images = in_precision(images, {device, experiment.options.train.dtype()});
  const auto loss = make_loss(experiment.options.loss, experiment.options.model);
  const Targets targets{images, random_labels(experiment.options.model, images.shape(), rng).to(device)};

  const RandomStep random(static_cast<uint64_t>(experiment.options.seed), 0);
  auto step = [&] {
    forward_backward(*model, *loss, images, targets);
    optimizer->step(1e-3 * optimizer->base_lr());
  };
  std::map<std::string, std::vector<double>> forward, backward;
  std::vector<std::string> order;
  for (int64_t i = 0; i < warm_up; ++i) step();
  {
    const SteadyState steady(result);
    result.train_step_ms = median_ms(runs, step);
    std::vector<double> whole, updates, shares;
    for (int64_t i = 0; i < runs; ++i) {
      Timer timer;
      whole.push_back(time_ms(step));
      updates.push_back(timer.update);
      shares.push_back(timer.all() / whole.back());
      order = timer.order;
      for (const auto& [path, t] : timer.times) {
        forward[path].push_back(t.forward);
        backward[path].push_back(t.backward);
      }
    }
    result.profiled_step_ms = median(whole);
    result.update_ms = median(updates);
    result.kernel_share = median(shares);
  }
  // A fused unit runs under its module's path and does the work of that module's children.
  auto macs_below = [&](const std::string& path) {
    int64_t macs = 0;
    for (const LayerSummary& l : summary.layers)
      if (l.name == path || (l.name.starts_with(path + ".") && !forward.contains(l.name))) macs += l.macs;
    return macs;
  };
  model->train(false);
  // Inference has blocks of other sizes, and does not need what training has left in the cache.
  Allocator::host().release_cache();
  std::map<std::string, std::vector<double>> inference;
  {
    NoGrad no_grad;
    const auto infer = [&] { (*model)(Variable(images)); };
    for (int64_t i = 0; i < warm_up; ++i) infer();
    const SteadyState steady(result);
    result.infer_ms = median_ms(runs, infer);
    for (int64_t i = 0; i < runs; ++i) {
      Timer timer;
      infer();
      for (const auto& [path, t] : timer.times) inference[path].push_back(t.forward);
    }
  }
  for (const std::string& path : order) {
    LayerTiming t{path.empty() ? "(loss)" : path, median(forward[path]), median(backward[path]),
                  median(inference[path]), 0};
    const double ms = t.forward_ms + t.backward_ms;
    if (!path.empty() && ms > 0)
      t.gflops = 6e-6 * static_cast<double>(macs_below(path) * batch) / ms;  // 2 flops, forward and two gradients
    result.layers.push_back(t);
  }
  result.images_per_second = 1e3 * static_cast<double>(batch) / result.train_step_ms;
  result.gflops = 6e-6 * static_cast<double>(summary.macs * batch) / result.train_step_ms;
  result.batch = batch;
  result.parameters = summary.parameters;
  result.macs = summary.macs;
  result.threads = backend_of(device).threads();
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  result.peak_rss_mb = static_cast<double>(usage.ru_maxrss) / 1024;
  return result;
}

}  // namespace mgic
