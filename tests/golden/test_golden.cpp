// The golden vectors: an independent f64 implementation of every block and of two networks, matched through the same
// code that `mgic trace` runs.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "train/trace.h"

using namespace mgic;

namespace {

// f64 on reference: rounding alone separates the two implementations.
constexpr double f64_limit = 1e-8;
// f32: outputs, the first loss and the gradients of single blocks.
constexpr double f32_limit = 1e-4;
// f32, all gradients of a network as one vector: a ReLU whose input is near 0 flips and moves them.
constexpr double network_gradient_limit = 5e-2;

struct Golden {
  Experiment experiment;
  TraceRequest request;
  std::map<std::string, Tensor> expected;
  bool network = false;
};

Golden load(const std::string& name) {
  const TensorFile file = read_safetensors(fmt::format("{}/tests/golden/{}.safetensors", MGIC_SOURCE_DIR, name));
  Golden g;
  Json config;
  for (const char* key : {"model", "layer", "optimizer"})
    if (file.metadata.contains(key)) config[key] = Json::parse(file.metadata.at(key));
  g.network = config.contains("model");
  g.experiment = parse_experiment(config.dump(), name, {}, {.model = false});
  if (file.metadata.contains("steps")) g.request.steps = std::stoll(file.metadata.at("steps"));
  for (const auto& [key, tensor] : file.tensors) {
    if (key.starts_with("weights/"))
      g.request.weights.tensors[key.substr(8)] = tensor;
    else if (key == "input" || key == "labels" || key == "cotangent")
      g.request.batch.tensors[key] = tensor;
    else
      g.expected[key] = tensor;
  }
  return g;
}

// max |a − b| / max |b|
double error(const Tensor& a, const Tensor& b) {
  const Tensor x = a.to(DType::f64), y = b.to(DType::f64);
  double difference = 0, largest = 0;
  for (int64_t i = 0; i < y.count(); ++i) {
    difference = std::max(difference, std::abs(x.data<double>()[i] - y.data<double>()[i]));
    if (std::isnan(x.data<double>()[i])) return INFINITY;
    largest = std::max(largest, std::abs(y.data<double>()[i]));
  }
  return largest == 0 ? difference : difference / largest;
}

const std::vector<std::string> names{"block_basic",  "block_basic_below", "block_bottleneck", "block_inverted_residual",
                                     "resnet_dense", "resnet_mgic"};

void check_f32(Device device) {
  for (const std::string& name : names) {
    CAPTURE(name);
    Golden g = load(name);
    g.request.dtype = DType::f32;
    g.request.device = device;
    const TensorFile out = trace(g.experiment, g.request);
    double squared_difference = 0, squared = 0;
    for (const auto& [key, expected] : g.expected) {
      CAPTURE(key);
      REQUIRE(out.tensors.contains(key));
      const Tensor& got = out.tensors.at(key);
      CHECK(got.dtype() == DType::f32);
      if (key.starts_with("after/") || key == "losses") continue;  // compared in f64 only
      if (g.network && key.starts_with("grads/")) {
        const Tensor a = got.to(DType::f64);
        for (int64_t i = 0; i < a.count(); ++i) {
          squared_difference += std::pow(a.data<double>()[i] - expected.data<double>()[i], 2);
          squared += std::pow(expected.data<double>()[i], 2);
        }
      } else {
        CHECK(error(got, expected) <= f32_limit);
      }
    }
    if (g.network) {
      REQUIRE(squared > 0);
      CHECK(std::sqrt(squared_difference / squared) <= network_gradient_limit);
      CHECK(std::abs(out.tensors.at("loss").item() - g.expected.at("losses").data<double>()[0]) <=
            f32_limit * std::abs(g.expected.at("losses").data<double>()[0]));
    }
  }
}

}  // namespace

TEST_CASE("golden vectors in f64 on reference: outputs, gradients, statistics, losses and parameters after the steps") {
  for (const std::string& name : names) {
    CAPTURE(name);
    Golden g = load(name);
    g.request.dtype = DType::f64;
    g.request.device = Device::reference;
    const TensorFile out = trace(g.experiment, g.request);
    CHECK(g.expected.size() > 20);
    for (const auto& [key, expected] : g.expected) {
      CAPTURE(key);
      REQUIRE(out.tensors.contains(key));
      REQUIRE(out.tensors.at(key).shape() == expected.shape());
      CHECK(error(out.tensors.at(key), expected) <= f64_limit);
    }
  }
}

TEST_CASE("golden vectors in f32 on reference") { check_f32(Device::reference); }
TEST_CASE("golden vectors in f32 on cpu") { check_f32(Device::cpu); }

TEST_CASE("with activations a trace holds the output of every module, and the same results") {
  Golden g = load("resnet_mgic");
  g.request.dtype = DType::f64;
  g.request.device = Device::reference;
  g.request.activations = true;
  const TensorFile out = trace(g.experiment, g.request);
  for (const char* path : {"stem", "stem.conv", "stem.bn", "stages.0.0", "stages.0.0.mgic",
                           "stages.0.0.mgic.restrict.0", "stages.0.0.mgic.prolong.0", "stages.0.0.mgic.smooth.2",
                           "stages.0.0.mgic.smooth.2.conv1", "stages.1.0.transition.conv", "classifier"})
    CHECK_MESSAGE(out.tensors.contains(fmt::format("activations/{}", path)), path);
  CHECK(error(out.tensors.at("activations/classifier"), out.tensors.at("logits.eval")) == 0);
  CHECK(error(out.tensors.at("logits.train"), g.expected.at("logits.train")) <= f64_limit);
}
