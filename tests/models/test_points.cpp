// PointNet, DGCNN and the autoencoder: counts, names, gradients, and the symmetries that they must have.
#include "tests/models/support.h"

using namespace mgic;
using namespace mgic::test;

namespace {

const std::string conv = R"({"type": "conv"})";
const std::string mgic_block = R"({"type": "mgic", "group_size": 8, "coarsest_width": 8})";

std::string model(const char* type, const std::string& block, const std::string& more = "") {
  return fmt::format(R"({{"type": "{}", "block": {}{}}})", type, block, more);
}

// By hand, a PointNet without transform nets: 3→64→64→64→128→1024 with BN, then 512, 256 with BN, and the classes.
int64_t plain_pointnet(int64_t classes) {
  int64_t count = 0, in = 3;
  for (int64_t width : {64, 64, 64, 128, 1024, 512, 256}) {
    count += in * width + 2 * width;
    in = width;
  }
  return count + in * classes + classes;
}
int64_t transform_net(int64_t c) {
  int64_t count = 0, in = c;
  for (int64_t width : {64, 128, 1024, 512, 256}) {
    count += in * width + 2 * width;
    in = width;
  }
  return count + in * c * c + c * c;
}

}  // namespace

TEST_CASE("parameter counts of the point networks") {
  CHECK(parameters(model("dgcnn", conv)) == 1809576);  // as published, 40 classes
  CHECK(parameters(model("pointnet", conv, R"(, "transforms": false)")) == plain_pointnet(40));
  CHECK(parameters(model("pointnet", conv)) == plain_pointnet(40) + transform_net(3) + transform_net(64));
  CHECK(parameters(model("dgcnn", mgic_block)) < 1809576);
  // Each edge layer 2·in → out and the embedding with BN, then the classifier: linear and BN without and with bias.
  const int64_t edges = 2 * 3 * 8 + 2 * 8 * 16 + (8 + 16) * 32 + 2 * (8 + 16 + 32);
  CHECK(parameters(model("dgcnn", conv, R"(, "channels": [8, 16], "embedding": 32, "hidden": [], "classes": 5)")) ==
        edges + 64 * 5 + 5);
  CHECK(parameters(
            model("dgcnn", conv, R"(, "channels": [8, 16], "embedding": 32, "hidden": [12, 6, 4], "classes": 5)")) ==
        edges + 64 * 12 + 24 + 12 * 6 + 6 + 12 + 6 * 4 + 4 + 8 + 4 * 5 + 5);
  for (const char* type : {"pointnet", "dgcnn"}) {
    const ModelSpec spec = model_registry().parse(model(type, mgic_block));
    CHECK(dense_twin(spec).make({64, 3})->parameter_count() == parameters(model(type, conv)));
    CHECK(takes_points(spec));
    CHECK(default_image_size(spec) == 1024);
  }
}

TEST_CASE("point networks: names in files do not change") {
  const auto d = network(model("dgcnn", conv));
  for (const char* n : {"edge.0.conv.weight", "edge.3.bn.bias", "embed.conv.weight", "embed.bn.running_var",
                        "classifier.0.linear.weight", "classifier.1.linear.bias", "classifier.1.bn.weight",
                        "classifier.2.weight", "classifier.2.bias"})
    CHECK_MESSAGE(has_name(*d, n), n);
  CHECK(!has_name(*d, "classifier.0.linear.bias"));
  const auto m = network(model("dgcnn", mgic_block));
  for (const char* n : {"edge.0.transition.conv.weight", "edge.0.mgic.smooth.0.conv1.weight",
                        "edge.3.mgic.restrict.0.weight", "embed.mgic.smooth.0.conv2.weight"})
    CHECK_MESSAGE(has_name(*m, n), n);
  CHECK(!has_name(*m, "edge.2.transition.conv.weight"));  // 2 · 64 channels arrive and 128 leave
  const auto p = network(model("pointnet", conv));
  for (const char* n : {"mlp.0.conv.weight", "mlp.4.bn.bias", "tnet.0.mlp.2.conv.weight", "tnet.1.fc.2.bias",
                        "tnet.1.fc.0.linear.weight", "classifier.1.bn.bias", "classifier.2.weight"})
    CHECK_MESSAGE(has_name(*p, n), n);
  const auto a = network(model("autoencoder", R"({"type": "basic"})"));
  for (const char* n : {"encoder.0.conv1.weight", "encoder.2.shortcut.conv.weight", "decoder.1.bn2.bias",
                        "output.weight", "output.bias"})
    CHECK_MESSAGE(has_name(*a, n), n);
}

TEST_CASE("point networks: derivatives along a random direction of all parameters") {
  for (const std::string& block : {conv, mgic_block}) {
    CAPTURE(block);
    const auto d = network(model("dgcnn", block, R"(, "k": 4, "channels": [8, 16], "embedding": 16, "classes": 3)"));
    CHECK(directional_error(*d, {3, 9, 3}) < directional_limit);
  }
  // With both transform nets and MGIC blocks the function bends so sharply (few values in each norm and maximum, one
  // behind the other) that no step along all parameters is short enough; so each is looked at alone.
  const auto transformed = network(model("pointnet", conv, R"(, "classes": 3)"));
  CHECK(directional_error(*transformed, {4, 16, 3}) < directional_limit);
  const auto cycles = network(model("pointnet", mgic_block, R"(, "classes": 3, "transforms": false)"));
  CHECK(directional_error(*cycles, {4, 16, 3}) < directional_limit);
}

TEST_CASE("point networks do not see the order of the points") {
  for (const char* type : {"pointnet", "dgcnn"})
    for (const std::string& block : {conv, mgic_block}) {
      CAPTURE(type);
      const auto m = network(model(type, block, type == std::string("dgcnn") ? R"(, "k": 5)" : ""));
      m->to(Device::cpu, DType::f32);
      m->initialize(2);
      m->train(false);
      const int64_t points = 16;
      const Tensor x = normal({1, points, 3}, 1, DType::f32, Device::cpu);
      Tensor shuffled = Tensor::empty_like(x);
      const auto order = Rng(7, Purpose::test).permutation(points);
      for (int64_t i = 0; i < points; ++i)
        for (int64_t c = 0; c < 3; ++c)
          shuffled.data<float>()[i * 3 + c] = x.data<float>()[order[static_cast<size_t>(i)] * 3 + c];
      NoGrad no_grad;
      const Tensor a = (*m)(Variable(x)).value(), b = (*m)(Variable(shuffled)).value();
      CHECK(a.shape() == Shape{1, 40});
      for (int64_t i = 0; i < a.count(); ++i)
        CHECK(a.data<float>()[i] == doctest::Approx(b.data<float>()[i]).epsilon(1e-4));  // sums in another order
    }
}

TEST_CASE("PointNet's feature transform: a rotation costs nothing, all else by its distance from one") {
  const auto m = network(model("pointnet", conv, R"(, "transform_weight": 0.5, "classes": 2)"));
  m->to(Device::reference, DType::f64);
  m->initialize(1);
  auto* extra = dynamic_cast<ExtraLoss*>(m.get());
  REQUIRE(extra != nullptr);
  (*m)(Variable(normal({3, 6, 3}, 1)));
  CHECK(extra->extra_loss({}).value().item() == 0);  // it begins as the identity
  // The last layer's weight is 0: T = its bias + identity, for every sample.
  const auto with_bias = [&](const std::function<double(int64_t row, int64_t column)>& value) {
    m->each_parameter([&](const std::string& name, Variable& p) {
      if (name == "tnet.1.fc.2.weight") p.value().fill(0);
      if (name == "tnet.1.fc.2.bias")
        for (int64_t i = 0; i < 64 * 64; ++i) p.value().data<double>()[i] = value(i / 64, i % 64);
    });
    (*m)(Variable(normal({3, 6, 3}, 1)));
    return extra->extra_loss({}).value().item();
  };
  CHECK(with_bias([](int64_t, int64_t) { return 0; }) == doctest::Approx(0));
  // A swap of two axes: I + T' with T' = P − I.
  CHECK(with_bias([](int64_t r, int64_t c) {
          if (r > 1 || c > 1) return 0;
          return r == c ? -1 : 1;
        }) == doctest::Approx(0));
  // 2 I: ‖I − 4 I‖² = 9 · 64.
  CHECK(with_bias([](int64_t r, int64_t c) { return r == c ? 1 : 0; }) == doctest::Approx(0.5 * 9 * 64));
  m->train(false);
  (*m)(Variable(normal({3, 6, 3}, 1)));
  CHECK(!extra->extra_loss({}).defined());
}

TEST_CASE("autoencoder: images of any size come back in their size, with gradients") {
  for (const char* block : {R"({"type": "basic"})", R"({"type": "bottleneck"})",
                            R"({"type": "mgic", "group_size": 2, "coarsest_width": 2})",
                            R"({"type": "mgic", "smoother": "bottleneck", "expansion": 2, "group_size": 2})"}) {
    CAPTURE(block);
    const auto m = network(model("autoencoder", block, R"(, "in_channels": 2, "channels": [4, 6, 8])"));
    m->train(false);
    CHECK((*m)(Variable(Tensor::empty({2, 13, 10, 2}, DType::f32, Device::meta))).shape() == Shape{2, 13, 10, 2});
    CHECK(directional_error(*m, {2, 7, 6, 2}) < directional_limit);
  }
  CHECK(parameters(model("autoencoder", R"({"type": "mgic", "group_size": 8, "coarsest_width": 8})")) <
        parameters(model("autoencoder", R"({"type": "basic"})")) / 2);
}

TEST_CASE("point networks and the autoencoder: what they refuse") {
  const auto says = [](const std::string& json, const char* part) {
    const std::string m = refusal(json);
    CHECK_MESSAGE(m.find(part) != std::string::npos, m);
  };
  says(model("dgcnn", R"({"type": "basic"})"), "allowed are conv, mgic");
  says(model("dgcnn", R"({"type": "mgic", "smoother": "bottleneck"})"), "does not fit a point cloud's network");
  says(model("dgcnn", conv, R"(, "k": 0)"), "k: must be at least 1");
  says(model("autoencoder", R"({"type": "mgic", "smoother": "inverted_residual", "mid_channels": 8})"),
       "block.smoother: inverted_residual does not fit here");
}
