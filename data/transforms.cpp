#include "data/transforms.h"

#include <algorithm>
#include <cmath>

#include "data/color_transforms.h"
#include "data/image_transforms.h"
#include "data/point_transforms.h"

namespace mgic {
namespace {

// Calls visit(pixel) for every output pixel in row-major order: its source values, of which a pixel has `channels`, or
// null where it lies outside.
template <class T, class Visit>
void walk(const Image& image, const std::vector<T>& pixels, int64_t channels, Visit visit) {
  const int64_t height = image.shape.height, width = image.shape.width;
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
  require_images(context, "random_crop");
  const int64_t side = std::min(context.shape.height, context.shape.width);
  if (options.padding >= side)
    fail_user("random_crop: padding {} must be below the smaller side of the images, {}, or a crop may show nothing",
              options.padding, side);
  return std::make_unique<RandomCrop>(options.padding);
}

std::unique_ptr<Transform> make_flip(const RandomFlipOptions& options, const TransformContext& context) {
  require_images(context, "random_flip");
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
        walk(*this, pixels, shape.channels, [&](const auto* pixel) {
          to = pixel != nullptr ? std::copy_n(pixel, shape.channels, to) : std::fill_n(to, shape.channels, 0);
        });
        pixels = std::move(moved);
      },
      sample.pixels);
  if (!sample.mask.empty()) {
    std::vector<uint8_t> moved;
    moved.reserve(sample.mask.size());
    walk(*this, sample.mask, 1, [&](const uint8_t* id) { moved.push_back(id != nullptr ? *id : ignored_label); });
    sample.mask = std::move(moved);
  }
  placement = {};
}

void Image::cut(const Box& box, int64_t height, int64_t width) {
  settle();
  std::visit(
      [&](auto& pixels) { pixels = resample(pixels, shape.height, shape.width, shape.channels, box, height, width); },
      sample.pixels);
  if (!sample.mask.empty()) sample.mask = resample_nearest(sample.mask, shape.height, shape.width, box, height, width);
  shape.height = height;
  shape.width = width;
}

void Image::pad(int64_t height, int64_t width, int64_t top, int64_t left) {
  check(top >= 0 && left >= 0 && top + shape.height <= height && left + shape.width <= width,
        "an image of {} does not fit at ({}, {}) into {}x{}", shape, top, left, height, width);
  if (height == shape.height && width == shape.width) return;
  settle();
  const auto onto = [&](auto& values, int64_t channels, auto ground) {
    std::remove_reference_t<decltype(values)> canvas(static_cast<size_t>(height * width * channels), ground);
    for (int64_t y = 0; y < shape.height; ++y)
      std::copy_n(values.begin() + y * shape.width * channels, shape.width * channels,
                  canvas.begin() + ((top + y) * width + left) * channels);
    values = std::move(canvas);
  };
  std::visit([&](auto& pixels) { onto(pixels, shape.channels, 0); }, sample.pixels);
  if (!sample.mask.empty()) onto(sample.mask, 1, ignored_label);
  shape.height = height;
  shape.width = width;
}

void Image::warp(const Affine& map) {
  settle();
  const int64_t height = shape.height, width = shape.width, channels = shape.channels;
  const double middle_y = static_cast<double>(height) / 2, middle_x = static_cast<double>(width) / 2;
  // Calls visit(output pixel, v, u): the source place in pixels, whole numbers being pixel centres.
  const auto each = [&](auto visit) {
    int64_t i = 0;
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x, ++i) {
        const double from_y = static_cast<double>(y) + 0.5 - middle_y, from_x = static_cast<double>(x) + 0.5 - middle_x;
        visit(i, map[0] * from_y + map[1] * from_x + map[2] + middle_y - 0.5,
              map[3] * from_y + map[4] * from_x + map[5] + middle_x - 0.5);
      }
  };
  std::visit(
      [&](auto& pixels) {
        std::remove_reference_t<decltype(pixels)> out(pixels.size());
        each([&](int64_t i, double v, double u) {
          const double v0 = std::floor(v), u0 = std::floor(u);
          const double weights[2][2] = {{(1 - v + v0) * (1 - u + u0), (1 - v + v0) * (u - u0)},
                                        {(v - v0) * (1 - u + u0), (v - v0) * (u - u0)}};
          for (int64_t c = 0; c < channels; ++c) {
            double sum = 0;
            for (int64_t dy = 0; dy < 2; ++dy)
              for (int64_t dx = 0; dx < 2; ++dx) {
                const auto row = static_cast<int64_t>(v0) + dy, column = static_cast<int64_t>(u0) + dx;
                if (row >= 0 && row < height && column >= 0 && column < width)
                  sum += weights[dy][dx] * static_cast<double>(pixels[(row * width + column) * channels + c]);
              }
            using T = std::remove_reference_t<decltype(pixels[0])>;
            out[i * channels + c] = static_cast<T>(std::is_same_v<T, uint8_t> ? std::floor(sum + 0.5) : sum);
          }
        });
        pixels = std::move(out);
      },
      sample.pixels);
  if (sample.mask.empty()) return;
  std::vector<uint8_t> out(sample.mask.size());
  each([&](int64_t i, double v, double u) {
    const auto row = static_cast<int64_t>(std::floor(v + 0.5)), column = static_cast<int64_t>(std::floor(u + 0.5));
    const bool inside = row >= 0 && row < height && column >= 0 && column < width;
    out[i] = inside ? sample.mask[row * width + column] : ignored_label;
  });
  sample.mask = std::move(out);
}

void Image::fit(const SampleShape& target) {
  if (shape.points || (shape.height == target.height && shape.width == target.width)) return;
  const auto height = static_cast<double>(shape.height), width = static_cast<double>(shape.width);
  const auto to_height = static_cast<double>(target.height), to_width = static_cast<double>(target.width);
  const double scale = std::min(height / to_height, width / to_width) * sample.centre;
  const double box_height = to_height * scale, box_width = to_width * scale;
  cut({(height - box_height) / 2, (width - box_width) / 2, box_height, box_width}, target.height, target.width);
}

void Image::write_mask(int64_t* out) const {
  check(static_cast<int64_t>(sample.mask.size()) == shape.height * shape.width,
        "a mask of {} pixels is none of a {} image", sample.mask.size(), shape);
  walk(*this, sample.mask, 1, [&](const uint8_t* id) { *out++ = id != nullptr ? *id : ignored_label; });
}

std::vector<uint8_t>& Image::bytes(const char* transform) {
  settle();
  auto* values = std::get_if<std::vector<uint8_t>>(&sample.pixels);
  if (values == nullptr) fail_user("{}: works on 8-bit images only", transform);
  return *values;
}

void require_images(const TransformContext& context, const char* transform) {
  if (context.shape.points) fail_user("{}: is for images, but the data are clouds of points", transform);
}

void require_points(const TransformContext& context, const char* transform) {
  if (!context.shape.points) fail_user("{}: is for clouds of points, but the data are images", transform);
  if (context.shape.channels != 3)
    fail_user("{}: takes points of 3 values, but those of the data have {}", transform, context.shape.channels);
}

TransformRegistry& transform_registry() {
  static TransformRegistry registry = [] {
    TransformRegistry r("transform");
    r.add<RandomCropOptions>("random_crop", "pads with zeros and cuts the original size out at a random place",
                             make_crop);
    r.add<RandomFlipOptions>("random_flip", "exchanges left and right at random", make_flip);
    register_image_transforms(r);
    register_color_transforms(r);
    register_point_transforms(r);
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
        "normalisation: a sample of {} values is not a {} image of {} channels", count, image.shape, mean_.size());
  if (const auto* bytes = std::get_if<std::vector<uint8_t>>(&image.sample.pixels)) {
    walk(image, *bytes, channels, [&](const uint8_t* pixel) {
      for (int64_t c = 0; c < channels; ++c) *out++ = table_[(pixel != nullptr ? pixel[c] : 0) * channels + c];
    });
  } else {
    walk(image, std::get<std::vector<float>>(image.sample.pixels), channels, [&](const float* pixel) {
      for (int64_t c = 0; c < channels; ++c) *out++ = ((pixel != nullptr ? pixel[c] : 0.0f) - mean_[c]) * inverse_[c];
    });
  }
}

}  // namespace mgic
