// Transforms that cut and scale images, and their masks with them; those for images whose sizes differ.
//
//   random_resized_crop   a box of random area and proportions, scaled to the batch's size (Szegedy et al., "Going
//                         deeper with convolutions", 2015)
//   center_crop           a box around the middle, scaled to the batch's size
//   random_scale_crop     scaled by a random factor, then a window of the batch's size at a random place; what is
//                         outside of the image is raw zeros and ignored_label: for segmentation
//   cutout                a square of the image's mean colour, pixels without a class (DeVries, Taylor, "Improved
//                         regularization of convolutional neural networks with cutout", 2017)
#pragma once

#include "data/transforms.h"

namespace mgic {

struct RandomResizedCropOptions {
  double min_area = 0.08, max_area = 1, max_aspect = 4.0 / 3;
  void fields(Fields& f) {
    f("min_area", min_area, "least share of the image's area", between(1e-4, 1));
    f("max_area", max_area, "greatest share of the image's area", between(1e-4, 1));
    f("max_aspect", max_aspect, "greatest width / height of the box, and of height / width", between(1, 100));
    f.check(min_area <= max_area, "min_area", "must be at most max_area, {}, not {}", max_area, min_area);
  }
};

struct CenterCropOptions {
  double keep = 0.875;
  void fields(Fields& f) { f("keep", keep, "share of the shorter side that is kept", between(0.01, 1)); }
};

struct RandomScaleCropOptions {
  double min_scale = 0.5, max_scale = 2;
  void fields(Fields& f) {
    f("min_scale", min_scale, "least factor", between(0.05, 20));
    f("max_scale", max_scale, "greatest factor", between(0.05, 20));
    f.check(min_scale <= max_scale, "min_scale", "must be at most max_scale, {}, not {}", max_scale, min_scale);
  }
};

struct CutoutOptions {
  int64_t size = 8;
  double probability = 1;
  void fields(Fields& f) {
    f("size", size, "pixels a side; the square may lie partly outside", between(1, 4096));
    f("probability", probability, "of cutting a hole", between(0, 1));
  }
};

void register_image_transforms(TransformRegistry& registry);

}  // namespace mgic
