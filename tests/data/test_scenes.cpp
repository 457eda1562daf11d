// fashion_scenes and solids: what stands in for real data of segmentation and of point clouds.
#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "data/fashion_scenes.h"
#include "data/solids.h"
#include "tests/support/temp_folder.h"

using namespace mgic;
using namespace mgic::test;

namespace {

std::unique_ptr<DataSource> open(const std::string& options, uint64_t seed = 1) {
  return data_registry().parse(options).make({seed});
}

// Fashion-MNIST's format and size, but garments of our own: picture i is a rectangle of grey 100 + i, of class i mod
// 10, with a black hole in its middle, which belongs to the garment all the same.
struct FakeFashion {
  TempFolder folder;
  FakeFashion() {
    for (const std::string part : {"train", "t10k"}) {
      const uint32_t n = part == "train" ? 20 : 10;
      std::string pixels, labels;
      for (uint32_t i = 0; i < n; ++i) {
        labels += static_cast<char>(i % 10);
        for (int y = 0; y < 28; ++y)
          for (int x = 0; x < 28; ++x) {
            const bool cloth = y >= 4 && y < 24 && x >= 8 && x < 20, hole = y >= 12 && y < 15 && x >= 12 && x < 15;
            pixels += static_cast<char>(cloth && !hole ? 100 + i : 0);
          }
      }
      folder.write(part + "-images-idx3-ubyte", idx_bytes({0x803, n, 28, 28}, pixels));
      folder.write(part + "-labels-idx1-ubyte", idx_bytes({0x801, n}, labels));
    }
  }
  std::unique_ptr<DataSource> scenes(const std::string& more = "", uint64_t seed = 1) const {
    return open(fmt::format(R"({{"type": "fashion_scenes", "root": "{}"{}}})", folder.path(), more), seed);
  }
};

Sample get(const Dataset& data, int64_t index) {
  Sample sample;
  data.get(index, sample);
  return sample;
}

double radius(const std::vector<float>& p, size_t i) { return std::hypot(p[3 * i], p[3 * i + 1], p[3 * i + 2]); }

}  // namespace

TEST_CASE("fashion_scenes: shapes, classes, masks; a function of seed, split and index") {
  FakeFashion fashion;
  const auto a = fashion.scenes(R"(, "image_size": 33, "channels": 3, "train_size": 30, "test_size": 7)");
  CHECK(a->train->segmentation());
  CHECK(a->train->size() == 30);
  CHECK(a->test->size() == 7);
  CHECK(a->train->shape() == SampleShape{3, 33, 33});
  CHECK(a->train->classes() == 11);
  CHECK(a->train->class_names().size() == 11);
  CHECK(a->train->class_names()[0] == "background");
  std::set<int> seen;
  for (int64_t i = 0; i < 30; ++i) {
    const Sample s = get(*a->train, i);
    CHECK(std::get<std::vector<uint8_t>>(s.pixels).size() == 33 * 33 * 3);
    CHECK(s.mask.size() == 33 * 33);
    seen.insert(s.mask.begin(), s.mask.end());
  }
  CHECK(seen.size() == 11);
  CHECK(*seen.rbegin() == 10);
  const std::string options = R"(, "train_size": 9)";
  const Sample one = get(*fashion.scenes(options)->train, 4);
  CHECK(one.pixels == get(*fashion.scenes(options)->train, 4).pixels);
  CHECK(one.mask == get(*fashion.scenes(options)->train, 4).mask);
  CHECK(one.mask != get(*fashion.scenes(options)->train, 5).mask);
  CHECK(one.mask != get(*fashion.scenes(options, 2)->train, 4).mask);
  CHECK(one.mask != get(*fashion.scenes(options)->test, 4).mask);
  CHECK(get(*fashion.scenes(R"(, "train_limit": 5)")->train, 4).mask == one.mask);
}

TEST_CASE("fashion_scenes: a mask is the garment's silhouette, holes inside of it included") {
  FakeFashion fashion;
  const auto data = fashion.scenes(R"(, "image_size": 200, "min_garments": 1, "max_garments": 1, "noise": 0)");
  int64_t whole = 0;
  for (int64_t i = 0; i < 40; ++i) {
    const Sample s = get(*data->train, i);
    int64_t count = 0, top = 200, bottom = -1, left = 200, right = -1, sum_y = 0, sum_x = 0;
    std::set<int> ids(s.mask.begin(), s.mask.end());
    CHECK(ids.size() == 2);
    for (int64_t y = 0; y < 200; ++y)
      for (int64_t x = 0; x < 200; ++x)
        if (s.mask[y * 200 + x] != 0) {
          ++count, sum_y += y, sum_x += x;
          top = std::min(top, y), bottom = std::max(bottom, y), left = std::min(left, x), right = std::max(right, x);
        }
    if (top == 0 || left == 0 || bottom == 199 || right == 199) continue;  // cut off by the canvas
    ++whole;
    // The hole, in the middle of the rectangle, belongs to it, though it shows no cloth.
    CHECK(s.mask[(sum_y / count) * 200 + sum_x / count] != 0);
    // 20x12 of 28x28 pixels, at a scale between 0.35 and 0.65 of the canvas.
    const double share = static_cast<double>(count) / (200.0 * 200.0) / (240.0 / 784);
    CHECK(share > 0.35 * 0.35 * 0.9);
    CHECK(share < 0.65 * 0.65 * 1.1);
  }
  CHECK(whole > 5);
}

TEST_CASE("fashion_scenes: the real garments, where they are installed") {
  std::unique_ptr<DataSource> data;
  try {
    data = open(R"({"type": "fashion_scenes", "train_size": 300})");
  } catch (const UserError& e) {
    MESSAGE("left out: ", e.what());
    return;
  }
  double sum = 0, squares = 0, count = 0, covered = 0;
  std::vector<int64_t> ids(11);
  for (int64_t i = 0; i < 300; ++i) {
    const Sample s = get(*data->train, i);
    for (const uint8_t id : s.mask) ++ids.at(id), covered += id != 0;
    for (const double v : std::get<std::vector<uint8_t>>(s.pixels)) sum += v / 255, squares += v * v / 65025, ++count;
  }
  for (const int64_t n : ids) CHECK(n > 2000);
  CHECK(covered / count > 0.2);
  CHECK(covered / count < 0.5);
  const double mean = sum / count;
  CHECK(std::abs(mean - data->normalization.mean.at(0)) < 0.02);
  CHECK(std::abs(std::sqrt(squares / count - mean * mean) - data->normalization.deviation.at(0)) < 0.02);
}

TEST_CASE("solids: shapes, balanced labels, unit sphere; a function of seed, split and index") {
  const auto a = open(R"({"type": "solids", "points": 65, "train_size": 140, "test_size": 28})");
  CHECK(a->train->shape() == SampleShape{3, 65, 1, true});
  CHECK_FALSE(a->train->segmentation());
  CHECK(solid_names().size() >= 10);
  CHECK(std::set<std::string>(solid_names().begin(), solid_names().end()).size() == solid_names().size());
  CHECK(a->train->class_names() == solid_names());
  for (int64_t i = 0; i < 140; ++i) {
    const Sample s = get(*a->train, i);
    CHECK(s.label == i % 14);
    const auto& p = std::get<std::vector<float>>(s.pixels);
    REQUIRE(p.size() == 3 * 65);
    double farthest = 0, mean[3] = {};
    for (size_t k = 0; k < 65; ++k) farthest = std::max(farthest, radius(p, k));
    for (size_t k = 0; k < p.size(); ++k) mean[k % 3] += p[k] / 65;
    CHECK(std::abs(farthest - 1) < 1e-5);
    for (const double m : mean) CHECK(std::abs(m) < 1e-5);
  }
  const auto b = open(R"({"type": "solids", "points": 65, "train_size": 140})");
  CHECK(get(*a->train, 9).pixels == get(*b->train, 9).pixels);
  CHECK(get(*a->train, 9).pixels != get(*b->test, 9).pixels);
  CHECK(get(*a->train, 9).pixels != get(*open(R"({"type": "solids", "points": 65})", 2)->train, 9).pixels);
  CHECK_THROWS_AS(get(*a->train, 140), Error);
}

TEST_CASE("solids: known surfaces") {
  Rng rng(1, Purpose::test);
  const auto index = [](const std::string& name) {
    return std::find(solid_names().begin(), solid_names().end(), name) - solid_names().begin();
  };
  // A sphere of radius 1 in 32 x 12 faces has a little less than 4π; octahedra have right angles at height z.
  const double ball = area(make_solid(index("sphere"), rng));
  CHECK(ball < 4 * 3.14159265);
  CHECK(ball > 0.98 * 4 * 3.14159265);
  CHECK(std::abs(area(make_solid(index("tetrahedron"), rng)) - 8 * std::sqrt(3.0)) < 1e-12);  // edge 2√2
  for (int64_t k = 0; k < static_cast<int64_t>(solid_names().size()); ++k) {
    CAPTURE(solid_names()[k]);
    const Mesh mesh = make_solid(k, rng);
    const double size = area(mesh);
    CHECK(size > 1);
    CHECK(size < 25);
    for (const auto& v : mesh.vertices) CHECK(std::hypot(v[0], v[1], v[2]) < 1.8);
    CHECK(area(make_solid(k, rng)) > 0);
  }
  // Without noise, pose and occlusion the points of a sphere lie on it.
  const auto clean = open(R"({"type": "solids", "points": 500, "noise": 0, "occlusion": 0, "outliers": 0})");
  const auto points = std::get<std::vector<float>>(get(*clean->train, 0).pixels);
  for (size_t i = 0; i < 500; ++i) CHECK(radius(points, i) > 0.7);  // stretched by 0.85 … 1.15, off centre a little
}

TEST_CASE("solids: occlusion cuts one side off") {
  // Of a sphere, seen points lie on one side of a plane: their mean, before it is moved to the origin, leaves the
  // centre.
  const auto whole = open(R"({"type": "solids", "points": 400, "noise": 0, "occlusion": 0, "outliers": 0})");
  const auto cut = open(R"({"type": "solids", "points": 400, "noise": 0, "occlusion": 0.9, "outliers": 0})");
  // The spread along the thinnest direction, by the determinant of the covariance: smaller where a side is missing.
  const auto volume = [](const Dataset& data) {
    double sum = 0;
    for (int64_t i = 0; i < 140; i += 14) {
      const auto p = std::get<std::vector<float>>(get(data, i).pixels);
      double m[3][3] = {};
      for (size_t k = 0; k < 400; ++k)
        for (int a = 0; a < 3; ++a)
          for (int b = 0; b < 3; ++b) m[a][b] += p[3 * k + a] * p[3 * k + b] / 400;
      sum += m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0]) +
             m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0]);
    }
    return sum;
  };
  CHECK(volume(*cut->train) < 0.7 * volume(*whole->train));
}

TEST_CASE("fashion_scenes and solids: impossible options are faults") {
  const auto error_of = [](const std::string& options) { return user_error([&] { data_registry().parse(options); }); };
  CHECK(contains(error_of(R"({"type": "solids", "classes": 15})"), "classes: must be at least 2 and at most 14"));
  CHECK(contains(error_of(R"({"type": "solids", "pose": "down"})"), "pose: \"down\" is not a choice"));
  CHECK(contains(error_of(R"({"type": "fashion_scenes", "channels": 2})"), "channels: must be 1 or 3"));
  CHECK(contains(error_of(R"({"type": "fashion_scenes", "min_garments": 6})"), "min_garments: must be at most"));
  CHECK(contains(user_error([] { open(R"({"type": "fashion_scenes", "root": "/no/such/folder"})"); }),
                 "train-images-idx3-ubyte: no such file"));
}
