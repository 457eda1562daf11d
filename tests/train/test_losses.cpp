// Losses and metrics: formulas by hand, exactness of evaluation, extra losses, what does not fit.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>

#include "autograd/ops.h"
#include "layers/simple.h"
#include "models/model.h"
#include "train/dry_run.h"
#include "train/evaluate.h"
#include "train/trainer.h"

using namespace mgic;

namespace {

constexpr const char* classifier = R"({"type": "resnet", "channels": [4], "blocks": [1], "strides": [1], "classes": 3,
                                       "in_channels": 1, "block": {"type": "basic"}})";
constexpr const char* segmenter = R"({"type": "lraspp", "classes": 3, "in_channels": 1, "backbone": {"type": "resnet",
                                      "channels": [4], "blocks": [1], "strides": [1], "block": {"type": "basic"}}})";
constexpr const char* denoiser = R"({"type": "autoencoder", "channels": [4, 6], "block": {"type": "basic"}})";

std::unique_ptr<Loss> loss_of(const char* loss, const char* model, const std::vector<double>& deviation = {}) {
  return make_loss(loss == nullptr ? LossSpec() : loss_registry().parse(loss), model_registry().parse(model),
                   deviation);
}

std::string message(const char* loss, const char* model) {
  try {
    loss_of(loss, model);
  } catch (const UserError& e) {
    return e.what();
  }
  return "";
}

// Puts out its input: what a data set holds are its logits.
class Identity final : public Module {
 public:
  Identity() : Module("identity") {}

 protected:
  Variable forward(const Variable& x) override {
    return x.shape().rank() == 4 && x.shape()[1] == 1 ? ops::reshape(x, {x.shape()[0], x.shape()[3]}) : x;
  }
};

// Seven samples of three logits, so that a batch of four leaves a partial one.
class Logits final : public Dataset {
 public:
  static constexpr float values[7][3] = {{3, 1, 0}, {0, 2, 1}, {1, 0, 5}, {2, 1, 0}, {0, 1, 4}, {5, 0, 0}, {0, 0, 1}};
  static constexpr int64_t truth[7] = {0, 1, 2, 1, 1, 0, 2};
  int64_t size() const override { return 7; }
  SampleShape shape() const override { return {3, 1, 1}; }
  int64_t classes() const override { return 3; }
  void get(int64_t index, Sample& sample) const override {
    auto& pixels = sample.resize<float>(3);
    std::copy(values[index], values[index] + 3, pixels.begin());
    sample.label = truth[index];
  }
};

}  // namespace

TEST_CASE("the task of a model, and the loss that it gets by default") {
  CHECK(task_of(model_registry().parse(classifier)) == Task::classification);
  CHECK(task_of(model_registry().parse(segmenter)) == Task::segmentation);
  CHECK(task_of(model_registry().parse(denoiser)) == Task::restoration);
  CHECK(message(R"({"type": "mse"})", classifier).find("mse needs a network that gives images") == 0);
  CHECK(message(R"({"type": "cross_entropy"})", denoiser).find("cross_entropy needs classes") == 0);
  CHECK(message(R"({"type": "cross_entropy", "class_weights": [1, 2]})", classifier) ==
        "class_weights must hold 3 numbers, one a class, not 2");
  CHECK(message(R"({"type": "cross_entropy", "ignore_index": 2})", classifier).find("must not be a class") !=
        std::string::npos);
  CHECK(message(R"({"type": "cross_entropy", "class_weights": [1, "a", -1]})", classifier) != "");
  CHECK(message(R"({"type": "cross_entropy", "label_smoothing": 1})", classifier).find("at most 0.999") !=
        std::string::npos);
}

TEST_CASE("evaluation is exact: the last partial batch counts, whatever the batch size") {
  const Logits data;
  double loss = 0;
  int64_t right = 0;
  for (int64_t n = 0; n < 7; ++n) {
    double sum = 0;
    for (float v : Logits::values[n]) sum += std::exp(static_cast<double>(v));
    loss += std::log(sum) - Logits::values[n][Logits::truth[n]];
    right += std::max_element(Logits::values[n], Logits::values[n] + 3) - Logits::values[n] == Logits::truth[n];
  }
  Identity model;
  for (Device device : {Device::cpu, Device::reference})
    for (int64_t batch : {1, 3, 4, 7, 100}) {
      DataLoader loader(data, {.batch_size = batch, .augment = {}, .threads = 0}, {{0, 0, 0}, {1, 1, 1}});
      const auto smooth = loss_of(R"({"type": "cross_entropy", "label_smoothing": 0.1})", classifier);
      const Metrics m = evaluate(model, *smooth, loader, {device}, 0, true);
      CHECK(m.samples == 7);
      CHECK(m.loss == doctest::Approx(loss / 7).epsilon(1e-6));  // f32 losses; without the smoothing
      CHECK(m.accuracy == doctest::Approx(static_cast<double>(right) / 7));
      CHECK(m.top5 == doctest::Approx(1));
      // Class 0: 2 of 2; class 1: 1 of 3; class 2: 2 of 2.
      CHECK(m.mean_class_accuracy() == doctest::Approx((1 + 1.0 / 3 + 1) / 3));
      CHECK(m.confusion == std::vector<std::vector<int64_t>>{{2, 0, 0}, {1, 1, 1}, {0, 0, 2}});
      CHECK(*m.iou(0) == doctest::Approx(2.0 / 3));
      CHECK(*m.iou(1) == doctest::Approx(1.0 / 3));
      CHECK(*m.iou(2) == doctest::Approx(2.0 / 3));
      CHECK(m.mean_iou() == doctest::Approx(5.0 / 9));
      const Metrics brief = evaluate(model, *smooth, loader, {device}, 0, false);
      CHECK(brief.accuracy == doctest::Approx(m.accuracy));
      CHECK(brief.loss == doctest::Approx(m.loss));
      CHECK(brief.confusion.empty());
    }
}

TEST_CASE("mean class accuracy and mIoU leave out classes that do not occur") {
  Metrics m;
  m.confusion = {{3, 1, 0, 0}, {0, 0, 0, 0}, {0, 0, 4, 0}, {0, 0, 0, 0}};
  CHECK(m.mean_class_accuracy() == doctest::Approx((0.75 + 1) / 2));
  CHECK(m.iou(1) == 0);          // predicted, though it never occurs
  CHECK(!m.iou(3).has_value());  // neither
  CHECK(m.mean_iou() == doctest::Approx((0.75 + 0 + 1) / 3));
}

TEST_CASE("segmentation: ignored pixels count nowhere") {
  const auto loss = loss_of(nullptr, segmenter);
  const Tensor logits = Tensor::from(std::vector<float>{5, 0, 0, 0, 5, 0, 0, 0, 5, 5, 0, 0}, {1, 2, 2, 3});
  const Targets targets{Tensor::zeros({1, 2, 2, 1}, DType::f32, Device::cpu),
                        Tensor::from(std::vector<int64_t>{0, 255, 1, 0}, {1, 2, 2})};
  Tensor rows;
  const double e = std::exp(5.0), hit = std::log(e + 2) - 5, miss = std::log(e + 2);
  CHECK(loss->of(Variable(logits), targets, true, &rows).value().item() ==
        doctest::Approx((2 * hit + miss) / 3).epsilon(1e-6));
  MetricSums sums = loss->sums(Device::cpu, false);
  loss->add(sums, rows, logits, targets);
  const Metrics m = sums.read();
  CHECK(m.samples == 3);
  CHECK(m.accuracy == doctest::Approx(2.0 / 3));
  CHECK(m.loss == doctest::Approx((2 * hit + miss) / 3).epsilon(1e-6));
  CHECK(m.mean_iou() == doctest::Approx((1 + 0 + 0) / 3.0));
  CHECK_THROWS_WITH_AS(
      loss->of(Variable(logits), {targets.images, Tensor::zeros({1}, DType::i64, Device::cpu)}, true, nullptr),
      doctest::Contains("one class for each pixel, but the data have labels of shape (1)"), UserError);
}

TEST_CASE("restoration: PSNR in pixel values, and noise of the deviation asked for") {
  // One unit of channel 0 is 0.5 of a pixel's range, of channel 1 it is 0.25.
  const auto loss = loss_of(R"({"type": "mse", "noise": 0.2})", denoiser, {0.5, 0.25});
  Tensor clean = Tensor::zeros({2, 1, 1, 2}, DType::f32, Device::cpu);
  Tensor output = Tensor::from(std::vector<float>{0.2F, 0.4F, 0.2F, 0}, {2, 1, 1, 2});
  MetricSums sums = loss->sums(Device::cpu, true);
  loss->add(sums, {}, output, {clean, {}});
  const double first = -10 * std::log10((0.01 + 0.01) / 2), second = -10 * std::log10(0.01 / 2);
  CHECK(sums.read().psnr == doctest::Approx((first + second) / 2).epsilon(1e-6));
  CHECK(sums.read().samples == 2);
  CHECK(sums.read().loss == doctest::Approx((0.2 * 0.2 + 0.4 * 0.4 + 0.2 * 0.2) / 4).epsilon(1e-6));

  const Tensor images = Tensor::zeros({16, 16, 16, 2}, DType::f32, Device::cpu);
  const Tensor noisy = loss->input(images, noise_stream(1, true, 3));
  double squares[2] = {0, 0};
  for (int64_t i = 0; i < noisy.count(); ++i) squares[i % 2] += std::pow(noisy.data<float>()[i], 2);
  CHECK(std::sqrt(squares[0] / 4096) == doctest::Approx(0.4).epsilon(0.05));  // 0.2 over 0.5; 4096 draws
  CHECK(std::sqrt(squares[1] / 4096) == doctest::Approx(0.8).epsilon(0.05));
  const auto same = [&](const Tensor& t) { return std::ranges::equal(t.span<float>(), noisy.span<float>()); };
  CHECK(same(loss->input(images, noise_stream(1, true, 3))));
  CHECK(!same(loss->input(images, noise_stream(1, true, 4))));
  CHECK(!same(loss->input(images, noise_stream(1, false, 3))));
  CHECK(!same(loss->input(images, noise_stream(2, true, 3))));
}

TEST_CASE("mixed labels: the loss is the mixture of two") {
  const auto model = model_registry().parse(classifier).make({4, 4});
  model->to(Device::reference, DType::f64);
  model->initialize(1);
  const auto loss = loss_of(nullptr, classifier);
  Tensor images = Tensor::empty({3, 4, 4, 1}, DType::f64, Device::reference);
  Rng rng(1, Purpose::test);
  for (double& v : images.span<double>()) v = rng.normal();
  const Tensor a = Tensor::from(std::vector<int64_t>{0, 1, 2}, {3}, Device::reference),
               b = Tensor::from(std::vector<int64_t>{2, 2, 0}, {3}, Device::reference);
  const auto value = [&](const Targets& t) { return forward_backward(*model, *loss, images, t).loss.value().item(); };
  const double la = value({images, a}), lb = value({images, b});
  CHECK(value({images, a, b, 0.3}) == doctest::Approx(0.3 * la + 0.7 * lb).epsilon(1e-12));
}

TEST_CASE("a training step adds the model's extra loss") {
  const auto model = model_registry()
                         .parse(R"({"type": "deeplabv3", "classes": 3, "in_channels": 1, "rates": [1],
                                    "auxiliary": true, "auxiliary_weight": 0.5, "backbone": {"type": "resnet",
                                    "channels": [4, 4], "blocks": [1, 1], "strides": [1, 1],
                                    "block": {"type": "basic"}}})")
                         .make({6, 6});
  model->to(Device::cpu, DType::f32);
  model->initialize(1);
  const auto loss = loss_of(nullptr, segmenter);
  Tensor images = Tensor::empty({2, 6, 6, 1}, DType::f32, Device::cpu);
  Rng rng(1, Purpose::test);
  for (float& v : images.span<float>()) v = static_cast<float>(rng.normal());
  const Tensor labels = random_labels(model_registry().parse(segmenter), images.shape(), rng);
  CHECK(labels.shape() == Shape{2, 6, 6});
  const StepResult r = forward_backward(*model, *loss, images, {images, labels});
  double mean = 0;
  for (float v : r.losses.span<float>()) mean += v;
  mean /= static_cast<double>(r.losses.count());
  CHECK(r.loss.value().item() > mean + 0.1);  // the auxiliary head's untrained loss, about log 3, halved
  model->each_parameter([&](const std::string& name, Variable& p) { CHECK_MESSAGE(p.gradient().defined(), name); });
}

TEST_CASE("a dry run needs no data, and says what a step costs") {
  const auto run = [](const std::string& model, const std::string& data) {
    return dry_run(parse_experiment(fmt::format(R"({{"model": {}, "data": {},
                                        "optimizer": {{"type": "sgd", "lr": 0.01}}}})",
                                                model, data),
                                    "test.json", {}, {.data = true, .optimizer = true}),
                   Device::cpu);
  };
  const DryRun a = run(
      R"({"type": "resnet", "in_channels": 1, "channels": [8], "blocks": [1], "strides": [1], "block": {"type": "basic"}})",
      R"({"type": "fashion_mnist", "batch_size": 4})");
  CHECK(a.batch == Shape{4, 28, 28, 1});
  CHECK(a.output == Shape{4, 10});
  CHECK(a.summary.parameters == 9 * 8 + 16 + 2 * (9 * 64 + 16) + 90);
  CHECK(std::isfinite(a.loss));
  CHECK(a.step_ms > 0);
  CHECK(a.activations_mb > 4.0 * 28 * 28 * 8 * 4 / 1024 / 1024);
  CHECK_THROWS_WITH_AS(run(R"({"type": "resnet", "in_channels": 1, "block": {"type": "basic"}})",
                           R"({"type": "fashion_mnist", "batch_size": 1000000})"),
                       doctest::Contains("try --set data.batch_size="), UserError);
}

TEST_CASE("a configuration's loss is checked with everything else") {
  CHECK_THROWS_WITH_AS(parse_experiment(fmt::format(R"({{"model": {}, "loss": {{"type": "cross_entropy",
                                        "class_weights": [1]}}}})",
                                                    classifier),
                                        "test.json", {}, {}),
                       doctest::Contains("test.json: loss: class_weights must hold 3 numbers"), UserError);
  CHECK_THROWS_WITH_AS(
      parse_experiment(fmt::format(R"({{"model": {}, "loss": {{"type": "cross_entropi"}}}})", classifier), "test.json",
                       {}, {}),
      doctest::Contains("test.json: loss"), UserError);
}
