// The engine: accumulation, sharing, what is freed and when, misuse, depth, and scopes.
#include <doctest/doctest.h>

#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "core/allocator.h"
#include "tests/autograd/support.h"

using namespace mgic;
using namespace mgic::test;

namespace {

constexpr Device reference = Device::reference;

Tensor of(const std::vector<double>& values) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())}, reference);
}
Variable leaf_of(const std::vector<double>& values) { return leaf(of(values)); }

using List = std::vector<double>;

int64_t live_bytes() { return Allocator::host().stats().live_bytes; }

// An operation whose backward is the given function; forward copies.
Variable custom(const Variable& x, BackwardFunction backward, std::vector<Saved> saved = {}) {
  Op op("custom", {x});
  Tensor y = x.value().clone();
  op.run([](Backend&) {});
  return op.result(y, std::move(saved), std::move(backward));
}

}  // namespace

TEST_CASE("variable: leaves, undefined ones, and what may have a gradient") {
  CHECK_FALSE(Variable().defined());
  CHECK_FALSE(Variable().requires_gradient());
  CHECK_FALSE(Variable().gradient().defined());
  const Variable x = leaf_of({1, 2});
  CHECK(x.requires_gradient());
  CHECK_FALSE(x.gradient().defined());
  CHECK_FALSE(x.detach().requires_gradient());
  CHECK(x.detach().value().shares_storage(x.value()));
  CHECK_FALSE(ops::scale(x.detach(), 2).requires_gradient());
  CHECK(thrown([] { leaf(Tensor::empty({2}, DType::i64, Device::reference)); }) ==
        "Error: a gradient needs a float tensor, not i64 (2) on reference");
}

TEST_CASE("engine: several consumers add up, in whatever order they come") {
  const Variable x = leaf_of({1, -2});
  const Variable h = ops::scale(x, 2);
  // h has three consumers, one of them twice, at different depths.
  const Variable a = ops::multiply(h, h), b = ops::scale(ops::scale(h, 3), 5), c = ops::relu(h);
  backward(ops::add(ops::add(a, b), c));
  // d/dx (4x² + 30x + relu(2x)) = 8x + 30 + 2·[x > 0]
  CHECK(list(x.gradient()) == List{40, 14});
}

TEST_CASE("engine: a node runs once, after all of its consumers") {
  const Variable x = leaf_of({1});
  int runs = 0;
  double seen = 0;
  const Variable h = custom(x, [&](Backend&, const Tensor& dy, const SavedTensors&, const Sinks& d) {
    ++runs;
    seen = dy.reshape({}).item();
    d.take(0, dy);
  });
  Variable sum = h;
  for (int i = 0; i < 10; ++i) sum = ops::add(sum, h);
  backward(sum);
  CHECK(runs == 1);
  CHECK(seen == 11);
  CHECK(list(x.gradient()) == List{11});
}

TEST_CASE("engine: a diamond of diamonds takes a step for each node, not for each path") {
  Variable y = leaf_of({1});
  const Variable x = y;
  for (int i = 0; i < 60; ++i) y = ops::scale(ops::add(y, y), 0.5);  // 2^60 paths
  backward(y);
  CHECK(list(x.gradient()) == List{1});
}

TEST_CASE("engine: a leaf adds over two backward calls until it is cleared") {
  Variable x = leaf_of({1, 2});
  backward(ops::multiply(x, x));
  CHECK(list(x.gradient()) == List{2, 4});
  backward(ops::scale(x, 10));
  CHECK(list(x.gradient()) == List{12, 14});
  const void* memory = x.gradient().raw();
  x.clear_gradient();
  CHECK_FALSE(x.gradient().defined());
  backward(ops::scale(x, 3));
  CHECK(list(x.gradient()) == List{3, 3});
  CHECK(x.gradient().raw() == memory);  // cleared, but not given away
}

TEST_CASE("engine: what a cleared gradient held is overwritten, never added to") {
  Variable x = leaf_of({1, 2});
  backward(ops::scale(x, 3));
  x.gradient().fill(std::numeric_limits<double>::quiet_NaN());
  x.clear_gradient();
  backward(ops::add(ops::scale(x, 3), ops::scale(x, 4)));
  CHECK(list(x.gradient()) == List{7, 7});
}

TEST_CASE("engine: the seed") {
  const Variable x = leaf_of({1, 2, 3});
  const Tensor seed = of({10, 20, 30});
  backward(ops::scale(x, 2), seed);
  CHECK(list(x.gradient()) == List{20, 40, 60});
  const Variable y = ops::scale(x, 2);
  CHECK(thrown([&] {
          backward(y, of({1, 2}));
        }) == "Error: backward: the seed is f64 (2) on reference, the output f64 (3) on reference");
  CHECK(thrown([&] { backward(y, seed.to(DType::f32)); }) ==
        "Error: backward: the seed is f32 (3) on reference, the output f64 (3) on reference");
  CHECK(thrown([&] { backward(y, seed.to(Device::cpu)); }) ==
        "Error: backward: the seed is f64 (3) on cpu, the output f64 (3) on reference");
  backward(x, of({1, 1, 1}));  // a leaf is its own output
  CHECK(list(x.gradient()) == List{21, 41, 61});
}

TEST_CASE("engine: an output without anything to differentiate") {
  const std::string message = "Error: backward: the output does not depend on anything that requires a gradient";
  CHECK(thrown([] { backward(Variable(of({1}))); }) == message);
  CHECK(thrown([] { backward(ops::scale(Variable(of({1})), 2)); }) == message);
  CHECK(thrown([] { backward(Variable()); }) == message);
}

TEST_CASE("take: gradients that share memory never change one another") {
  // add() hands its gradient to both sides; then one of them gets more.
  const Variable a = leaf_of({1, 2}), b = leaf_of({3, 4});
  const Tensor seed = of({5, 6});
  backward(ops::add(a, b), seed);
  CHECK(a.gradient().shares_storage(b.gradient()));  // no copy was made
  backward(ops::scale(a, 100));
  CHECK(list(a.gradient()) == List{105, 106});
  CHECK(list(b.gradient()) == List{5, 6});
  CHECK(list(seed) == List{5, 6});
  backward(ops::add(b, b));  // the same, where the second contribution is taken too
  CHECK(list(b.gradient()) == List{7, 8});
  CHECK(list(seed) == List{5, 6});
}

TEST_CASE("take: a gradient that somebody holds keeps its values") {
  Variable x = leaf_of({1, 2});
  backward(ops::scale(x, 2));
  const Tensor held = x.gradient();
  backward(ops::scale(x, 3));  // written through a sink
  CHECK(list(held) == List{2, 2});
  CHECK(list(x.gradient()) == List{5, 5});
  const Tensor again = x.gradient();
  backward(ops::add(x, x));  // taken
  CHECK(list(again) == List{5, 5});
  CHECK(list(x.gradient()) == List{7, 7});
  const Tensor last = x.gradient();
  x.clear_gradient();
  backward(ops::scale(x, 9));  // overwritten
  CHECK(list(last) == List{7, 7});
  CHECK(list(x.gradient()) == List{9, 9});
}

TEST_CASE("take: branches in the middle of a graph that share a gradient") {
  const Variable x = leaf_of({1, 2});
  const Variable a = ops::scale(x, 2), b = ops::scale(x, 3);
  const Variable sum = ops::add(a, b);                            // a and b share their gradient …
  const Variable more = ops::scale(a, 10);                        // … and a gets another, through a sink
  backward(ops::add(ops::add(sum, more), ops::reshape(b, {2})));  // and b one that is taken
  CHECK(list(x.gradient()) == List{2 * (1 + 10) + 3 * 2, 2 * (1 + 10) + 3 * 2});
}

TEST_CASE("memory: what a graph saves is live until backward has used it, and not longer") {
  constexpr int64_t tensor = 4096;  // bytes: a size class of its own
  const Variable x = leaf(normal({512}, 1));
  const int64_t before = live_bytes();
  {
    Variable y = ops::relu(x);
    for (int i = 1; i < 10; ++i) y = ops::relu(y);
    CHECK(live_bytes() == before + 10 * tensor);  // each saves its input; the last one's output is y
    backward(y);
    CHECK(live_bytes() == before + 2 * tensor);  // y, and the gradient of x
  }
  CHECK(live_bytes() == before + tensor);
}

TEST_CASE("memory: an operation that saves nothing keeps no value alive") {
  constexpr int64_t tensor = 4096;
  const Variable x = leaf(normal({512}, 1));
  const int64_t before = live_bytes();
  Variable y = ops::scale(x, 2);
  for (int i = 1; i < 10; ++i) y = ops::add(y, ops::scale(x, 2));
  CHECK(live_bytes() == before + tensor);
  y = Variable();
  CHECK(live_bytes() == before);
}

TEST_CASE("memory: within backward, saved tensors go as the walk passes them") {
  constexpr int64_t tensor = 4096;
  const Variable x = leaf(normal({512}, 1));
  const int64_t before = live_bytes();
  int64_t at_the_end = 0;
  Variable y = custom(x, [&](Backend&, const Tensor& dy, const SavedTensors&, const Sinks& d) {
    at_the_end = live_bytes() - before;
    d.take(0, dy);
  });
  for (int i = 0; i < 10; ++i) y = ops::relu(y);
  backward(y);
  CHECK(at_the_end <= 3 * tensor);  // y, dy, and what the last relu of the walk had saved at the most
}

TEST_CASE("memory: chains and convolutions free what they saved as well") {
  const Variable x = leaf(normal({2, 8, 8, 4}, 1)), w = leaf(normal({4, 3, 3, 4}, 2));  // 4096 and 1152 bytes
  const auto vector = [](uint64_t i) { return leaf(positive({4}, i)); };
  const Variable gamma = vector(3), beta = vector(4);
  const Tensor mean = Tensor::zeros({4}, DType::f64, reference), variance = positive({4}, 5);
  const ops::ChainLink link{w, {1, 1, 1, 1}, {gamma, beta, mean, variance}, Activation::relu, "conv", "bn"};
  const auto step = [&] {
    Variable y = ops::conv_chain(x, {link, link}, x, Activation::relu, true);
    backward(y);
    y.clear_gradient();
    return y;
  };
  step();  // the leaves' gradients are there now
  const int64_t before = live_bytes();
  {
    const Variable y = step();
    CHECK(live_bytes() == before + 4096);  // y alone
  }
  CHECK(live_bytes() == before);
  {
    const Variable y = ops::conv_chain(x, {link, link}, x, Activation::relu, true);
    CHECK(live_bytes() >= before + 3 * 4096);  // y and both raw outputs: there was something to free
  }
  CHECK(live_bytes() == before);
}

TEST_CASE("memory: a training step in steady state asks the system for nothing") {
  Variable x = leaf(normal({2, 6, 5, 4}, 1)), w = leaf(normal({4, 3, 3, 4}, 2));
  const auto step = [&] {
    Variable y = x;
    for (int i = 0; i < 5; ++i) y = ops::relu(ops::add(ops::conv2d(y, w, {}, {1, 1, 1, 1}), y));
    backward(ops::sum(y));
    x.clear_gradient();
    w.clear_gradient();
  };
  for (int i = 0; i < 2; ++i) step();
  const int64_t before = Allocator::host().stats().system_allocations;
  for (int i = 0; i < 5; ++i) step();
  CHECK(Allocator::host().stats().system_allocations == before);
}

TEST_CASE("misuse: a second backward through the same graph") {
  const Variable x = leaf_of({1, 2});
  const Variable h = ops::relu(x);
  const Variable y = ops::scale(h, 2);
  backward(y);
  CHECK(thrown([&] { backward(y); }) ==
        "Error: scale: backward ran through this graph already and freed what it had saved");
  Variable z;
  {
    PathScope scope("stages");
    PathScope inner("0");
    z = ops::relu(x);
  }
  const Variable once = ops::scale(z, 2), twice = ops::scale(z, 3);
  backward(once);
  // Another way into a part that was used.
  CHECK(thrown([&] { backward(twice); }) ==
        "Error: activation (in stages.0): backward ran through this graph already and freed what it had saved");
}

TEST_CASE("misuse: a saved tensor that was changed in place is found and named") {
  const std::string tail = "was changed in place before backward could use it; change a clone instead";
  {
    Variable x = leaf_of({1, 2});
    PathScope scope("layer");
    const Variable y = ops::relu(x);
    x.value().fill(3);
    CHECK(thrown([&] { backward(y); }) == "Error: activation (in layer): its saved tensor \"x\" " + tail);
  }
  {
    Variable x = leaf_of({1, 2}), y = leaf_of({3, 4});
    const Variable z = ops::multiply(x, y);
    y.value().slice(0, 1).fill(9);  // through a view
    CHECK(thrown([&] { backward(z); }) == "Error: multiply: its saved tensor \"b\" " + tail);
  }
  {
    Variable x = leaf(normal({1, 3, 3, 2}, 1)), w = leaf(normal({2, 3, 3, 2}, 2));
    const Variable y = ops::conv2d(x, w, {}, {1, 1, 1, 1});
    w.value().copy_from(normal({2, 3, 3, 2}, 3));
    CHECK(thrown([&] { backward(y); }) == "Error: conv2d: its saved tensor \"weight\" " + tail);
  }
  {
    const Variable x = leaf_of({1, 2});
    const Variable y = ops::relu(ops::scale(x, 2));
    Tensor middle = ops::relu(y).value();
    middle.fill(0);  // saved by nobody
    backward(y);
    CHECK(list(x.gradient()) == List{2, 2});
  }
}

TEST_CASE("misuse: an optimizer's step between forward and backward is a change in place") {
  Variable x = leaf(normal({2, 3}, 1)), w = leaf(normal({4, 3}, 2));
  const Variable y = ops::linear(x, w, {});
  std::vector<Update> updates{{w.value(), normal({4, 3}, 3), {}, {}, 0}};
  backend_of(reference).sgd_update({}, updates);
  CHECK(thrown([&] { backward(y); }) ==
        "Error: linear: its saved tensor \"weight\" was changed in place before backward could use it; "
        "change a clone instead");
}

TEST_CASE("misuse: running statistics may change in training, for backward does not need them; in evaluation it does") {
  const Variable x = leaf(normal({4, 2}, 1)), gamma = leaf(positive({2}, 2)), beta = leaf(normal({2}, 3));
  const Tensor mean = normal({2}, 4), variance = positive({2}, 5);
  const ops::NormVariables norm{gamma, beta, mean, variance};
  const Variable map = leaf(normal({1, 2, 2, 2}, 6)), w = leaf(normal({2, 1, 1, 2}, 7));
  const ops::ChainLink link{w, {1, 0, 1, 1}, norm, Activation::none, "", ""};
  for (bool training : {true, false})
    for (bool fused : {true, false}) {
      CAPTURE(training);
      CAPTURE(fused);
      const Variable y =
          fused ? ops::conv_chain(map, {link}, {}, Activation::none, training) : ops::batch_norm(x, norm, training);
      ops::batch_norm(x, norm, true);  // updates them
      const std::string name = fused ? "conv_chain" : "batch_norm", saved = fused ? "running_mean" : "mean";
      CHECK(thrown([&] { backward(y); }) ==
            (training ? "nothing"
                      : "Error: " + name + ": its saved tensor \"" + saved +
                            "\" was changed in place before backward could use it; change a clone instead"));
    }
}

TEST_CASE("misuse: backward inside a backward, and the engine afterwards") {
  const Variable x = leaf_of({1, 2}), other = leaf_of({3, 4});
  const Variable y = custom(
      x, [other](Backend&, const Tensor&, const SavedTensors&, const Sinks&) { backward(ops::scale(other, 2)); });
  // The message says what is wrong, not that nothing is recorded in there.
  CHECK(thrown([&] { backward(y); }) ==
        "Error: backward was called inside a backward: only first-order gradients are supported");
  CHECK(gradients_enabled());
  const Variable z = leaf_of({5});
  backward(ops::scale(z, 2));
  CHECK(list(z.gradient()) == List{2});
}

TEST_CASE("misuse: a backward function that throws leaves recording and the engine usable") {
  const Variable x = leaf_of({1});
  const Variable y = custom(
      x, [](Backend&, const Tensor&, const SavedTensors&, const Sinks&) { throw std::runtime_error("out of luck"); });
  CHECK(thrown([&] { backward(y); }) == "not of ours: out of luck");
  CHECK(gradients_enabled());
  backward(ops::scale(x, 2));
  CHECK(list(x.gradient()) == List{2});
}

TEST_CASE("NoGrad: nothing is recorded within, and all is as before afterwards") {
  const Variable x = leaf_of({1});
  CHECK(gradients_enabled());
  {
    const NoGrad outer;
    CHECK_FALSE(gradients_enabled());
    {
      const NoGrad inner;
      CHECK_FALSE(ops::scale(x, 2).requires_gradient());
    }
    CHECK_FALSE(gradients_enabled());
    CHECK_FALSE(ops::scale(x, 2).requires_gradient());
    bool elsewhere = false;
    std::thread([&] { elsewhere = gradients_enabled(); }).join();
    CHECK(elsewhere);  // a scope belongs to its thread
  }
  CHECK(gradients_enabled());
  CHECK(ops::scale(x, 2).requires_gradient());
  bool within = true;
  backward(custom(x, [&](Backend&, const Tensor& dy, const SavedTensors&, const Sinks& d) {
    within = gradients_enabled();
    d.take(0, dy);
  }));
  CHECK_FALSE(within);
}

TEST_CASE("depth: a chain of a million nodes, forward, backward and destruction") {
  constexpr int nodes = 1000000;
  const Variable x = leaf_of({1});
  const auto chain = [&] {
    Variable y = x;
    for (int i = 0; i < nodes; ++i) y = ops::scale(y, -1);
    return y;
  };
  {
    const Variable y = chain();
    backward(y);
    CHECK(list(x.gradient()) == List{1});
  }
  const int64_t before = live_bytes();
  {
    const Variable y = chain();  // destroyed without a backward
    CHECK(y.requires_gradient());
  }
  CHECK(live_bytes() == before);
}

TEST_CASE("depth: a wide and deep graph is destroyed in a loop too") {
  constexpr int nodes = 300000;
  const Variable x = leaf_of({1});
  Variable a = x, b = x;
  for (int i = 0; i < nodes; ++i) {
    const Variable sum = ops::scale(ops::add(a, b), 0.5);
    a = b;
    b = sum;
  }
  a = Variable();
  const int64_t before = live_bytes();
  b = Variable();
  CHECK(live_bytes() < before);
}

TEST_CASE("graphs on several threads do not meet") {
  std::vector<std::thread> threads;
  std::vector<double> results(4, 0);
  for (size_t t = 0; t < results.size(); ++t)
    threads.emplace_back([t, &results] {
      for (int round = 0; round < 50; ++round) {
        const Variable x = leaf_of({1});
        Variable y = x;
        for (size_t i = 0; i <= t; ++i) y = ops::scale(ops::add(y, y), 1.5);
        backward(y);
        results[t] = list(x.gradient())[0];
      }
    });
  for (std::thread& t : threads) t.join();
  CHECK(results == List{3, 9, 27, 81});
}
