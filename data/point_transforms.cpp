#include "data/point_transforms.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mgic {
namespace {

std::vector<float>& points_of(Image& image) { return std::get<std::vector<float>>(image.sample.pixels); }

class PointScale : public Transform {
 public:
  explicit PointScale(const PointScaleOptions& options) : options_(options) {}
  void apply(Image& image, Rng& rng) const override {
    float factor[3];
    for (float& s : factor) s = static_cast<float>(rng.uniform(options_.min_scale, options_.max_scale));
    auto& points = points_of(image);
    for (size_t i = 0; i < points.size(); ++i) points[i] *= factor[options_.uniform ? 0 : i % 3];
  }

 private:
  PointScaleOptions options_;
};

class PointShift : public Transform {
 public:
  explicit PointShift(const PointShiftOptions& options) : range_(options.range) {}
  void apply(Image& image, Rng& rng) const override {
    float shift[3];
    for (float& t : shift) t = static_cast<float>(rng.uniform(-range_, range_));
    auto& points = points_of(image);
    for (size_t i = 0; i < points.size(); ++i) points[i] += shift[i % 3];
  }

 private:
  double range_;
};

class PointRotate : public Transform {
 public:
  explicit PointRotate(const PointRotateOptions& options) : axis_(options.axis == "any" ? -1 : options.axis[0] - 'x') {}
  void apply(Image& image, Rng& rng) const override {
    rotate(points_of(image),
           axis_ < 0 ? random_rotation(rng) : rotation_about(axis_, rng.uniform(0, 2 * std::numbers::pi)));
  }

 private:
  int axis_;  // -1: any
};

class PointJitter : public Transform {
 public:
  explicit PointJitter(const PointJitterOptions& options) : options_(options) {}
  void apply(Image& image, Rng& rng) const override {
    for (float& v : points_of(image))
      v += static_cast<float>(std::clamp(options_.deviation * rng.normal(), -options_.clip, options_.clip));
  }

 private:
  PointJitterOptions options_;
};

class PointDropout : public Transform {
 public:
  explicit PointDropout(const PointDropoutOptions& options) : max_share_(options.max_share) {}
  void apply(Image& image, Rng& rng) const override {
    const double share = rng.uniform(0, max_share_);
    auto& points = points_of(image);
    for (size_t i = 3; i < points.size(); i += 3)
      if (rng.chance(share)) std::copy_n(points.begin(), 3, points.begin() + i);
  }

 private:
  double max_share_;
};

}  // namespace

std::array<double, 9> random_rotation(Rng& rng) {
  const double u = rng.uniform(), a = 2 * std::numbers::pi * rng.uniform(), b = 2 * std::numbers::pi * rng.uniform();
  // A unit quaternion, uniform on the sphere.
  const double x = std::sqrt(1 - u) * std::sin(a), y = std::sqrt(1 - u) * std::cos(a);
  const double z = std::sqrt(u) * std::sin(b), w = std::sqrt(u) * std::cos(b);
  return {1 - 2 * (y * y + z * z), 2 * (x * y - z * w),     2 * (x * z + y * w),
          2 * (x * y + z * w),     1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
          2 * (x * z - y * w),     2 * (y * z + x * w),     1 - 2 * (x * x + y * y)};
}

std::array<double, 9> rotation_about(int axis, double angle) {
  const double c = std::cos(angle), s = std::sin(angle);
  const int a = (axis + 1) % 3, b = (axis + 2) % 3;  // turns a towards b
  std::array<double, 9> r{};
  r[3 * axis + axis] = 1;
  r[3 * a + a] = c, r[3 * a + b] = -s;
  r[3 * b + a] = s, r[3 * b + b] = c;
  return r;
}

void rotate(std::vector<float>& points, const std::array<double, 9>& r) {
  for (size_t i = 0; i + 2 < points.size(); i += 3) {
    const double x = points[i], y = points[i + 1], z = points[i + 2];
    for (size_t k = 0; k < 3; ++k)
      points[i + k] = static_cast<float>(r[3 * k] * x + r[3 * k + 1] * y + r[3 * k + 2] * z);
  }
}

void register_point_transforms(TransformRegistry& registry) {
  registry.add<PointScaleOptions>(
      "point_scale", "clouds: each axis, or all, by a random factor",
      +[](const PointScaleOptions& options, const TransformContext& context) -> std::unique_ptr<Transform> {
        require_points(context, "point_scale");
        return std::make_unique<PointScale>(options);
      });
  registry.add<PointShiftOptions>(
      "point_shift", "clouds: moved at random",
      +[](const PointShiftOptions& options, const TransformContext& context) -> std::unique_ptr<Transform> {
        require_points(context, "point_shift");
        return std::make_unique<PointShift>(options);
      });
  registry.add<PointRotateOptions>(
      "point_rotate", "clouds: turned at random, about an axis or any way",
      +[](const PointRotateOptions& options, const TransformContext& context) -> std::unique_ptr<Transform> {
        require_points(context, "point_rotate");
        return std::make_unique<PointRotate>(options);
      });
  registry.add<PointJitterOptions>(
      "point_jitter", "clouds: clipped normal noise on every coordinate",
      +[](const PointJitterOptions& options, const TransformContext& context) -> std::unique_ptr<Transform> {
        require_points(context, "point_jitter");
        return std::make_unique<PointJitter>(options);
      });
  registry.add<PointDropoutOptions>(
      "point_dropout", "clouds: a random share of the points takes the place of the first",
      +[](const PointDropoutOptions& options, const TransformContext& context) -> std::unique_ptr<Transform> {
        require_points(context, "point_dropout");
        return std::make_unique<PointDropout>(options);
      });
}

}  // namespace mgic
