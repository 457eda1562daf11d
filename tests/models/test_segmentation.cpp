// DeepLabV3 and LR-ASPP: torchvision's counts, output stride by dilation, names, gradients.
#include "tests/models/support.h"

using namespace mgic;
using namespace mgic::test;

namespace {

const std::string resnet50 = R"({"type": "resnet", "stem": "imagenet", "blocks": [3, 4, 6, 3],
                                 "block": {"type": "bottleneck"}})";
const std::string mobile = R"({"type": "mobilenet_v3", "block": {"type": "inverted_residual"}})";

std::string segmentation(const char* type, const std::string& backbone, const std::string& more = "") {
  return fmt::format(R"({{"type": "{}", "backbone": {}{}}})", type, backbone, more);
}

std::string tiny(const std::string& stem, int64_t output_stride, const std::string& block) {
  return fmt::format(R"({{"type": "resnet", "stem": "{}", "channels": [4, 8, 16], "blocks": [1, 1, 2],
                          "strides": [1, 2, 2], "output_stride": {}, "block": {}}})",
                     stem, output_stride, block);
}
const std::string tiny_mgic = R"({"type": "mgic", "group_size": 2, "coarsest_width": 4})";

Shape output_of(Module& m, const char* layer, const Shape& input) {
  for (const LayerSummary& l : summarize(m, input).layers)
    if (l.name == layer) return l.output;
  return {};
}

}  // namespace

TEST_CASE("parameter counts of the segmentation networks: torchvision's, 21 classes") {
  CHECK(parameters(segmentation("lraspp", mobile)) == 3221538);
  CHECK(parameters(segmentation("deeplabv3", resnet50)) == 39638869);
  CHECK(parameters(segmentation("deeplabv3", resnet50, R"(, "auxiliary": true)")) == 42004074);
  CHECK(parameters(segmentation("deeplabv3", mobile)) == 11025477);
  CHECK(parameters(segmentation("deeplabv3", mobile, R"(, "auxiliary": true)")) == 11029328);
}

TEST_CASE("segmentation: logits have the image's size, and the output stride is kept by dilation") {
  for (int64_t stride : {8, 16, 32}) {
    const std::string backbone = fmt::format(R"({{"type": "resnet", "stem": "imagenet", "output_stride": {},
                                                  "block": {{"type": "basic"}}}})",
                                             stride);
    const auto m = network(segmentation("deeplabv3", backbone));
    CHECK(output_of(*m, "aspp.branch.0.conv", {1, 64, 96, 3}) == Shape{1, 64 / stride, 96 / stride, 256});
    m->train(false);
    CHECK((*m)(Variable(Tensor::empty({2, 65, 47, 3}, DType::f32, Device::meta))).shape() == Shape{2, 65, 47, 21});
  }
  const auto l = network(segmentation("lraspp", mobile));
  CHECK(output_of(*l, "head.low", {1, 64, 96, 3}) == Shape{1, 8, 12, 21});
  CHECK(output_of(*l, "head.cbr.conv", {1, 64, 96, 3}) == Shape{1, 4, 6, 128});
  const auto mgic = network(segmentation("lraspp", R"({"type": "mobilenet_v3", "block": {"type": "mgic"}})"));
  CHECK(output_of(*mgic, "head.cbr.conv", {1, 64, 96, 3}) == Shape{1, 4, 6, 128});
}

// That the dilations are right is checked against torchvision (test_torchvision.cpp).
TEST_CASE("dilation where a stride was: the same weights fit, on a finer grid") {
  const auto strided = network(segmentation("deeplabv3", tiny("cifar", 4, R"({"type": "basic"})")));
  const auto dilated = network(segmentation("deeplabv3", tiny("cifar", 2, R"({"type": "basic"})")));
  CHECK(names_of(*strided) == names_of(*dilated));
  CHECK(output_of(*strided, "backbone.stages.2.1.conv1", {1, 16, 16, 3}) == Shape{1, 4, 4, 16});
  CHECK(output_of(*dilated, "backbone.stages.2.1.conv1", {1, 16, 16, 3}) == Shape{1, 8, 8, 16});
}

TEST_CASE("segmentation: names in files do not change, and the dense twin") {
  const auto d = network(segmentation("deeplabv3", resnet50, R"(, "auxiliary": true)"));
  for (const char* n :
       {"backbone.stem.conv.weight", "backbone.stages.3.2.conv3.weight", "aspp.branch.0.conv.weight",
        "aspp.branch.3.bn.bias", "aspp.pool.conv.weight", "aspp.project.bn.weight", "head.conv.weight", "head.bn.bias",
        "classifier.weight", "classifier.bias", "aux.head.conv.weight", "aux.head.bn.weight", "aux.classifier.bias"})
    CHECK_MESSAGE(has_name(*d, n), n);
  const auto l = network(segmentation("lraspp", mobile));
  for (const char* n : {"backbone.blocks.3.se.fc1.weight", "head.cbr.conv.weight", "head.cbr.bn.bias",
                        "head.scale.weight", "head.low.weight", "head.low.bias", "classifier.weight"})
    CHECK_MESSAGE(has_name(*l, n), n);
  CHECK(!has_name(*l, "head.scale.bias"));
  const ModelSpec mgic =
      model_registry().parse(segmentation("lraspp", R"({"type": "mobilenet_v3", "block": {"type": "mgic"}})"));
  CHECK(dense_twin(mgic).make({32, 32})->parameter_count() == 3221538);
  CHECK(segments(mgic));
  CHECK(default_image_size(mgic) == 224);
}

TEST_CASE("segmentation: derivatives along a random direction of all parameters") {
  for (const std::string& block : {std::string(R"({"type": "basic"})"), tiny_mgic}) {
    CAPTURE(block);
    const auto l = network(segmentation("lraspp", tiny("cifar", 4, block), R"(, "classes": 3)"));
    CHECK(directional_error(*l, {2, 9, 7, 3}) < directional_limit);
    const auto d = network(segmentation("deeplabv3", tiny("cifar", 2, block), R"(, "classes": 3, "rates": [1, 2])"));
    CHECK(directional_error(*d, {2, 6, 5, 3}) < directional_limit);
  }
}

TEST_CASE("the auxiliary head: its logits have the image's size, and its loss counts once, in training alone") {
  const auto m = network(segmentation("deeplabv3", tiny("cifar", 2, R"({"type": "basic"})"),
                                      R"(, "classes": 3, "rates": [1], "auxiliary": true, "auxiliary_weight": 0.25)"));
  m->to(Device::reference, DType::f64);
  m->initialize(1);
  auto* extra = dynamic_cast<ExtraLoss*>(m.get());
  REQUIRE(extra != nullptr);
  const Variable x(normal({2, 6, 8, 3}, 1));
  const auto sum = [](const Variable& logits) {
    CHECK(logits.shape() == Shape{2, 6, 8, 3});
    return ops::sum(logits);
  };
  m->train(false);
  (*m)(x);
  CHECK(!extra->extra_loss(sum).defined());
  m->train(true);
  (*m)(x);
  double plain = 0;
  const Variable loss = extra->extra_loss([&](const Variable& logits) {
    const Variable s = sum(logits);
    plain = s.value().item();
    return s;
  });
  CHECK(loss.value().item() == doctest::Approx(0.25 * plain).epsilon(1e-12));
  backward(loss);
  m->each_parameter([&](const std::string& name, Variable& p) {
    if (name.starts_with("aux.")) CHECK_MESSAGE(p.gradient().defined(), name);
    if (name.starts_with("aspp.")) CHECK_MESSAGE(!p.gradient().defined(), name);
  });
  CHECK(!extra->extra_loss(sum).defined());
}

TEST_CASE("segmentation: what it refuses") {
  const auto says = [](const std::string& json, const char* part) {
    const std::string m = refusal(json);
    CHECK_MESSAGE(m.find(part) != std::string::npos, m);
  };
  says(segmentation("deeplabv3", R"({"type": "resnett", "block": {"type": "basic"}})"), "backbone");
  says(segmentation("deeplabv3", tiny("imagenet", 2, R"({"type": "basic"})")),
       "output_stride must be at least the stem's, 4, not 2");
  says(segmentation("deeplabv3", mobile, R"(, "rates": [])"), "rates: must have 1 to 16 elements");
  says(segmentation("lraspp", R"({"type": "resnet", "block": {"type": "bascic"}})"), "backbone.block");
  says(R"({"type": "lraspp"})", "backbone: is missing");
}
