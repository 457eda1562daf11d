// Meshes and the points on them, folders, JPEG files, damaged files that nothing may crash on, and the documentation.
#include <doctest/doctest.h>

#include <cmath>

#include "core/file.h"
#include "data/folder.h"
#include "data/image_file.h"
#include "data/mesh.h"
#include "data/preview.h"
#include "tests/support/temp_folder.h"

using namespace mgic;
using namespace mgic::test;

namespace {

const std::string square = "OFF\n4 1 0\n0 0 0\n2 0 0\n2 2 0\n0 2 0\n4 0 1 2 3\n";

std::unique_ptr<DataSource> open(const std::string& options) { return data_registry().parse(options).make({1}); }

}  // namespace

TEST_CASE("mesh: faces become fans of triangles, comments and colours are passed over") {
  const Mesh mesh = parse_off(
      "OFF # here\n5 2 7 # counts\n\n0 0 0\n2 0 0\n2 2 0\n0 2 0\n-1e0 +1 0.5\n4 0 1 2 3 9 9 9\n3 0 3 4\n", "x.off");
  CHECK(mesh.vertices.size() == 5);
  CHECK(mesh.triangles == std::vector<std::array<int64_t, 3>>{{0, 1, 2}, {0, 2, 3}, {0, 3, 4}});
  CHECK(area(parse_off(square, "x")) == doctest::Approx(4));
  CHECK(parse_off("OFF4 1 0 0 0 0 1 0 0 0 1 0 0 0 1 3 0 1 2", "x").triangles.size() == 1);
}

TEST_CASE("mesh: points lie on the surface, as many on equal areas, and follow the stream") {
  // Two triangles, one nine times as large as the other, in planes of their own.
  const Mesh mesh = parse_off("OFF\n6 2 0\n0 0 0\n3 0 0\n0 3 0\n0 0 1\n1 0 1\n0 1 1\n3 0 1 2\n3 3 4 5\n", "x");
  Rng rng(1, Purpose::test), again(1, Purpose::test);
  const auto points = sample_surface(mesh, 20000, rng);
  int64_t large = 0, corner = 0;
  for (size_t i = 0; i < points.size(); i += 3) {
    const float x = points[i], y = points[i + 1], z = points[i + 2];
    REQUIRE((z == 0 || z == 1));
    REQUIRE((x >= 0 && y >= 0 && x + y <= (z == 0 ? 3.00001 : 1.00001)));
    large += z == 0;
    corner += z == 0 && x < 1 && y < 1 && x + y < 1;
  }
  CHECK(std::abs(large / 20000.0 - 0.9) < 0.01);   // more than four deviations
  CHECK(std::abs(corner / 20000.0 - 0.1) < 0.01);  // a ninth of the large one
  CHECK(points == sample_surface(mesh, 20000, again));
  const Mesh flat = parse_off("OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n", "x");
  CHECK(contains(user_error([&] { sample_surface(flat, 1, rng); }), "has no area"));
}

TEST_CASE("to_unit_sphere: mean at the origin, the farthest point at 1, and a single place") {
  std::vector<float> points{1, 0, 0, 5, 0, 0, 3, 3, 0, 3, -3, 0};
  to_unit_sphere(points);
  const std::vector<float> expected{-2 / 3.0f, 0, 0, 2 / 3.0f, 0, 0, 0, 1, 0, 0, -1, 0};
  for (size_t i = 0; i < 12; ++i) CHECK(points[i] == doctest::Approx(expected[i]));
  points = {4, 4, 4, 4, 4, 4};
  to_unit_sphere(points);
  CHECK(points == std::vector<float>(6));
}

TEST_CASE("mesh: whatever stands in a file, it is read or refused") {
  Rng rng(5, Purpose::test);
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text = square;
    for (int64_t k = rng.below(3); k >= 0; --k) {
      const auto at = static_cast<size_t>(rng.below(static_cast<int64_t>(text.size())));
      switch (rng.below(3)) {
        case 0:
          text[at] = static_cast<char>(rng.below(256));
          break;
        case 1:
          text.erase(at);
          break;
        default:
          text.insert(at, "9999999999");
          break;
      }
      if (text.empty()) break;
    }
    try {
      const Mesh mesh = parse_off(text, "x.off");
      for (const auto& t : mesh.triangles)
        for (const int64_t v : t) REQUIRE((v >= 0 && v < static_cast<int64_t>(mesh.vertices.size())));
    } catch (const UserError& e) {
      ++refused;
      REQUIRE(contains(e.what(), "x.off: "));
    }
  }
  CHECK(refused > 500);
}

TEST_CASE("image files: whatever stands in a PNG, it is read or refused") {
  TempFolder folder;
  ImageFile image{9, 13, 3, {}};
  for (int i = 0; i < 9 * 13 * 3; ++i) image.pixels.push_back(static_cast<uint8_t>(i * 5));
  write_png(folder.path("a.png"), image);
  const ImageFile back = read_image(folder.path("a.png"), 3);
  CHECK((back.height == 9 && back.width == 13 && back.channels == 3));
  CHECK(back.pixels == image.pixels);
  CHECK(read_image(folder.path("a.png"), 1).pixels.size() == 9 * 13);
  CHECK(contains(user_error([&] { read_label_image(folder.path("a.png")); }), "is in colours"));
  const std::string whole = folder.read("a.png");
  Rng rng(5, Purpose::test);
  int refused = 0;
  for (int i = 0; i < 1500; ++i) {
    std::string bytes = whole;
    for (int64_t k = rng.below(4); k >= 0; --k)
      bytes[static_cast<size_t>(rng.below(static_cast<int64_t>(bytes.size())))] = static_cast<char>(rng.below(256));
    if (rng.chance(0.3)) bytes.resize(static_cast<size_t>(rng.below(static_cast<int64_t>(bytes.size()))));
    folder.write("b.png", bytes);
    for (const bool label : {false, true}) {
      try {
        const ImageFile b = label ? read_label_image(folder.path("b.png")) : read_image(folder.path("b.png"), 3);
        REQUIRE(static_cast<int64_t>(b.pixels.size()) == b.height * b.width * b.channels);
      } catch (const UserError& e) {
        ++refused;
        REQUIRE(contains(e.what(), folder.path("b.png") + ": "));
      }
    }
  }
  CHECK(refused > 1500);
}

TEST_CASE("image files: a label image comes back as it is, another number of channels is an error") {
  TempFolder folder;
  const ImageFile ids{2, 3, 1, {0, 18, 255, 7, 8, 33}};
  write_png(folder.path("ids.png"), ids);
  CHECK(read_label_image(folder.path("ids.png")).pixels == ids.pixels);
  CHECK_THROWS_AS(write_png(folder.path("x.png"), {2, 3, 3, {1, 2}}), Error);
  CHECK_THROWS_AS(write_png(folder.path("no/x.png"), ids), Error);
}

TEST_CASE("folders: sorted names, files and folders apart, endings in lower case") {
  TempFolder folder;
  for (const std::string name : {"b.PNG", "a.jpeg", "c/x", "B/y", ".hidden"}) folder.write(name, "x");
  CHECK(files_in(folder.path()) == std::vector<std::string>{"a.jpeg", "b.PNG"});
  CHECK(folders_in(folder.path()) == std::vector<std::string>{"B", "c"});
  CHECK(ending_of("a/b.PnG") == ".png");
  CHECK(ending_of("none") == "");
  CHECK(contains(user_error([&] { files_in(folder.path("nowhere")); }), "nowhere: cannot be listed"));
  CHECK(data_folder(folder.path(), {"z", "c"}) == folder.path("c"));
  CHECK(data_folder(folder.path(), {"z"}) == folder.path());
  {
    Environment variable("MGIC_DATA", folder.path());
    CHECK(data_folder("", {"c"}) == folder.path("c"));
  }
  Environment variable("MGIC_DATA", "");
  CHECK(contains(user_error([] { data_folder("", {}); }), "data.root: is missing"));
}

TEST_CASE("data sets of files are declared by their options alone") {
  const auto declared = [](const std::string& text) { return declared_data(data_registry().parse(text)); };
  CHECK(declared(R"({"type": "cifar10"})")->shape == SampleShape{3, 32, 32});
  CHECK(declared(R"({"type": "cifar10"})")->classes == 10);
  CHECK(declared(R"({"type": "cifar100"})")->classes == 100);
  CHECK(declared(R"({"type": "cifar100", "coarse": true})")->classes == 20);
  CHECK_FALSE(declared(R"({"type": "image_folder"})").has_value());
  CHECK(declared(R"({"type": "image_folder", "classes": 1000})")->shape == SampleShape{3, 224, 224});
  CHECK(declared(R"({"type": "cityscapes"})")->shape == SampleShape{3, 1024, 2048});
  CHECK(declared(R"({"type": "cityscapes", "crop_size": [512, 1024]})")->shape == SampleShape{3, 512, 1024});
  CHECK(declared(R"({"type": "cityscapes"})")->classes == 19);
  CHECK(declared(R"({"type": "camvid"})")->classes == 11);
  CHECK(declared(R"({"type": "camvid", "classes": 32})")->classes == 32);
  CHECK(declared(R"({"type": "segmentation_folder", "classes": 7})")->classes == 7);
  CHECK(declared(R"({"type": "modelnet40", "points": 512})")->shape == SampleShape{3, 512, 1, true});
  CHECK(declared(R"({"type": "modelnet10"})")->classes == 10);
  CHECK(declared(R"({"type": "modelnet40"})")->classes == 40);
}

TEST_CASE("contact sheet: the picture shows the pixels, the classes and the points") {
  const auto source = open(R"({"type": "shapes", "image_size": 96, "train_size": 20, "classes": 4})");
  DataLoader loader(*source->train, {.batch_size = 3, .augment = {}, .threads = 0}, source->normalization);
  loader.start(0);
  const Picture sheet = contact_sheet(loader, source->normalization, 7);
  CHECK(sheet.rgb.size() == static_cast<size_t>(sheet.height * sheet.width * 3));
  Sample sample;
  source->train->get(0, sample);
  const auto& pixels = std::get<std::vector<uint8_t>>(sample.pixels);
  for (int64_t y = 0; y < 96; y += 5)
    for (int64_t x = 0; x < 96; x += 5)
      for (int64_t c = 0; c < 3; ++c)
        CHECK(std::abs(sheet.rgb[((18 + y) * sheet.width + 6 + x) * 3 + c] - pixels[(y * 96 + x) * 3 + c]) <= 1);
  loader.start(0);
  CHECK_NOTHROW(contact_sheet(loader, source->normalization, 1000));  // as many as there are
  CHECK(contains(user_error([&] { contact_sheet(loader, source->normalization, 1); }), "no sample to show"));
}

TEST_CASE("docs/data.md names every data set, every transform and every key of them") {
  const std::string page = read_file(std::string(MGIC_SOURCE_DIR) + "/docs/data.md");
  const auto names_keys = [&](const auto& registry) {
    for (const std::string& name : registry.names()) {
      CHECK_MESSAGE(contains(page, "`" + name + "`"), name);
      for (const SchemaEntry& entry : registry.schema(name))
        CHECK_MESSAGE(contains(page, "`" + entry.key + "`"), name, ".", entry.key);
    }
  };
  names_keys(data_registry());
  names_keys(transform_registry());
}
