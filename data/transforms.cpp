#include "data/transforms.h"

#include <algorithm>

namespace mgic {
namespace {

// Calls visit(pixel) for every output pixel in row-major order: its C source values, or null where it lies outside.
template <class T, class Visit>
void walk(const Image& image, const std::vector<T>& pixels, Visit visit) {
  const auto [channels, height, width] = image.shape;
  const auto [dy, dx, mirrored] = image.placement;
  for (int64_t y = 0; y < height; ++y) {
    const int64_t from_y = y + dy;
    const T* row = from_y >= 0 && from_y < height ? pixels.data() + from_y * width * channels : nullptr;
    for (int64_t x = 0; x < width; ++x) {
      const int64_t from_x = (mirrored ? width - 1 - x : x) + dx;
      visit(row != nullptr && from_x >= 0 && from_x < width ? row + from_x * channels : nullptr);
    }
  }
}

class RandomCrop : public Transform {
 public:
  explicit RandomCrop(int64_t padding) : padding_(padding) {}
  void apply(Image& image, Rng& rng) const override {
    // What an earlier crop cut off is gone and must not come back.
    if (image.placement.dy != 0 || image.placement.dx != 0) image.settle();
    const int64_t y = rng.below(2 * padding_ + 1) - padding_;
    const int64_t x = rng.below(2 * padding_ + 1) - padding_;
    image.shift(y, x);
  }

 private:
  int64_t padding_;
};

class RandomFlip : public Transform {
 public:
  explicit RandomFlip(double probability) : probability_(probability) {}
  void apply(Image& image, Rng& rng) const override {
    if (rng.chance(probability_)) image.flip();
  }

 private:
  double probability_;
};

std::unique_ptr<Transform> make_crop(const RandomCropOptions& options, const TransformContext& context) {
  const int64_t side = std::min(context.shape.height, context.shape.width);
  if (options.padding >= side)
    fail_user("random_crop: padding {} must be below the smaller side of the images, {}, or a crop may show nothing",
              options.padding, side);
  return std::make_unique<RandomCrop>(options.padding);
}

std::unique_ptr<Transform> make_flip(const RandomFlipOptions& options, const TransformContext&) {
  return std::make_unique<RandomFlip>(options.probability);
}

}  // namespace

void Image::shift(int64_t y, int64_t x) {
  placement.dy += y;
  placement.dx += placement.mirrored ? -x : x;
}

void Image::settle() {
  if (placement == Placement{}) return;
  std::visit(
      [&](auto& pixels) {
        auto moved = pixels;
        auto to = moved.begin();
        walk(*this, pixels, [&](const auto* pixel) {
          to = pixel != nullptr ? std::copy_n(pixel, shape.channels, to) : std::fill_n(to, shape.channels, 0);
        });
        pixels = std::move(moved);
      },
      sample.pixels);
  placement = {};
}

TransformRegistry& transform_registry() {
  static TransformRegistry registry = [] {
    TransformRegistry r("transform");
    r.add<RandomCropOptions>("random_crop", "pads with zeros and cuts the original size out at a random place",
                             make_crop);
    r.add<RandomFlipOptions>("random_flip", "exchanges left and right at random", make_flip);
    return r;
  }();
  return registry;
}

Normalizer::Normalizer(const Normalization& normalization, int64_t channels) {
  const auto& [mean, deviation] = normalization;
  check(static_cast<int64_t>(mean.size()) == channels && static_cast<int64_t>(deviation.size()) == channels,
        "normalisation: {} means and {} deviations for {} channels", mean.size(), deviation.size(), channels);
  for (size_t c = 0; c < mean.size(); ++c) {
    check(deviation[c] > 0, "normalisation: the deviation of channel {} is {}, but must be above 0", c, deviation[c]);
    mean_.push_back(static_cast<float>(mean[c]));
    inverse_.push_back(static_cast<float>(1 / deviation[c]));
  }
  for (int value = 0; value < 256; ++value)
    for (size_t c = 0; c < mean.size(); ++c)
      table_.push_back(static_cast<float>((value / 255.0 - mean[c]) / deviation[c]));
}

void Normalizer::write(const Image& image, float* out) const {
  const int64_t channels = image.shape.channels;
  const int64_t count =
      static_cast<int64_t>(std::visit([](auto& pixels) { return pixels.size(); }, image.sample.pixels));
  check(count == image.shape.count() && channels == static_cast<int64_t>(mean_.size()),
        "normalisation: a sample of {} values is not a {} image of {} channels", count, image.shape.str(),
        mean_.size());
  if (const auto* bytes = std::get_if<std::vector<uint8_t>>(&image.sample.pixels)) {
    walk(image, *bytes, [&](const uint8_t* pixel) {
      for (int64_t c = 0; c < channels; ++c) *out++ = table_[(pixel != nullptr ? pixel[c] : 0) * channels + c];
    });
  } else {
    walk(image, std::get<std::vector<float>>(image.sample.pixels), [&](const float* pixel) {
      for (int64_t c = 0; c < channels; ++c) *out++ = ((pixel != nullptr ? pixel[c] : 0.0f) - mean_[c]) * inverse_[c];
    });
  }
}

}  // namespace mgic
