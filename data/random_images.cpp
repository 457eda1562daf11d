#include "data/random_images.h"

#include <algorithm>
#include <cstring>

#include "core/rng.h"

namespace mgic {
namespace {

class RandomImages : public Dataset {
 public:
  RandomImages(const RandomImagesOptions& options, uint64_t seed, uint64_t split)
      : shape_{options.shape[0], options.shape[1], options.shape[2]},
        classes_(options.classes),
        size_(options.size),
        seed_(seed),
        split_(split) {}

  int64_t size() const override { return size_; }
  SampleShape shape() const override { return shape_; }
  int64_t classes() const override { return classes_; }

  void get(int64_t index, Sample& sample) const override {
    check(index >= 0 && index < size_, "sample {} was asked for, but the data set has {}", index, size_);
    Rng rng(seed_, Purpose::data, split_, static_cast<uint64_t>(index));
    sample.label = rng.below(classes_);
    auto& pixels = sample.resize<uint8_t>(shape_.count());
    for (size_t i = 0; i < pixels.size(); i += 4) {
      const uint32_t four = rng.bits();
      std::memcpy(pixels.data() + i, &four, std::min<size_t>(4, pixels.size() - i));
    }
  }

 private:
  SampleShape shape_;
  int64_t classes_, size_;
  uint64_t seed_, split_;
};

}  // namespace

void register_random_images(DataRegistry& registry) {
  registry.add<RandomImagesOptions>(
      "random", "noise and random labels, for benchmarks; needs no files",
      [](const RandomImagesOptions& options, const DataContext& context) {
        auto source = std::make_unique<DataSource>();
        source->train = std::make_unique<RandomImages>(options, context.seed, 0);
        source->test = std::make_unique<RandomImages>(options, context.seed, 1);
        const auto channels = static_cast<size_t>(options.shape[0]);
        source->normalization = {std::vector<double>(channels, 0.5), std::vector<double>(channels, 0.29)};  // 1 / √12
        options.limits.apply(*source);
        return source;
      });
}

}  // namespace mgic
