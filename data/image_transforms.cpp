#include "data/image_transforms.h"

#include <algorithm>
#include <cmath>

namespace mgic {
namespace {

class RandomResizedCrop : public Transform {
 public:
  RandomResizedCrop(const RandomResizedCropOptions& options, const SampleShape& target)
      : options_(options), target_(target) {}

  void apply(Image& image, Rng& rng) const override {
    const auto height = static_cast<double>(image.shape.height), width = static_cast<double>(image.shape.width);
    for (int attempt = 0; attempt < 10; ++attempt) {
      const double area = rng.uniform(options_.min_area, options_.max_area) * height * width;
      const double bound = std::log(options_.max_aspect), aspect = std::exp(rng.uniform(-bound, bound));
      const double w = std::sqrt(area * aspect), h = std::sqrt(area / aspect);
      if (w > width || h > height || w < 1 || h < 1) continue;
      const double top = rng.uniform(0, height - h), left = rng.uniform(0, width - w);
      return image.cut({top, left, h, w}, target_.height, target_.width);
    }
    image.sample.centre = 1;  // nothing fitted: the largest box of the batch's proportions
    image.fit(target_);
  }

 private:
  RandomResizedCropOptions options_;
  SampleShape target_;
};

class CenterCrop : public Transform {
 public:
  CenterCrop(const CenterCropOptions& options, const SampleShape& target) : keep_(options.keep), target_(target) {}

  void apply(Image& image, Rng&) const override {
    const auto height = static_cast<double>(image.shape.height), width = static_cast<double>(image.shape.width);
    const auto to_height = static_cast<double>(target_.height), to_width = static_cast<double>(target_.width);
    const double scale = keep_ * std::min(height / to_height, width / to_width);
    const double h = to_height * scale, w = to_width * scale;
    image.cut({(height - h) / 2, (width - w) / 2, h, w}, target_.height, target_.width);
  }

 private:
  double keep_;
  SampleShape target_;
};

class RandomScaleCrop : public Transform {
 public:
  RandomScaleCrop(const RandomScaleCropOptions& options, const SampleShape& target)
      : options_(options), target_(target) {}

  void apply(Image& image, Rng& rng) const override {
    const double scale = rng.uniform(options_.min_scale, options_.max_scale);
    const Span rows = draw(image.shape.height, target_.height, scale, rng);
    const Span columns = draw(image.shape.width, target_.width, scale, rng);
    image.cut({rows.from, columns.from, rows.length, columns.length}, rows.count, columns.count);
    image.pad(target_.height, target_.width, rows.to, columns.to);
  }

 private:
  // One axis: the source pixels [from, from + length) become the `count` pixels of the window from `to` on.
  struct Span {
    double from = 0, length = 0;
    int64_t to = 0, count = 0;
  };
  static Span draw(int64_t size, int64_t window, double scale, Rng& rng) {
    const auto scaled = std::max<int64_t>(1, std::llround(static_cast<double>(size) * scale));
    const int64_t slack = scaled - window;  // the window begins at 0 … slack, or at slack … 0 where it is the larger
    const int64_t begin = slack >= 0 ? rng.below(slack + 1) : -rng.below(-slack + 1);
    const int64_t first = std::max<int64_t>(begin, 0), end = std::min(begin + window, scaled);
    const double unit = static_cast<double>(size) / static_cast<double>(scaled);
    return {static_cast<double>(first) * unit, static_cast<double>(end - first) * unit, first - begin, end - first};
  }

  RandomScaleCropOptions options_;
  SampleShape target_;
};

class Cutout : public Transform {
 public:
  explicit Cutout(const CutoutOptions& options) : options_(options) {}

  void apply(Image& image, Rng& rng) const override {
    if (!rng.chance(options_.probability)) return;
    std::vector<uint8_t>& pixels = image.bytes("cutout");
    const int64_t height = image.shape.height, width = image.shape.width, channels = image.shape.channels;
    const int64_t top = rng.below(height) - options_.size / 2, left = rng.below(width) - options_.size / 2;
    std::vector<uint64_t> sums(static_cast<size_t>(channels));
    for (size_t i = 0; i < pixels.size(); ++i) sums[i % sums.size()] += pixels[i];
    for (int64_t y = std::max<int64_t>(top, 0); y < std::min(top + options_.size, height); ++y)
      for (int64_t x = std::max<int64_t>(left, 0); x < std::min(left + options_.size, width); ++x) {
        for (int64_t c = 0; c < channels; ++c)
          pixels[(y * width + x) * channels + c] =
              static_cast<uint8_t>(sums[c] / static_cast<uint64_t>(height * width));
        if (!image.sample.mask.empty()) image.sample.mask[y * width + x] = ignored_label;
      }
  }

 private:
  CutoutOptions options_;
};

}  // namespace

void register_image_transforms(TransformRegistry& registry) {
  registry.add<RandomResizedCropOptions>(
      "random_resized_crop", "a box of random area and proportions, scaled to the size of the batch",
      +[](const RandomResizedCropOptions& options, const TransformContext& context) -> std::unique_ptr<Transform> {
        require_images(context, "random_resized_crop");
        return std::make_unique<RandomResizedCrop>(options, context.shape);
      });
  registry.add<CenterCropOptions>(
      "center_crop", "a box around the middle, scaled to the size of the batch",
      +[](const CenterCropOptions& options, const TransformContext& context) -> std::unique_ptr<Transform> {
        require_images(context, "center_crop");
        return std::make_unique<CenterCrop>(options, context.shape);
      });
  registry.add<RandomScaleCropOptions>(
      "random_scale_crop", "scaled by a random factor, then a window of the batch's size at a random place",
      +[](const RandomScaleCropOptions& options, const TransformContext& context) -> std::unique_ptr<Transform> {
        require_images(context, "random_scale_crop");
        return std::make_unique<RandomScaleCrop>(options, context.shape);
      });
  registry.add<CutoutOptions>(
      "cutout", "a square hole of the image's mean colour",
      +[](const CutoutOptions& options, const TransformContext& context) -> std::unique_ptr<Transform> {
        require_images(context, "cutout");
        return std::make_unique<Cutout>(options);
      });
}

}  // namespace mgic
