// shapes: drawn figures (C, S, S) in up to twelve classes, for examples and tests that need no files.
//
// Position, size, rotation, colours, contrast, a sloping background and noise are random; sample i of a split is a
// pure function of (seed, split, i), so nothing is stored. Classes take turns: the label of sample i is i mod classes.
#pragma once

#include <string>
#include <vector>

#include "data/dataset.h"

namespace mgic {

const std::vector<std::string>& shape_names();  // the twelve classes in their order

struct ShapesOptions {
  int64_t image_size = 32, channels = 3, classes = 10, train_size = 10000, test_size = 2000;
  LimitOptions limits;

  void fields(Fields& f) {
    f("image_size", image_size, "pixels a side", between(8, 1024));
    f("channels", channels, "colours a pixel", between(1, 64));
    f("classes", classes, "kinds of figures", between(2, static_cast<double>(shape_names().size())));
    f("train_size", train_size, "training samples", between(1, 1e8));
    f("test_size", test_size, "test samples", between(1, 1e8));
    limits.fields(f);
  }
};

void register_shapes(DataRegistry& registry);

}  // namespace mgic
