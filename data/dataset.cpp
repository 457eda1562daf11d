#include "data/dataset.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "data/cifar.h"
#include "data/fashion_mnist.h"
#include "data/fashion_scenes.h"
#include "data/idx.h"
#include "data/image_folder.h"
#include "data/modelnet.h"
#include "data/random_images.h"
#include "data/segmentation_folder.h"
#include "data/shapes.h"
#include "data/solids.h"

namespace mgic {
namespace {

// The first samples of another data set.
class FirstSamples : public Dataset {
 public:
  FirstSamples(std::unique_ptr<Dataset> whole, int64_t limit)
      : whole_(std::move(whole)), size_(std::min(limit, whole_->size())) {}

  int64_t size() const override { return size_; }
  SampleShape shape() const override { return whole_->shape(); }
  int64_t classes() const override { return whole_->classes(); }
  std::vector<std::string> class_names() const override { return whole_->class_names(); }
  bool segmentation() const override { return whole_->segmentation(); }
  void get(int64_t index, Sample& sample) const override {
    check(index < size_, "sample {} was asked for, but the data set is limited to {}", index, size_);
    whole_->get(index, sample);
  }

 private:
  std::unique_ptr<Dataset> whole_;
  int64_t size_;
};

}  // namespace

std::string SampleShape::str() const {
  return points ? fmt::format("{} points of {} values", height, channels)
                : fmt::format("{}x{}x{}", channels, height, width);
}

std::vector<std::string> Dataset::class_names() const {
  std::vector<std::string> names;
  for (int64_t i = 0; i < classes(); ++i) names.push_back(std::to_string(i));
  return names;
}

void LimitOptions::apply(DataSource& source) const {
  if (train_limit) source.train = std::make_unique<FirstSamples>(std::move(source.train), *train_limit);
  if (test_limit) source.test = std::make_unique<FirstSamples>(std::move(source.test), *test_limit);
}

DataRegistry& data_registry() {
  // Registered here and not by static constructors, which a static link drops.
  static DataRegistry registry = [] {
    DataRegistry r("data set");
    register_idx(r);
    register_fashion_mnist(r);
    register_cifar(r);
    register_image_folder(r);
    register_segmentation_folders(r);
    register_modelnet(r);
    register_shapes(r);
    register_random_images(r);
    register_fashion_scenes(r);
    register_solids(r);
    return r;
  }();
  return registry;
}

std::optional<DeclaredData> declared_data(const DataSpec& spec) {
  if (spec.type == "fashion_mnist") return DeclaredData{fashion_mnist_shape, fashion_mnist_classes};
  if (spec.options == nullptr) return {};
  const Json& options = *spec.options;
  if (spec.type == "shapes" || spec.type == "fashion_scenes") {
    const int64_t side = options.at("image_size");
    const int64_t classes = spec.type == "shapes" ? options.at("classes").get<int64_t>() : fashion_mnist_classes + 1;
    return DeclaredData{{options.at("channels"), side, side}, classes};
  }
  if (spec.type == "cifar10") return DeclaredData{{3, 32, 32}, 10};
  if (spec.type == "cifar100") return DeclaredData{{3, 32, 32}, options.at("coarse").get<bool>() ? 20 : 100};
  if (spec.type == "image_folder") {
    const int64_t side = options.at("image_size"), classes = option_or(spec.options, "classes", 0);
    if (classes == 0) return {};  // only the folders know
    return DeclaredData{{3, side, side}, classes};
  }
  if (spec.type == "cityscapes" || spec.type == "camvid" || spec.type == "segmentation_folder") {
    auto hw = options.at("crop_size").get<std::vector<int64_t>>();
    if (hw.empty()) hw = options.at("image_size").get<std::vector<int64_t>>();
    if (hw.size() != 2) return {};  // a fault that the reader has reported
    return DeclaredData{{3, hw[0], hw[1]}, option_or(spec.options, "classes", 19)};
  }
  if (spec.type == "modelnet10" || spec.type == "modelnet40")
    return DeclaredData{{3, options.at("points"), 1, true}, spec.type == "modelnet10" ? 10 : 40};
  if (spec.type == "solids") return DeclaredData{{3, options.at("points"), 1, true}, options.at("classes")};
  if (spec.type == "random") {
    const auto chw = options.at("shape").get<std::vector<int64_t>>();
    if (chw.size() != 3) return {};  // a fault that the reader has reported
    return DeclaredData{{chw[0], chw[1], chw[2]}, options.at("classes")};
  }
  return {};
}

}  // namespace mgic
