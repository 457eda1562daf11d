#include "data/fashion_scenes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "core/rng.h"
#include "data/fashion_mnist.h"

namespace mgic {
namespace {

constexpr int64_t side = 28, area = side * side;
constexpr uint8_t black = 10;  // up to here a pixel around a garment counts as empty

// 1 for the pixels of the garment: those that no path of black pixels joins with the border.
std::array<uint8_t, area> silhouette(const std::vector<uint8_t>& pixels) {
  std::array<uint8_t, area> inside;
  inside.fill(1);
  std::array<int16_t, area> stack;
  int64_t top = 0;
  const auto visit = [&](int64_t i) {
    if (inside[i] == 0 || pixels[i] > black) return;
    inside[i] = 0;
    stack[top++] = static_cast<int16_t>(i);
  };
  for (int64_t k = 0; k < side; ++k)
    for (const int64_t i : {k, (side - 1) * side + k, k * side, k * side + side - 1}) visit(i);
  while (top > 0) {
    const int64_t i = stack[--top], x = i % side;
    if (x > 0) visit(i - 1);
    if (x + 1 < side) visit(i + 1);
    if (i >= side) visit(i - side);
    if (i + side < area) visit(i + side);
  }
  return inside;
}

class FashionScenes : public Dataset {
 public:
  FashionScenes(const FashionScenesOptions& options, std::unique_ptr<Dataset> garments, uint64_t seed, uint64_t split)
      : options_(options),
        garments_(std::move(garments)),
        size_(split == 0 ? options.train_size : options.test_size),
        seed_(seed),
        split_(split) {}

  int64_t size() const override { return size_; }
  SampleShape shape() const override { return {options_.channels, options_.image_size, options_.image_size}; }
  int64_t classes() const override { return fashion_mnist_classes + 1; }
  std::vector<std::string> class_names() const override {
    std::vector<std::string> names = garments_->class_names();
    names.insert(names.begin(), std::string("background"));
    return names;
  }
  bool segmentation() const override { return true; }

  void get(int64_t index, Sample& sample) const override {
    check(index >= 0 && index < size_, "sample {} was asked for, but the data set has {}", index, size_);
    Rng rng(seed_, Purpose::data, split_, static_cast<uint64_t>(index));
    const int64_t size = options_.image_size, channels = options_.channels;
    std::vector<float> canvas(static_cast<size_t>(size * size * channels));
    sample.label = 0;
    sample.mask.assign(static_cast<size_t>(size * size), 0);

    const std::array<float, 3> tint = draw_tint(rng);
    const double level = rng.uniform(0.05, 0.45), slope_y = rng.uniform(-0.25, 0.25),
                 slope_x = rng.uniform(-0.25, 0.25);
    for (int64_t y = 0, i = 0; y < size; ++y)
      for (int64_t x = 0; x < size; ++x)
        for (int64_t c = 0; c < channels; ++c, ++i)
          canvas[i] = tint[c] * static_cast<float>(level + slope_y * (static_cast<double>(y) / size - 0.5) +
                                                   slope_x * (static_cast<double>(x) / size - 0.5));

    const int64_t count = options_.min_garments + rng.below(options_.max_garments - options_.min_garments + 1);
    Sample garment;
    for (int64_t g = 0; g < count; ++g) {
      garments_->get(rng.below(garments_->size()), garment);
      lay(garment, rng, canvas, sample.mask);
    }
    auto& pixels = sample.resize<uint8_t>(size * size * channels);
    for (size_t i = 0; i < pixels.size(); ++i) {
      const double value = canvas[i] + options_.noise * rough_normal(rng);
      pixels[i] = static_cast<uint8_t>(std::clamp(255 * value + 0.5, 0.0, 255.0));
    }
  }

 private:
  // One factor a channel; grey images stay as they are.
  std::array<float, 3> draw_tint(Rng& rng) const {
    if (options_.channels == 1) return {1, 1, 1};
    std::array<float, 3> tint;
    for (float& t : tint) t = static_cast<float>(rng.uniform(0.4, 1));
    const float brightest = *std::max_element(tint.begin(), tint.end());
    for (float& t : tint) t /= brightest;
    return tint;
  }

  // The sum of the bytes of one draw: noise on 8-bit pixels needs no better tails.
  static double rough_normal(Rng& rng) {
    constexpr double mean = 4 * 127.5, deviation = 147.8;  // √(4 · (256² - 1) / 12)
    const uint32_t b = rng.bits();
    return ((b & 255) + (b >> 8 & 255) + (b >> 16 & 255) + (b >> 24) - mean) / deviation;
  }

  void lay(const Sample& garment, Rng& rng, std::vector<float>& canvas, std::vector<uint8_t>& mask) const {
    const auto& cloth = std::get<std::vector<uint8_t>>(garment.pixels);
    const auto inside = silhouette(cloth);
    const int64_t size = options_.image_size, channels = options_.channels;
    const auto whole = static_cast<double>(size);
    const double scale = whole * rng.uniform(0.35, 0.65) / side;  // canvas pixels a garment pixel
    const double angle = rng.uniform(-0.6, 0.6), c = std::cos(angle), s = std::sin(angle);
    const double middle_y = rng.uniform(0.15, 0.85) * whole, middle_x = rng.uniform(0.15, 0.85) * whole;
    const double mirror = rng.chance(0.5) ? -1 : 1, light = rng.uniform(0.7, 1), glow = rng.uniform(0, 0.15);
    const std::array<float, 3> tint = draw_tint(rng);

    const double reach = scale * side * 0.71 + 1;  // half the diagonal
    const auto from = [&](double middle) { return std::max<int64_t>(0, static_cast<int64_t>(middle - reach)); };
    const auto to = [&](double middle) { return std::min<int64_t>(size, static_cast<int64_t>(middle + reach) + 1); };
    for (int64_t y = from(middle_y); y < to(middle_y); ++y)
      for (int64_t x = from(middle_x); x < to(middle_x); ++x) {
        const double dy = (static_cast<double>(y) + 0.5 - middle_y) / scale;
        const double dx = (static_cast<double>(x) + 0.5 - middle_x) / scale;
        const double v = c * dy - s * dx + side / 2.0 - 0.5, u = mirror * (s * dy + c * dx) + side / 2.0 - 0.5;
        // Bilinear in both the cloth and its silhouette; outside of the picture there is neither.
        const auto v0 = static_cast<int64_t>(std::floor(v)), u0 = static_cast<int64_t>(std::floor(u));
        double cover = 0, grey = 0;
        for (int64_t row = v0; row <= v0 + 1; ++row)
          for (int64_t column = u0; column <= u0 + 1; ++column) {
            if (row < 0 || row >= side || column < 0 || column >= side || inside[row * side + column] == 0) continue;
            const double weight =
                (1 - std::abs(v - static_cast<double>(row))) * (1 - std::abs(u - static_cast<double>(column)));
            cover += weight;
            grey += weight * cloth[row * side + column] / 255.0;
          }
        if (cover <= 0) continue;
        const double value = glow * cover + light * grey * (1 - glow);  // already weighted by the cover
        for (int64_t k = 0; k < channels; ++k) {
          float& pixel = canvas[(y * size + x) * channels + k];
          pixel = static_cast<float>((1 - cover) * pixel + tint[k] * value);
        }
        if (cover >= 0.5) mask[y * size + x] = static_cast<uint8_t>(1 + garment.label);
      }
  }

  FashionScenesOptions options_;
  std::unique_ptr<Dataset> garments_;
  int64_t size_;
  uint64_t seed_, split_;
};

}  // namespace

void register_fashion_scenes(DataRegistry& registry) {
  registry.add<FashionScenesOptions>(
      "fashion_scenes", "garments of Fashion-MNIST on one canvas, with the class of every pixel: for segmentation",
      +[](const FashionScenesOptions& options, const DataContext& context) {
        auto garments = open_fashion_mnist({.root = options.root, .limits = {}});
        auto source = std::make_unique<DataSource>();
        source->train = std::make_unique<FashionScenes>(options, std::move(garments->train), context.seed, 0);
        source->test = std::make_unique<FashionScenes>(options, std::move(garments->test), context.seed, 1);
        const auto channels = static_cast<size_t>(options.channels);
        const double mean = options.channels == 1 ? 0.35 : 0.293, deviation = options.channels == 1 ? 0.215 : 0.195;
        source->normalization = {std::vector<double>(channels, mean),
                                 std::vector<double>(channels, deviation)};  // measured
        options.limits.apply(*source);
        return source;
      });
}

}  // namespace mgic
