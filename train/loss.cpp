#include "train/loss.h"

#include <cmath>

#include "autograd/ops.h"
#include "data/dataset.h"

namespace mgic {
namespace {

// Beyond this many classes a confusion matrix is not kept.
constexpr int64_t most_classes = 4096;
// Of an image that is right to the last bit, instead of infinity.
constexpr double best_psnr = 100;

struct CrossEntropyOptions {
  double label_smoothing = 0;
  std::vector<double> class_weights;
  std::optional<int64_t> ignore_index;

  void fields(Fields& f) {
    f("label_smoothing", label_smoothing, "share of the target that is spread over all classes", between(0, 0.999));
    f("class_weights", class_weights, "how much each class counts, one number a class; default: all the same",
      between(0, 1e6));
    f("ignore_index", ignore_index, "label that does not count; default: 255 for the labels of pixels, else none",
      between(0, max_count));
  }
};

class CrossEntropy final : public Loss {
 public:
  CrossEntropy(const CrossEntropyOptions& o, const LossContext& c)
      : classes_(c.classes),
        pixels_(c.task == Task::segmentation),
        params_{o.label_smoothing, o.ignore_index.value_or(pixels_ ? int64_t{ignored_label} : -1)},
        weights_(o.class_weights) {
    if (c.task == Task::restoration) fail_user("cross_entropy needs classes, and the network gives images; use mse");
    const auto given = static_cast<int64_t>(weights_.size());
    if (given != 0 && given != c.classes)
      fail_user("class_weights must hold {} numbers, one a class, not {}", c.classes, given);
    if (params_.ignore_index >= 0 && params_.ignore_index < c.classes)
      fail_user("ignore_index must not be a class, 0 … {}, but is {}", c.classes - 1, params_.ignore_index);
  }

  Variable of(const Variable& logits, const Targets& targets, bool training, Tensor* rows) const override {
    if (targets.labels.shape().rank() != logits.shape().rank() - 1)
      fail_user("the network gives one class for each {}, but the data have labels of shape {}",
                pixels_ ? "pixel" : "sample", targets.labels.shape());
    const bool plain = !training || (params_.smoothing == 0 && weights_.empty());
    if (plain && params_.ignore_index < 0) return ops::cross_entropy(logits, targets.labels, rows);
    if (plain) return ops::cross_entropy(logits, targets.labels, {0, params_.ignore_index}, {}, rows);
    return ops::cross_entropy(logits, targets.labels, params_, weights(logits.value()), rows);
  }

  MetricSums sums(Device device, bool full) const override {
    const bool all = (full || pixels_ || params_.ignore_index >= 0) && classes_ <= most_classes;
    return {device, all ? MetricSums::Kind::full : MetricSums::Kind::brief, classes_};
  }

  void add(MetricSums& sums, const Tensor& rows, const Tensor& logits, const Targets& targets) const override {
    sums.add(rows, logits, targets.labels, params_.ignore_index);
  }

 private:
  Tensor weights(const Tensor& like) const {
    if (weights_.empty()) return {};
    const Tensor t = Tensor::from(weights_, {static_cast<int64_t>(weights_.size())});
    return t.to(like.dtype()).to(like.device());
  }

  int64_t classes_;
  bool pixels_;
  CrossEntropyParams params_;
  std::vector<double> weights_;
};

struct MseOptions {
  double noise = 0.1;

  void fields(Fields& f) {
    f("noise", noise, "deviation of the normal noise that the network is to remove, pixels in [0, 1]", between(0, 10));
  }
};

class MeanSquaredError final : public Loss {
 public:
  MeanSquaredError(const MseOptions& o, const LossContext& c) : noise_(o.noise), deviation_(c.deviation) {
    if (c.task != Task::restoration) fail_user("mse needs a network that gives images; use cross_entropy");
  }

  Tensor input(const Tensor& images, Rng rng) const override {
    if (noise_ == 0) return images;
    const int64_t channels = images.shape().last();
    Tensor noisy = images.clone().to(Device::cpu).to(DType::f64);
    for (int64_t i = 0; i < noisy.count(); ++i) noisy.data<double>()[i] += noise_ / scale(i % channels) * rng.normal();
    return noisy.to(images.dtype()).to(images.device());
  }

  Variable of(const Variable& output, const Targets& targets, bool, Tensor*) const override {
    if (output.shape() != targets.images.shape())
      fail_user("the network turns images of shape {} into {}; an mse needs one shape", targets.images.shape(),
                output.shape());
    return ops::mean_squared_error(output, targets.images);
  }

  MetricSums sums(Device device, bool) const override { return {device, MetricSums::Kind::image, 0}; }

  void add(MetricSums& sums, const Tensor&, const Tensor& output, const Targets& targets) const override {
    const Tensor a = output.to(Device::cpu).to(DType::f64), b = targets.images.to(Device::cpu).to(DType::f64);
    const int64_t images = a.shape()[0], each = a.count() / std::max<int64_t>(images, 1), channels = a.shape().last();
    for (int64_t n = 0; n < images; ++n) {
      double squares = 0, pixel_squares = 0;
      for (int64_t i = n * each; i < (n + 1) * each; ++i) {
        const double d = a.data<double>()[i] - b.data<double>()[i];
        squares += d * d;
        pixel_squares += d * d * scale(i % channels) * scale(i % channels);
      }
      const double mse = pixel_squares / static_cast<double>(each);
      sums.add_image(squares / static_cast<double>(each), std::min(best_psnr, -10 * std::log10(mse)));
    }
  }

 private:
  // Pixel values of one normalised unit of channel c.
  double scale(int64_t c) const {
    return static_cast<size_t>(c) < deviation_.size() ? deviation_[static_cast<size_t>(c)] : 1;
  }

  double noise_;
  std::vector<double> deviation_;
};

}  // namespace

LossRegistry& loss_registry() {
  using Made = std::unique_ptr<Loss>;
  static LossRegistry registry = [] {
    LossRegistry r("loss");
    r.add(
        "cross_entropy", "of classes, for each sample or each pixel",
        +[](const CrossEntropyOptions& o, const LossContext& c) -> Made {
          return std::make_unique<CrossEntropy>(o, c);
        });
    r.add(
        "mse", "mean squared error of images, from noisy to clean",
        +[](const MseOptions& o, const LossContext& c) -> Made { return std::make_unique<MeanSquaredError>(o, c); });
    return r;
  }();
  return registry;
}

std::unique_ptr<Loss> make_loss(const LossSpec& spec, const ModelSpec& model, const std::vector<double>& deviation) {
  const LossContext context{task_of(model), model_classes(model), deviation};
  if (spec.make != nullptr) return spec.make(context);
  const char* usual = context.task == Task::restoration ? R"({"type": "mse"})" : R"({"type": "cross_entropy"})";
  return loss_registry().parse(usual).make(context);
}

Rng noise_stream(uint64_t seed, bool training, uint64_t step) {
  const std::string_view name = training ? "noise of training" : "noise of evaluation";
  return {seed, Purpose::dropout, step, hash_name(name.data(), name.size())};
}

}  // namespace mgic
