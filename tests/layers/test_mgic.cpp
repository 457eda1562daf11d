// The MGIC block: its hierarchy, its options, and its cycle against one written out by hand.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <map>

#include "autograd/gradcheck.h"
#include "autograd/ops.h"
#include "core/rng.h"
#include "layers/mgic/mgic.h"
#include "layers/mgic/stage.h"

using namespace mgic;

namespace {

std::vector<int64_t> widths(const std::vector<Level>& levels) {
  std::vector<int64_t> w;
  for (const Level& l : levels) w.push_back(l.width);
  return w;
}
std::vector<int64_t> groups(const std::vector<Level>& levels) {
  std::vector<int64_t> g;
  for (const Level& l : levels) g.push_back(l.groups);
  return g;
}
using List = std::vector<int64_t>;
constexpr auto reach = CoarsestRule::reach, below = CoarsestRule::below;

Tensor random(const Shape& shape, uint64_t seed) {
  Rng rng(seed, Purpose::test);
  Tensor t = Tensor::empty(shape, DType::f64, Device::reference);
  for (double& v : t.span<double>()) v = rng.normal();
  return t;
}

std::unique_ptr<Module> layer(const std::string& json, int64_t channels, bool training = true) {
  auto m = layer_registry().parse(json).make({channels, 1, 0, true, {}});
  m->to(Device::reference, DType::f64);
  m->initialize(3);
  m->train(training);
  return m;
}

Variable& parameter(Module& m, const std::string& wanted) {
  Variable* found = nullptr;
  m.each_parameter([&](const std::string& name, Variable& v) {
    if (name == wanted) found = &v;
  });
  REQUIRE_MESSAGE(found != nullptr, wanted);
  return *found;
}

double max_difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  double d = 0;
  for (int64_t i = 0; i < a.count(); ++i) d = std::max(d, std::abs(a.data<double>()[i] - b.data<double>()[i]));
  return d;
}

// The same sums in another order, in f64.
constexpr double rounding = 1e-12;

}  // namespace

TEST_CASE("widths and groups") {
  CHECK(widths(hierarchy(64, 16, 16, reach)) == List{64, 32, 16});
  CHECK(groups(hierarchy(64, 16, 16, reach)) == List{4, 2, 1});
  CHECK(widths(hierarchy(64, 16, 16, below)) == List{64, 32, 16, 8});
  CHECK(widths(hierarchy(16, 16, 16, reach)) == List{16});
  CHECK(widths(hierarchy(8, 16, 16, reach)) == List{8});
  CHECK(widths(hierarchy(8, 16, 16, below)) == List{8, 4});  // at least one halving
  CHECK(widths(hierarchy(1, 1, 1, reach)) == List{1});
  CHECK(widths(hierarchy(100, 16, 16, reach)) == List{100, 50, 25, 12});
  // The largest g ≤ floor(w/16) that divides both widths: gcd(100, 50) → 5 of 6; gcd(50, 25) → 1 of 3; 1.
  CHECK(groups(hierarchy(100, 16, 16, reach)) == List{5, 1, 1, 1});
  // The middle width of an inverted residual halves too and must be divided: 40/16 → 2 divides 40, 20 and 120.
  const auto levels = hierarchy(40, 16, 16, below, 120);
  CHECK(widths(levels) == List{40, 20, 10});
  CHECK(groups(levels) == List{2, 1, 1});
  CHECK(levels[2].middle == 30);
  CHECK_THROWS_WITH_AS(hierarchy(1, 16, 16, below), doctest::Contains("width of level 1 would be 0"), UserError);
  CHECK_THROWS_WITH_AS(hierarchy(64, 16, 16, reach, 2), doctest::Contains("middle width"), UserError);
}

TEST_CASE("coarse levels cut off leave the others as they are") {
  const auto whole = hierarchy(128, 16, 16, reach);
  for (int64_t most : {1, 2, 3, 4, 9}) {
    const auto cut = hierarchy(128, 16, 16, reach, 0, most);
    CHECK(cut.size() == std::min<size_t>(static_cast<size_t>(most), whole.size()));
    for (size_t l = 0; l < cut.size(); ++l) {
      CHECK(cut[l].width == whole[l].width);
      CHECK(cut[l].groups == whole[l].groups);
    }
  }
  // One level: the two grouped convolutions of the finest smoother and their norms, and nothing else.
  for (const auto& [smoother, kernel] : {std::pair{"basic", 3}, std::pair{"pointwise", 1}}) {
    const auto m = layer_registry()
                       .parse(fmt::format(R"({{"type": "mgic", "smoother": "{}", "levels": 1}})", smoother))
                       .make({64, 1, 0, true, {}});
    CHECK(m->parameter_count() == 2 * (64 * 16 * kernel * kernel + 2 * 64));
  }
  CHECK_THROWS_WITH_AS(layer_registry().parse(R"({"type": "mgic", "levels": 0})"), doctest::Contains("levels"),
                       UserError);
}

TEST_CASE("without coarse levels no group knows of another; with them every channel does") {
  // What changes at the output where one channel of one pixel of the input changes, groups of 4 of 16 channels.
  const auto reached = [](const char* json) {
    const auto m = layer(json, 16, false);
    const Tensor x = random({1, 3, 3, 16}, 2);
    Tensor other = x.clone();
    other.data<double>()[5] += 1;  // the second group
    const Tensor a = (*m)(Variable(x)).value(), b = (*m)(Variable(other)).value();
    std::vector<bool> groups(4, false);
    for (int64_t i = 0; i < a.count(); ++i)
      if (a.data<double>()[i] != b.data<double>()[i]) groups[static_cast<size_t>(i % 16 / 4)] = true;
    return groups;
  };
  CHECK(reached(R"({"type": "mgic", "group_size": 4, "coarsest_width": 4, "levels": 1})") ==
        std::vector<bool>{false, true, false, false});
  CHECK(reached(R"({"type": "mgic", "group_size": 4, "coarsest_width": 4})") == std::vector<bool>(4, true));
}

TEST_CASE("every hierarchy couples all channels on its last level and divides everywhere") {
  for (int64_t c = 1; c <= 200; ++c)
    for (int64_t s : {1, 2, 3, 8, 16, 64})
      for (auto rule : {reach, below}) {
        if (rule == below && (s < 2 || c < 2)) continue;
        const auto levels = hierarchy(c, s, s, rule);
        CHECK(levels.back().groups == 1);
        CHECK((rule == reach ? levels.back().width <= s : levels.back().width < s));
        for (size_t l = 0; l + 1 < levels.size(); ++l) {
          CHECK(levels[l].width % levels[l].groups == 0);
          CHECK(levels[l + 1].width % levels[l].groups == 0);
          CHECK(levels[l + 1].width == levels[l].width / 2);
          CHECK(levels[l].groups <= std::max<int64_t>(levels[l].width / s, 1));
        }
      }
}

TEST_CASE("weights grow linearly with the width") {
  // The sum over the levels stays below 2·C·s·(2d² + 1) + 2d²·s² (DESIGN section 6), normalisations aside.
  for (int64_t c : {64, 128, 256, 512, 1024}) {
    const auto m = layer_registry().parse(R"({"type": "mgic"})").make({c, 1, 0, true, {}});
    int64_t weights = 0;
    m->each_parameter([&](const std::string&, Variable& v) {
      if (v.shape().rank() == 4) weights += v.shape().count();
    });
    CHECK(weights < 2 * c * 16 * 19 + 18 * 16 * 16);
  }
}

TEST_CASE("the cycle is the algorithm, written out with plain operations") {
  const auto m = layer(R"({"type": "mgic", "group_size": 4, "coarsest_width": 4})", 16);
  const Variable input(random({2, 5, 3, 16}, 1));
  const Variable y = (*m)(input);

  auto conv = [&](const Variable& x, const std::string& name, int64_t padding, int64_t groups) {
    return ops::conv2d(x, parameter(*m, name), {}, {.padding = padding, .groups = groups});
  };
  auto norm = [&](const Variable& x, const std::string& name) {
    const int64_t c = x.shape().last();
    ops::NormVariables n{parameter(*m, name + ".weight"), parameter(*m, name + ".bias"),
                         Tensor::zeros({c}, DType::f64, Device::reference),
                         Tensor::zeros({c}, DType::f64, Device::reference)};
    return ops::batch_norm(x, n, true);
  };
  auto smooth = [&](const Variable& x, int64_t l, int64_t groups) {
    const std::string s = fmt::format("smooth.{}.", l);
    const Variable inner = ops::relu(norm(conv(x, s + "conv1.weight", 1, groups), s + "bn1"));
    return ops::relu(ops::add(x, norm(conv(inner, s + "conv2.weight", 1, groups), s + "bn2")));
  };
  // Widths 16, 8, 4; groups 4, 2, 1.
  const Variable r0 = conv(input, "restrict.0.weight", 0, 4), r1 = conv(r0, "restrict.1.weight", 0, 2);
  const Variable x2 = smooth(r1, 2, 1);
  const Variable x1 =
      smooth(ops::add(r0, norm(conv(ops::subtract(x2, r1), "prolong.1.weight", 0, 2), "prolong.1.bn")), 1, 2);
  const Variable x0 =
      smooth(ops::add(input, norm(conv(ops::subtract(x1, r0), "prolong.0.weight", 0, 4), "prolong.0.bn")), 0, 4);
  CHECK(max_difference(y.value(), x0.value()) <= rounding);
}

TEST_CASE("gradients of every variant of the block") {
  struct Variant {
    const char* json;
    int64_t channels, expansion;
  };
  const Variant variants[] = {
      {R"({"type": "mgic", "group_size": 2, "coarsest_width": 2})", 4, 1},
      {R"({"type": "mgic", "group_size": 2, "coarsest_width": 2, "tied_transfers": true})", 4, 1},
      {R"({"type": "mgic", "group_size": 2, "coarsest_width": 2, "levels": 1})", 4, 1},
      {R"({"type": "mgic", "smoother": "pointwise", "group_size": 2, "coarsest_width": 2, "levels": 2})", 8, 1},
      {R"({"type": "mgic", "group_size": 2, "coarsest_width": 2, "restrict_norm": true, "pre_smooth": true})", 4, 1},
      {R"({"type": "mgic", "group_size": 2, "coarsest_width": 3, "coarsest_rule": "below", "transfer_init": "average"})",
       6, 1},
      {R"({"type": "mgic", "smoother": "pointwise", "group_size": 2, "coarsest_width": 2})", 4, 1},
      {R"({"type": "mgic", "smoother": "bottleneck", "expansion": 2, "group_size": 2, "coarsest_width": 2})", 4, 2},
      {R"({"type": "mgic", "smoother": "inverted_residual", "mid_channels": 8, "activation": "hswish",
          "group_size": 2, "coarsest_width": 2})",
       4, 1},
      {R"({"type": "mgic", "smoother": "inverted_residual", "mid_channels": 4, "squeeze_excite": true,
          "group_size": 2, "coarsest_width": 2, "kernel": 5})",
       4, 1},
      {R"({"type": "mgic", "smoother": "conv_chain", "links": [{"out_channels": 4}], "coarsest_width": 4})", 4, 1},
  };
  for (const Variant& v : variants)
    for (bool training : {true, false}) {
      CAPTURE(v.json);
      CAPTURE(training);
      const auto m = layer(v.json, v.channels, training);
      std::vector<Tensor> inputs{random({2, 3, 4, v.channels * v.expansion}, 7)};
      gradcheck([&](const std::vector<Variable>& in) { return (*m)(in[0]); }, inputs);

      // Of all parameters too: every one is reached.
      const Variable y = (*m)(Variable(inputs[0], true));
      backward(ops::dot(y, random(y.shape(), 8)));
      m->each_parameter([&](const std::string& name, Variable& p) {
        CHECK_MESSAGE(p.gradient().defined(), name);
        double largest = 0;
        if (p.gradient().defined())
          for (double g : p.gradient().span<double>()) largest = std::max(largest, std::abs(g));
        CHECK_MESSAGE(largest > 0, name);
      });
    }
}

TEST_CASE("tied transfers: the prolongation is the transposed restriction, and both uses add to its gradient") {
  const auto tied = layer(R"({"type": "mgic", "group_size": 2, "coarsest_width": 2, "tied_transfers": true})", 4);
  const auto free = layer(R"({"type": "mgic", "group_size": 2, "coarsest_width": 2})", 4);
  // The free one with R and Rᵀ put in by hand. Groups 2: R (2, 1, 1, 2), P (4, 1, 1, 1).
  tied->each_parameter(
      [&](const std::string& name, Variable& p) { parameter(*free, name).value().copy_from(p.value()); });
  const Tensor r = parameter(*tied, "restrict.0.weight").value();
  Tensor& p = parameter(*free, "prolong.0.weight").value();
  for (int64_t g = 0; g < 2; ++g)
    for (int64_t i = 0; i < 2; ++i) p.data<double>()[2 * g + i] = r.data<double>()[2 * g + i];
  const Variable x(random({2, 3, 3, 4}, 5));
  const Variable a = (*tied)(x), b = (*free)(x);
  CHECK(max_difference(a.value(), b.value()) <= rounding);
  const Tensor cotangent = random(a.shape(), 6);
  backward(a, cotangent);
  backward(b, cotangent);
  const Tensor got = parameter(*tied, "restrict.0.weight").gradient();
  const Tensor from_r = parameter(*free, "restrict.0.weight").gradient();
  const Tensor from_p = parameter(*free, "prolong.0.weight").gradient();
  for (int64_t i = 0; i < 4; ++i)
    CHECK(std::abs(got.data<double>()[i] - from_r.data<double>()[i] - from_p.data<double>()[i]) <= rounding);
}

TEST_CASE("initialisation") {
  auto weights = [](const char* json) {
    const auto m = layer_registry().parse(json).make({256, 1, 0, true, {}});
    m->to(Device::reference, DType::f64);
    m->initialize(1);
    std::map<std::string, std::pair<double, double>> moments;
    m->each_parameter([&](const std::string& name, Variable& v) {
      double sum = 0, squares = 0;
      for (double w : v.value().span<double>()) {
        sum += w;
        squares += w * w;
      }
      moments[name] = {sum / v.shape().count(), squares / v.shape().count()};
    });
    return moments;
  };
  const auto kaiming = weights(R"({"type": "mgic"})");
  // N(0, 2 / (O·kH·kW)), not divided by the groups; 5 % covers the sampling of thousands of weights.
  CHECK(kaiming.at("smooth.0.conv1.weight").second == doctest::Approx(2.0 / (256 * 9)).epsilon(0.05));
  CHECK(kaiming.at("restrict.0.weight").second == doctest::Approx(2.0 / 128).epsilon(0.1));
  CHECK(kaiming.at("prolong.0.weight").second == doctest::Approx(2.0 / 256).epsilon(0.1));
  CHECK(kaiming.at("smooth.0.bn1.weight").first == 1);
  CHECK(kaiming.at("smooth.0.bn1.bias").second == 0);
  const auto average = weights(R"({"type": "mgic", "transfer_init": "average", "group_size": 8})");
  for (const char* name : {"restrict.0.weight", "prolong.0.weight", "restrict.3.weight"})
    CHECK(average.at(name).first == doctest::Approx(1.0 / 8));
}

TEST_CASE("point clouds: a pointwise block treats every point alike") {
  const auto m = layer(R"({"type": "mgic", "smoother": "pointwise", "group_size": 4, "coarsest_width": 4})", 8, false);
  const Tensor x = random({2, 5, 8}, 9);
  const Tensor y = (*m)(Variable(x)).value();
  CHECK(y.shape() == x.shape());
  const Tensor as_image = (*m)(Variable(x.reshape({2, 5, 1, 8}))).value();
  CHECK(max_difference(y, as_image.reshape({2, 5, 8})) == 0);
}

TEST_CASE("a stage has a transition where shape changes, with gcd(in, out) groups") {
  auto stage = [](const char* json, int64_t channels) {
    return layer_registry().parse(json).make({channels, 1, 0, true, {}});
  };
  auto transition = [](Module& m) {
    Shape shape;
    m.each_parameter([&](const std::string& name, Variable& v) {
      if (name == "transition.conv.weight") shape = v.shape();
    });
    return shape;
  };
  CHECK(transition(*stage(R"({"type": "mgic_stage", "in_channels": 24, "stride": 2})", 36)) == Shape{36, 3, 3, 2});
  CHECK(transition(*stage(R"({"type": "mgic_stage", "stride": 2})", 32)) == Shape{32, 3, 3, 1});
  CHECK(transition(*stage(R"({"type": "mgic_stage"})", 32)).rank() == 0);
  // A bottleneck's stage puts out expansion · channels.
  CHECK(transition(*stage(R"({"type": "mgic_stage", "smoother": "bottleneck", "in_channels": 32})", 32)) ==
        Shape{128, 3, 3, 1});
}
