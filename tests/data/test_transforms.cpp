// Transforms and normalisation against values worked out by hand, and against a naive pixel by pixel version.
#include <doctest/doctest.h>

#include <cmath>

#include "data/transforms.h"
#include "tests/support/temp_folder.h"

using namespace mgic;
using namespace mgic::test;

namespace {

using Bytes = std::vector<uint8_t>;

Image image_of(const SampleShape& shape, Bytes pixels) {
  Image image{shape, {}, {}};
  image.sample.pixels = std::move(pixels);
  return image;
}

Bytes settled(Image image) {
  image.settle();
  CHECK(image.placement == Placement{});
  return std::get<Bytes>(image.sample.pixels);
}

// The pixels after cutting (y, x) … out of a picture that is padded with zeros.
Bytes naive_shift(const Bytes& in, const SampleShape& s, int64_t dy, int64_t dx) {
  Bytes out(in.size());
  for (int64_t y = 0; y < s.height; ++y)
    for (int64_t x = 0; x < s.width; ++x)
      for (int64_t c = 0; c < s.channels; ++c)
        if (y + dy >= 0 && y + dy < s.height && x + dx >= 0 && x + dx < s.width)
          out[(y * s.width + x) * s.channels + c] = in[((y + dy) * s.width + x + dx) * s.channels + c];
  return out;
}
Bytes naive_flip(const Bytes& in, const SampleShape& s) {
  Bytes out(in.size());
  for (int64_t y = 0; y < s.height; ++y)
    for (int64_t x = 0; x < s.width; ++x)
      for (int64_t c = 0; c < s.channels; ++c)
        out[(y * s.width + x) * s.channels + c] = in[(y * s.width + s.width - 1 - x) * s.channels + c];
  return out;
}

std::unique_ptr<Transform> make(const std::string& text, const SampleShape& shape = {1, 8, 8}) {
  return transform_registry().parse(text).make({shape});
}

}  // namespace

TEST_CASE("placement: hand-computed shifts and flips") {
  const SampleShape shape{1, 2, 3};
  const Bytes pixels{1, 2, 3, 4, 5, 6};
  Image image = image_of(shape, pixels);
  CHECK(settled(image) == pixels);
  image.shift(-1, 1);
  CHECK(settled(image) == Bytes{0, 0, 0, 2, 3, 0});
  image.flip();
  CHECK(settled(image) == Bytes{0, 0, 0, 0, 3, 2});
  image = image_of(shape, pixels);
  image.flip();
  CHECK(settled(image) == Bytes{3, 2, 1, 6, 5, 4});
  image.shift(0, 1);
  CHECK(settled(image) == Bytes{2, 1, 0, 5, 4, 0});
  image = image_of({2, 1, 2}, {1, 2, 3, 4});  // channels keep together
  image.flip();
  CHECK(settled(image) == Bytes{3, 4, 1, 2});
}

TEST_CASE("random_crop and random_flip: as drawn from the stream, in any order") {
  const SampleShape shape{3, 5, 7};
  Bytes pixels;
  for (int i = 1; i <= 105; ++i) pixels.push_back(static_cast<uint8_t>(i));
  const auto crop = make(R"({"type": "random_crop", "padding": 2})", shape);
  const auto flip = make(R"({"type": "random_flip"})", shape);
  for (uint64_t i = 0; i < 200; ++i) {
    for (const std::string order : {"c", "f", "cf", "fc", "cc", "cfc", "fcfcf"}) {
      CAPTURE(order);
      Rng rng(3, Purpose::test, 0, i), mirror(3, Purpose::test, 0, i);
      Image image = image_of(shape, pixels);
      Bytes expected = pixels;
      for (const char step : order) {
        if (step == 'c') {
          crop->apply(image, rng);
          const int64_t y = mirror.below(5) - 2, x = mirror.below(5) - 2;
          expected = naive_shift(expected, shape, y, x);
        } else {
          flip->apply(image, rng);
          if (mirror.uniform() < 0.5) expected = naive_flip(expected, shape);
        }
      }
      CHECK(settled(image) == expected);
    }
  }
}

TEST_CASE("random_flip: the probability is kept") {
  for (const double probability : {0.0, 0.25, 1.0}) {
    const auto flip = make(fmt::format(R"({{"type": "random_flip", "probability": {}}})", probability));
    int flipped = 0;
    Rng rng(1, Purpose::test);
    for (int i = 0; i < 4000; ++i) {
      Image image = image_of({1, 1, 1}, {0});
      flip->apply(image, rng);
      flipped += image.placement.mirrored;
    }
    CHECK(std::abs(flipped / 4000.0 - probability) < 0.03);  // more than four deviations
  }
}

TEST_CASE("random_crop: every offset comes up, none beyond the padding") {
  const auto crop = make(R"({"type": "random_crop", "padding": 1})");
  std::vector<int> seen(9);
  Rng rng(1, Purpose::test);
  for (int i = 0; i < 900; ++i) {
    Image image = image_of({1, 8, 8}, Bytes(64));
    crop->apply(image, rng);
    ++seen.at(static_cast<size_t>((image.placement.dy + 1) * 3 + image.placement.dx + 1));
  }
  for (const int n : seen) CHECK(n > 50);
}

TEST_CASE("normalisation: one pass over placement, bytes and channels") {
  const Normalizer normalizer({{0.5, 0.25}, {0.5, 0.125}}, 2);
  Image image = image_of({2, 1, 3}, {0, 255, 51, 102, 255, 0});
  std::vector<float> out(6);
  normalizer.write(image, out.data());
  const auto close = [](float a, double b) { return std::abs(a - b) < 1e-6 * (1 + std::abs(b)); };  // f32 rounding
  const std::vector<double> expected{-1, 6, -0.6, 1.2, 1, -2};
  for (size_t i = 0; i < 6; ++i) CHECK(close(out[i], expected[i]));

  image.flip();
  image.shift(0, 1);  // [255 0] [51 102] [0 255] → [51 102] [0 255] and raw zeros, which are not zero afterwards
  normalizer.write(image, out.data());
  const std::vector<double> moved{-0.6, 1.2, -1, 6, -1, -2};
  for (size_t i = 0; i < 6; ++i) CHECK(close(out[i], moved[i]));
}

TEST_CASE("normalisation: float images are taken as they are") {
  Image image{{1, 1, 3}, {}, {}};
  image.sample.pixels = std::vector<float>{1, 2, 4};
  image.shift(0, -1);
  std::vector<float> out(3);
  Normalizer({{1}, {2}}, 1).write(image, out.data());
  CHECK(out == std::vector<float>{-0.5f, 0, 0.5f});
  image.settle();
  CHECK(std::get<std::vector<float>>(image.sample.pixels) == std::vector<float>{0, 1, 2});
}

TEST_CASE("normalisation: what does not fit is an error") {
  CHECK_THROWS_AS(Normalizer({{0}, {1}}, 2), Error);
  CHECK_THROWS_AS(Normalizer({{0, 0}, {1}}, 2), Error);
  CHECK_THROWS_AS(Normalizer({{0}, {0}}, 1), Error);
  std::vector<float> out(16);
  const Normalizer normalizer({{0}, {1}}, 1);
  CHECK_THROWS_AS(normalizer.write(image_of({1, 2, 2}, {1, 2, 3}), out.data()), Error);
  CHECK_THROWS_AS(normalizer.write(image_of({2, 2, 1}, {1, 2, 3, 4}), out.data()), Error);
}

TEST_CASE("transform_registry: faults of the options, and of padding that does not fit") {
  CHECK(transform_registry().names() ==
        std::vector<std::string>{"random_crop", "random_flip", "random_resized_crop", "center_crop",
                                 "random_scale_crop", "cutout", "color_jitter", "rand_augment", "point_scale",
                                 "point_shift", "point_rotate", "point_jitter", "point_dropout"});
  CHECK(contains(user_error([] { make(R"({"type": "random_crop", "padding": -1})"); }), "padding: must be at least 0"));
  CHECK(contains(user_error([] { make(R"({"type": "random_crop", "paddin": 1})"); }), "did you mean \"padding\"?"));
  CHECK(contains(user_error([] { make(R"({"type": "random_flip", "probability": 1.5})"); }), "probability: must be"));
  CHECK(contains(user_error([] { make(R"({"type": "random_flop"})"); }), "allowed are random_crop, random_flip"));
  CHECK(contains(user_error([] { make(R"({"type": "random_crop", "padding": 8})"); }), "padding 8 must be below"));
  CHECK_NOTHROW(make(R"({"type": "random_crop", "padding": 7})"));
}
