// Transforms of clouds of points (P, 3), f32.
//
//   point_scale     p ← s ⊙ p, one factor for each axis
//   point_shift     p ← p + t
//   point_rotate    p ← R p, about an axis, z by default, or any rotation
//   point_jitter    p ← p + clip(σ n), n normal for each coordinate
//   point_dropout   a random share of the points takes the place of the first one, so that the number stays (Qi et al.,
//                   "PointNet++", 2017)
#pragma once

#include "data/transforms.h"

namespace mgic {

struct PointScaleOptions {
  double min_scale = 2.0 / 3, max_scale = 1.5;
  bool uniform = false;
  void fields(Fields& f) {
    f("min_scale", min_scale, "least factor", between(0.01, 100));
    f("max_scale", max_scale, "greatest factor", between(0.01, 100));
    f("uniform", uniform, "one factor for the three axes");
    f.check(min_scale <= max_scale, "min_scale", "must be at most max_scale, {}, not {}", max_scale, min_scale);
  }
};

struct PointShiftOptions {
  double range = 0.2;
  void fields(Fields& f) { f("range", range, "greatest shift along each axis", between(0, 100)); }
};

struct PointRotateOptions {
  std::string axis = "z";
  void fields(Fields& f) { f("axis", axis, "about an axis, or any rotation", one_of({"x", "y", "z", "any"})); }
};

struct PointJitterOptions {
  double deviation = 0.01, clip = 0.05;
  void fields(Fields& f) {
    f("deviation", deviation, "of the noise on each coordinate", between(0, 10));
    f("clip", clip, "its greatest size", above(0));
  }
};

struct PointDropoutOptions {
  double max_share = 0.875;
  void fields(Fields& f) { f("max_share", max_share, "the share is drawn from 0 to this", between(0, 1)); }
};

// A rotation that is uniform among all, row by row (Shoemake, "Uniform random rotations", 1992).
std::array<double, 9> random_rotation(Rng& rng);
std::array<double, 9> rotation_about(int axis, double angle);  // 0, 1, 2: x, y, z
// p ← R p for every point of (P, 3).
void rotate(std::vector<float>& points, const std::array<double, 9>& rotation);

void register_point_transforms(TransformRegistry& registry);

}  // namespace mgic
