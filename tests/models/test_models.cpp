// Exact parameter counts (DESIGN section 6), names, and what a configuration may not ask for.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>

#include "models/model.h"
#include "models/summary.h"

using namespace mgic;

namespace {

std::string resnet(const std::string& stem, int64_t classes, const std::string& blocks, const std::string& block) {
  return fmt::format(R"({{"type": "resnet", "stem": "{}", "classes": {}, "blocks": {}, "block": {}}})", stem, classes,
                     blocks, block);
}

std::string mgic_block(const std::string& rule, int64_t s) {
  return fmt::format(R"({{"type": "mgic", "group_size": {}, "coarsest_width": {}, "coarsest_rule": "{}"}})", s, s,
                     rule);
}

int64_t parameters(const std::string& model) { return model_registry().parse(model).make({32, 32})->parameter_count(); }

std::vector<std::string> names_of(Module& m) {
  std::vector<std::string> names;
  m.each_parameter([&](const std::string& name, Variable&) { names.push_back(name); });
  m.each_buffer([&](const std::string& name, Tensor&) { names.push_back(name); });
  return names;
}

}  // namespace

TEST_CASE("parameter counts of the ResNets") {
  struct Row {
    const char *rule, *stem, *blocks;
    int64_t classes;
    int64_t counts[4];  // s_g = s_c = 8, 16, 32, 64
  };
  const Row rows[] = {
      {"below", "cifar", "[2,2,2,2]", 10, {615882, 1177034, 2254794, 4232138}},
      {"reach", "cifar", "[2,2,2,2]", 10, {612810, 1165258, 2208714, 4049866}},
      {"below", "imagenet", "[3,4,6,3]", 1000, {1710248, 2813096, 4929704, 8806568}},
      {"reach", "imagenet", "[3,4,6,3]", 1000, {1704104, 2789544, 4837544, 8442024}},
  };
  for (const Row& row : rows)
    for (int i = 0; i < 4; ++i)
      CHECK(parameters(resnet(row.stem, row.classes, row.blocks, mgic_block(row.rule, int64_t{8} << i))) ==
            row.counts[i]);
  CHECK(parameters(resnet("cifar", 10, "[2,2,2,2]", R"({"type": "basic"})")) == 11173962);
  CHECK(parameters(resnet("imagenet", 1000, "[2,2,2,2]", R"({"type": "basic"})")) == 11689512);
  CHECK(parameters(resnet("imagenet", 1000, "[3,4,6,3]", R"({"type": "basic"})")) == 21797672);
  // torchvision's ResNet-50.
  CHECK(parameters(resnet("imagenet", 1000, "[3,4,6,3]", R"({"type": "bottleneck"})")) == 25557032);
}

TEST_CASE("a summary adds up, and its dense twin is the dense network") {
  const ModelSpec spec = model_registry().parse(resnet("cifar", 10, "[2,2,2,2]", mgic_block("reach", 16)));
  const auto model = spec.make({32, 32});
  const Summary s = summarize(*model, {1, 32, 32, 3});
  int64_t parameters = 0, macs = 0;
  for (const LayerSummary& l : s.layers) {
    parameters += l.parameters;
    macs += l.macs;
  }
  CHECK(s.parameters == 1165258);
  CHECK(parameters == s.parameters);
  CHECK(macs == s.macs);
  CHECK(model->training());  // as it was
  const Summary dense = summarize(*dense_twin(spec).make({32, 32}), {1, 32, 32, 3});
  CHECK(dense.parameters == 11173962);
  CHECK(dense.macs == 555422720);
}

TEST_CASE("multiply-accumulates of a layer, by hand") {
  const auto model = model_registry()
                         .parse(R"({"type": "sequential", "in_channels": 4, "classes": 3, "layers": [
      {"type": "conv2d", "out_channels": 6, "kernel": 3, "groups": 2, "stride": 2, "name": "first"},
      {"type": "relu"}, {"type": "flatten"}, {"type": "linear", "out_features": 3}]})")
                         .make({8, 6});
  const Summary s = summarize(*model, {1, 8, 6, 4});
  REQUIRE(s.layers.size() == 4);
  CHECK(s.layers[0].name == "first");
  CHECK(s.layers[0].output == Shape{1, 4, 3, 6});
  CHECK(s.layers[0].macs == 4 * 3 * 6 * (9 * 2));
  CHECK(s.layers[0].parameters == 6 * 9 * 2);
  CHECK(s.layers[3].macs == 3 * 72);
  CHECK(s.layers[3].parameters == 3 * 72 + 3);
}

TEST_CASE("names in files do not change") {
  auto names = [](const char* block) {
    return names_of(*model_registry()
                         .parse(fmt::format(R"({{"type": "resnet", "channels": [8, 16], "blocks": [1, 1],
                                                "strides": [1, 2], "block": {}}})",
                                            block))
                         .make({32, 32}));
  };
  auto has = [](const std::vector<std::string>& all, const char* name) {
    return std::ranges::find(all, name) != all.end();
  };
  const auto dense = names(R"({"type": "basic"})");
  for (const char* n :
       {"stem.conv.weight", "stem.bn.weight", "stem.bn.bias", "stem.bn.running_mean", "stem.bn.running_var",
        "stages.0.0.conv1.weight", "stages.0.0.bn1.bias", "stages.0.0.conv2.weight", "stages.0.0.bn2.running_var",
        "stages.1.0.shortcut.conv.weight", "stages.1.0.shortcut.bn.weight", "classifier.weight", "classifier.bias"})
    CHECK_MESSAGE(has(dense, n), n);
  CHECK(!has(dense, "stages.0.0.shortcut.conv.weight"));
  const auto bottleneck = names(R"({"type": "bottleneck"})");
  for (const char* n : {"stages.0.0.conv3.weight", "stages.0.0.bn3.weight", "stages.0.0.shortcut.conv.weight"})
    CHECK_MESSAGE(has(bottleneck, n), n);
  const auto mgic = names(R"({"type": "mgic", "group_size": 4, "coarsest_width": 4, "restrict_norm": true,
                             "pre_smooth": true})");
  for (const char* n : {"stages.0.0.mgic.restrict.0.weight", "stages.0.0.mgic.restrict.0.bn.weight",
                        "stages.0.0.mgic.prolong.0.weight", "stages.0.0.mgic.prolong.0.bn.running_mean",
                        "stages.0.0.mgic.smooth.0.conv1.weight", "stages.0.0.mgic.smooth.1.bn2.bias",
                        "stages.0.0.mgic.pre_smooth.0.conv2.weight", "stages.1.0.transition.conv.weight",
                        "stages.1.0.transition.bn.weight", "stages.1.0.mgic.smooth.2.conv1.weight"})
    CHECK_MESSAGE(has(mgic, n), n);
  CHECK(!has(mgic, "stages.0.0.transition.conv.weight"));
  const auto tied = names(R"({"type": "mgic", "group_size": 4, "coarsest_width": 4, "tied_transfers": true})");
  CHECK(has(tied, "stages.0.0.mgic.restrict.0.weight"));
  CHECK(!has(tied, "stages.0.0.mgic.prolong.0.weight"));
  CHECK(has(tied, "stages.0.0.mgic.prolong.0.bn.weight"));
}

TEST_CASE("what a ResNet refuses, with its path") {
  auto message = [](const std::string& model) -> std::string {
    try {
      model_registry().parse(model).make({32, 32});
    } catch (const UserError& e) {
      return e.what();
    }
    return "accepted";
  };
  auto says = [&](const std::string& model, const char* part) {
    const std::string m = message(model);
    CHECK_MESSAGE(m.find(part) != std::string::npos, m);
  };
  says(resnet("cifar", 10, "[2,2,2]", R"({"type": "basic"})"),
       "blocks: must have as many elements as channels: 4, not 3");
  says(resnet("cifra", 10, "[2,2,2,2]", R"({"type": "basic"})"),
       "stem: \"cifra\" is not a choice; allowed are cifar, imagenet");
  says(resnet("cifar", 10, "[2,2,2,2]", R"({"type": "mgic", "smoother": "inverted_residual", "mid_channels": 64})"),
       "block.smoother: inverted_residual does not fit a ResNet");
  says(resnet("cifar", 10, "[2,2,2,2]", R"({"type": "mgic", "group_sze": 8})"),
       "block.group_sze: unknown key, did you mean \"group_size\"?");
  says(resnet("cifar", 10, "[2,2,2,2]", R"({"type": "mgic", "coarsest_rule": "below", "coarsest_width": 1})"),
       "block.coarsest_width: must be at least 2");
  says(resnet("cifar", 0, "[2,2,2,2]", R"({"type": "basic"})"), "classes: must be at least 1");
  says(
      R"({"type": "sequential", "in_channels": 3, "classes": 5, "layers": [{"type": "flatten"}, {"type": "linear", "out_features": 4}]})",
      "\"classes\" asks for (1, 5)");
}

TEST_CASE("a smoother given as an object is the same network") {
  const std::string beside = R"({"type": "mgic", "smoother": "bottleneck", "expansion": 2, "group_size": 8})";
  const std::string object = R"({"type": "mgic", "smoother": {"type": "bottleneck", "expansion": 2}, "group_size": 8})";
  const auto a = model_registry().parse(resnet("cifar", 10, "[1,1,1,1]", beside)).make({32, 32});
  const auto b = model_registry().parse(resnet("cifar", 10, "[1,1,1,1]", object)).make({32, 32});
  CHECK(names_of(*a) == names_of(*b));
  CHECK(a->parameter_count() == b->parameter_count());
}
