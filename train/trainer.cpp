#include "train/trainer.h"

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "autograd/ops.h"
#include "core/log.h"
#include "layers/dropout.h"
#include "layers/state.h"
#include "train/evaluate.h"
#include "train/interrupt.h"
#include "train/progress.h"

namespace mgic {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

bool all_finite(const Tensor& t) {
  Tensor host = t.to(Device::cpu);
  if (!is_float(host.dtype())) return true;
  if (host.dtype() == DType::bf16) host = host.to(DType::f32);
  return visit_f32_f64(host.dtype(), "all_finite", [&](auto zero) {
    for (const auto v : host.span<decltype(zero)>())
      if (!std::isfinite(v)) return false;
    return true;
  });
}

class FiniteSearch final : public Recorder {
 public:
  FiniteSearch() : Recorder(true) {}
  void operation(const Operation& op) override {
    if (found.empty() && !all_finite(op.output)) found = fmt::format("{} ({})", op.path, op.name);
  }
  std::string found;
};

// The state of one training: what a checkpoint holds, and the objects that it belongs to.
class Training {
 public:
  Training(const Experiment& experiment, const DataSource& data, RunFolder& folder)
      : options_(experiment.options),
        file_(experiment.file),
        device_(choose_device(options_.device)),
        seed_(static_cast<uint64_t>(options_.seed)),
        folder_(folder),
        train_loader_(*data.train, training_loader(options_.data, seed_), data.normalization),
        test_loader_(*data.test, evaluation_loader(options_.data), data.normalization),
        validation_loader_(data.validation ? std::make_unique<DataLoader>(
                                                 *data.validation, evaluation_loader(options_.data), data.normalization)
                                           : nullptr),
        task_(task_of(options_.model)),
        loss_(make_loss(options_.loss, options_.model, data.normalization.deviation)),
        sums_(loss_->sums(device_, false)) {
    model_ = build_model(experiment, sample_shape(options_.model, data.train->shape()));
    model_->to(device_, DType::f32);
    model_->initialize(seed_);
    optimizer_ = options_.optimizer.make({*model_});
    const ScheduleContext context{train_loader_.batches(), total_steps()};
    schedule_ = options_.schedule.make ? options_.schedule.make(context)
                                       : schedule_registry().parse(R"({"type": "constant"})").make(context);
  }

  int64_t total_steps() const { return options_.train.epochs * train_loader_.batches(); }

  void restore(const Checkpoint& c) {
    load_state(*model_, c.model, "the checkpoint");
    optimizer_->each_state([&](const std::string& name, Tensor& state) {
      auto it = c.optimizer.find(name);
      if (it == c.optimizer.end() || it->second.shape() != state.shape())
        fail_user("the checkpoint: the optimizer's {} is missing or misshaped", name);
      state.copy_from(it->second.to(device_));
    });
    optimizer_->set_steps(c.step);
    sums_.tensor().copy_from(c.sums.to(device_));
    epoch_ = c.epoch;
    batch_ = c.batch;
    best_ = c.best;
    folder_.cut_metrics(c.metrics_bytes);
  }

  TrainOutcome run() {
    InterruptScope interrupt;
    Progress progress(total_steps(), optimizer_->steps(), options_.train.log_seconds);
    progress_ = &progress;
    TrainOutcome outcome;
    outcome.task = task_;
    outcome.folder = folder_.path();
    last_save_ = Clock::now();
    for (; epoch_ < options_.train.epochs; ++epoch_, batch_ = 0) {
      if (!train_epoch(interrupt)) {
        save(false);
        progress.finish();
        outcome.interrupted = true;
        return outcome;
      }
      outcome.test_score = end_epoch();
    }
    progress.finish();
    outcome.best_score = best_;
    return outcome;
  }

 private:
  // False: interrupted behind a whole step.
  bool train_epoch(const InterruptScope& interrupt) {
    const int64_t steps = train_loader_.batches();
    const int64_t first = batch_;
    epoch_start_ = Clock::now();
    seconds_ = 0;
    train_loader_.start(epoch_, first);
    Batch batch;
    while (batch_ < steps) {
      if (interrupt.requested()) return false;
      check(train_loader_.next(batch), "the loader ended an epoch early");
      step(batch);
      ++batch_;
      const double rate =
          static_cast<double>((batch_ - first) * options_.data.batch_size) / seconds_since(epoch_start_);
      if (progress_->due(optimizer_->steps())) {
        const Metrics metrics = sums_.read();
        require_finite(metrics, batch);
        progress_->show(epoch_ + 1, options_.train.epochs, batch_, steps, optimizer_->steps(), metrics, task_, rate);
      }
      // One that is due at an epoch's last step is written behind its evaluation.
      if (batch_ < steps && checkpoint_due()) {
        require_finite(sums_.read(), batch);
        save(false);
      }
    }
    require_finite(sums_.read(), batch);
    seconds_ = seconds_since(epoch_start_);
    images_ = (steps - first) * options_.data.batch_size;
    return true;
  }

  Placing placing() const { return {device_, options_.train.dtype()}; }

  void step(const Batch& batch) {
    const RandomStep random(seed_, static_cast<uint64_t>(optimizer_->steps()));
    const Targets targets{batch.images.to(device_), batch.labels.to(device_),
                          batch.mixed_labels.defined() ? batch.mixed_labels.to(device_) : Tensor(), batch.mix};
    const Rng noise = noise_stream(seed_, true, static_cast<uint64_t>(optimizer_->steps()));
    const Tensor input = in_precision(loss_->input(targets.images, noise), placing());
    const StepResult result = forward_backward(*model_, *loss_, input, targets);
    loss_->add(sums_, result.losses, result.logits.value(), targets);
    lr_ = optimizer_->base_lr() * schedule_->factor(optimizer_->steps());
    optimizer_->step(lr_);
  }

  // Evaluates, writes the metrics lines and the checkpoint that is due; returns the test score.
  double end_epoch() {
    const Metrics train = sums_.read();
    write_metrics("train", train, images_, seconds_);
    std::string text =
        fmt::format("epoch {}/{}  train: loss {:.4f}, {}, {:.1f} s, {:.0f} images/s", epoch_ + 1, options_.train.epochs,
                    train.loss, train.text(task_), seconds_, static_cast<double>(images_) / seconds_);
    auto evaluated = [&](const char* split, DataLoader& loader) {
      const auto start = Clock::now();
      const Metrics m = evaluate(*model_, *loss_, loader, placing(), seed_, false, options_.evaluation);
      write_metrics(split, m, m.samples, seconds_since(start));
      text += fmt::format("  {}: loss {:.4f}, {}", split, m.loss, m.text(task_));
      return m.score(task_);
    };
    const double validated = validation_loader_ ? evaluated("validation", *validation_loader_) : 0;
    const double tested = evaluated("test", test_loader_);
    const double accuracy = validation_loader_ ? validated : tested;
    say(text);
    sums_.reset();
    const bool better = accuracy > best_;
    if (better) best_ = accuracy;
    const bool last = epoch_ + 1 == options_.train.epochs;
    ++epoch_, batch_ = 0;  // the checkpoint says where to go on
    if (last || better || checkpoint_due()) save(better, last);
    --epoch_, batch_ = train_loader_.batches();
    return tested;
  }

  void write_metrics(const char* split, const Metrics& m, int64_t images, double seconds) {
    Json line{{"epoch", epoch_ + 1}, {"split", split}, {"loss", m.loss}};
    if (task_ == Task::segmentation) line["miou"] = m.mean_iou();
    if (task_ == Task::restoration)
      line["psnr"] = m.psnr;
    else
      line["accuracy"] = m.accuracy;
    line["lr"] = lr_;
    line["images_per_second"] = static_cast<double>(images) / seconds;
    line["seconds"] = seconds;
    folder_.append_metrics(line.dump());
  }

  bool checkpoint_due() const {
    const CheckpointEvery& every = options_.train.checkpoint_every;
    if (every.steps) return optimizer_->steps() % *every.steps == 0;
    if (every.minutes > 0) return seconds_since(last_save_) >= 60 * every.minutes;
    return batch_ == 0 && epoch_ % every.epochs.value_or(1) == 0;
  }

  void save(bool is_best, bool finished = false) {
    Checkpoint c;
    c.model = state_of(*model_);
    for (const auto& [name, tensor] : c.model)
      if (!all_finite(tensor))
        fail_user("{}: {} is no longer finite after step {}; the checkpoint before stays; try a smaller optimizer.lr",
                  file_, name, optimizer_->steps());
    optimizer_->each_state([&](const std::string& name, Tensor& state) { c.optimizer[name] = state.to(Device::cpu); });
    c.sums = sums_.tensor().to(Device::cpu);
    c.step = optimizer_->steps();
    c.epoch = epoch_;
    c.batch = batch_;
    c.best = best_;
    c.metrics_bytes = folder_.metrics_bytes();
    c.finished = finished;
    const auto start = Clock::now();
    folder_.save(c, is_best);
    last_save_ = Clock::now();
    log(LogLevel::debug, "checkpoint of step {} written in {:.0f} ms", c.step, 1e3 * seconds_since(start));
  }

  void require_finite(const Metrics& metrics, const Batch& batch) {
    if (std::isfinite(metrics.loss)) return;
    progress_->finish();
    const std::string where = first_not_finite(*model_, in_precision(batch.images, placing()));
    fail_user(
        "{}: the loss is no longer finite at step {} (epoch {}){}; the last good checkpoint stays; try a smaller "
        "optimizer.lr or a longer schedule.warmup_epochs",
        file_, optimizer_->steps(), epoch_ + 1,
        where.empty() ? "" : fmt::format(": the first output that is not finite is that of {}", where));
  }

  void say(const std::string& line) {
    progress_->line(line);
    folder_.log(line);
  }

  const ExperimentOptions& options_;
  std::string file_;
  Device device_;
  uint64_t seed_;
  RunFolder& folder_;
  DataLoader train_loader_, test_loader_;
  std::unique_ptr<DataLoader> validation_loader_;  // null: the best checkpoint is chosen on the test part
  std::unique_ptr<Module> model_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Schedule> schedule_;
  Task task_;
  std::unique_ptr<Loss> loss_;
  MetricSums sums_;
  Progress* progress_ = nullptr;

  int64_t epoch_ = 0, batch_ = 0;  // the next batch to train on
  double best_ = -1e3, lr_ = 0;    // below every score, PSNR too
  double seconds_ = 0;             // of the epoch's training, as far as this process did it
  int64_t images_ = 0;             // and its images
  Clock::time_point epoch_start_, last_save_;
};

}  // namespace

StepResult forward_backward(Module& model, const Loss& loss, const Tensor& input, const Targets& targets) {
  StepResult result;
  result.logits = ops::full_precision(model(Variable(input)));
  auto of = [&](const Variable& logits, Tensor* rows) {
    const Variable plain = loss.of(logits, targets, true, rows);
    if (!targets.mixed_labels.defined()) return plain;
    const Variable mixed = loss.of(logits, {targets.images, targets.mixed_labels}, true, nullptr);
    return ops::add(ops::scale(plain, targets.mix), ops::scale(mixed, 1 - targets.mix));
  };
  result.loss = of(result.logits, &result.losses);
  if (auto* extra = dynamic_cast<ExtraLoss*>(&model)) {
    const Variable term =
        extra->extra_loss([&](const Variable& logits) { return of(ops::full_precision(logits), nullptr); });
    if (term.defined()) result.loss = ops::add(result.loss, term);
  }
  backward(result.loss);
  return result;
}

std::unique_ptr<DataSource> open_and_check(const Experiment& experiment) {
  std::unique_ptr<DataSource> data;
  try {
    data = open_data(experiment.options.data, static_cast<uint64_t>(experiment.options.seed));
  } catch (const UserError& e) {
    fail_user("{}: data: {}", experiment.file, e.what());
  }
  Faults faults;
  check_data(experiment.options.data, *data, faults);
  if (experiment.options.model.make != nullptr) {
    const ModelSpec& model = experiment.options.model;
    check_against_data(experiment, data->train->shape(), data->train->classes(), faults);
    if (task_of(model) != Task::restoration && segments(model) != data->train->segmentation())
      faults.add("model.type", fmt::format("{} gives a class for each {}, but the data set {} has a label for each {}",
                                           model.type, segments(model) ? "pixel" : "sample",
                                           experiment.options.data.source.type, segments(model) ? "sample" : "pixel"));
  }
  faults.raise(experiment.file);
  return data;
}

Tensor random_labels(const ModelSpec& model, const Shape& batch, Rng& rng) {
  const Shape shape = segments(model) ? Shape{batch[0], batch[1], batch[2]} : Shape{batch[0]};
  Tensor labels = Tensor::zeros(shape, DType::i64, Device::cpu);
  if (const int64_t classes = model_classes(model); classes > 0)
    for (int64_t& v : labels.span<int64_t>()) v = rng.below(classes);
  return labels;
}

std::string first_not_finite(Module& model, const Tensor& images) {
  NoGrad no_grad;
  const bool training = model.training();
  model.train(false);  // leaves the running statistics alone
  FiniteSearch search;
  model(Variable(images));
  model.train(training);
  return search.found;
}

TrainOutcome train(const Experiment& experiment, const TrainRequest& request) {
  const auto data = open_and_check(experiment);
  const std::filesystem::path out =
      request.out.empty() ? std::filesystem::path("runs") / experiment.options.name : request.out;
  RunFolder folder(out, *experiment.resolved, request.resume);
  Training training(experiment, *data, folder);
  if (folder.resumed()) {
    std::vector<std::string> warnings;
    const auto checkpoint = RunFolder::load_last(out, warnings);
    for (const std::string& w : warnings) log(LogLevel::warning, "{}", w);
    if (checkpoint && checkpoint->finished) {
      TrainOutcome outcome;
      outcome.task = task_of(experiment.options.model);
      outcome.was_finished = true;
      outcome.folder = out;
      outcome.best_score = checkpoint->best;
      return outcome;
    }
    if (checkpoint)
      training.restore(*checkpoint);
    else
      folder.cut_metrics(0);  // killed before its first checkpoint: from the beginning
  }
  return training.run();
}

}  // namespace mgic
