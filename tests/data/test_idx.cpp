// idx and fashion_mnist: round trips, and every way in which a file can be wrong.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include "data/dataset.h"
#include "tests/support/temp_folder.h"

using namespace mgic;
using namespace mgic::test;

namespace {

constexpr uint32_t images_magic = 0x803, labels_magic = 0x801;

// Three training images and two test images of 2x3 pixels in three classes.
const std::string train_pixels("\0\1\2\3\4\5\6\7\10\11\12\13\xfd\xfe\xff\x80\x7f\0", 18);
const std::string test_pixels("abcdefghijkl", 12);

struct Files {
  TempFolder folder;
  Files() {
    folder.write("train-images-idx3-ubyte", idx_bytes({images_magic, 3, 2, 3}, train_pixels));
    folder.write("train-labels-idx1-ubyte", idx_bytes({labels_magic, 3}, std::string("\2\0\1", 3)));
    folder.write("t10k-images-idx3-ubyte", idx_bytes({images_magic, 2, 2, 3}, test_pixels));
    folder.write("t10k-labels-idx1-ubyte", idx_bytes({labels_magic, 2}, std::string("\1\1", 2)));
  }
  std::unique_ptr<DataSource> open(const std::string& more = "") const {
    return data_registry()
        .parse(fmt::format(R"({{"type": "idx", "root": "{}", "classes": 3{}}})", folder.path(), more))
        .make({});
  }
  std::string error(const std::string& more = "") const {
    return user_error([&] { open(more); });
  }
};

const std::vector<std::string> all_files{"train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
                                         "t10k-labels-idx1-ubyte"};

std::string pixels_of(const Dataset& data, int64_t index, int64_t& label) {
  Sample sample;
  data.get(index, sample);
  label = sample.label;
  const auto& bytes = std::get<std::vector<uint8_t>>(sample.pixels);
  return {bytes.begin(), bytes.end()};
}

void check_contents(const DataSource& source) {
  CHECK(source.train->size() == 3);
  CHECK(source.test->size() == 2);
  CHECK(source.train->shape() == SampleShape{1, 2, 3});
  CHECK(source.train->classes() == 3);
  CHECK(source.train->class_names() == std::vector<std::string>{"0", "1", "2"});
  int64_t label = -1;
  for (int64_t i = 0; i < 3; ++i) {
    CHECK(pixels_of(*source.train, i, label) == train_pixels.substr(static_cast<size_t>(6 * i), 6));
    CHECK(label == (i + 2) % 3);
  }
  CHECK(pixels_of(*source.test, 1, label) == test_pixels.substr(6));
  CHECK(label == 1);
}

}  // namespace

TEST_CASE("idx: plain files round trip") {
  Files files;
  const auto source = files.open(R"(, "mean": 0.25, "deviation": 0.5)");
  check_contents(*source);
  CHECK(source->normalization.mean == std::vector<double>{0.25});
  CHECK(source->normalization.deviation == std::vector<double>{0.5});
  Sample sample;
  CHECK_THROWS_AS(source->train->get(3, sample), Error);
  CHECK_THROWS_AS(source->train->get(-1, sample), Error);
}

TEST_CASE("idx: gzip files round trip, whichever of the two names is given") {
  Files files;
  for (const std::string& name : all_files) {
    files.folder.write_gz(name + ".gz", files.folder.read(name));
    files.folder.remove(name);
  }
  check_contents(*files.open());
  check_contents(*files.open(R"(, "train_images": "train-images-idx3-ubyte.gz")"));
}

TEST_CASE("idx: x.gz that is absent is looked up as x") {
  Files files;
  check_contents(
      *files.open(R"(, "train_images": "train-images-idx3-ubyte.gz", "test_labels": "t10k-labels-idx1-ubyte.gz")"));
}

TEST_CASE("idx: a file name may be a path of its own") {
  Files files;
  TempFolder elsewhere;
  elsewhere.write("deep/pictures", files.folder.read("train-images-idx3-ubyte"));
  files.folder.remove("train-images-idx3-ubyte");
  check_contents(*files.open(fmt::format(R"(, "train_images": "{}")", elsewhere.path("deep/pictures"))));
}

TEST_CASE("idx: gzip members strung together are one file") {
  Files files;
  const std::string name = "train-images-idx3-ubyte", whole = files.folder.read(name);
  files.folder.write_gz("a.gz", whole.substr(0, 10));
  files.folder.write_gz("empty.gz", "");
  files.folder.write_gz("b.gz", whole.substr(10));
  files.folder.write(name + ".gz",
                     files.folder.read("a.gz") + files.folder.read("empty.gz") + files.folder.read("b.gz"));
  files.folder.remove(name);
  check_contents(*files.open());
}

TEST_CASE("idx: limits") {
  Files files;
  const auto source = files.open(R"(, "train_limit": 2, "test_limit": 100)");
  CHECK(source->train->size() == 2);
  CHECK(source->test->size() == 2);
  int64_t label = -1;
  CHECK(pixels_of(*source->train, 1, label) == train_pixels.substr(6, 6));
  Sample sample;
  CHECK_THROWS_AS(source->train->get(2, sample), Error);
  CHECK(contains(files.error(R"(, "train_limit": 0)"), "train_limit: must be at least 1, not 0"));
}

TEST_CASE("idx: reading the options touches no file") {
  CHECK_NOTHROW(data_registry().parse(R"({"type": "idx", "root": "/no/such/folder"})"));
  CHECK_NOTHROW(data_registry().parse(R"({"type": "fashion_mnist", "root": "/no/such/folder"})"));
}

TEST_CASE("idx: each missing file is named, with what to do") {
  for (const std::string& name : all_files) {
    CAPTURE(name);
    Files files;
    files.folder.remove(name);
    const std::string message = files.error();
    CHECK(contains(message, files.folder.path(name) + ": no such file"));
    CHECK(contains(message, "data.root"));
    CHECK_FALSE(contains(message, "\n"));
  }
}

TEST_CASE("idx: what is wrong inside a file is said with its name") {
  struct Wrong {
    std::string name, bytes, message;
  };
  const std::string images = "train-images-idx3-ubyte", labels = "t10k-labels-idx1-ubyte";
  const std::string two_labels("\1\1", 2);
  const std::vector<Wrong> wrongs{
      {images, "", "truncated"},
      {images, std::string("\0\0", 2), "truncated"},
      {images, idx_bytes({images_magic, 3, 2}, ""), "truncated: it ends within its header of 16 bytes"},
      {images, idx_bytes({labels_magic, 3, 2, 3}, train_pixels), "magic number is 0x00000801, not 0x00000803"},
      {images, "hello, this is a text and no data", "is not an IDX file of images"},
      {images, idx_bytes({images_magic, 3, 2, 3}, train_pixels.substr(1)), "promises 18 bytes and 17 are there"},
      {images, idx_bytes({images_magic, 3, 2, 3}, train_pixels + "x"), "has bytes after the 18"},
      {images, idx_bytes({images_magic, 3, 0, 3}, ""), "header is wrong: size 2 of 3 is 0"},
      {images, idx_bytes({images_magic, 0, 2, 3}, ""), "header is wrong: size 1 of 3 is 0"},
      {images, idx_bytes({images_magic, 3, 2, 0xffffffff}, train_pixels), "header is wrong: size 3 of 3 is 4294967295"},
      {images, idx_bytes({images_magic, 0xffffffff, 16384, 16384}, train_pixels), "18 are there"},  // 10^18 bytes
      {images, idx_bytes({images_magic, 2, 2, 3}, train_pixels.substr(6)), "labels for the 2 images"},
      {images, idx_bytes({images_magic, 3, 3, 2}, train_pixels), "but those of"},
      {labels, idx_bytes({images_magic, 2}, two_labels), "is not an IDX file of labels"},
      {labels, idx_bytes({labels_magic, 2}, std::string("\1", 1)), "promises 2 bytes and 1 are there"},
      {labels, idx_bytes({labels_magic, 2}, two_labels + "\1"), "has bytes after the 2"},
      {labels, idx_bytes({labels_magic, 3}, two_labels + "\1"), "has 3 labels for the 2 images"},
      {labels, idx_bytes({labels_magic, 2}, std::string("\1\3", 2)), "label 3 of sample 1 is not below"},
      {labels, idx_bytes({labels_magic, 0xffffffff}, two_labels), "2 are there"},
  };
  for (const bool compressed : {false, true}) {
    for (const Wrong& wrong : wrongs) {
      CAPTURE(compressed);
      CAPTURE(wrong.message);
      Files files;
      if (compressed) {
        files.folder.remove(wrong.name);
        files.folder.write_gz(wrong.name + ".gz", wrong.bytes);
      } else {
        files.folder.write(wrong.name, wrong.bytes);
      }
      const std::string message = files.error();
      CHECK_MESSAGE(contains(message, wrong.message), message);
      CHECK_MESSAGE(contains(message, files.folder.path(wrong.name)), message);
      CHECK_FALSE(contains(message, "\n"));
    }
  }
}

TEST_CASE("idx: broken gzip files are named") {
  Files files;
  const std::string name = "train-images-idx3-ubyte", gz = name + ".gz";
  const auto error_with = [&](const std::string& bytes) {
    files.folder.write(gz, bytes);
    return files.error();
  };
  std::string many_pixels;  // large enough that a damaged file is noticed in the middle
  for (uint32_t i = 0; i < 60000; ++i) many_pixels += static_cast<char>(i * i >> 3);
  files.folder.write_gz(gz, idx_bytes({images_magic, 10000, 2, 3}, many_pixels));
  const std::string good = files.folder.read(gz), plain = files.folder.read(name);
  files.folder.remove(name);

  for (const std::string& bytes : {plain, std::string(), std::string("\x1f"), std::string("text")}) {
    const std::string message = error_with(bytes);
    CHECK_MESSAGE(contains(message, files.folder.path(gz) + ": is not a gzip file"), message);
  }
  for (const size_t size : {size_t{5}, size_t{12}, good.size() / 2, good.size() - 8, good.size() - 1}) {
    const std::string message = error_with(good.substr(0, size));
    CHECK_MESSAGE(contains(message, files.folder.path(gz) + ": the gzip data are truncated"), message);
  }
  std::string damaged = good;
  damaged[good.size() / 2] ^= 0x55;
  CHECK(contains(error_with(damaged), files.folder.path(gz) + ": "));
  std::string checksum = good;
  checksum[good.size() - 6] ^= 0x55;
  CHECK(contains(error_with(checksum), files.folder.path(gz) + ": the gzip data are corrupt"));
  CHECK(contains(error_with(good + "garbage"), files.folder.path(gz) + ": the gzip data are corrupt"));
}

TEST_CASE("idx: a folder in a file's place is named") {
  Files files;
  files.folder.remove("train-labels-idx1-ubyte");
  std::filesystem::create_directory(files.folder.path("train-labels-idx1-ubyte"));
  CHECK(contains(files.error(), files.folder.path("train-labels-idx1-ubyte") + ": is a folder"));
}

TEST_CASE("idx: damaged files never crash") {
  // Every truncation and every single flipped byte of a small file either opens or is a UserError.
  Files files;
  const std::string name = "train-images-idx3-ubyte", plain = files.folder.read(name);
  files.folder.write_gz(name + ".gz", plain);
  const std::string gz = files.folder.read(name + ".gz");
  for (const auto& [target, good] : {std::pair{name, plain}, std::pair{name + ".gz", gz}}) {
    files.folder.remove(name);
    files.folder.remove(name + ".gz");
    for (size_t i = 0; i < good.size(); ++i) {
      std::string flipped = good;
      flipped[i] = static_cast<char>(~flipped[i]);
      for (const std::string& bytes : {good.substr(0, i), flipped}) {
        files.folder.write(target, bytes);
        const std::string message = files.error();
        CHECK_MESSAGE((message == "nothing was thrown" || contains(message, files.folder.path(name))), message);
      }
    }
  }
}

TEST_CASE("fashion_mnist: where the files are looked for") {
  const auto error_of = [](const std::string& options) {
    return user_error([&] { data_registry().parse(options).make({}); });
  };
  const std::string plain = R"({"type": "fashion_mnist"})";
  Files files;
  {
    const Environment variable("MGIC_DATA", "/no/such/folder");
    const std::string message = error_of(plain);
    CHECK(contains(message, "/no/such/folder/train-images-idx3-ubyte: no such file"));
    CHECK(contains(message, "dataset-fashion-mnist"));
    CHECK(contains(message, "data.root"));
    CHECK(contains(message, "MGIC_DATA"));
    // root comes before the variable
    CHECK(contains(error_of(R"({"type": "fashion_mnist", "root": "/other/place"})"), "/other/place/train-images"));
  }
  {
    const Environment variable("MGIC_DATA", files.folder.path());
    CHECK(contains(error_of(plain), files.folder.path() + ": its images are 1x2x3, those of Fashion-MNIST 1x28x28"));
  }
  TempFolder outer;
  std::filesystem::create_directory(outer.path("fashion-mnist"));
  const Environment variable("MGIC_DATA", outer.path());
  CHECK(contains(error_of(plain), outer.path("fashion-mnist/train-images-idx3-ubyte") + ": no such file"));
}

TEST_CASE("fashion_mnist: the real files") {
  const Environment variable("MGIC_DATA", "");
  if (!std::filesystem::exists("/usr/share/datasets/fashion-mnist")) {
    MESSAGE("skipped: the package dataset-fashion-mnist is not installed");
    return;
  }
  const auto source = data_registry().parse(R"({"type": "fashion_mnist"})").make({});
  REQUIRE(source->train->size() == 60000);
  CHECK(source->test->size() == 10000);
  CHECK(source->train->shape() == SampleShape{1, 28, 28});
  CHECK(source->train->class_names().at(0) == "T-shirt/top");
  CHECK(source->train->class_names().at(9) == "Ankle boot");
  double sum = 0, squares = 0;
  std::vector<int64_t> per_class(10);
  Sample sample;
  for (int64_t i = 0; i < source->train->size(); ++i) {
    source->train->get(i, sample);
    int64_t s = 0, q = 0;
    for (const int64_t v : std::get<std::vector<uint8_t>>(sample.pixels)) s += v, q += v * v;
    sum += static_cast<double>(s);
    squares += static_cast<double>(q);
    ++per_class.at(static_cast<size_t>(sample.label));
  }
  const double count = 60000.0 * 28 * 28, mean = sum / count / 255;
  const double deviation = std::sqrt(squares / count / 255 / 255 - mean * mean);
  CHECK(std::abs(mean - source->normalization.mean.at(0)) < 5e-5);  // the constants have four digits
  CHECK(std::abs(deviation - source->normalization.deviation.at(0)) < 5e-5);
  CHECK(per_class == std::vector<int64_t>(10, 6000));
}
