#include "data/color_transforms.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mgic {
namespace {

constexpr double luma[3] = {0.299, 0.587, 0.114};  // ITU-R BT.601: grey = luma · rgb

using Matrix = std::array<std::array<double, 3>, 3>;

Matrix product(const Matrix& a, const Matrix& b) {
  Matrix p{};
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j)
      for (int k = 0; k < 3; ++k) p[i][j] += a[i][k] * b[k][j];
  return p;
}

Matrix saturation_matrix(double factor) {
  Matrix m{};
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) m[i][j] = (1 - factor) * luma[j] + (i == j ? factor : 0);
  return m;
}

// Turns the plane of colours, I and Q of the YIQ space, which leaves the grey Y as it is.
Matrix hue_matrix(double turn) {
  const double angle = 2 * std::numbers::pi * turn, c = std::cos(angle), s = std::sin(angle);
  constexpr Matrix to_yiq{{{0.299, 0.587, 0.114}, {0.595716, -0.274453, -0.321263}, {0.211456, -0.522591, 0.311135}}};
  constexpr Matrix from_yiq{{{1, 0.9563, 0.6210}, {1, -0.2721, -0.6474}, {1, -1.1070, 1.7046}}};
  return product(from_yiq, product({{{1, 0, 0}, {0, c, -s}, {0, s, c}}}, to_yiq));
}

uint8_t to_byte(double v) { return static_cast<uint8_t>(std::clamp(v + 0.5, 0.0, 255.0)); }

double mean_grey(const std::vector<uint8_t>& pixels, int64_t channels) {
  double sum = 0;
  if (channels == 3) {
    uint64_t sums[3] = {};
    for (size_t i = 0; i < pixels.size(); i += 3)
      for (size_t c = 0; c < 3; ++c) sums[c] += pixels[i + c];
    for (size_t c = 0; c < 3; ++c) sum += luma[c] * static_cast<double>(sums[c]) * 3;
  } else {
    for (const uint8_t v : pixels) sum += v;
  }
  return sum / static_cast<double>(std::max<size_t>(pixels.size(), 1));
}

// x ← m x + offset for every colour; every value of an image that is not in colours ← scale · x + offset.
void apply_matrix(std::vector<uint8_t>& pixels, const Matrix& m, double offset) {
  for (size_t i = 0; i + 2 < pixels.size(); i += 3) {
    const double r = pixels[i], g = pixels[i + 1], b = pixels[i + 2];
    for (size_t c = 0; c < 3; ++c) pixels[i + c] = to_byte(m[c][0] * r + m[c][1] * g + m[c][2] * b + offset);
  }
}
void apply_table(std::vector<uint8_t>& pixels, const std::array<uint8_t, 256>& table) {
  for (uint8_t& v : pixels) v = table[v];
}
template <class F>
void apply_function(std::vector<uint8_t>& pixels, F f) {
  std::array<uint8_t, 256> table;
  for (int v = 0; v < 256; ++v) table[v] = f(v);
  apply_table(pixels, table);
}

class ColorJitter : public Transform {
 public:
  explicit ColorJitter(const ColorJitterOptions& options) : options_(options) {}

  void apply(Image& image, Rng& rng) const override {
    std::vector<uint8_t>& pixels = image.bytes("color_jitter");
    const auto factor = [&](double spread) { return rng.uniform(1 - spread, 1 + spread); };
    const double brightness = factor(options_.brightness), contrast = factor(options_.contrast);
    const double saturation = factor(options_.saturation), turn = rng.uniform(-options_.hue, options_.hue);
    // Saturation and hue leave the grey as it is, so contrast is about brightness times the mean of the raw image.
    const double offset = (1 - contrast) * brightness * mean_grey(pixels, image.shape.channels);
    const double scale = brightness * contrast;
    if (image.shape.channels != 3) return apply_function(pixels, [&](int v) { return to_byte(scale * v + offset); });
    Matrix m = saturation_matrix(saturation);
    if (turn != 0) m = product(hue_matrix(turn), m);
    for (auto& row : m)
      for (double& v : row) v *= scale;
    apply_matrix(pixels, m, offset);
  }

 private:
  ColorJitterOptions options_;
};

// Each channel on its own: the least value becomes 0, the greatest 255.
void auto_contrast(std::vector<uint8_t>& pixels, int64_t channels) {
  for (int64_t c = 0; c < channels; ++c) {
    int low = 255, high = 0;
    for (size_t i = static_cast<size_t>(c); i < pixels.size(); i += channels)
      low = std::min<int>(low, pixels[i]), high = std::max<int>(high, pixels[i]);
    if (high <= low) continue;
    for (size_t i = static_cast<size_t>(c); i < pixels.size(); i += channels)
      pixels[i] = to_byte(255.0 * (pixels[i] - low) / (high - low));
  }
}

// Each channel on its own: values become as even as they can, by their cumulative histogram.
void equalize(std::vector<uint8_t>& pixels, int64_t channels) {
  for (int64_t c = 0; c < channels; ++c) {
    std::array<int64_t, 256> below{};
    int64_t count = 0;
    for (size_t i = static_cast<size_t>(c); i < pixels.size(); i += channels) ++below[pixels[i]], ++count;
    int64_t sum = 0, first = 0;
    for (int64_t& b : below) {
      if (first == 0) first = b;
      sum += b;
      b = sum;
    }
    if (count == first) continue;  // one value only
    for (size_t i = static_cast<size_t>(c); i < pixels.size(); i += channels)
      pixels[i] = to_byte(255.0 * static_cast<double>(below[pixels[i]] - first) / static_cast<double>(count - first));
  }
}

class RandAugment : public Transform {
 public:
  explicit RandAugment(const RandAugmentOptions& options) : options_(options) {}

  void apply(Image& image, Rng& rng) const override {
    for (int64_t i = 0; i < options_.count; ++i) {
      const int64_t operation = rng.below(14);
      operate(image, operation, rng.chance(0.5) ? 1 : -1);
    }
  }

 private:
  // The operations and the greatest strengths of the paper; `sign` is drawn for those that have two directions.
  void operate(Image& image, int64_t operation, double sign) const {
    const double m = options_.magnitude, signed_m = sign * m;
    std::vector<uint8_t>& pixels = image.bytes("rand_augment");
    const int64_t channels = image.shape.channels;
    const double height = static_cast<double>(image.shape.height), width = static_cast<double>(image.shape.width);
    switch (operation) {
      case 0:
        return;
      case 1:
        return image.warp({1, 0, 0, 0.3 * signed_m, 1, 0});  // shear
      case 2:
        return image.warp({1, 0.3 * signed_m, 0, 0, 1, 0});
      case 3:
        return image.warp({1, 0, 0, 0, 1, 0.45 * signed_m * width});  // translate
      case 4:
        return image.warp({1, 0, 0.45 * signed_m * height, 0, 1, 0});
      case 5: {  // rotate, by 30° at most
        const double angle = signed_m * std::numbers::pi / 6, c = std::cos(angle), s = std::sin(angle);
        return image.warp({c, -s, 0, s, c, 0});
      }
      case 6:
        return apply_function(pixels, [&](int v) { return to_byte((1 + 0.9 * signed_m) * v); });  // brightness
      case 7: {                                                                                   // contrast
        const double factor = 1 + 0.9 * signed_m, offset = (1 - factor) * mean_grey(pixels, channels);
        return apply_function(pixels, [&](int v) { return to_byte(factor * v + offset); });
      }
      case 8:  // saturation
        if (channels == 3) apply_matrix(pixels, saturation_matrix(1 + 0.9 * signed_m), 0);
        return;
      case 9:
        return sharpen(image, 1 + 0.9 * signed_m);
      case 10: {  // posterize: 8 bits down to 4
        const int mask = 0xff << std::lround(4 * m);
        return apply_function(pixels, [&](int v) { return static_cast<uint8_t>(v & mask); });
      }
      case 11:
        return apply_function(pixels, [&](int v) {  // solarize: what is bright is inverted
          return static_cast<uint8_t>(v < 256 * (1 - m) ? v : 255 - v);
        });
      case 12:
        return auto_contrast(pixels, channels);
      default:
        return equalize(pixels, channels);
    }
  }

  // Away from (factor > 1) or towards a 3x3 blur; the border stays.
  static void sharpen(Image& image, double factor) {
    std::vector<uint8_t>& pixels = image.bytes("rand_augment");
    const std::vector<uint8_t> old = pixels;
    const int64_t row = image.shape.width * image.shape.channels, channels = image.shape.channels;
    for (int64_t y = 1; y + 1 < image.shape.height; ++y)
      for (int64_t i = y * row + channels; i < (y + 1) * row - channels; ++i) {
        int sum = 4 * old[i];  // the centre counts 5 of 13
        for (int64_t dy = -1; dy <= 1; ++dy)
          for (int64_t dx = -1; dx <= 1; ++dx) sum += old[i + dy * row + dx * channels];
        const double blurred = sum / 13.0;
        pixels[i] = to_byte(blurred + factor * (old[i] - blurred));
      }
  }

  RandAugmentOptions options_;
};

}  // namespace

void register_color_transforms(TransformRegistry& registry) {
  registry.add<ColorJitterOptions>(
      "color_jitter", "brightness, contrast, saturation and hue, changed at random",
      +[](const ColorJitterOptions& options, const TransformContext& context) -> std::unique_ptr<Transform> {
        require_images(context, "color_jitter");
        return std::make_unique<ColorJitter>(options);
      });
  registry.add<RandAugmentOptions>(
      "rand_augment", "a few of fourteen simple operations, drawn with one strength",
      +[](const RandAugmentOptions& options, const TransformContext& context) -> std::unique_ptr<Transform> {
        require_images(context, "rand_augment");
        return std::make_unique<RandAugment>(options);
      });
}

}  // namespace mgic
