// Experiment files: every fault at once with its path, inheritance, overrides, and the resolved form.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "train/config.h"

using namespace mgic;

namespace {

const Needs all{.model = true, .data = true, .optimizer = true};

const char* const good = R"({
  "seed": 1, "device": "cpu",
  "model": {"type": "resnet", "in_channels": 3, "classes": 10, "channels": [8, 16], "blocks": [1, 1], "strides": [1, 2],
            "block": {"type": "mgic", "group_size": 4, "coarsest_width": 4}},
  "data": {"type": "shapes", "image_size": 16, "channels": 3, "classes": 10, "train_size": 64, "test_size": 32,
           "batch_size": 16, "augment": [{"type": "random_crop", "padding": 2}, {"type": "random_flip"}]},
  "optimizer": {"type": "sgd", "lr": 0.1, "momentum": 0.9},
  "schedule": {"type": "cosine", "warmup_epochs": 1},
  "train": {"epochs": 2}
})";

std::string message(const std::string& text, const Overrides& overrides = {}) {
  try {
    parse_experiment(text, "f.json", overrides, all);
  } catch (const UserError& e) {
    return e.what();
  }
  return "accepted";
}

std::string with(const std::string& from, const std::string& to) {
  std::string text = good;
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("a good file is accepted, and its resolved form reads the same") {
  CHECK(message(good) == "accepted");
  const Experiment e = parse_experiment(good, "f.json", {}, all);
  const Experiment again = parse_experiment(e.resolved->dump(), "resolved", {}, all);
  CHECK(*again.resolved == *e.resolved);
  CHECK((*e.resolved)["model"]["block"]["coarsest_rule"] == "reach");
  CHECK((*e.resolved)["train"]["precision"] == "f32");
}

TEST_CASE("one fault, one line: path, rule and remedy") {
  const std::pair<std::string, std::string> rows[] = {
      {with("\"group_size\"", "\"group_sze\""),
       "f.json: model.block.group_sze: unknown key, did you mean \"group_size\"?"},
      {with("\"group_size\": 4", "\"group_size\": 0"),
       "f.json: model.block.group_size: must be at least 1 and at most 1000000, not 0"},
      {with("\"group_size\": 4", "\"group_size\": \"4\""),
       "f.json: model.block.group_size: expects an integer, not \"4\""},
      {with("\"group_size\": 4", "\"group_size\": 1.5"), "f.json: model.block.group_size: expects an integer, not 1.5"},
      {with("\"type\": \"mgic\"", "\"type\": \"mgik\""),
       "f.json: model.block.type: \"mgik\" is not a choice; allowed are basic, bottleneck, mgic"},
      {with("[1, 2]", "[1]"), "f.json: model.strides: must have as many elements as channels: 2, not 1"},
      {with("\"blocks\": [1, 1]", "\"blocks\": [1]"),
       "f.json: model.blocks: must have as many elements as channels: 2, not 1"},
      {with("\"padding\": 2", "\"padding\": -1"), "f.json: data.augment[0].padding: must be at least 0"},
      {with("\"lr\": 0.1", "\"lr\": 0"), "f.json: optimizer.lr: must be above 0, not 0"},
      {with("\"lr\": 0.1", "\"lr\": 1e999"), "f.json: is not JSON"},
      {with("\"momentum\": 0.9", "\"momentum\": 0.9, \"nesterov\": 1"),
       "f.json: optimizer.nesterov: expects true or false, not 1"},
      {with("\"epochs\": 2", "\"epochs\": 0"), "f.json: train.epochs: must be at least 1"},
      {with("\"epochs\": 2", "\"epochs\": 2, \"precision\": \"f16\""),
       "f.json: train.precision: \"f16\" is not a choice"},
      {with("\"epochs\": 2", "\"epochs\": 2, \"checkpoint_every\": {\"steps\": 2, \"epochs\": 1}"),
       "f.json: train.checkpoint_every: takes only one of"},
      {with("\"classes\": 10, \"channels\": [8", "\"classes\": 9, \"channels\": [8"),
       "f.json: model.classes: is 9, but the data set shapes has 10 classes"},
      {with("\"in_channels\": 3", "\"in_channels\": 1"),
       "f.json: model.in_channels: is 1, but the images of shapes have 3 channels"},
      {with("\"classes\": 10, \"channels\": [8", "\"classes\": 2000000, \"channels\": [8"),
       "f.json: model.classes: must be at least 1 and at most 1000000"},
      {with("\"seed\": 1", "\"seed\": -1"), "f.json: seed: must be at least 0"},
      {with("\"device\": \"cpu\"", "\"device\": \"tpu\""),
       "f.json: device: \"tpu\" is not a choice; allowed are auto, cpu, reference, cuda"},
      {with("\"data\"", "\"dta\""), "f.json: dta: unknown key, did you mean \"data\"?"},
      {with("\"channels\": [8, 16]", "\"channels\": [8, \"x\"]"),
       "f.json: model.channels[1]: expects an integer, not \"x\""},
      {with("\"optimizer\": {", "\"optimizer\": {\"groups\": [{\"match\": 3}], "),
       "f.json: optimizer.groups[0].match: expects a string, not 3"},
      {"[1, 2]", "f.json: expects an object, not a list"},
      {"{", "f.json: is not JSON"},
      {"", "f.json: is not JSON"},
  };
  for (const auto& [text, expected] : rows) {
    const std::string m = message(text);
    CHECK_MESSAGE(m.find(expected) != std::string::npos, m);
  }
}

TEST_CASE("several faults come together") {
  std::string text = with("\"group_size\"", "\"group_sze\"");
  text.replace(text.find("\"lr\": 0.1"), 9, "\"lr\": -1");
  text.replace(text.find("\"epochs\": 2"), 11, "\"epochs\": \"2\"");
  const std::string m = message(text);
  CHECK(m.find("model.block.group_sze") != std::string::npos);
  CHECK(m.find("optimizer.lr: must be above 0, not -1") != std::string::npos);
  CHECK(m.find("train.epochs: expects an integer, not \"2\"") != std::string::npos);
  CHECK(std::ranges::count(m, '\n') == 2);
}

TEST_CASE("what a command needs is missed by name") {
  const std::string m = message(R"({"seed": 1})");
  for (const char* part : {"f.json: model: is missing", "f.json: data: is missing", "f.json: optimizer: is missing"})
    CHECK_MESSAGE(m.find(part) != std::string::npos, m);
}

TEST_CASE("a network that cannot be built is a fault of the file") {
  const std::string m =
      message(with("\"type\": \"mgic\"", "\"type\": \"mgic\", \"coarsest_rule\": \"below\""), {"model.channels=[1,1]"});
  CHECK_MESSAGE(m.find("f.json: model: the width of level 1 would be 0") != std::string::npos, m);
}

TEST_CASE("overrides: paths with indices, JSON values, strings, and what is wrong with them") {
  const Experiment e = parse_experiment(
      good, "f.json",
      {"optimizer.lr=0.05", "data.augment[0].padding=1", "name=a b", "model.block={\"type\": \"basic\"}"}, all);
  CHECK((*e.resolved)["optimizer"]["lr"] == 0.05);
  CHECK((*e.resolved)["data"]["augment"][0]["padding"] == 1);
  CHECK(e.options.name == "a b");
  CHECK(e.options.model.make({16, 16})->parameter_count() > 0);
  auto fails = [](const std::string& override, const char* part) {
    const std::string m = message(good, {override});
    CHECK_MESSAGE(m.find(part) != std::string::npos, m);
  };
  fails("optimizer.lrr=0.05", "optimizer.lrr: unknown key, did you mean \"lr\"?");
  fails("optimizer.lr", "--set optimizer.lr: expects KEY=VALUE");
  fails("=3", "--set =3: expects KEY=VALUE");
  fails("data.augment[7].padding=1", "there is no list element [7] here");
  fails("data.augment[x].padding=1", "needs a list index");
  fails("data.augment[0=1", "needs a list index");
  fails("seed.x=1", "\"x\" is looked for in a value that is no object");
  fails("model..x=1", "the path has an empty key");
  fails("optimizer.lr=fast", "optimizer.lr: expects a number, not \"fast\"");
}

TEST_CASE("_base_ inherits: objects are merged, a new type begins afresh, circles are found") {
  const auto folder = std::filesystem::temp_directory_path() / "mgic_test_base";
  std::filesystem::create_directories(folder);
  write_file(folder / "base.json", good);
  write_file(folder / "child.json",
             R"({"_base_": "base.json", "optimizer": {"lr": 0.2}, "model": {"block": {"type": "basic"}}})");
  write_file(folder / "grandchild.json", R"({"_base_": "child.json", "optimizer": {"type": "adamw", "lr": 0.001}})");
  write_file(folder / "circle.json", R"({"_base_": "circle.json"})");
  write_file(folder / "lost.json", R"({"_base_": "nowhere.json"})");
  const Experiment child = read_experiment(folder / "child.json", {}, all);
  CHECK((*child.resolved)["optimizer"]["lr"] == 0.2);
  CHECK((*child.resolved)["optimizer"]["momentum"] == 0.9);
  CHECK((*child.resolved)["model"]["block"] == Json{{"type", "basic"}});
  CHECK(child.options.name == "child");
  const Experiment grandchild = read_experiment(folder / "grandchild.json", {"seed=5"}, all);
  CHECK((*grandchild.resolved)["optimizer"]["type"] == "adamw");
  CHECK(!(*grandchild.resolved)["optimizer"].contains("momentum"));
  CHECK(grandchild.options.seed == 5);
  CHECK_THROWS_WITH_AS(read_experiment(folder / "circle.json", {}, all), doctest::Contains("inherits from itself"),
                       UserError);
  CHECK_THROWS_WITH_AS(read_experiment(folder / "lost.json", {}, all), doctest::Contains("nowhere.json: no such file"),
                       UserError);
  CHECK_THROWS_WITH_AS(read_experiment(folder / "none.json", {}, all), doctest::Contains("none.json: no such file"),
                       UserError);
  std::filesystem::remove_all(folder);
}

TEST_CASE("every shipped configuration is accepted") {
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(MGIC_SOURCE_DIR "/configs")) {
    if (entry.path().extension() != ".json") continue;
    ++found;
    CAPTURE(entry.path().string());
    CHECK_NOTHROW(read_experiment(entry.path(), {}, all));
  }
  CHECK(found >= 2);
}
