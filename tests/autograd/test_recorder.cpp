// The Recorder: it receives every operation that runs, with name, path, attributes, inputs and output.
#include <doctest/doctest.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/autograd/support.h"

using namespace mgic;
using namespace mgic::test;

namespace {

// Writes each operation as one line: PATH: NAME key=value … (inputs) -> output. An absent input is a dash.
class Log : public Recorder {
 public:
  explicit Log(bool expand = false) : Recorder(expand) {}

  std::vector<std::string> forward, backward;
  std::vector<Tensor> outputs;
  int64_t macs = 0;
  bool negative_time = false;

  void operation(const Operation& op) override {
    std::string text = fmt::format("{}: {}", op.path, op.name);
    for (const Attribute& a : op.attributes)
      std::visit([&](const auto& v) { text += fmt::format(" {}={}", a.name, v); }, a.value);
    text += " (";
    for (const Tensor& t : op.inputs) text += (text.back() == '(' ? "" : ", ") + (t.defined() ? t.shape().str() : "-");
    forward.push_back(text + ") -> " + op.output.shape().str());
    outputs.push_back(op.output);
    macs += multiply_accumulates(op);
    negative_time |= op.seconds < 0;
  }
  void backward_done(std::string_view operation, std::string_view path, double seconds) override {
    backward.push_back(fmt::format("{}: {}", path, operation));
    negative_time |= seconds < 0;
  }
};

using Lines = std::vector<std::string>;

Variable of(const Shape& shape, Device device = Device::reference) {
  return leaf(Tensor::zeros(shape, DType::f32, device));
}

ops::ChainLink link(const Shape& weight, const ConvParams& p, Device device, const std::string& number) {
  const auto vector = [&] { return of({weight[0]}, device); };
  return {of(weight, device),
          p,
          {vector(), vector(), vector().value(), vector().value()},
          Activation::relu,
          "conv" + number,
          "bn" + number};
}

}  // namespace

TEST_CASE("recorder: operations with path, attributes, inputs and outputs") {
  Log log;
  Variable y;
  {
    PathScope stage("stages.0");
    PathScope conv("conv1");
    y = ops::conv2d(of({1, 5, 4, 4}), of({6, 3, 3, 2}), {}, {2, 1, 1, 2});
  }
  y = ops::dropout(ops::activation(y, Activation::hswish), 0.25, 1);
  y = ops::global_pool(ops::pool2d(y, {Pool::max, 2, 1, 0}), Pool::average);
  {
    PathScope classifier("classifier");
    y = ops::linear(y, of({3, 6}), of({3}));
  }
  CHECK(log.forward == Lines{"stages.0.conv1: conv2d stride=2 padding=1 dilation=1 groups=2 ((1, 5, 4, 4), (6, 3, 3, "
                             "2), -) -> (1, 3, 2, 6)",
                             ": activation function=hswish ((1, 3, 2, 6)) -> (1, 3, 2, 6)",
                             ": dropout p=0.25 ((1, 3, 2, 6)) -> (1, 3, 2, 6)",
                             ": pool2d kind=max kernel=2 stride=1 padding=0 ((1, 3, 2, 6)) -> (1, 2, 1, 6)",
                             ": global_pool kind=average ((1, 2, 1, 6)) -> (1, 6)",
                             "classifier: linear ((1, 6), (3, 6), (3)) -> (1, 3)"});
  CHECK(log.outputs.back().shares_storage(y.value()));
  CHECK_FALSE(log.negative_time);
}

TEST_CASE("recorder: every operation is seen, on the host and on meta alike") {
  const auto run = [](Device device) {
    Log log;
    const auto t = [&](const Shape& shape) { return of(shape, device); };
    const auto ints = [&](const Shape& shape) { return Tensor::zeros(shape, DType::i64, device); };
    const ConvParams point{1, 0, 1, 1};
    ops::conv2d(t({1, 2, 2, 3}), t({2, 1, 1, 3}), t({2}), point);
    ops::batch_norm(t({2, 3}), link({3, 1, 1, 3}, point, device, "").norm, true);
    ops::conv_chain(t({1, 2, 2, 3}), {link({3, 1, 1, 3}, point, device, "1")}, {}, Activation::none, true);
    ops::coarse_correction(t({1, 2, 2, 3}), t({1, 2, 2, 1}), t({1, 2, 2, 1}), link({3, 1, 1, 1}, point, device, "1"),
                           true);
    ops::relu(t({2}));
    ops::add(t({2}), t({2}));
    ops::subtract(t({2}), t({2}));
    ops::scale(t({2}), 0.5);
    ops::multiply(t({2, 3}), t({3}));
    ops::pool2d(t({1, 2, 2, 3}), {});
    ops::global_pool(t({1, 2, 2, 3}), Pool::max);
    ops::linear(t({2, 3}), t({4, 3}), {});
    ops::reshape(t({2, 3}), {6});
    ops::dropout(t({2}), 0.5, 1);
    ops::cross_entropy(t({2, 3}), ints({2}));
    ops::sum(t({2, 3}));
    ops::concat_channels({t({2, 3}), t({2, 1})});
    ops::slice_channels(t({2, 3}), 1, 2);
    ops::resize_bilinear(t({1, 2, 2, 3}), 3, 4, true);
    ops::nearest_neighbours(t({1, 4, 2}).value(), 2);
    ops::edge_features(t({1, 4, 2}), ints({1, 4, 3}));
    ops::neighbourhood_max(t({1, 4, 3, 2}));
    ops::transpose_groups(t({4, 1, 1, 2}), 2);
    return log.forward;
  };
  const Lines expected{
      ": conv2d stride=1 padding=0 dilation=1 groups=1 ((1, 2, 2, 3), (2, 1, 1, 3), (2)) -> (1, 2, 2, 2)",
      ": batch_norm eps=1e-05 ((2, 3), (3), (3), -) -> (2, 3)",
      ": conv_chain links=1 ((1, 2, 2, 3), -, -, (3, 1, 1, 3), (3), (3)) -> (1, 2, 2, 3)",
      ": coarse_correction links=1 ((1, 2, 2, 1), (1, 2, 2, 1), (1, 2, 2, 3), (3, 1, 1, 1), (3), (3)) "
      "-> (1, 2, 2, 3)",
      ": activation function=relu ((2)) -> (2)",
      ": add ((2), (2)) -> (2)",
      ": subtract ((2), (2)) -> (2)",
      ": scale alpha=0.5 ((2)) -> (2)",
      ": multiply ((2, 3), (3)) -> (2, 3)",
      ": pool2d kind=max kernel=2 stride=2 padding=0 ((1, 2, 2, 3)) -> (1, 1, 1, 3)",
      ": global_pool kind=max ((1, 2, 2, 3)) -> (1, 3)",
      ": linear ((2, 3), (4, 3), -) -> (2, 4)",
      ": reshape ((2, 3)) -> (6)",
      ": dropout p=0.5 ((2)) -> (2)",
      ": cross_entropy ((2, 3), (2)) -> ()",
      ": dot ((2, 3), (2, 3)) -> ()",
      ": concat_channels ((2, 3), (2, 1)) -> (2, 4)",
      ": slice_channels begin=1 end=2 ((2, 3)) -> (2, 1)",
      ": resize_bilinear height=3 width=4 align_corners=1 ((1, 2, 2, 3)) -> (1, 3, 4, 3)",
      ": nearest_neighbours k=2 ((1, 4, 2)) -> (1, 4, 2)",
      ": edge_features ((1, 4, 2), (1, 4, 3)) -> (1, 4, 3, 4)",
      ": neighbourhood_max ((1, 4, 3, 2)) -> (1, 4, 2)",
      ": transpose_groups groups=2 ((4, 1, 1, 2)) -> (4, 1, 1, 2)"};
  for (Device device : {Device::reference, Device::cpu, Device::meta}) {
    CAPTURE(name_of(device));
    CHECK(run(device) == expected);
  }
}

TEST_CASE("recorder: one that expands sees a chain's plain operations, each under its module's path") {
  const ConvParams p{1, 1, 1, 2};
  for (Device device : {Device::reference, Device::meta}) {
    const Variable x = of({1, 3, 3, 4}, device);
    const std::vector<ops::ChainLink> links{link({4, 3, 3, 2}, p, device, "1"), link({4, 3, 3, 2}, p, device, "2")};
    PathScope scope("smooth.0");
    Log log(true);
    ops::conv_chain(x, links, x, Activation::hswish, true);
    const std::string map = "(1, 3, 3, 4)",
                      conv = " conv2d stride=1 padding=1 dilation=1 groups=2 (" + map + ", (4, 3, 3, 2), -) -> " + map,
                      norm = " batch_norm eps=1e-05 (" + map + ", (4), (4), -) -> " + map,
                      act = "smooth.0: activation function=relu (" + map + ") -> " + map;
    CHECK(log.forward == Lines{"smooth.0.conv1:" + conv, "smooth.0.bn1:" + norm, act, "smooth.0.conv2:" + conv,
                               "smooth.0.bn2:" + norm, act, "smooth.0: add (" + map + ", " + map + ") -> " + map,
                               "smooth.0: activation function=hswish (" + map + ") -> " + map});
    Log correction(true);
    ops::coarse_correction(x, of({1, 3, 3, 2}, device), of({1, 3, 3, 2}, device),
                           link({4, 1, 1, 1}, {1, 0, 1, 2}, device, "3"), true);
    REQUIRE(correction.forward.size() == 5);
    CHECK(correction.forward[0].starts_with("smooth.0: subtract "));
    CHECK(correction.forward[1].starts_with("smooth.0.conv3: conv2d "));
    CHECK(correction.forward[2].starts_with("smooth.0.bn3: batch_norm "));
    CHECK(correction.forward[4].starts_with("smooth.0: add "));
  }
}

TEST_CASE("recorder: backward is seen too, last operation first") {
  Variable y;
  const Variable x = of({2, 3});
  {
    PathScope scope("a");
    y = ops::relu(x);
  }
  y = ops::scale(y, 2);
  Log log;
  backward(y);
  CHECK(log.backward == Lines{": scale", "a: activation"});
  CHECK(log.forward.empty());
  CHECK_FALSE(log.negative_time);
}

TEST_CASE("recorder: the innermost one receives, on its own thread alone") {
  CHECK(active_recorder() == nullptr);
  Log outer;
  {
    Log inner(true);
    CHECK(active_recorder() == &inner);
    CHECK(inner.expands());
    ops::relu(of({2}));
    std::thread([] {
      CHECK(active_recorder() == nullptr);
      ops::relu(of({3}));
    }).join();
    CHECK(inner.forward.size() == 1);
  }
  CHECK(active_recorder() == &outer);
  CHECK_FALSE(outer.expands());
  CHECK(outer.forward.empty());
  ops::relu(of({2}));
  CHECK(outer.forward.size() == 1);
}

TEST_CASE("recorder: an operation whose rule is broken never reaches it, and one without gradient does") {
  Log log;
  CHECK(thrown([] { ops::add(of({2}), of({3})); }).starts_with("Error: add: "));
  CHECK(log.forward.empty());
  NoGrad no_grad;
  ops::add(of({2}), of({2}));
  CHECK(log.forward.size() == 1);
}

TEST_CASE("recorder: multiply-accumulates") {
  const auto macs = [](bool expand, const auto& run) {
    Log log(expand);
    run();
    return log.macs;
  };
  const auto conv = [&](const Shape& x, const Shape& w, const ConvParams& p) {
    return macs(false, [&] { ops::conv2d(of(x), of(w), {}, p); });
  };
  // Output elements, times the inputs of one of them.
  CHECK(conv({2, 6, 5, 4}, {6, 3, 3, 4}, {1, 1, 1, 1}) == 2 * 6 * 5 * 6 * (3 * 3 * 4));
  CHECK(conv({2, 6, 5, 4}, {6, 3, 3, 2}, {1, 1, 1, 2}) == 2 * 6 * 5 * 6 * (3 * 3 * 2));
  CHECK(conv({2, 6, 5, 4}, {4, 3, 3, 1}, {1, 1, 1, 4}) == 2 * 6 * 5 * 4 * (3 * 3));
  CHECK(conv({1, 7, 5, 4}, {6, 3, 3, 2}, {2, 1, 1, 2}) == 4 * 3 * 6 * (3 * 3 * 2));
  CHECK(conv({1, 9, 4}, {6, 1, 1, 2}, {1, 0, 1, 2}) == 9 * 6 * 2);
  CHECK(macs(false, [] { ops::linear(of({5, 3}), of({7, 3}), of({7})); }) == 5 * 7 * 3);
  CHECK(macs(false, [] { ops::linear(of({5, 3}), of({0, 3}), {}); }) == 0);
  CHECK(macs(false, [] { ops::relu(ops::add(of({5, 3}), of({5, 3}))); }) == 0);
  // A fused unit's are counted where it is expanded.
  const auto chain = [] {
    const Variable x = of({1, 3, 3, 4});
    const ConvParams p{1, 1, 1, 2};
    ops::conv_chain(x, {link({4, 3, 3, 2}, p, Device::reference, "1"), link({4, 3, 3, 2}, p, Device::reference, "2")},
                    x, Activation::relu, true);
  };
  CHECK(macs(true, chain) == 2 * 9 * 4 * (9 * 2));
  CHECK(macs(false, chain) == 0);
}

TEST_CASE("paths: scopes nest, and empty names add nothing") {
  CHECK(current_path().empty());
  {
    PathScope a("model");
    PathScope nothing("");
    CHECK(current_path() == "model");
    {
      PathScope b("stages");
      PathScope c("0");
      CHECK(current_path() == "model.stages.0");
    }
    CHECK(current_path() == "model");
    std::thread([] { CHECK(current_path().empty()); }).join();
  }
  CHECK(current_path().empty());
}
