// Transforms of colours, and RandAugment, which mixes them with small movements. All work on 8-bit images.
//
//   color_jitter   x ← S H (b·x), then away from the mean grey by a contrast c: b, c, saturation and hue are drawn; the
//                  whole is one affine map of the colours, computed once an image and applied in one pass
//   rand_augment   `count` of fourteen simple operations, drawn with one strength (Cubuk et al., "RandAugment:
//   practical
//                  automated data augmentation with a reduced search space", 2020)
#pragma once

#include "data/transforms.h"

namespace mgic {

struct ColorJitterOptions {
  double brightness = 0.4, contrast = 0.4, saturation = 0.4, hue = 0;
  void fields(Fields& f) {
    f("brightness", brightness, "factor in 1 ± this", between(0, 1));
    f("contrast", contrast, "factor in 1 ± this, about the mean grey", between(0, 1));
    f("saturation", saturation, "factor in 1 ± this; colour images only", between(0, 1));
    f("hue", hue, "turn of the colour circle in ± this, 0.5 being half of it; colour images only", between(0, 0.5));
  }
};

struct RandAugmentOptions {
  int64_t count = 2;
  double magnitude = 0.3;
  void fields(Fields& f) {
    f("count", count, "operations an image", between(1, 14));
    f("magnitude", magnitude, "strength of each, of 1", between(0, 1));
  }
};

void register_color_transforms(TransformRegistry& registry);

}  // namespace mgic
