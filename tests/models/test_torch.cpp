// PyTorch's numbers without PyTorch: torch.json, written by test_torch.py, holds logits of torchvision's models and
// logits, losses and gradients of MGIC MobileNetV3s in an independent implementation. The weights are a function of
// their names, which both sides compute.
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/safetensors.h"
#include "models/torchvision.h"
#include "tests/models/support.h"

using namespace mgic;
using namespace mgic::test;

namespace {

// f32 logits, relative to the largest; and f64, where rounding alone separates the two implementations.
constexpr double f32_limit = 1e-4, f64_limit = 1e-8;

// FNV-1a of the name, splitmix64 of it plus the index: test_torch.py's `uniform`.
std::vector<double> uniform(const std::string& name, int64_t count) {
  const uint64_t seed = hash_name(name.data(), name.size());
  std::vector<double> values;
  for (int64_t i = 0; i < count; ++i) {
    uint64_t z = seed + (static_cast<uint64_t>(i) + 1) * 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    z = z ^ (z >> 31);
    values.push_back(static_cast<double>(z >> 11) * std::ldexp(1.0, -53));
  }
  return values;
}

// The shape that the file has: 4-D tensors are channels-first there.
Shape file_shape(const Shape& s) { return s.rank() == 4 ? Shape{s[0], s[3], s[1], s[2]} : s; }

Tensor in_memory(const std::vector<double>& values, const Shape& file) {
  const Tensor t = Tensor::from(values, file);
  return file.rank() == 4 ? to_channels_last(t) : t;
}

Tensor fill(const std::string& name, const Shape& memory) {
  const Shape shape = file_shape(memory);
  std::vector<double> v = uniform(name, shape.count());
  for (double& u : v) {
    if (shape.rank() >= 2)
      u = (2 * u - 1) * std::sqrt(3.0 / (static_cast<double>(shape.count()) / static_cast<double>(shape[0])));
    else
      u = name.ends_with("running_var") || name.ends_with("weight") ? 0.5 + u : 0.2 * (2 * u - 1);
  }
  return in_memory(v, shape);
}

Tensor input_of(const std::string& name, const std::vector<int64_t>& sizes) {
  const Shape shape(sizes);
  std::vector<double> v = uniform("input of " + name, shape.count());
  for (double& u : v) u = 4 * u - 2;
  return in_memory(v, shape);
}

const Json& cases() {
  static const Json json = Json::parse(std::ifstream(std::string(MGIC_SOURCE_DIR) + "/tests/models/torch.json"));
  return json;
}

double largest_difference(const Tensor& a, const std::vector<double>& b) {
  const Tensor wide = a.to(DType::f64);
  REQUIRE(wide.count() == static_cast<int64_t>(b.size()));
  double difference = 0, largest = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference = std::max(difference, std::abs(wide.data<double>()[i] - b[i]));
    largest = std::max(largest, std::abs(b[i]));
  }
  return difference / largest;
}

}  // namespace

TEST_CASE("torchvision's weights by torchvision's names give torchvision's logits") {
  NoGrad no_grad;
  for (const auto& [name, c] : cases()["torchvision"].items()) {
    CAPTURE(name);
    const auto sizes = c["input"].get<std::vector<int64_t>>();
    const ModelSpec spec = model_registry().parse(c["model"].dump());
    const auto model = spec.make({sizes[2], sizes[3]});
    model->to(Device::cpu, DType::f32);
    model->initialize(1);
    std::map<std::string, Tensor> state = torchvision_state(spec, *model);
    CHECK(static_cast<int64_t>(state.size()) == c["tensors"].get<int64_t>());
    for (auto& [theirs, tensor] : state) tensor = fill(theirs, tensor.shape()).to(DType::f32);
    state["bn1.num_batches_tracked"] = Tensor::zeros({}, DType::i64, Device::cpu);
    load_weights(*model, spec, state, "test");
    model->train(false);
    Tensor y = (*model)(Variable(input_of(name, sizes).to(DType::f32))).value();
    if (y.shape().rank() == 4) y = to_channels_first(y);
    std::vector<double> mine;
    for (int64_t i = 0; i < y.count(); i += c["step"].get<int64_t>()) mine.push_back(y.data<float>()[i]);
    const auto theirs = c["logits"].get<std::vector<double>>();
    REQUIRE(mine.size() == theirs.size());
    for (size_t i = 0; i < mine.size(); ++i)
      CHECK(std::abs(mine[i] - theirs[i]) <= f32_limit * c["largest"].get<double>());

    // And back: what was loaded is exported as it was.
    for (const auto& [theirs_name, tensor] : torchvision_state(spec, *model))
      CHECK_MESSAGE(std::ranges::equal(tensor.span<float>(), state.at(theirs_name).span<float>()), theirs_name);
  }
}

TEST_CASE("MGIC MobileNetV3s in f64: logits, loss and every gradient of an independent implementation") {
  for (const auto& [name, c] : cases()["mgic"].items()) {
    CAPTURE(name);
    const auto sizes = c["input"].get<std::vector<int64_t>>();
    const auto model = network(c["model"].dump());
    model->to(Device::reference, DType::f64);
    std::map<std::string, Tensor> state = state_of(*model);
    CHECK(static_cast<int64_t>(state.size()) == c["tensors"].get<int64_t>());
    for (auto& [key, tensor] : state) tensor = fill(key, tensor.shape());
    load_state(*model, state, "test");
    const Variable x(input_of(name, sizes).to(Device::reference));
    model->train(false);
    CHECK(largest_difference((*model)(x).value(), c["logits.eval"].get<std::vector<double>>()) <= f64_limit);
    model->train(true);
    const Variable logits = (*model)(x);
    CHECK(largest_difference(logits.value(), c["logits.train"].get<std::vector<double>>()) <= f64_limit);
    const auto labels = c["labels"].get<std::vector<int64_t>>();
    const Variable loss = ops::cross_entropy(logits, Tensor::from(labels, {sizes[0]}, Device::reference));
    CHECK(loss.value().item() == doctest::Approx(c["loss"].get<double>()).epsilon(f64_limit));
    backward(loss);
    // Each gradient's product with a direction that its name chooses, beside its length.
    size_t gradients = 0;
    model->each_parameter([&](const std::string& key, Variable& p) {
      const auto expected = c["gradients"][key].get<std::vector<double>>();
      Tensor g = p.gradient();
      if (g.shape().rank() == 4) g = to_channels_first(g);
      const std::vector<double> direction = uniform("direction of " + key, g.count());
      double product = 0, square = 0, length = 0;
      for (int64_t i = 0; i < g.count(); ++i) {
        const double d = 2 * direction[static_cast<size_t>(i)] - 1;
        product += d * g.data<double>()[i];
        square += g.data<double>()[i] * g.data<double>()[i];
        length += d * d;
      }
      CHECK_MESSAGE(std::abs(product - expected[0]) <= f64_limit * (expected[1] * std::sqrt(length) + 1e-12), key);
      CHECK_MESSAGE(std::abs(std::sqrt(square) - expected[1]) <= f64_limit * (expected[1] + 1e-12), key);
      ++gradients;
    });
    CHECK(gradients == c["gradients"].size());
  }
}

TEST_CASE("torchvision's names: what does not fit is said, and an auxiliary head may be left out") {
  const ModelSpec spec = model_registry().parse(
      R"({"type": "deeplabv3", "classes": 3, "auxiliary": true, "backbone": {"type": "mobilenet_v3", "size": "small",
          "width": 0.2, "block": {"type": "inverted_residual"}}})");
  const auto model = spec.make({32, 32});
  model->to(Device::cpu, DType::f32);
  model->initialize(1);
  auto state = torchvision_state(spec, *model);
  CHECK(state.contains("backbone.1.block.0.0.weight"));
  CHECK(state.contains("classifier.0.convs.4.1.weight"));
  CHECK(state.contains("aux_classifier.4.bias"));

  Json plain = *spec.options;
  plain["auxiliary"] = false;
  const ModelSpec without = model_registry().parse(plain.dump());
  const auto smaller = without.make({32, 32});
  smaller->to(Device::cpu, DType::f32);
  smaller->initialize(2);
  load_weights(*smaller, without, state, "test");
  for (const auto& [name, tensor] : torchvision_state(without, *smaller))
    CHECK_MESSAGE(std::ranges::equal(tensor.span<float>(), state.at(name).span<float>()), name);

  state["classifier.9.weight"] = state.at("classifier.4.bias");
  CHECK_THROWS_WITH_AS(load_weights(*model, spec, state, "file"),
                       doctest::Contains("file: does not fit this network: 1 unexpected (classifier.9.weight)"),
                       UserError);
  state.erase("classifier.9.weight");
  state.erase("classifier.4.bias");
  CHECK_THROWS_WITH_AS(load_weights(*model, spec, state, "file"), doctest::Contains("1 missing (classifier.bias)"),
                       UserError);
  // Our own names go on to work.
  load_weights(*model, spec, state_of(*model), "file");

  const ModelSpec mgic = model_registry().parse(R"({"type": "mobilenet_v3", "block": {"type": "mgic"}})");
  CHECK_THROWS_WITH_AS(torchvision_state(mgic, *mgic.make({32, 32})),
                       doctest::Contains("torchvision has no such model"), UserError);
}
