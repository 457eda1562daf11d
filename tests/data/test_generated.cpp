// shapes and random: data sets that are drawn, not read.
#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "data/dataset.h"
#include "data/shapes.h"
#include "tests/support/temp_folder.h"

using namespace mgic;
using namespace mgic::test;

namespace {

std::unique_ptr<DataSource> open(const std::string& options, uint64_t seed = 1) {
  return data_registry().parse(options).make({seed});
}

std::vector<uint8_t> pixels_of(const Dataset& data, int64_t index) {
  Sample sample;
  data.get(index, sample);
  return std::get<std::vector<uint8_t>>(sample.pixels);
}

std::string error_of(const std::string& options) {
  return user_error([&] { data_registry().parse(options); });
}

}  // namespace

TEST_CASE("data_registry: every type, described and declared without files") {
  for (const std::string name : {"idx", "fashion_mnist", "shapes", "random", "fashion_scenes", "solids"})
    CHECK(data_registry().has(name));
  for (const std::string& name : data_registry().names()) {
    std::set<std::string> keys;
    for (const SchemaEntry& entry : data_registry().schema(name)) {
      CHECK_FALSE(entry.doc.empty());
      keys.insert(entry.key);
    }
    CHECK(keys.contains("train_limit"));
    CHECK(keys.contains("test_limit"));
  }
  const auto declared = [](const std::string& text) { return declared_data(data_registry().parse(text)); };
  CHECK(declared(R"({"type": "fashion_mnist"})")->shape == SampleShape{1, 28, 28});
  CHECK(declared(R"({"type": "fashion_mnist"})")->classes == 10);
  CHECK(declared(R"({"type": "shapes", "image_size": 24, "channels": 1, "classes": 5})")->shape ==
        SampleShape{1, 24, 24});
  CHECK(declared(R"({"type": "shapes", "classes": 5})")->classes == 5);
  CHECK(declared(R"({"type": "random", "shape": [2, 4, 5], "classes": 7})")->shape == SampleShape{2, 4, 5});
  CHECK(declared(R"({"type": "random", "classes": 7})")->classes == 7);
  CHECK(declared(R"({"type": "fashion_scenes", "image_size": 48, "channels": 3})")->shape == SampleShape{3, 48, 48});
  CHECK(declared(R"({"type": "fashion_scenes"})")->classes == 11);
  CHECK(declared(R"({"type": "solids", "points": 100, "classes": 12})")->shape == SampleShape{3, 100, 1, true});
  CHECK(declared(R"({"type": "solids", "points": 100, "classes": 12})")->classes == 12);
  CHECK_FALSE(declared(R"({"type": "idx"})").has_value());
  CHECK_FALSE(declared_data({}).has_value());
}

TEST_CASE("shapes: sizes, names and balanced labels") {
  const auto source = open(R"({"type": "shapes", "image_size": 20, "channels": 2, "classes": 12, "train_size": 120,
                               "test_size": 24})");
  CHECK(source->train->size() == 120);
  CHECK(source->test->size() == 24);
  CHECK(source->train->shape() == SampleShape{2, 20, 20});
  CHECK(source->train->class_names() == shape_names());
  CHECK(std::set<std::string>(shape_names().begin(), shape_names().end()).size() == 12);
  std::vector<int64_t> per_class(12);
  Sample sample;
  for (int64_t i = 0; i < 120; ++i) {
    source->train->get(i, sample);
    CHECK(std::get<std::vector<uint8_t>>(sample.pixels).size() == 800);
    ++per_class.at(static_cast<size_t>(sample.label));
  }
  CHECK(per_class == std::vector<int64_t>(12, 10));
  CHECK_THROWS_AS(source->train->get(120, sample), Error);
}

TEST_CASE("shapes: a sample is a function of seed, split and index, and of nothing else") {
  const std::string options = R"({"type": "shapes", "train_size": 50, "test_size": 50})";
  const auto a = open(options), b = open(options), other_seed = open(options, 2);
  const auto longer = open(R"({"type": "shapes", "train_size": 500, "train_limit": 60})");
  CHECK(pixels_of(*a->train, 7) == pixels_of(*b->train, 7));
  pixels_of(*b->train, 3);
  CHECK(pixels_of(*a->train, 7) == pixels_of(*b->train, 7));
  CHECK(pixels_of(*a->train, 7) == pixels_of(*longer->train, 7));
  CHECK(longer->train->size() == 60);
  CHECK(pixels_of(*a->train, 7) != pixels_of(*a->test, 7));
  CHECK(pixels_of(*a->train, 7) != pixels_of(*other_seed->train, 7));
  CHECK(pixels_of(*a->train, 7) != pixels_of(*a->train, 17));
}

TEST_CASE("shapes: the pictures of every class differ from those of every other") {
  // A class's profile is its mean picture of the contrast to the corner pixel; no two classes share one.
  const auto source = open(R"({"type": "shapes", "classes": 12, "channels": 1, "train_size": 12000})");
  std::vector<std::vector<double>> profiles(12, std::vector<double>(32 * 32));
  for (int64_t i = 0; i < 12 * 100; ++i) {
    const auto pixels = pixels_of(*source->train, i);
    for (size_t p = 0; p < pixels.size(); ++p)
      profiles[static_cast<size_t>(i % 12)][p] += std::abs(pixels[p] - pixels[0]) / 100.0;
  }
  for (size_t a = 0; a < 12; ++a)
    for (size_t b = 0; b < a; ++b) {
      double distance = 0;
      for (size_t p = 0; p < 32 * 32; ++p) distance += std::abs(profiles[a][p] - profiles[b][p]) / (32 * 32);
      CHECK_MESSAGE(distance > 1.0, shape_names()[a], " and ", shape_names()[b]);
    }
}

TEST_CASE("shapes: the normalisation is about right") {
  const auto source = open(R"({"type": "shapes", "channels": 1})");
  double sum = 0, squares = 0, count = 0;
  for (int64_t i = 0; i < 2000; ++i)
    for (const double v : pixels_of(*source->train, i)) sum += v / 255, squares += v * v / 255 / 255, ++count;
  const double mean = sum / count;
  CHECK(std::abs(mean - source->normalization.mean.at(0)) < 0.02);
  CHECK(std::abs(std::sqrt(squares / count - mean * mean) - source->normalization.deviation.at(0)) < 0.02);
}

TEST_CASE("shapes and random: impossible options are faults") {
  CHECK(
      contains(error_of(R"({"type": "shapes", "classes": 13})"), "classes: must be at least 2 and at most 12, not 13"));
  CHECK(contains(error_of(R"({"type": "shapes", "image_sise": 16})"), "did you mean \"image_size\"?"));
  CHECK(contains(error_of(R"({"type": "random", "shape": [3, 32]})"), "shape: expects three sizes"));
  CHECK(contains(error_of(R"({"type": "random", "shape": [3, 0, 32]})"), "shape[1]: must be at least 1"));
  CHECK(contains(error_of(R"({"type": "random", "shape": [4096, 4096, 4096]})"), "shape: is an image of more than"));
  CHECK(contains(error_of(R"({"type": "random", "classes": 1e7})"), "classes: must be"));
}

TEST_CASE("random: deterministic noise and labels in range") {
  const std::string options = R"({"type": "random", "shape": [3, 5, 7], "classes": 4, "size": 300})";
  const auto a = open(options), b = open(options);
  CHECK(a->train->size() == 300);
  CHECK(a->test->size() == 300);
  CHECK(a->train->shape() == SampleShape{3, 5, 7});
  CHECK(a->normalization.mean.size() == 3);
  std::set<int64_t> labels;
  Sample sample;
  for (int64_t i = 0; i < 300; ++i) {
    a->train->get(i, sample);
    CHECK(sample.label >= 0);
    CHECK(sample.label < 4);
    labels.insert(sample.label);
    CHECK(std::get<std::vector<uint8_t>>(sample.pixels) == pixels_of(*b->train, i));
  }
  CHECK(labels.size() == 4);
  CHECK(pixels_of(*a->train, 0).size() == 105);
  CHECK(pixels_of(*a->train, 0) != pixels_of(*a->test, 0));
}
