// MobileNetV3: exact counts (DESIGN section 6), names, gradients, and what its configuration may not ask for.
#include "tests/models/support.h"

using namespace mgic;
using namespace mgic::test;

namespace {

std::string mobile(const std::string& options, const std::string& block) {
  return fmt::format(R"({{"type": "mobilenet_v3", {}, "block": {}}})", options, block);
}
const std::string dense = R"({"type": "inverted_residual"})";

}  // namespace

TEST_CASE("parameter counts of the MobileNetV3s") {
  CHECK(parameters(mobile(R"("size": "large", "classes": 1000)", dense)) == 5483032);
  CHECK(parameters(mobile(R"("size": "small", "classes": 1000)", dense)) == 2542856);
  // torchvision's mobilenet_v3_large(width_mult=0.5) and mobilenet_v3_small(width_mult=1.4, num_classes=10).
  CHECK(parameters(mobile(R"("size": "large", "classes": 1000, "width": 0.5)", dense)) == 1734576);
  CHECK(parameters(mobile(R"("size": "small", "classes": 10, "width": 1.4)", dense)) == 2955154);
  const int64_t large[] = {2740654, 2928857, 3279076}, small[] = {976576, 1048358, 1155810};
  for (int i = 0; i < 3; ++i) {
    const std::string block = fmt::format(
        R"({{"type": "mgic", "group_size": {0}, "coarsest_width": {0}, "coarsest_rule": "below"}})", 8 << i);
    CHECK(parameters(mobile(R"("size": "large", "stem": "released")", block)) == large[i]);
    CHECK(parameters(mobile(R"("size": "small", "stem": "released")", block)) == small[i]);
  }
}

TEST_CASE("MobileNetV3: the same count whichever way the smoother is said, and its dense twin") {
  const auto count = [](const char* block) { return parameters(mobile(R"("size": "small")", block)); };
  CHECK(count(R"({"type": "mgic"})") == count(R"({"type": "mgic", "smoother": "inverted_residual"})"));
  CHECK(count(R"({"type": "mgic"})") == count(R"({"type": "mgic", "smoother": {"type": "inverted_residual"}})"));
  const ModelSpec spec = model_registry().parse(mobile(R"("size": "small", "classes": 1000)", R"({"type": "mgic"})"));
  CHECK(dense_twin(spec).make({224, 224})->parameter_count() == 2542856);
  CHECK(default_image_size(spec) == 224);
}

TEST_CASE("MobileNetV3: names in files do not change") {
  const auto d = network(mobile(R"("size": "small")", dense));
  for (const char* n :
       {"stem.conv.weight", "stem.bn.running_var", "blocks.0.depthwise.conv.weight", "blocks.0.se.fc1.weight",
        "blocks.0.se.fc2.bias", "blocks.1.expand.conv.weight", "blocks.1.expand.bn.bias", "blocks.10.project.bn.weight",
        "tail.conv.weight", "tail.bn.bias", "head.weight", "head.bias", "classifier.weight", "classifier.bias"})
    CHECK_MESSAGE(has_name(*d, n), n);
  CHECK(!has_name(*d, "blocks.0.expand.conv.weight"));
  CHECK(!has_name(*d, "blocks.1.se.fc1.weight"));
  const auto m = network(mobile(R"("size": "small")", R"({"type": "mgic", "coarsest_width": 8})"));
  for (const char* n : {"blocks.0.transition.conv.weight", "blocks.0.mgic.smooth.0.depthwise.conv.weight",
                        "blocks.1.mgic.restrict.0.weight", "blocks.1.mgic.restrict.0.bn.running_mean",
                        "blocks.1.mgic.smooth.1.expand.bn.weight", "blocks.3.mgic.smooth.0.se.fc1.weight",
                        "blocks.1.mgic.prolong.0.bn.weight"})
    CHECK_MESSAGE(has_name(*m, n), n);
  CHECK(!has_name(*m, "blocks.0.transition.bn.weight"));
  const auto plain = network(mobile(R"("size": "small")", R"({"type": "mgic", "restrict_norm": false})"));
  CHECK(!has_name(*plain, "blocks.1.mgic.restrict.0.bn.weight"));
}

TEST_CASE("MobileNetV3: strides, sizes and the stems") {
  const auto last = [](const char* stem, int64_t size) {
    const auto m = network(mobile(fmt::format(R"("size": "large", "stem": "{}")", stem), dense));
    for (const LayerSummary& l : summarize(*m, {1, size, size, 3}).layers)
      if (l.name == "tail.conv") return l.output;
    return Shape{};
  };
  CHECK(last("imagenet", 224) == Shape{1, 7, 7, 960});
  CHECK(last("cifar", 32) == Shape{1, 2, 2, 960});
  CHECK(last("released", 32) == Shape{1, 2, 2, 160});
  // torchvision's 217 million multiply-accumulates at 224×224.
  CHECK(summarize(*network(mobile(R"("size": "large", "classes": 1000)", dense)), {1, 224, 224, 3}).macs == 216589760);
}

TEST_CASE("MobileNetV3: derivatives along a random direction of all parameters") {
  for (const char* stem : {"imagenet", "cifar", "released"})
    for (const std::string& block : {dense, std::string(R"({"type": "mgic", "group_size": 4, "coarsest_width": 4})")}) {
      CAPTURE(stem);
      CAPTURE(block);
      const auto m =
          network(mobile(fmt::format(R"("size": "small", "width": 0.2, "classes": 3, "stem": "{}")", stem), block));
      CHECK(directional_error(*m, stem == std::string("imagenet") ? Shape{3, 40, 36, 3} : Shape{2, 18, 13, 3}) <
            directional_limit);
    }
}

TEST_CASE("MobileNetV3: what it refuses") {
  const auto says = [](const std::string& json, const char* part) {
    const std::string m = refusal(json);
    CHECK_MESSAGE(m.find(part) != std::string::npos, m);
  };
  says(mobile(R"("size": "large")", R"({"type": "mgic", "mid_channels": 64})"),
       "block.mid_channels: comes from MobileNetV3's table; remove it");
  says(mobile(R"("size": "large")", R"({"type": "mgic", "activation": "relu"})"),
       "block.activation: comes from MobileNetV3's table; remove it");
  says(mobile(R"("size": "large")", R"({"type": "mgic", "smoother": "basic"})"),
       "block.smoother: \"basic\" is not a choice; allowed are inverted_residual");
  says(mobile(R"("size": "large")", R"({"type": "basic"})"), "allowed are inverted_residual, mgic");
  says(mobile(R"("size": "lrage")", dense), "size: \"lrage\" is not a choice; allowed are large, small");
  says(mobile(R"("stem": "resnet")", dense), "allowed are imagenet, cifar, released");
  says(mobile(R"("width": 0)", dense), "width: must be at least 0.01");
}
