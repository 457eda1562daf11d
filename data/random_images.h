// random: noise images (C, H, W) with random labels, for benchmarks: no files, nothing to learn.
//
// Sample i of a split is a pure function of (seed, split, i).
#pragma once

#include <vector>

#include "data/dataset.h"

namespace mgic {

struct RandomImagesOptions {
  static constexpr int64_t max_values = 1 << 28;  // of one image
  std::vector<int64_t> shape{3, 32, 32};
  int64_t classes = 10, size = 1024;
  LimitOptions limits;

  void fields(Fields& f) {
    f("shape", shape, "channels, height and width of an image", between(1, 4096));
    f.check(shape.size() == 3, "shape", "expects three sizes [channels, height, width], not {}", shape.size());
    f.check(shape.size() != 3 || shape[0] * shape[1] * shape[2] <= max_values, "shape",
            "is an image of more than {} values", max_values);
    f("classes", classes, "number of classes", between(1, max_count));
    f("size", size, "samples of the training part and of the test part", between(1, 1e8));
    limits.fields(f);
  }
};

void register_random_images(DataRegistry& registry);

}  // namespace mgic
