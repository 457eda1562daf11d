// fashion_scenes: several garments of Fashion-MNIST on one canvas (C, S, S), overlapping, with the class of every
// pixel: a data set for segmentation that needs no other files than Fashion-MNIST's.
//
// Training scenes are made of training garments, test scenes of test garments. Each garment is turned, mirrored, scaled
// and lit at random and laid on a sloping, noisy background; the later one hides the earlier one. A garment is its
// silhouette: all pixels that the black around it does not reach. Class 0 is the background, 1 + c the garments of
// class c. Scene i of a split is a pure function of (seed, split, i).
#pragma once

#include <string>

#include "data/dataset.h"

namespace mgic {

struct FashionScenesOptions {
  std::string root;
  int64_t image_size = 64, channels = 1, min_garments = 2, max_garments = 5, train_size = 4000, test_size = 1000;
  double noise = 0.05;
  LimitOptions limits;

  void fields(Fields& f) {
    f("root", root, "folder of Fashion-MNIST; empty: MGIC_DATA, else Debian's place");
    f("image_size", image_size, "pixels a side", between(16, 1024));
    f("channels", channels, "1 grey, 3 with every garment and the background tinted", between(1, 3));
    f.check(channels != 2, "channels", "must be 1 or 3");
    f("min_garments", min_garments, "fewest garments of a scene", between(1, 100));
    f("max_garments", max_garments, "most garments of a scene", between(1, 100));
    f.check(min_garments <= max_garments, "min_garments", "must be at most max_garments, {}, not {}", max_garments,
            min_garments);
    f("train_size", train_size, "training scenes", between(1, 1e8));
    f("test_size", test_size, "test scenes", between(1, 1e8));
    f("noise", noise, "deviation of the noise on every pixel, of 1", between(0, 1));
    limits.fields(f);
  }
};

void register_fashion_scenes(DataRegistry& registry);

}  // namespace mgic
