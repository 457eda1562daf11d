// solids: clouds of points (P, 3) on the surfaces of fourteen parametric solids, for examples and tests of networks for
// point clouds that need no files.
//
// Proportions, pose, noise and occlusion are random: the cloud is cut off by a plane on one side, as if seen from
// there, noise moves each coordinate, and some points are outliers. Then it is moved and scaled to the unit sphere.
// Sample i of a split is a pure function of (seed, split, i); its label is i mod classes.
#pragma once

#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/mesh.h"

namespace mgic {

const std::vector<std::string>& solid_names();  // the fourteen classes in their order

// The surface of one, with proportions drawn from the stream; about as large as the unit sphere, upright along z.
Mesh make_solid(int64_t kind, Rng& rng);

struct SolidsOptions {
  int64_t points = 512, classes = 14, train_size = 4000, test_size = 1000;
  std::string pose = "any";
  double noise = 0.02, occlusion = 0.3, outliers = 0.01;
  LimitOptions limits;

  void fields(Fields& f) {
    f("points", points, "points of a cloud", between(8, 65536));
    f("classes", classes, "kinds of solids", between(2, static_cast<double>(solid_names().size())));
    f("train_size", train_size, "training samples", between(1, 1e8));
    f("test_size", test_size, "test samples", between(1, 1e8));
    f("pose", pose, "turned in any way, about the axis z only, or not at all", one_of({"any", "up", "fixed"}));
    f("noise", noise, "greatest deviation of the noise on the coordinates", between(0, 1));
    f("occlusion", occlusion, "greatest share of the surface that is cut off", between(0, 0.9));
    f("outliers", outliers, "share of the points that lie anywhere", between(0, 1));
    limits.fields(f);
  }
};

void register_solids(DataRegistry& registry);

}  // namespace mgic
