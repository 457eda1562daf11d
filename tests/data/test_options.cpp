// The "data" object of an experiment.
#include <doctest/doctest.h>

#include "data/options.h"
#include "tests/support/temp_folder.h"

using namespace mgic;
using namespace mgic::test;

namespace {

DataOptions read(const std::string& text) {
  DataOptions options;
  read_text(text, "x.json", [&](Fields& f) { options.fields(f); });
  return options;
}
std::string error_of(const std::string& text) {
  return user_error([&] { read(text); });
}

}  // namespace

TEST_CASE("data options: defaults, and a data set's keys beside the loader's") {
  const DataOptions plain = read(R"({"type": "fashion_mnist"})");
  CHECK(plain.source.type == "fashion_mnist");
  CHECK(plain.batch_size == 128);
  CHECK(plain.threads == 2);
  CHECK(plain.augment.empty());
  const DataOptions options =
      read(R"({"type": "shapes", "batch_size": 16, "image_size": 12, "train_limit": 40, "threads": 0,
      "augment": [{"type": "random_crop", "padding": 2}, {"type": "random_flip"}]})");
  CHECK(options.augment.size() == 2);
  const auto source = open_data(options, 1);
  CHECK(source->train->size() == 40);
  CHECK(source->train->shape() == SampleShape{3, 12, 12});

  const LoaderOptions training = training_loader(options, 9), evaluation = evaluation_loader(options);
  CHECK((training.shuffle && training.drop_last && training.augment.size() == 2 && training.seed == 9));
  CHECK((!evaluation.shuffle && !evaluation.drop_last && evaluation.augment.empty()));
  CHECK(DataLoader(*source->train, training, source->normalization).batches() == 2);
  CHECK(DataLoader(*source->train, evaluation, source->normalization).batches() == 3);
}

TEST_CASE("data options: faults carry their paths") {
  CHECK(contains(error_of(R"({"batch_size": 8})"), "x.json: type: is missing"));
  CHECK(
      contains(error_of(R"({"type": "shape", "image_size": 8})"), "type: \"shape\" is not a choice; allowed are idx"));
  CHECK(contains(error_of(R"({"type": "fashion_mnist", "image_size": 8})"), "image_size: unknown key"));
  CHECK(contains(error_of(R"({"type": "shapes", "batch_sze": 8})"), "did you mean \"batch_size\"?"));
  CHECK(contains(error_of(R"({"type": "shapes", "batch_size": 0})"), "batch_size: must be at least 1"));
  CHECK(contains(error_of(R"({"type": "shapes", "threads": -1})"), "threads: must be at least 0"));
  CHECK(contains(error_of(R"({"type": "shapes", "prefetch": 0})"), "prefetch: must be at least 1"));
  CHECK(contains(error_of(R"({"type": "shapes", "augment": {}})"), "augment: expects a list"));
  const std::string several = error_of(
      R"({"type": "shapes", "classes": 99, "batch_size": 0, "augment": [{"type": "random_crop", "padding": -2}]})");
  CHECK(contains(several, "classes: must be"));
  CHECK(contains(several, "batch_size: must be"));
  CHECK(contains(several, "augment[0].padding: must be"));
}

TEST_CASE("data options: what only the open data can tell") {
  const auto faults_of = [](const std::string& text) {
    const DataOptions options = read(text);
    Faults faults;
    check_data(options, *open_data(options, 1), faults);
    return user_error([&] { faults.raise("x.json"); });
  };
  CHECK(faults_of(R"({"type": "random", "size": 32, "batch_size": 32})") == "nothing was thrown");
  CHECK(contains(faults_of(R"({"type": "random", "size": 32, "batch_size": 33})"),
                 "x.json: data.batch_size: must be at most"));
  CHECK(
      contains(faults_of(R"({"type": "random", "size": 32, "train_limit": 8, "batch_size": 9})"), "samples, 8, not 9"));
  CHECK(contains(
      faults_of(R"({"type": "random", "augment": [{"type": "random_flip"}, {"type": "random_crop", "padding": 32}]})"),
      "x.json: data.augment[1]: random_crop: padding 32 must be below"));
  CHECK_THROWS_AS(open_data({}, 1), Error);
}

TEST_CASE("data options: the schema names every key") {
  const Schema schema = schema_of<DataOptions>();
  std::vector<std::string> keys;
  for (const SchemaEntry& entry : schema) keys.push_back(entry.key);
  CHECK(keys == std::vector<std::string>{"type", "batch_size", "augment", "mix", "validation", "threads", "prefetch"});
}
