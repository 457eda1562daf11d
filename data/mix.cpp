#include "data/mix.h"

#include <algorithm>
#include <cmath>

namespace mgic {
namespace {

// Marsaglia, Tsang, "A simple method for generating gamma variables", 2000.
double gamma(double shape, Rng& rng) {
  if (shape < 1) return gamma(shape + 1, rng) * std::pow(1 - rng.uniform(), 1 / shape);
  const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = rng.normal(), v = std::pow(1 + c * x, 3);
    if (v > 0 && std::log(1 - rng.uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

double beta(double alpha, Rng& rng) {
  const double a = gamma(alpha, rng), b = gamma(alpha, rng);
  return a + b > 0 ? a / (a + b) : 0.5;  // both may underflow where α is tiny
}

}  // namespace

void mix(Batch& batch, const MixOptions& options, Rng& rng) {
  const Shape& shape = batch.images.shape();
  check(shape.rank() == 4 && batch.labels.shape().rank() == 1, "mix: takes images with one label each, not {} and {}",
        shape, batch.labels.shape());
  const int64_t n = shape[0], height = shape[1], width = shape[2], channels = shape[3],
                count = height * width * channels;
  if (!options.any() || !rng.chance(options.probability) || n < 2) return;
  const bool cut = options.cutmix > 0 && (options.mixup <= 0 || rng.chance(0.5));
  double lambda = beta(cut ? options.cutmix : options.mixup, rng);

  const Tensor before = batch.images.clone();
  float* to = batch.images.data<float>();
  const float* from = before.data<float>();
  const auto partner = [&](int64_t i) { return (i + n - 1) % n; };
  if (cut) {
    // A box of the share 1 - λ around a random place; what lies outside of the image is cut off, and λ follows.
    const double side = std::sqrt(1 - lambda);
    const auto span = [&](int64_t size) {
      const int64_t middle = rng.below(size), half = std::llround(side * static_cast<double>(size) / 2);
      return std::pair{std::max<int64_t>(middle - half, 0), std::min(middle + half, size)};
    };
    const auto [top, bottom] = span(height);
    const auto [left, right] = span(width);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t y = top; y < bottom; ++y) {
        const int64_t at = (y * width + left) * channels;
        std::copy_n(from + partner(i) * count + at, (right - left) * channels, to + i * count + at);
      }
    lambda = 1 - static_cast<double>((bottom - top) * (right - left)) / static_cast<double>(height * width);
  } else {
    const auto own = static_cast<float>(lambda), other = static_cast<float>(1 - lambda);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t k = 0; k < count; ++k)
        to[i * count + k] = own * from[i * count + k] + other * from[partner(i) * count + k];
  }
  batch.mix = lambda;
  batch.mixed_labels = Tensor::empty_like(batch.labels);
  for (int64_t i = 0; i < n; ++i) batch.mixed_labels.data<int64_t>()[i] = batch.labels.data<int64_t>()[partner(i)];
}

}  // namespace mgic
