// Optimizers against sequences computed with PyTorch 1.13, and schedules against their formulas.
#include <doctest/doctest.h>

#include <cmath>

#include "layers/linear.h"
#include "train/optimizer.h"
#include "train/schedule.h"

using namespace mgic;

namespace {

// f64 against f64: only the order of a few operations differs.
constexpr double rounding = 1e-12;

// A parameter p of one element with the gradient p² + 0.1 (not a real gradient: it is the sequence that counts).
std::vector<double> sequence(const char* json, int steps) {
  Linear m({1, 1, false});
  m.to(Device::reference, DType::f64);
  Variable* p = nullptr;
  m.each_parameter([&](const std::string&, Variable& v) { p = &v; });
  p->value().fill(0.7);
  const auto optimizer = optimizer_registry().parse(json).make({m});
  std::vector<double> values;
  for (int i = 0; i < steps; ++i) {
    const double x = p->value().item();
    Tensor gradient = Tensor::empty({1, 1}, DType::f64, Device::reference);
    gradient.fill(x * x + 0.1);
    p->slot()->take(gradient);
    optimizer->step(optimizer->base_lr());
    values.push_back(p->value().item());
  }
  return values;
}

void check(const std::vector<double>& got, const std::vector<double>& expected) {
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); ++i) CHECK(std::abs(got[i] - expected[i]) <= rounding);
}

std::unique_ptr<Schedule> schedule(const char* json) { return schedule_registry().parse(json).make({10, 50}); }

}  // namespace

// Expected values: torch.optim.SGD and AdamW on a one-element f64 parameter 0.7 with p.grad = p² + 0.1, four steps.
TEST_CASE("sgd and adamw step as PyTorch's") {
  check(sequence(R"({"type": "sgd", "lr": 0.1})", 4),
        {0.6409999999999999, 0.5899118999999999, 0.545112295023839, 0.5053975536052233});
  check(sequence(R"({"type": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01})", 4),
        {0.6403, 0.534931291, 0.40094937299990735, 0.25388865745592215});
  check(sequence(R"({"type": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": true, "weight_decay": 5e-4})", 4),
        {0.5878335, 0.4553051433102725, 0.3177246339736961, 0.18336943090282304});
  check(sequence(R"({"type": "adamw", "lr": 0.01, "weight_decay": 0.05})", 4),
        {0.6896500001694915, 0.6793123687336402, 0.6689919639327713, 0.6586936709545217});
  check(sequence(R"({"type": "adamw", "lr": 0.1, "beta1": 0.8, "beta2": 0.99, "eps": 1e-4})", 4),
        {0.5993169462802914, 0.5008188879124639, 0.4059948380853247, 0.31616504021608194});
}

TEST_CASE("decay groups: the first match counts") {
  OptimizerOptions o;
  o.weight_decay = 0.5;
  o.groups = {{"bn", 0.0}, {"classifier", 0.25}};
  CHECK(o.decay_of("stem.bn.weight") == 0);
  CHECK(o.decay_of("classifier.bias") == 0.25);
  CHECK(o.decay_of("stem.conv.weight") == 0.5);
}

TEST_CASE("an optimizer without gradients says so") {
  Linear m({1, 1, false});
  m.to(Device::reference, DType::f64);
  const auto optimizer = optimizer_registry().parse(R"({"type": "sgd", "lr": 1})").make({m});
  CHECK_THROWS_WITH_AS(optimizer->step(1), doctest::Contains("run backward before step"), Error);
}

TEST_CASE("schedules") {
  const auto constant = schedule(R"({"type": "constant"})");
  CHECK(constant->factor(0) == 1);
  CHECK(constant->factor(49) == 1);
  const auto warm = schedule(R"({"type": "constant", "warmup_epochs": 0.5})");
  CHECK(warm->factor(0) == doctest::Approx(0.2));
  CHECK(warm->factor(4) == doctest::Approx(1));
  CHECK(warm->factor(5) == 1);
  const auto step = schedule(R"({"type": "step", "milestones": [2, 4], "gamma": 0.5})");
  CHECK(step->factor(19) == 1);
  CHECK(step->factor(20) == 0.5);
  CHECK(step->factor(40) == 0.25);
  const auto cosine = schedule(R"({"type": "cosine", "warmup_epochs": 1})");
  CHECK(cosine->factor(9) == doctest::Approx(1));
  CHECK(cosine->factor(10) == doctest::Approx(1));
  CHECK(cosine->factor(30) == doctest::Approx(0.5));
  CHECK(cosine->factor(49) == doctest::Approx(0.5 * (1 + std::cos(std::acos(-1.0) * 39 / 40))));
  const auto floor = schedule(R"({"type": "cosine", "final_factor": 0.1})");
  CHECK(floor->factor(0) == doctest::Approx(1));
  CHECK(floor->factor(50) == doctest::Approx(0.1));
}
