// Resampling, the transforms of images, masks and clouds, and the mixing of batches.
#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "data/corrupt.h"
#include "data/loader.h"
#include "data/point_transforms.h"
#include "tests/support/temp_folder.h"

using namespace mgic;
using namespace mgic::test;

namespace {

using Bytes = std::vector<uint8_t>;
using Floats = std::vector<float>;

std::unique_ptr<Transform> make(const std::string& text, const SampleShape& shape) {
  return transform_registry().parse(text).make({shape});
}

// An image whose pixels tell their class: pixel values are 20 times the id, and ids change from block to block.
Image labelled(int64_t height, int64_t width, int64_t channels = 1) {
  Image image{{channels, height, width}, {}, {}};
  auto& pixels = image.sample.resize<uint8_t>(height * width * channels);
  image.sample.mask.resize(static_cast<size_t>(height * width));
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x) {
      const auto id = static_cast<uint8_t>(1 + (y / 8 * 3 + x / 8) % 10);
      image.sample.mask[y * width + x] = id;
      for (int64_t c = 0; c < channels; ++c) pixels[(y * width + x) * channels + c] = static_cast<uint8_t>(20 * id);
    }
  return image;
}

// The share of the pixels whose value and class still belong together; raw zeros must be without a class.
double agreement(const Image& image) {
  const auto& pixels = std::get<Bytes>(image.sample.pixels);
  REQUIRE(image.sample.mask.size() == static_cast<size_t>(image.shape.height * image.shape.width));
  REQUIRE(pixels.size() == image.sample.mask.size() * static_cast<size_t>(image.shape.channels));
  double good = 0;
  for (size_t i = 0; i < image.sample.mask.size(); ++i) {
    const int id = image.sample.mask[i], value = pixels[i * static_cast<size_t>(image.shape.channels)];
    good += id == ignored_label ? value == 0 : value == 20 * id;
  }
  return good / static_cast<double>(image.sample.mask.size());
}

Image cloud(int64_t points) {
  Image image{{3, points, 1, true}, {}, {}};
  Rng rng(7, Purpose::test);
  for (float& v : image.sample.resize<float>(3 * points)) v = static_cast<float>(rng.uniform(-1, 1));
  return image;
}
const Floats& points_of(const Image& image) { return std::get<Floats>(image.sample.pixels); }

// 40 images of the size 30 x 21, each with a mask, or clouds, of which some files may be damaged.
class Made : public Dataset {
 public:
  enum Kind { images, masks, clouds };
  explicit Made(Kind kind, std::set<int64_t> damaged = {}, int64_t most = 0)
      : kind_(kind), damaged_(std::move(damaged)), corrupt(most) {}
  int64_t size() const override { return 40; }
  SampleShape shape() const override { return kind_ == clouds ? SampleShape{3, 17, 1, true} : SampleShape{3, 24, 18}; }
  int64_t classes() const override { return 40; }
  bool segmentation() const override { return kind_ == masks; }
  void get(int64_t index, Sample& sample) const override {
    corrupt.guard([&] {
      if (damaged_.contains(index)) fail_user("file{}: is damaged", index);
    });
    Rng rng(3, Purpose::test, 0, static_cast<uint64_t>(index));
    sample.label = index;
    if (kind_ == clouds) {
      for (float& v : sample.resize<float>(51)) v = static_cast<float>(rng.uniform(-1, 1));
      return;
    }
    sample.height = 30, sample.width = 21, sample.centre = 0.9;
    for (uint8_t& v : sample.resize<uint8_t>(30 * 21 * 3)) v = static_cast<uint8_t>(rng.below(256));
    if (kind_ != masks) return;
    sample.mask.resize(30 * 21);
    for (uint8_t& v : sample.mask) v = static_cast<uint8_t>(rng.below(40));
  }

 private:
  Kind kind_;
  std::set<int64_t> damaged_;

 public:
  CorruptFiles corrupt;
};

const Normalization plain{{0, 0, 0}, {1, 1, 1}};

}  // namespace

TEST_CASE("resample: the identity, constants, halves and doubles") {
  const Bytes in{10, 20, 30, 40, 50, 60};
  CHECK(resample(in, 2, 3, 1, {0, 0, 2, 3}, 2, 3) == in);
  CHECK(resample(in, 1, 2, 3, {0, 0, 1, 2}, 1, 2) == in);
  CHECK(resample(in, 2, 3, 1, {1, 1, 1, 2}, 1, 2) == Bytes{50, 60});
  CHECK(resample(Bytes(35, 77), 5, 7, 1, {0.3, 0.7, 3.9, 5.2}, 11, 3) == Bytes(33, 77));
  // PIL, Image.resize with BILINEAR: [10, 20, 30, 40] to 2 pixels: each sees four, weights 1 3 3 1 cut off at the
  // border.
  CHECK(resample(Floats{10, 20, 30, 40}, 1, 4, 1, {0, 0, 1, 4}, 1, 2)[0] == doctest::Approx((30 + 60 + 30) / 7.0));
  // Twice as large: places 0.25, 0.75, 1.25, 1.75 pixels, bilinear between pixel centres.
  CHECK(resample(Floats{0, 8}, 1, 2, 1, {0, 0, 1, 2}, 1, 4) == Floats{0, 2, 6, 8});
  CHECK(resample_nearest({1, 2, 3, 4}, 1, 4, {0, 0, 1, 4}, 1, 2) == Bytes{2, 4});
  CHECK(resample_nearest({1, 2}, 1, 2, {0, 0, 1, 2}, 1, 5) == Bytes{1, 1, 2, 2, 2});
  CHECK(resample_nearest({1, 2, 3, 4}, 2, 2, {0, 1, 2, 1}, 4, 1) == Bytes{2, 2, 4, 4});
  CHECK_THROWS_AS(resample(in, 2, 2, 1, {0, 0, 2, 2}, 1, 1), Error);
}

TEST_CASE("image: settle, pad, warp and fit move the mask with the pixels") {
  Image image = labelled(16, 24, 3);
  image.shift(-3, 5);
  image.flip();
  std::vector<int64_t> through(16 * 24);
  image.write_mask(through.data());
  image.settle();
  CHECK(agreement(image) == 1);
  CHECK(Bytes(through.begin(), through.end()) == image.sample.mask);
  CHECK(image.sample.mask[0] == ignored_label);

  image = labelled(16, 24);
  image.pad(20, 30, 1, 4);
  CHECK(image.shape == SampleShape{1, 20, 30});
  CHECK(agreement(image) == 1);
  CHECK(image.sample.mask[30 + 4] == labelled(16, 24).sample.mask[0]);
  CHECK_THROWS_AS(image.pad(20, 31, 1, 2), Error);

  image = labelled(16, 24);
  image.warp({1, 0, 3, 0, 1, -2});  // whole pixels: exact
  CHECK(agreement(image) == 1);
  const Image before = labelled(16, 24);
  CHECK(image.sample.mask[5 * 24 + 9] == before.sample.mask[8 * 24 + 7]);
  image = labelled(17, 17);
  const Bytes square = image.sample.mask;
  image.warp({0, -1, 0, 1, 0, 0});  // a quarter turn
  for (int64_t y = 0; y < 17; ++y)
    for (int64_t x = 0; x < 17; ++x) CHECK(image.sample.mask[y * 17 + x] == square[(16 - x) * 17 + y]);
  CHECK(agreement(image) == 1);

  image = labelled(48, 64);
  image.fit({1, 24, 24});
  CHECK(image.shape == SampleShape{1, 24, 24});
  CHECK(image.sample.mask[0] == labelled(48, 64).sample.mask[1 * 64 + 9]);
  CHECK(agreement(image) > 0.25);  // blocks of 4 pixels, whose outermost ones are mixed
  image = labelled(48, 64);
  image.sample.centre = 0.5;
  image.fit({1, 24, 24});  // the middle 24x24, as it is
  CHECK(agreement(image) == 1);
  CHECK(image.sample.mask[0] == labelled(48, 64).sample.mask[12 * 64 + 20]);
}

TEST_CASE("transforms of images: the size of the batch, odd sizes, labels moved with the pixels") {
  const SampleShape target{1, 19, 33};
  for (const std::string text :
       {R"({"type": "random_resized_crop"})", R"({"type": "random_resized_crop", "min_area": 0.9, "max_aspect": 1})",
        R"({"type": "center_crop"})", R"({"type": "center_crop", "keep": 1})", R"({"type": "random_scale_crop"})",
        R"({"type": "random_scale_crop", "min_scale": 0.05, "max_scale": 0.3})",
        R"({"type": "random_scale_crop", "min_scale": 3, "max_scale": 5})"}) {
    CAPTURE(text);
    const auto transform = make(text, target);
    for (const auto& [height, width] : {std::pair<int64_t, int64_t>{40, 56}, {19, 33}, {57, 23}, {8, 100}, {1, 1}})
      for (uint64_t i = 0; i < 20; ++i) {
        Rng rng(1, Purpose::test, 0, i), again(1, Purpose::test, 0, i);
        Image image = labelled(height, width), same = labelled(height, width);
        transform->apply(image, rng);
        CHECK(image.shape == target);
        CHECK(agreement(image) > 0.3);  // block borders are mixed, more where the image is reduced
        for (const uint8_t id : image.sample.mask) CHECK((id <= 10 || id == ignored_label));
        transform->apply(same, again);
        CHECK(image.sample.pixels == same.sample.pixels);
        CHECK(image.sample.mask == same.sample.mask);
      }
  }
}

TEST_CASE("random_scale_crop: at scale 1 a window of the image, or the image in a larger window") {
  const std::string text = R"({"type": "random_scale_crop", "min_scale": 1, "max_scale": 1})";
  std::set<std::vector<uint8_t>> windows, places;
  for (uint64_t i = 0; i < 60; ++i) {
    Rng rng(1, Purpose::test, 0, i);
    Image image = labelled(32, 32);
    make(text, {1, 30, 29})->apply(image, rng);
    CHECK(agreement(image) == 1);
    CHECK(std::find(image.sample.mask.begin(), image.sample.mask.end(), ignored_label) == image.sample.mask.end());
    windows.insert(image.sample.mask);
    image = labelled(32, 32);
    make(text, {1, 34, 32})->apply(image, rng);
    CHECK(agreement(image) == 1);
    CHECK(std::count(image.sample.mask.begin(), image.sample.mask.end(), ignored_label) == 2 * 32);
    places.insert(image.sample.mask);
  }
  CHECK(windows.size() >= 10);  // 3 x 4 places
  CHECK(places.size() == 3);
}

TEST_CASE("random_resized_crop: areas and proportions are those asked for") {
  // The gradient image x + y tells the box's place and size by its least and greatest value.
  const auto crop =
      make(R"({"type": "random_resized_crop", "min_area": 0.25, "max_area": 0.25, "max_aspect": 1})", {1, 10, 10});
  for (uint64_t i = 0; i < 50; ++i) {
    Rng rng(1, Purpose::test, 0, i);
    Image image{{1, 100, 100}, {}, {}};
    auto& pixels = image.sample.resize<float>(10000);
    for (int64_t k = 0; k < 10000; ++k) pixels[k] = static_cast<float>(k % 100);
    crop->apply(image, rng);
    const auto& out = std::get<Floats>(image.sample.pixels);
    CHECK(out[9] - out[0] == doctest::Approx(45).epsilon(0.02));  // a side of 50, from middle to middle of 10 pixels
  }
}

TEST_CASE("cutout: a square of the mean colour, without classes") {
  const auto cut = make(R"({"type": "cutout", "size": 5})", {2, 12, 9});
  for (uint64_t i = 0; i < 50; ++i) {
    Rng rng(1, Purpose::test, 0, i);
    Image image = labelled(12, 9, 2);
    const Bytes before = std::get<Bytes>(image.sample.pixels), classes = image.sample.mask;
    uint64_t sum = 0;
    for (size_t k = 0; k < before.size(); k += 2) sum += before[k];
    cut->apply(image, rng);
    const auto& after = std::get<Bytes>(image.sample.pixels);
    int64_t holes = 0;
    for (size_t k = 0; k < classes.size(); ++k) {
      const bool hole = image.sample.mask[k] == ignored_label;
      holes += hole;
      CHECK(after[2 * k] == (hole ? sum / 108 : before[2 * k]));
      if (!hole) CHECK(image.sample.mask[k] == classes[k]);
    }
    CHECK(holes >= 3 * 3);
    CHECK(holes <= 5 * 5);
  }
}

TEST_CASE("color_jitter: nothing, brightness, contrast, and the grey that saturation and hue keep") {
  const auto jitter = [](const std::string& options, Bytes pixels, int64_t channels = 3, uint64_t stream = 0) {
    Image image{{channels, 1, static_cast<int64_t>(pixels.size()) / channels}, {}, {}};
    image.sample.pixels = std::move(pixels);
    Rng rng(1, Purpose::test, 0, stream);
    make(R"({"type": "color_jitter", )" + options + "}", image.shape)->apply(image, rng);
    return std::get<Bytes>(image.sample.pixels);
  };
  const Bytes colors{10, 200, 90, 90, 90, 90, 250, 3, 77};
  const std::string off = R"("brightness": 0, "contrast": 0, "saturation": 0)";
  CHECK(jitter(off, colors) == colors);
  std::set<int> seen;
  for (uint64_t i = 0; i < 100; ++i) {
    const Bytes bright = jitter(R"("brightness": 0.5, "contrast": 0, "saturation": 0)", {100, 100, 100}, 3, i);
    CHECK((bright[0] == bright[1] && bright[1] == bright[2]));
    CHECK((bright[0] >= 50 && bright[0] <= 150));
    seen.insert(bright[0]);
    const Bytes hue = jitter(R"("brightness": 0, "contrast": 0, "saturation": 1, "hue": 0.5)", colors, 3, i);
    for (size_t k = 3; k < 6; ++k) CHECK(std::abs(hue[k] - 90) <= 1);  // grey stays grey
    const Bytes contrast = jitter(R"("brightness": 0, "contrast": 0.5, "saturation": 0)", {80, 120}, 1, i);
    CHECK(std::abs(contrast[0] + contrast[1] - 200) <= 1);  // about the mean
    CHECK((contrast[1] - contrast[0] >= 19 && contrast[1] - contrast[0] <= 61));
  }
  CHECK(seen.size() > 40);
  // A turn of the whole circle is none.
  const Bytes mild{100, 120, 140};
  CHECK(jitter(off + R"(, "hue": 0.0)", mild) == mild);
}

TEST_CASE("color_jitter: saturation and hue as their formulas say") {
  const Bytes colors{10, 200, 90, 120, 130, 110, 250, 3, 77, 90, 140, 60};
  for (uint64_t i = 0; i < 50; ++i) {
    Image image{{3, 1, 4}, {}, {}};
    image.sample.pixels = colors;
    Rng rng(1, Purpose::test, 0, i), mirror(1, Purpose::test, 0, i);
    make(R"({"type": "color_jitter", "brightness": 0, "contrast": 0, "saturation": 0.8})", image.shape)
        ->apply(image, rng);
    mirror.uniform(), mirror.uniform();  // brightness and contrast
    const double factor = mirror.uniform(0.2, 1.8);
    const auto& out = std::get<Bytes>(image.sample.pixels);
    for (size_t p = 0; p < 12; p += 3) {
      const double grey = 0.299 * colors[p] + 0.587 * colors[p + 1] + 0.114 * colors[p + 2];
      for (size_t c = 0; c < 3; ++c) {
        const double expected = std::clamp(factor * colors[p + c] + (1 - factor) * grey, 0.0, 255.0);
        CHECK(std::abs(out[p + c] - expected) < 0.51);
      }
    }
  }
}

TEST_CASE("rand_augment: each operation does what it says") {
  // Every byte once: contrast is full and the histogram even, so that these operations change nothing either.
  Bytes ramp(256);
  for (int i = 0; i < 256; ++i) ramp[i] = static_cast<uint8_t>(i);
  const auto run = [&](const std::string& options, const Bytes& pixels, uint64_t stream) {
    Image image{{1, 16, 16}, {}, {}};
    image.sample.pixels = pixels;
    Rng rng(2, Purpose::test, 0, stream);
    make(R"({"type": "rand_augment", "count": 1, )" + options + "}", image.shape)->apply(image, rng);
    return std::get<Bytes>(image.sample.pixels);
  };
  for (uint64_t i = 0; i < 300; ++i) CHECK(run(R"("magnitude": 0)", ramp, i) == ramp);

  const auto mapped = [&](auto f) {
    Bytes out;
    for (const uint8_t v : ramp) out.push_back(static_cast<uint8_t>(std::clamp(f(v) + 0.5, 0.0, 255.0)));
    return out;
  };
  std::vector<Bytes> expected{
      ramp,
      mapped([](double v) { return 1.9 * v; }),
      mapped([](double v) { return (1 - 0.9) * v; }),
      mapped([](double v) { return 1.9 * v - 0.9 * 127.5; }),
      mapped([](double v) { return (1 - 0.9) * v + 0.9 * 127.5; }),
      mapped([](double v) { return static_cast<int>(v) & 0xf0; }),
      mapped([](double v) { return 255 - v; }),
  };
  for (const double sign : {1.0, -1.0})  // half a canvas less a bit: 7.2 pixels, rows that come from outside are 0
    for (const bool down : {true, false}) {
      Bytes out;
      for (int y = 0; y < 16; ++y)
        for (int x = 0; x < 16; ++x) {
          const double at = (down ? y : x) + sign * 7.2, whole = std::floor(at), part = at - whole;
          const auto value = [&](double k) { return k < 0 || k > 15 ? 0 : down ? k * 16 + x : y * 16 + k; };
          out.push_back(static_cast<uint8_t>((1 - part) * value(whole) + part * value(whole + 1) + 0.5));
        }
      expected.push_back(out);
    }
  std::vector<int> seen(expected.size());
  for (uint64_t i = 0; i < 600; ++i) {
    const Bytes out = run(R"("magnitude": 1)", ramp, i);
    for (size_t k = 0; k < expected.size(); ++k) seen[k] += out == expected[k];
  }
  for (size_t k = 0; k < seen.size(); ++k) CHECK_MESSAGE(seen[k] > 5, "operation ", k);

  // What is dull becomes full: both contrast and histogram operations reach 0 and 255.
  Bytes dull(256);
  for (int i = 0; i < 256; ++i) dull[i] = static_cast<uint8_t>(100 + i / 16);
  int full = 0;
  for (uint64_t i = 0; i < 300; ++i) {
    const Bytes out = run(R"("magnitude": 0)", dull, i);
    full += out.front() == 0 && out.back() == 255;
  }
  CHECK(full > 15);  // 2 of 14
}

TEST_CASE("rand_augment: strength 0 and 1, every image size, classes stay classes") {
  for (const auto& [height, width] : {std::pair<int64_t, int64_t>{24, 24}, {1, 1}, {2, 7}, {33, 16}})
    for (const int64_t channels : {1, 3})
      for (const double magnitude : {0.0, 0.5, 1.0}) {
        const auto augment = make(fmt::format(R"({{"type": "rand_augment", "count": 3, "magnitude": {}}})", magnitude),
                                  {channels, 24, 24});
        for (uint64_t i = 0; i < 40; ++i) {
          Rng rng(1, Purpose::test, 0, i);
          Image image = labelled(height, width, channels);
          augment->apply(image, rng);
          CHECK(image.shape == SampleShape{channels, height, width});
          CHECK(std::get<Bytes>(image.sample.pixels).size() == static_cast<size_t>(height * width * channels));
          for (const uint8_t id : image.sample.mask) CHECK(((id >= 1 && id <= 10) || id == ignored_label));
        }
      }
}

TEST_CASE("point transforms: what each keeps, and what it changes") {
  const auto apply = [](const std::string& text, Image image, uint64_t stream) {
    Rng rng(1, Purpose::test, 0, stream);
    make(text, image.shape)->apply(image, rng);
    return points_of(image);
  };
  const Image image = cloud(101);
  const Floats& p = points_of(image);
  for (uint64_t i = 0; i < 30; ++i) {
    const Floats scaled = apply(R"({"type": "point_scale"})", image, i);
    const Floats even = apply(R"({"type": "point_scale", "uniform": true})", image, i);
    const Floats shifted = apply(R"({"type": "point_shift"})", image, i);
    const Floats turned = apply(R"({"type": "point_rotate", "axis": "any"})", image, i);
    const Floats upright = apply(R"({"type": "point_rotate"})", image, i);
    const Floats noisy = apply(R"({"type": "point_jitter", "deviation": 0.03, "clip": 0.05})", image, i);
    const Floats sparse = apply(R"({"type": "point_dropout", "max_share": 0.5})", image, i);
    for (size_t k = 0; k < p.size(); ++k) {
      CHECK(scaled[k] / p[k] == doctest::Approx(scaled[k % 3] / p[k % 3]).epsilon(1e-5));
      CHECK(even[k] / p[k] == doctest::Approx(even[0] / p[0]).epsilon(1e-5));
      CHECK((scaled[k] / p[k] > 0.666 && scaled[k] / p[k] < 1.501));
      CHECK(shifted[k] - p[k] == doctest::Approx(shifted[k % 3] - p[k % 3]).epsilon(1e-4));
      CHECK(std::abs(shifted[k] - p[k]) < 0.2001);
      CHECK(std::abs(noisy[k] - p[k]) < 0.05001);
    }
    int64_t dropped = 0;
    for (size_t k = 0; k < p.size(); k += 3) {
      const auto square = [&](const Floats& v) { return v[k] * v[k] + v[k + 1] * v[k + 1] + v[k + 2] * v[k + 2]; };
      CHECK(square(turned) == doctest::Approx(square(p)).epsilon(1e-5));
      CHECK(square(upright) == doctest::Approx(square(p)).epsilon(1e-5));
      CHECK(upright[k + 2] == p[k + 2]);
      const bool kept = std::equal(sparse.begin() + k, sparse.begin() + k + 3, p.begin() + k);
      CHECK((kept || std::equal(sparse.begin() + k, sparse.begin() + k + 3, p.begin())));
      dropped += !kept;
    }
    CHECK(dropped < 75);
    CHECK(turned != p);
    CHECK(noisy != p);
  }
}

TEST_CASE("random_rotation: orthogonal, right-handed, and uniform") {
  Rng rng(1, Purpose::test);
  double mean[9] = {};
  for (int i = 0; i < 4000; ++i) {
    const auto r = random_rotation(rng);
    for (int a = 0; a < 3; ++a)
      for (int b = 0; b < 3; ++b) {
        const double dot = r[3 * a] * r[3 * b] + r[3 * a + 1] * r[3 * b + 1] + r[3 * a + 2] * r[3 * b + 2];
        REQUIRE(std::abs(dot - (a == b)) < 1e-12);
      }
    const double determinant =
        r[0] * (r[4] * r[8] - r[5] * r[7]) - r[1] * (r[3] * r[8] - r[5] * r[6]) + r[2] * (r[3] * r[7] - r[4] * r[6]);
    REQUIRE(determinant == doctest::Approx(1));
    for (int k = 0; k < 9; ++k) mean[k] += r[k] / 4000;
  }
  for (const double m : mean) CHECK(std::abs(m) < 0.045);  // deviation 1/√(3·4000), more than four of them
}

TEST_CASE("transforms: images and clouds are told apart") {
  for (const std::string& name : transform_registry().names()) {
    CAPTURE(name);
    const bool for_points = name.starts_with("point_");
    const std::string text = R"({"type": ")" + name + R"("})";
    CHECK_NOTHROW(make(text, for_points ? SampleShape{3, 64, 1, true} : SampleShape{3, 32, 32}));
    const std::string error = user_error([&] {
      make(text, for_points ? SampleShape{3, 32, 32} : SampleShape{3, 64, 1, true});
    });
    CHECK(contains(error, name + ": is for "));
  }
  CHECK(contains(user_error([] { make(R"({"type": "point_shift"})", {6, 64, 1, true}); }), "takes points of 3 values"));
  Image floats{{1, 2, 2}, {}, {}};
  floats.sample.pixels = Floats(4);
  Rng rng(1, Purpose::test);
  CHECK(contains(user_error([&] { make(R"({"type": "cutout"})", floats.shape)->apply(floats, rng); }),
                 "cutout: works on 8-bit images only"));
  CHECK(contains(user_error([] {
                   make(R"({"type": "random_scale_crop", "min_scale": 3})", {1, 8, 8});
                 }),
                 "min_scale: must be at most max_scale"));
}

TEST_CASE("loader: every transform, masks and clouds, the same batches for any number of threads") {
  struct Case {
    Made::Kind kind;
    std::vector<std::string> augment;
    MixOptions mix;
  };
  const std::vector<Case> cases{
      {Made::masks, {R"({"type": "random_flip"})", R"({"type": "random_scale_crop"})", R"({"type": "cutout"})"}, {}},
      {Made::masks, {R"({"type": "rand_augment"})"}, {}},
      {Made::images,
       {R"({"type": "random_resized_crop"})", R"({"type": "random_crop", "padding": 2})", R"({"type": "color_jitter"})",
        R"({"type": "rand_augment", "count": 4})"},
       {.mixup = 0.3, .cutmix = 1}},
      {Made::images, {R"({"type": "center_crop"})"}, {.cutmix = 0.5}},
      {Made::clouds,
       {R"({"type": "point_scale"})", R"({"type": "point_rotate", "axis": "any"})", R"({"type": "point_shift"})",
        R"({"type": "point_jitter"})", R"({"type": "point_dropout"})"},
       {}}};
  for (const Case& c : cases) {
    const Made data(c.kind);
    LoaderOptions options{.batch_size = 7, .shuffle = true, .augment = {}, .mix = c.mix, .seed = 5};
    for (const std::string& text : c.augment) options.augment.push_back(transform_registry().parse(text));
    std::vector<std::tuple<Floats, std::vector<int64_t>, double>> first;
    for (const int64_t threads : {0, 1, 3, 8}) {
      options.threads = threads;
      DataLoader loader(data, options, plain);
      std::vector<std::tuple<Floats, std::vector<int64_t>, double>> all;
      for (const int64_t epoch : {0, 1}) {
        loader.start(epoch);
        for (Batch batch; loader.next(batch);) {
          const int64_t n = batch.labels.shape()[0];
          CHECK(batch.images.shape() == (c.kind == Made::clouds ? Shape{n, 17, 3} : Shape{n, 24, 18, 3}));
          CHECK(batch.labels.shape() == (c.kind == Made::masks ? Shape{n, 24, 18} : Shape{n}));
          CHECK(batch.mixed_labels.defined() == c.mix.any());
          const auto images = batch.images.span<float>();
          const auto labels = batch.labels.span<int64_t>();
          all.push_back({{images.begin(), images.end()}, {labels.begin(), labels.end()}, batch.mix});
        }
      }
      if (first.empty()) first = all;
      CHECK(all == first);
    }
  }
}

TEST_CASE("loader: images of another size are fitted, masks come as class ids") {
  const Made data(Made::masks);
  DataLoader loader(data, {.batch_size = 3, .augment = {}, .threads = 0}, plain);
  loader.start(0);
  Batch batch;
  REQUIRE(loader.next(batch));
  CHECK(batch.labels.shape() == Shape{3, 24, 18});
  for (const int64_t id : batch.labels.span<int64_t>()) CHECK((id >= 0 && id < 40));
  Image image{{3, 30, 21}, {}, {}};
  data.get(0, image.sample);
  image.fit(data.shape());
  CHECK(std::get<Bytes>(image.sample.pixels)[5] / 255.0f == doctest::Approx(batch.images.data<float>()[5]));
  CHECK(image.sample.mask[7] == batch.labels.data<int64_t>()[7]);
}

TEST_CASE("mix: mixup and cutmix by hand") {
  const auto make_batch = [] {
    Batch batch{Tensor::empty({3, 8, 6, 2}, DType::f32, Device::cpu), Tensor::from<int64_t>({5, 6, 7}, {3}), 0, {}};
    for (int64_t i = 0; i < 288; ++i) batch.images.data<float>()[i] = static_cast<float>(i / 96 + 1);
    return batch;
  };
  double sum = 0;
  for (uint64_t k = 0; k < 200; ++k) {
    Rng rng(1, Purpose::test, 0, k);
    Batch batch = make_batch();
    mix(batch, {.mixup = 0.4}, rng);
    CHECK(batch.mixed_labels.data<int64_t>()[0] == 7);
    CHECK(batch.mixed_labels.data<int64_t>()[1] == 5);
    CHECK(batch.images.data<float>()[0] == doctest::Approx(batch.mix * 1 + (1 - batch.mix) * 3));
    CHECK(batch.images.data<float>()[287] == doctest::Approx(batch.mix * 3 + (1 - batch.mix) * 2));
    sum += batch.mix / 200;

    batch = make_batch();
    mix(batch, {.cutmix = 1}, rng);
    int64_t own = 0;
    for (int64_t i = 96; i < 192; ++i) {
      const float v = batch.images.data<float>()[i];
      CHECK((v == 2 || v == 1));
      own += v == 2;
    }
    CHECK(batch.mix == doctest::Approx(static_cast<double>(own) / 96));

    batch = make_batch();
    mix(batch, {.mixup = 1, .probability = 0}, rng);
    CHECK_FALSE(batch.mixed_labels.defined());
    CHECK(batch.mix == 1);
  }
  CHECK(std::abs(sum - 0.5) < 0.12);  // Beta(0.4, 0.4): deviation 0.37, of the mean of 200 0.026
  const Made masks(Made::masks);
  CHECK_THROWS_AS(DataLoader(masks, {.augment = {}, .mix = {.mixup = 1}}, plain), Error);
}

TEST_CASE("loader: damaged files are skipped up to a number, replaced in training, left out in evaluation") {
  const auto labels_of = [](const Made& data, bool shuffle, int64_t threads) {
    DataLoader loader(
        data, {.batch_size = 8, .shuffle = shuffle, .drop_last = shuffle, .augment = {}, .threads = threads}, plain);
    std::vector<std::vector<int64_t>> batches;
    loader.start(0);
    for (Batch batch; loader.next(batch);) {
      CHECK(batch.images.shape()[0] == batch.labels.shape()[0]);
      const auto labels = batch.labels.span<int64_t>();
      batches.emplace_back(labels.begin(), labels.end());
    }
    return batches;
  };
  const std::set<int64_t> damaged{0, 8, 9, 10, 11, 12, 13, 14, 15, 39};
  for (const int64_t threads : {0, 3}) {
    Made data(Made::images, damaged, 10);
    const auto evaluated = labels_of(data, false, threads);
    REQUIRE(evaluated.size() == 4);  // the second batch has no sample left
    CHECK(evaluated[0] == std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7});
    CHECK(evaluated[3] == std::vector<int64_t>{32, 33, 34, 35, 36, 37, 38});
    CHECK(data.corrupt.count() == 10);
    const auto trained = labels_of(data, true, threads);
    CHECK(trained.size() == 5);
    const auto order = Rng(0, Purpose::shuffle, 0).permutation(40);
    for (size_t i = 0; i < 40; ++i) {
      const int64_t wanted = order[i], got = trained[i / 8].at(i % 8);
      if (!damaged.contains(wanted)) CHECK(got == wanted);
      if (wanted == 8) CHECK(got == 16);
      if (wanted == 39) CHECK(got == 1);  // the next is sample 0, which is damaged too
    }
    CHECK(data.corrupt.count() == 10);  // each counts once
    Made strict(Made::images, damaged, 9);
    CHECK(contains(user_error([&] { labels_of(strict, false, threads); }), "data.max_corrupt is 9"));
  }
  Made none(Made::images, {3});
  CHECK(contains(user_error([&] { labels_of(none, false, 2); }), "file3: is damaged; set data.max_corrupt"));
}
