// Normalisation and the fused training units: against central differences, and against the plain operations that they
// are made of (a Recorder that expands makes them run as such). Outputs, gradients and running statistics must agree.
#include <doctest/doctest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/autograd/support.h"

using namespace mgic;
using namespace mgic::test;

namespace {

constexpr Activation relu = Activation::relu, none = Activation::none, hswish = Activation::hswish;

// A unit under test: a function of variables and of running statistics, which it may change.
using Statistics = std::vector<Tensor>;
using Unit = std::function<Variable(const Inputs&, const Statistics&)>;

Statistics clone(const Statistics& statistics) {
  Statistics copies;
  for (const Tensor& t : statistics) copies.push_back(t.clone());
  return copies;
}

// Everything that a step leaves behind.
struct Outcome {
  Tensor output;
  std::vector<Tensor> gradients;
  Statistics statistics;
};

Outcome outcome_of(const Unit& unit, const std::vector<Tensor>& inputs, const Statistics& statistics, bool expand) {
  std::optional<Recorder> recorder;
  if (expand) recorder.emplace(true);
  Inputs leaves;
  for (const Tensor& t : inputs) leaves.push_back(leaf(t.clone()));
  Outcome result;
  result.statistics = clone(statistics);
  const Variable y = unit(leaves, result.statistics);
  result.output = y.value();
  backward(y, normal(y.shape(), 99, y.value().dtype(), y.value().device()));
  for (const Variable& v : leaves) result.gradients.push_back(v.gradient());
  return result;
}

void check_same(const Outcome& a, const Outcome& b, double tolerance) {
  CHECK(distance(a.output, b.output) <= tolerance);
  REQUIRE(a.gradients.size() == b.gradients.size());
  for (size_t i = 0; i < a.gradients.size(); ++i) {
    CAPTURE(i);
    CHECK(distance(a.gradients[i], b.gradients[i]) <= tolerance);
  }
  for (size_t i = 0; i < a.statistics.size(); ++i) {
    CAPTURE(i);
    CHECK(distance(a.statistics[i], b.statistics[i]) <= tolerance);
  }
}

void check_unit(const Unit& unit, const std::vector<Tensor>& inputs, const Statistics& statistics) {
  // Each evaluation begins with the same running statistics, so that they are constants of the function.
  CHECK(gradcheck_fault([&](const Inputs& v) { return unit(v, clone(statistics)); }, inputs) == "");
  check_same(outcome_of(unit, inputs, statistics, false), outcome_of(unit, inputs, statistics, true), tolerance_f64);
}

// One link's shape and options.
struct LinkCase {
  Shape weight;
  ConvParams conv;
  bool norm = true;
  Activation activation = none;
};
struct ChainCase {
  std::string name;
  Shape x;
  std::vector<LinkCase> links;
  enum Residual { absent, own, given } residual = absent;
  Activation outer = none;
};

// Inputs in the order x, then weight (gamma, beta) of every link, then the residual where one is given.
std::vector<Tensor> inputs_of(const ChainCase& c, const Shape& residual) {
  std::vector<Tensor> inputs{normal(c.x, 1)};
  uint64_t index = 2;
  for (const LinkCase& l : c.links) {
    inputs.push_back(normal(l.weight, index++));
    if (!l.norm) continue;
    inputs.push_back(positive({l.weight[0]}, index++));
    inputs.push_back(normal({l.weight[0]}, index++));
  }
  if (c.residual == ChainCase::given) inputs.push_back(normal(residual, index++));
  return inputs;
}
Statistics statistics_of(const ChainCase& c) {
  Statistics statistics;
  uint64_t index = 50;
  for (const LinkCase& l : c.links) {
    if (!l.norm) continue;
    statistics.push_back(normal({l.weight[0]}, index++));
    statistics.push_back(positive({l.weight[0]}, index++));
  }
  return statistics;
}

std::vector<ops::ChainLink> links_of(const std::vector<LinkCase>& cases, const Inputs& v, const Statistics& statistics,
                                     size_t at = 1) {
  std::vector<ops::ChainLink> links;
  size_t s = 0;
  for (size_t i = 0; i < cases.size(); ++i) {
    ops::ChainLink l;
    l.weight = v[at++];
    l.conv = cases[i].conv;
    if (cases[i].norm) {
      l.norm = {v[at], v[at + 1], statistics[s], statistics[s + 1], 1e-3, 0.3};
      at += 2;
      s += 2;
    }
    l.activation = cases[i].activation;
    l.conv_name = fmt::format("conv{}", i + 1);
    l.norm_name = fmt::format("bn{}", i + 1);
    links.push_back(l);
  }
  return links;
}

Unit unit_of(const ChainCase& c, bool training) {
  return [c, training](const Inputs& v, const Statistics& statistics) {
    const Variable residual = c.residual == ChainCase::own     ? v[0]
                              : c.residual == ChainCase::given ? v.back()
                                                               : Variable();
    return ops::conv_chain(v[0], links_of(c.links, v, statistics), residual, c.outer, training);
  };
}

const ConvParams same3{1, 1, 1, 1}, point{1, 0, 1, 1};

// Kinks: numbers are random, so none of some hundred values lies within a step of 1e-6 of one.
std::vector<ChainCase> chain_cases() {
  const auto grouped = [](ConvParams p, int64_t groups) {
    p.groups = groups;
    return p;
  };
  return {
      {"a bare convolution", {1, 4, 3, 3}, {{{2, 3, 3, 3}, same3, false}}, ChainCase::absent, none},
      {"a convolution and an activation",
       {2, 3, 4, 1},
       {{{3, 3, 3, 1}, same3, false, hswish}},
       ChainCase::absent,
       none},
      {"a convolution and a residual", {1, 4, 3, 2}, {{{2, 3, 3, 2}, same3, false}}, ChainCase::own, none},
      {"the same with an outer activation", {1, 4, 3, 2}, {{{2, 3, 3, 2}, same3, false}}, ChainCase::own, relu},
      {"the same with another tensor", {1, 4, 3, 2}, {{{5, 3, 3, 2}, same3, false}}, ChainCase::given, hswish},
      {"conv, norm", {2, 3, 5, 1}, {{{5, 3, 3, 1}, same3}}, ChainCase::absent, none},
      {"conv, norm, activation, with a stride", {3, 5, 4, 3}, {{{3, 3, 3, 3}, {2, 1, 1, 1}, true, relu}}},
      {"conv, norm, hsigmoid", {2, 3, 3, 2}, {{{1, 1, 1, 2}, point, true, Activation::hsigmoid}}},
      {"conv, norm, residual", {2, 3, 3, 5}, {{{5, 1, 1, 5}, point}}, ChainCase::own, none},
      {"all of it", {2, 3, 4, 6}, {{{6, 3, 3, 2}, grouped(same3, 3), true, hswish}}, ChainCase::own, relu},
      {"an outer activation without residual is none", {2, 3, 3, 2}, {{{2, 1, 1, 2}, point}}, ChainCase::absent, relu},
      {"the basic smoother",
       {2, 4, 3, 4},
       {{{4, 3, 3, 2}, grouped(same3, 2), true, relu}, {{4, 3, 3, 2}, grouped(same3, 2)}},
       ChainCase::own,
       relu},
      {"the basic smoother, batch 1, depthwise",
       {1, 5, 3, 3},
       {{{3, 3, 3, 1}, grouped(same3, 3), true, relu}, {{3, 3, 3, 1}, grouped(same3, 3)}},
       ChainCase::own,
       relu},
      {"two links without norms", {1, 4, 4, 2}, {{{3, 3, 3, 2}, same3, false, relu}, {{2, 3, 3, 3}, same3, false}}},
      {"two bare links",
       {1, 4, 4, 2},
       {{{3, 3, 3, 2}, same3, false}, {{2, 3, 3, 3}, same3, false}},
       ChainCase::own,
       relu},
      {"a norm at the end alone", {2, 3, 4, 2}, {{{3, 3, 3, 2}, same3, false, hswish}, {{2, 1, 1, 3}, point}}},
      {"a norm at the start alone", {2, 3, 4, 2}, {{{3, 3, 3, 2}, same3, true, relu}, {{2, 1, 1, 3}, point, false}}},
      {"a norm without activation between", {2, 3, 4, 2}, {{{3, 1, 1, 2}, point}, {{2, 3, 3, 3}, {1, 2, 2, 1}}}},
      {"the coarsest bottleneck",
       {2, 3, 3, 4},
       {{{2, 1, 1, 4}, point, true, relu}, {{2, 3, 3, 2}, same3, true, relu}, {{4, 1, 1, 2}, point, true, relu}},
       ChainCase::own,
       relu},
      {"three links of different kinds, strides 2 and 1",
       {2, 5, 7, 3},
       {{{6, 1, 1, 1}, grouped(point, 3), true, hswish},
        {{6, 3, 3, 1}, {2, 1, 1, 6}, true, hswish},
        {{2, 1, 1, 6}, point}},
       ChainCase::given,
       none},
      {"three links, no norm at all",
       {1, 4, 3, 1},
       {{{2, 3, 3, 1}, same3, false, hswish}, {{3, 3, 3, 2}, same3, false, hswish}, {{1, 1, 1, 3}, point, false}},
       ChainCase::own,
       none},
      {"a point cloud", {2, 5, 3}, {{{4, 1, 1, 3}, point, true, relu}, {{3, 1, 1, 4}, point}}, ChainCase::own, relu},
      {"a point cloud, one bare link", {2, 5, 4}, {{{4, 1, 1, 2}, grouped(point, 2), false}}, ChainCase::own, none},
  };
}

Shape output_shape(const ChainCase& c) {
  std::vector<Tensor> inputs = inputs_of(c, {});
  Inputs v;
  for (const Tensor& t : inputs) v.emplace_back(t.to(Device::meta));
  Statistics statistics;
  for (const Tensor& t : statistics_of(c)) statistics.push_back(t.to(Device::meta));
  return ops::conv_chain(v[0], links_of(c.links, v, statistics), {}, none, false).shape();
}

}  // namespace

TEST_CASE("conv_chain: gradients, and the same as its plain operations, in training and in evaluation") {
  for (const ChainCase& c : chain_cases())
    for (bool training : {true, false}) {
      CAPTURE(c.name);
      CAPTURE(training);
      check_unit(unit_of(c, training), inputs_of(c, output_shape(c)), statistics_of(c));
    }
}

TEST_CASE("conv_chain: training updates the running statistics, evaluation uses and leaves them") {
  for (const ChainCase& c : chain_cases()) {
    CAPTURE(c.name);
    const Statistics before = statistics_of(c);
    const auto inputs = inputs_of(c, output_shape(c));
    const Outcome eval = outcome_of(unit_of(c, false), inputs, before, false);
    const Outcome train = outcome_of(unit_of(c, true), inputs, before, false);
    for (size_t i = 0; i < before.size(); ++i) {
      CHECK(distance(eval.statistics[i], before[i]) == 0);
      CHECK(distance(train.statistics[i], before[i]) > 1e-3);
    }
    if (!before.empty()) CHECK(distance(eval.output, train.output) > 1e-3);
  }
}

TEST_CASE("conv_chain: one weight in two links, one normalisation in two") {
  const Unit unit = [](const Inputs& v, const Statistics& s) {
    const ops::ChainLink link{v[1], same3, {v[2], v[3], s[0], s[1], 1e-3, 0.3}, hswish, "conv", "bn"};
    return ops::conv_chain(v[0], {link, link, link}, v[0], relu, true);
  };
  check_unit(unit, {normal({2, 3, 4, 3}, 1), normal({3, 3, 3, 3}, 2), positive({3}, 3), normal({3}, 4)},
             {normal({3}, 5), positive({3}, 6)});
}

TEST_CASE("conv_chain: gamma and beta that are one variable, and an input that is its own weight") {
  const Unit unit = [](const Inputs& v, const Statistics& s) {
    const ops::ChainLink link{v[0], same3, {v[1], v[1], s[0], s[1], 1e-3, 0.3}, relu, "conv", "bn"};
    return ops::conv_chain(v[0], {link}, v[0], none, true);
  };
  check_unit(unit, {normal({3, 3, 3, 3}, 1), positive({3}, 2)}, {normal({3}, 3), positive({3}, 4)});
}

TEST_CASE("conv_chain: on cpu the fused units agree with the plain operations too") {
  for (const ChainCase& c : chain_cases())
    for (bool training : {true, false}) {
      CAPTURE(c.name);
      CAPTURE(training);
      std::vector<Tensor> inputs;
      for (const Tensor& t : inputs_of(c, output_shape(c))) inputs.push_back(t.to(DType::f32).to(Device::cpu));
      Statistics statistics;
      for (const Tensor& t : statistics_of(c)) statistics.push_back(t.to(DType::f32).to(Device::cpu));
      check_same(outcome_of(unit_of(c, training), inputs, statistics, false),
                 outcome_of(unit_of(c, training), inputs, statistics, true), tolerance_f32);
    }
}

TEST_CASE("coarse_correction: x + N(P(a − b))") {
  struct Case {
    Shape x, a, weight;
    int64_t groups;
    bool norm;
  };
  const Case cases[] = {
      {{2, 3, 4, 4}, {2, 3, 4, 2}, {4, 1, 1, 1}, 2, true},  {{1, 4, 3, 6}, {1, 4, 3, 3}, {6, 1, 1, 1}, 3, true},
      {{2, 3, 3, 4}, {2, 3, 3, 2}, {4, 1, 1, 2}, 1, false}, {{3, 2, 2, 1}, {3, 2, 2, 1}, {1, 1, 1, 1}, 1, true},
      {{2, 5, 4}, {2, 5, 2}, {4, 1, 1, 1}, 2, true},        {{2, 5, 4}, {2, 5, 2}, {4, 1, 1, 2}, 1, false},
      {{2, 3, 5, 5}, {2, 3, 5, 3}, {5, 1, 1, 3}, 1, true},
  };
  for (const Case& c : cases)
    for (bool training : {true, false}) {
      CAPTURE(c.x.str());
      CAPTURE(c.norm);
      CAPTURE(training);
      const LinkCase link{c.weight, {1, 0, 1, c.groups}, c.norm, none};
      std::vector<Tensor> inputs{normal(c.x, 1), normal(c.a, 2), normal(c.a, 3), normal(c.weight, 4)};
      Statistics statistics;
      if (c.norm) {
        inputs.push_back(positive({c.weight[0]}, 5));
        inputs.push_back(normal({c.weight[0]}, 6));
        statistics = {normal({c.weight[0]}, 7), positive({c.weight[0]}, 8)};
      }
      const Unit unit = [&](const Inputs& v, const Statistics& s) {
        return ops::coarse_correction(v[0], v[1], v[2], links_of({link}, v, s, 3)[0], training);
      };
      check_unit(unit, inputs, statistics);
    }
}

TEST_CASE("coarse_correction: inputs that are one variable") {
  const LinkCase link{{3, 1, 1, 3}, point, true, none};
  const Statistics statistics{normal({3}, 7), positive({3}, 8)};
  const Tensor x = normal({2, 3, 4, 3}, 1), a = normal({2, 3, 4, 3}, 2), w = normal({3, 1, 1, 3}, 3);
  const Tensor gamma = positive({3}, 4), beta = normal({3}, 5);
  for (bool training : {true, false}) {
    const auto correct = [&](size_t x, size_t a, size_t b, size_t parameters) {
      return [=](const Inputs& v, const Statistics& s) {
        return ops::coarse_correction(v[x], v[a], v[b], links_of({link}, v, s, parameters)[0], training);
      };
    };
    check_unit(correct(0, 1, 1, 2), {x, a, w, gamma, beta}, statistics);  // a = b
    check_unit(correct(0, 0, 1, 2), {x, a, w, gamma, beta}, statistics);  // x = a
    check_unit(correct(0, 1, 0, 2), {x, a, w, gamma, beta}, statistics);  // x = b
    check_unit(correct(0, 0, 0, 1), {x, w, gamma, beta}, statistics);     // all three
    // With a = b nothing is corrected, whatever P is: x + N(0).
    const Outcome o = outcome_of(correct(0, 1, 1, 2), {x, a, w, gamma, beta}, statistics, false);
    CHECK(distance(o.gradients[1], Tensor::zeros(a.shape(), DType::f64, Device::reference)) == 0);
  }
}

TEST_CASE("coarse_correction: the point clouds' inputs that are one variable") {
  const LinkCase link{{3, 1, 1, 3}, point, true, none};
  const Unit unit = [&](const Inputs& v, const Statistics& s) {
    return ops::coarse_correction(v[0], v[0], v[0], links_of({link}, v, s, 1)[0], true);
  };
  check_unit(unit, {normal({2, 4, 3}, 1), normal({3, 1, 1, 3}, 2), positive({3}, 3), normal({3}, 4)},
             {normal({3}, 5), positive({3}, 6)});
}

TEST_CASE("batch_norm: gradients with every epilogue") {
  for (const Shape& shape : {Shape{5, 3}, Shape{1, 3, 4, 1}, Shape{2, 2, 3, 3}, Shape{3, 2, 2}})
    for (bool training : {true, false})
      for (Activation inner : {none, relu, hswish, Activation::hsigmoid})
        for (int residual : {0, 1, 2})  // none, x itself, another
          for (Activation outer : {none, relu}) {
            if (residual == 0 && outer != none) continue;
            CAPTURE(shape.str());
            CAPTURE(training);
            CAPTURE(name_of(inner));
            CAPTURE(residual);
            CAPTURE(name_of(outer));
            const Statistics statistics{normal({shape.last()}, 5), positive({shape.last()}, 6)};
            const std::vector<Tensor> inputs{normal(shape, 1), positive({shape.last()}, 2), normal({shape.last()}, 3),
                                             normal(shape, 4)};
            const auto f = [&](const Inputs& v) {
              const Statistics s = clone(statistics);
              const Variable r = residual == 0 ? Variable() : residual == 1 ? v[0] : v[3];
              const Variable y =
                  ops::batch_norm(v[0], {v[1], v[2], s[0], s[1], 1e-3, 0.3}, training, {inner, r, outer});
              return residual == 2 ? y : ops::add(y, v[3]);  // so that each input has a gradient
            };
            CHECK(gradcheck_fault(f, inputs) == "");
          }
}

TEST_CASE("batch_norm: values and running statistics by hand") {
  // Two channels: 1, 2, 3, 6 has mean 3 and variance 3.5 (unbiased 14/3); the other is constant.
  const Variable x(Tensor::from(std::vector<double>{1, 5, 2, 5, 3, 5, 6, 5}, {4, 2}, Device::reference));
  const auto of = [](const std::vector<double>& v) { return Tensor::from(v, {2}, Device::reference); };
  const Tensor mean = of({10, 20}), variance = of({1, 2});
  const ops::NormVariables norm{Variable(of({2, 1})), Variable(of({0.5, -1})), mean, variance, 0.5, 0.25};
  const double s = 2 / std::sqrt(3.5 + 0.5);
  const Tensor y = ops::batch_norm(x, norm, true).value();
  CHECK(distance(y, Tensor::from(std::vector<double>{0.5 - 2 * s, -1, 0.5 - s, -1, 0.5, -1, 0.5 + 3 * s, -1}, {4, 2},
                                 Device::reference)) < tolerance_f64);
  CHECK(distance(mean, of({0.75 * 10 + 0.25 * 3, 0.75 * 20 + 0.25 * 5})) < tolerance_f64);
  CHECK(distance(variance, of({0.75 + 0.25 * 14 / 3, 0.75 * 2})) < tolerance_f64);
  const Tensor e = ops::batch_norm(x, norm, false).value();
  CHECK(std::abs(list(e)[0] - (0.5 + 2 * (1 - list(mean)[0]) / std::sqrt(list(variance)[0] + 0.5))) < tolerance_f64);
}

TEST_CASE("batch_norm: one row in training has no deviation, and stays finite") {
  const Statistics s{normal({3}, 5), positive({3}, 6)};
  const Variable x = leaf(normal({1, 3}, 1)), gamma = leaf(positive({3}, 2)), beta = leaf(normal({3}, 3));
  const Variable y = ops::batch_norm(x, {gamma, beta, s[0], s[1], 1e-5, 0.1}, true);
  CHECK(distance(y.value().reshape({3}), beta.value()) == 0);
  backward(y);
  CHECK(distance(x.gradient(), Tensor::zeros({1, 3}, DType::f64, Device::reference)) == 0);
  CHECK(distance(s[1], s[1].clone()) == 0);  // finite: distance() of a NaN is infinite
}

TEST_CASE("batch_norm: gamma and beta that are one variable") {
  const auto f = [](const Inputs& v) {
    return ops::batch_norm(v[0], {v[1], v[1], normal({3}, 5), positive({3}, 6), 1e-3, 0.3}, true);
  };
  CHECK(gradcheck_fault(f, {normal({4, 3}, 1), positive({3}, 2)}) == "");
}
