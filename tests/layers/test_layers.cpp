// The contract that every registered layer keeps, and what single layers promise.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <map>
#include <set>

#include "autograd/ops.h"
#include "core/rng.h"
#include "layers/dropout.h"
#include "layers/sequential.h"
#include "layers/squeeze_excite.h"
#include "layers/state.h"

using namespace mgic;

namespace {

constexpr int64_t channels = 8;

// Options for the layers that cannot do without; all others must work with none. A new layer is covered by being
// registered.
const std::map<std::string, std::string> required{
    {"conv2d", R"("out_channels": 6)"},
    {"linear", R"("out_features": 5)"},
    {"conv_chain", R"("links": [{"out_channels": 6, "activation": "relu"}, {"out_channels": 8}], "residual": true)"},
    {"sequential", R"("layers": [{"type": "conv2d", "out_channels": 4}, {"type": "relu"}])"},
    {"add", R"("layers": [{"type": "conv2d", "out_channels": 8}])"},
    {"inverted_residual", R"("mid_channels": 16)"},
};

std::string config(const std::string& type) {
  auto it = required.find(type);
  return fmt::format(R"({{"type": "{}"{}{}}})", type, it == required.end() ? "" : ", ",
                     it == required.end() ? "" : it->second);
}

struct Subject {
  std::unique_ptr<Module> module;
  Tensor input;
};

Subject subject(const std::string& type) {
  const LayerSpec spec = layer_registry().parse(config(type));
  const int64_t arriving = channels * option_or(spec.options, "expansion", 1);
  const Shape shape = type == "linear" ? Shape{3, arriving} : Shape{3, 4, 5, arriving};
  Subject s{spec.make({channels, 1, 0, true, shape.with(0, 1)}), Tensor::empty(shape, DType::f64, Device::reference)};
  s.module->to(Device::reference, DType::f64);
  s.module->initialize(11);
  Rng rng(5, Purpose::test);
  for (double& v : s.input.span<double>()) v = rng.normal();
  return s;
}

bool equal(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::ranges::equal(a.span<double>(), b.span<double>());
}

}  // namespace

TEST_CASE("every registered layer: repeatable, moded, saved and restored, named") {
  for (const std::string& type : layer_registry().names()) {
    CAPTURE(type);
    Subject s = subject(type);
    Module& m = *s.module;
    CHECK(!layer_registry().doc(type).empty());
    m.train(false);
    const Tensor first = m(Variable(s.input)).value(), second = m(Variable(s.input)).value();
    CHECK(equal(first, second));

    // Shapes on meta agree with those of the real run.
    {
      const LayerSpec spec = layer_registry().parse(config(type));
      const auto twin = spec.make({channels, 1, 0, true, s.input.shape().with(0, 1)});
      CHECK(twin->type() == m.type());
      CHECK((*twin)(Variable(Tensor::empty(s.input.shape(), DType::f32, Device::meta))).shape() == first.shape());
    }

    // Training changes buffers at most; evaluation changes nothing.
    const auto before = state_of(m);
    m.train(true);
    CHECK(m.training());
    {
      const RandomStep random(1, 2);
      const Variable y = m(Variable(s.input, true));
      backward(ops::sum(y));
    }
    std::set<std::string> parameters;
    m.each_parameter([&](const std::string& name, Variable&) { parameters.insert(name); });
    for (const auto& [name, tensor] : state_of(m))
      if (parameters.contains(name)) CHECK_MESSAGE(equal(tensor, before.at(name)), name);

    // The state goes round.
    m.initialize(12);
    m.train(false);
    load_state(m, before, "test");
    CHECK(equal(m(Variable(s.input)).value(), first));
    m.each_parameter([&](const std::string& name, Variable&) { CHECK(!name.empty()); });

    // Independent of the order of construction: the same seed gives the same weights.
    Subject again = subject(type);
    CHECK(equal((again.module->train(false), (*again.module)(Variable(s.input)).value()), first));
  }
}

TEST_CASE("dropout: off in evaluation, the right share in training, a function of seed, step and name") {
  Dropout d({0.25});
  Tensor x = Tensor::empty({64, 8, 8, 4}, DType::f64, Device::reference);
  x.fill(1.0);
  d.train(false);
  CHECK(equal(d(Variable(x)).value(), x));
  d.train(true);
  auto masked = [&](uint64_t seed, uint64_t step) {
    const RandomStep random(seed, step);
    return d(Variable(x)).value();
  };
  const Tensor a = masked(1, 1);
  CHECK(equal(a, masked(1, 1)));
  CHECK(!equal(a, masked(1, 2)));
  CHECK(!equal(a, masked(2, 1)));
  double sum = 0;
  for (double v : a.span<double>()) {
    CHECK((v == 0 || std::abs(v - 1 / 0.75) < 1e-12));
    sum += v;
  }
  CHECK(sum / static_cast<double>(x.count()) == doctest::Approx(1).epsilon(0.02));  // 16384 draws
  const Variable in(x, true);
  const RandomStep random(1, 1);
  backward(ops::sum(d(in)));
  CHECK(equal(in.gradient(), a));  // the same mask
}

TEST_CASE("make_divisible") {
  CHECK(make_divisible(1) == 8);
  CHECK(make_divisible(12) == 16);
  CHECK(make_divisible(11) == 16);  // 8 would be below 0.9 · 11
  CHECK(make_divisible(16 * 4.5) == 72);
  CHECK(make_divisible(24 * 3.67) == 88);
  CHECK(make_divisible(80 * 2.3) == 184);
}

TEST_CASE("sequential: each layer is built for what arrives, and errors name the layer") {
  auto build = [](const std::string& layers, const Shape& input) {
    return build_layer(layer_registry().parse(fmt::format(R"({{"type": "sequential", "layers": {}}})", layers)), input);
  };
  const auto m = build(R"([{"type": "conv2d", "out_channels": 6, "stride": 2, "name": "down"}, {"type": "flatten"},
                           {"type": "linear", "out_features": 3}])",
                       {1, 8, 8, 2});
  std::vector<std::string> names;
  m->each_parameter([&](const std::string& name, Variable& p) {
    names.push_back(name);
    if (name == "2.weight") CHECK(p.shape() == Shape{3, 4 * 4 * 6});
  });
  CHECK(names == std::vector<std::string>{"down.weight", "2.weight", "2.bias"});
  CHECK_THROWS_WITH_AS(build(R"([{"type": "conv2d", "out_channels": 4, "kernel": 9, "padding": 0}])", {1, 4, 4, 2}),
                       doctest::Contains("layer 0: conv2d (in 0): the 9×9 kernel does not fit the image"), UserError);
  CHECK_THROWS_WITH_AS(build(R"([{"type": "relu", "name": "a"}, {"type": "relu", "name": "a"}])", {1, 4, 4, 2}),
                       doctest::Contains("the name \"a\" is taken already"), UserError);
}

TEST_CASE("state that does not fit is described and changes nothing") {
  Subject s = subject("mgic");
  auto state = state_of(*s.module);
  const auto before = state;
  state.erase("smooth.0.conv1.weight");
  state["other"] = Tensor::zeros({1}, DType::f32, Device::cpu);
  state["smooth.0.bn1.weight"] = Tensor::zeros({3}, DType::f32, Device::cpu);
  state["smooth.0.bn1.num_batches_tracked"] = Tensor::zeros({}, DType::i64, Device::cpu);
  CHECK_THROWS_WITH_AS(
      load_state(*s.module, state, "x.safetensors"),
      "x.safetensors: does not fit this network: 1 missing (smooth.0.conv1.weight); 1 unexpected "
      "(other); 1 of another shape (smooth.0.bn1.weight is (3), not (8)); use the configuration it was "
      "made with",
      UserError);
  for (const auto& [name, tensor] : state_of(*s.module)) CHECK(equal(tensor, before.at(name)));
}
