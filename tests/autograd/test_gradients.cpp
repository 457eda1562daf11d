// Every differentiable operation against central differences, in f64 on the reference backend, with odd shapes.
// Chains and normalisations have a file of their own.
#include <doctest/doctest.h>

#include <functional>
#include <vector>

#include "tests/autograd/support.h"

using namespace mgic;
using namespace mgic::test;

namespace {

constexpr Activation all_activations[] = {Activation::none, Activation::relu, Activation::hswish, Activation::hsigmoid};

}  // namespace

TEST_CASE("gradcheck finds a gradient that is wrong, missing, or of the wrong dtype") {
  // y = 2 x with the gradient of y = 2.001 x.
  const auto wrong = [](const Inputs& v) {
    Op op("double", {v[0]});
    Tensor y = Tensor::empty_like(v[0].value());
    op.run([&](Backend& b) { b.scale(2, v[0].value(), {&y}); });
    return op.result(
        y, {}, [](Backend& b, const Tensor& dy, const SavedTensors&, const Sinks& d) { b.scale(2.001, dy, d[0]); });
  };
  CHECK(gradcheck_fault(wrong, {normal({3}, 0)}).starts_with("gradcheck: input 0 element 0: backward says "));
  const auto missing = [](const Inputs& v) { return ops::scale(v[0], 2); };
  CHECK(gradcheck_fault(missing, {normal({3}, 0), normal({3}, 1)}) == "gradcheck: input 1 got no gradient");
  CHECK(gradcheck_fault(missing, {normal({3}, 0, DType::f32)}) ==
        "gradcheck: inputs must be f64 on reference, not f32 (3) on reference");
}

TEST_CASE("gradients: activations, away from their kinks") {
  for (Activation kind : all_activations)
    for (const Shape& shape : {Shape{1}, Shape{7}, Shape{1, 3, 5, 1}, Shape{2, 4, 3, 5}}) {
      CAPTURE(name_of(kind));
      CAPTURE(shape.str());
      CHECK(gradcheck_fault([&](const Inputs& v) { return ops::activation(v[0], kind); },
                            {away_from_kinks(shape, 1)}) == "");
    }
}

TEST_CASE("gradients: add, subtract, scale") {
  for (const Shape& shape : {Shape{}, Shape{5}, Shape{1, 3, 2, 5}, Shape{2, 3, 1}}) {
    CAPTURE(shape.str());
    const std::vector<Tensor> two{normal(shape, 1), normal(shape, 2)};
    CHECK(gradcheck_fault([](const Inputs& v) { return ops::add(v[0], v[1]); }, two) == "");
    CHECK(gradcheck_fault([](const Inputs& v) { return ops::subtract(v[0], v[1]); }, two) == "");
    CHECK(gradcheck_fault([](const Inputs& v) { return ops::scale(v[0], -1.75); }, {two[0]}) == "");
  }
}

TEST_CASE("gradients: multiply with every broadcast") {
  const auto multiply = [](const Inputs& v) { return ops::multiply(v[0], v[1]); };
  const std::pair<Shape, Shape> cases[] = {
      {{3, 5}, {3, 5}},       {{2, 3, 1, 5}, {2, 3, 1, 5}},  // the same
      {{3, 5}, {5}},          {{2, 3, 4, 1}, {1}},           // a channel
      {{1, 3, 2, 3}, {3}},    {{2, 7, 5}, {5}},              //
      {{2, 3, 4, 5}, {2, 5}}, {{1, 2, 2, 3}, {1, 3}},        // a sample and a channel
      {{3, 4, 1}, {3, 1}},    {{5, 5, 5, 5}, {5}},           //
      {{1, 1, 1, 1}, {1}},    {{3, 3, 2, 3}, {3, 3}},        // sizes that leave a choice
  };
  for (const auto& [a, b] : cases) {
    CAPTURE(a.str());
    CAPTURE(b.str());
    CHECK(gradcheck_fault(multiply, {normal(a, 1), normal(b, 2)}) == "");
  }
}

TEST_CASE("multiply: what is stretched over what") {
  const Variable x(Tensor::from(std::vector<double>{1, 2, 3, 4, 5, 6, 7, 8}, {2, 2, 2}, Device::reference));
  const auto times = [&](const std::vector<double>& b, const Shape& shape) {
    return list(ops::multiply(x, Variable(Tensor::from(b, shape, Device::reference))).value());
  };
  CHECK(times({10, 100}, {2}) == std::vector<double>{10, 200, 30, 400, 50, 600, 70, 800});
  CHECK(times({1, 10, 100, 1000}, {2, 2}) == std::vector<double>{1, 20, 3, 40, 500, 6000, 700, 8000});
}

TEST_CASE("gradients: one variable on both sides") {
  for (const Shape& shape : {Shape{4}, Shape{1, 3, 2, 5}}) {
    const std::vector<Tensor> x{normal(shape, 1)};
    CHECK(gradcheck_fault([](const Inputs& v) { return ops::add(v[0], v[0]); }, x) == "");
    CHECK(gradcheck_fault([](const Inputs& v) { return ops::subtract(v[0], v[0]); }, x) == "");
    CHECK(gradcheck_fault([](const Inputs& v) { return ops::multiply(v[0], v[0]); }, x) == "");
  }
  CHECK(gradcheck_fault([](const Inputs& v) { return ops::linear(v[0], v[0], {}); }, {normal({3, 3}, 1)}) == "");
  CHECK(gradcheck_fault(
            [](const Inputs& v) {
              return ops::conv2d(v[0], v[0], {}, {1, 1, 1, 1});
            },
            {normal({3, 3, 3, 3}, 1)}) == "");
  CHECK(gradcheck_fault(
            [](const Inputs& v) {
              return ops::concat_channels({v[0], v[0]});
            },
            {normal({2, 3, 3}, 1)}) == "");
}

TEST_CASE("gradients: convolutions") {
  struct Case {
    Shape x, w;
    ConvParams p;  // stride, padding, dilation, groups
  };
  const Case cases[] = {
      {{1, 5, 4, 3}, {2, 3, 3, 3}, {1, 1, 1, 1}},  // batch 1, not square
      {{2, 6, 5, 4}, {4, 3, 3, 2}, {1, 1, 1, 2}},  // groups
      {{2, 4, 3, 6}, {6, 3, 3, 1}, {1, 1, 1, 6}},  // depthwise
      {{1, 4, 3, 3}, {6, 3, 3, 1}, {2, 1, 1, 3}},  // two outputs for each input
      {{1, 4, 4, 6}, {3, 1, 1, 2}, {1, 0, 1, 3}},  // a restriction
      {{1, 4, 4, 3}, {6, 1, 1, 1}, {1, 0, 1, 3}},  // a prolongation
      {{1, 6, 5, 2}, {3, 3, 3, 2}, {2, 1, 1, 1}},  // a stride that does not divide
      {{1, 8, 5, 1}, {5, 3, 3, 1}, {3, 0, 1, 1}},  // nor this one, and pixels that nobody looks at
      {{1, 7, 6, 2}, {2, 3, 3, 2}, {1, 2, 2, 1}},  // dilation
      {{2, 7, 7, 4}, {4, 3, 3, 2}, {2, 2, 3, 2}},  // all at once
      {{1, 5, 6, 2}, {1, 5, 2, 2}, {1, 2, 1, 1}},  // a kernel that is not square
      {{1, 3, 3, 1}, {1, 3, 3, 1}, {1, 0, 1, 1}},  // one pixel is left
      {{1, 2, 2, 5}, {5, 3, 3, 5}, {1, 2, 1, 1}},  // padding as wide as the image
      {{1, 3, 2, 2}, {3, 1, 1, 2}, {2, 1, 1, 1}},  // 1×1 with padding: pixels that see nothing
      {{2, 7, 3}, {5, 1, 1, 3}, {1, 0, 1, 1}},     // a point cloud
      {{1, 7, 4}, {4, 1, 1, 2}, {2, 0, 1, 2}},     // every second of its points, in groups
      {{3, 6, 2}, {2, 3, 1, 2}, {1, 0, 1, 1}},     // three neighbours
  };
  for (const Case& c : cases) {
    CAPTURE(c.x.str());
    CAPTURE(c.w.str());
    const auto conv = [&](const Inputs& v) { return ops::conv2d(v[0], v[1], v.size() > 2 ? v[2] : Variable(), c.p); };
    const std::vector<Tensor> inputs{normal(c.x, 1), normal(c.w, 2)};
    CHECK(gradcheck_fault(conv, inputs) == "");
    CHECK(gradcheck_fault(conv, {inputs[0], inputs[1], normal({c.w[0]}, 3)}) == "");
    CHECK(conv({Variable(inputs[0]), Variable(inputs[1])}).shape().rank() == c.x.rank());
  }
}

TEST_CASE("gradients: only what is asked for") {
  const Tensor x = normal({1, 3, 3, 2}, 1), w = normal({2, 3, 3, 2}, 2), b = normal({2}, 3);
  const ConvParams p{1, 1, 1, 1};
  const auto run = [&](int which) {
    Inputs v{Variable(x, which == 0), Variable(w, which == 1), Variable(b, which == 2)};
    const Variable y = ops::conv2d(v[0], v[1], v[2], p);
    backward(y);
    for (int i = 0; i < 3; ++i) CHECK(v[static_cast<size_t>(i)].gradient().defined() == (i == which));
  };
  for (int which : {0, 1, 2}) run(which);
  CHECK_FALSE(ops::conv2d(Variable(x), Variable(w), Variable(b), p).requires_gradient());
}

TEST_CASE("a point cloud is a feature map one pixel wide, on each backend") {
  for (Device device : {Device::reference, Device::cpu})
    for (const ConvParams& p : {ConvParams{1, 0, 1, 1}, ConvParams{2, 0, 1, 2}, ConvParams{1, 0, 1, 4}}) {
      CAPTURE(name_of(device));
      CAPTURE(p.groups);
      const Tensor cloud = normal({2, 6, 4}, 1, DType::f32, device);
      const Tensor weight = normal({8, 1, 1, 4 / p.groups}, 2, DType::f32, device);
      const Variable a = leaf(cloud), wa = leaf(weight), b = leaf(cloud.reshape({2, 6, 1, 4})), wb = leaf(weight);
      const Variable ya = ops::conv2d(a, wa, {}, p), yb = ops::conv2d(b, wb, {}, p);
      const int64_t points = 6 / p.stride;
      CHECK(ya.shape() == Shape{2, points, 8});
      CHECK(distance(ya.value().reshape(yb.shape()), yb.value()) == 0);
      const Tensor seed = normal(ya.shape(), 3, DType::f32, device);
      backward(ya, seed);
      backward(yb, seed.reshape(yb.shape()));
      CHECK(distance(a.gradient().reshape(b.shape()), b.gradient()) == 0);
      CHECK(distance(wa.gradient(), wb.gradient()) == 0);
    }
}

TEST_CASE("gradients: pooling") {
  struct Case {
    Shape x;
    int64_t kernel, stride, padding;
  };
  const Case cases[] = {
      {{1, 4, 4, 1}, 2, 2, 0},  // what most networks do
      {{2, 5, 7, 3}, 2, 2, 0},  // a stride that does not divide
      {{1, 7, 6, 5}, 3, 2, 1},  // windows that overlap
      {{1, 5, 3, 2}, 3, 1, 1},  //
      {{1, 6, 5, 1}, 2, 3, 1},  // pixels between the windows
      {{2, 3, 4, 3}, 1, 1, 0},  //
      {{1, 3, 5, 2}, 3, 5, 0},  // one window high
      {{1, 1, 1, 5}, 2, 1, 1},  // one pixel in every window
  };
  for (Pool kind : {Pool::max, Pool::average})
    for (const Case& c : cases) {
      CAPTURE(static_cast<int>(kind));
      CAPTURE(c.x.str());
      const PoolParams p{kind, c.kernel, c.stride, c.padding};
      CHECK(gradcheck_fault([&](const Inputs& v) { return ops::pool2d(v[0], p); }, {distinct(c.x, 1)}) == "");
    }
}

TEST_CASE("gradients: global pooling") {
  for (Pool kind : {Pool::max, Pool::average})
    for (const Shape& x : {Shape{1, 1, 1, 1}, Shape{2, 5, 3, 3}, Shape{3, 7, 5}, Shape{1, 2, 3, 2, 3}}) {
      CAPTURE(static_cast<int>(kind));
      CAPTURE(x.str());
      const auto pool = [&](const Inputs& v) { return ops::global_pool(v[0], kind); };
      CHECK(gradcheck_fault(pool, {distinct(x, 1)}) == "");
      CHECK(pool({Variable(distinct(x, 1))}).shape() == Shape{x[0], x.last()});
    }
}

TEST_CASE("gradients: linear, with and without bias") {
  for (const auto& [n, in, out] : {std::tuple{1, 1, 1}, std::tuple{1, 5, 3}, std::tuple{7, 3, 5}}) {
    const std::vector<Tensor> inputs{normal({n, in}, 1), normal({out, in}, 2), normal({out}, 3)};
    CHECK(gradcheck_fault([](const Inputs& v) { return ops::linear(v[0], v[1], v[2]); }, inputs) == "");
    CHECK(gradcheck_fault([](const Inputs& v) { return ops::linear(v[0], v[1], {}); }, {inputs[0], inputs[1]}) == "");
  }
}

TEST_CASE("gradients: reshape, also of one that is used as it was") {
  const auto f = [](const Inputs& v) {
    return ops::add(ops::multiply(ops::reshape(v[0], {6}), ops::reshape(v[1], {6})), ops::reshape(v[0], {6}));
  };
  CHECK(gradcheck_fault(f, {normal({2, 3}, 1), normal({1, 6, 1}, 2)}) == "");
}

TEST_CASE("gradients: dropout repeats its mask") {
  for (double p : {0.0, 0.25, 0.9}) {
    CAPTURE(p);
    CHECK(gradcheck_fault([&](const Inputs& v) { return ops::dropout(v[0], p, 77); }, {normal({3, 5, 7}, 1)}) == "");
  }
  // Where the output is zero the gradient is, and nowhere else.
  const Variable x = leaf(positive({1000}, 1));
  const Variable y = ops::dropout(x, 0.5, 78);
  backward(y);
  const auto out = list(y.value()), gradient = list(x.gradient()), in = list(x.value());
  int64_t dropped = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    dropped += out[i] == 0;
    CHECK(gradient[i] == (out[i] == 0 ? 0.0 : 2.0));
    CHECK(out[i] == gradient[i] * in[i]);
  }
  CHECK(dropped > 400);  // 500 ± 6 deviations
  CHECK(dropped < 600);
}

TEST_CASE("gradients: sum and dot") {
  for (const Shape& shape : {Shape{}, Shape{5}, Shape{1, 3, 2, 5}}) {
    CHECK(gradcheck_fault([](const Inputs& v) { return ops::sum(v[0]); }, {normal(shape, 1)}) == "");
    const Tensor weights = normal(shape, 2);
    CHECK(gradcheck_fault([&](const Inputs& v) { return ops::dot(v[0], weights); }, {normal(shape, 1)}) == "");
  }
  const Variable x(Tensor::from(std::vector<double>{1, 2, 3}, {3}, Device::reference));
  CHECK(ops::sum(x).shape() == Shape{});
  CHECK(ops::sum(x).value().item() == 6);
  CHECK(ops::dot(x, Tensor::from(std::vector<double>{1, 10, 100}, {3}, Device::reference)).value().item() == 321);
  CHECK(ops::sum(Variable(Tensor::empty({0, 4}, DType::f64, Device::reference))).value().item() == 0);
}

TEST_CASE("gradients: cross-entropy, small and large logits") {
  struct Case {
    int64_t rows, classes;
    std::vector<int64_t> labels;
  };
  for (const Case& c : {Case{1, 1, {0}}, Case{1, 3, {2}}, Case{4, 5, {0, 4, 2, 2}}}) {
    const Tensor labels = Tensor::from(c.labels, {c.rows}, Device::reference);
    CHECK(gradcheck_fault([&](const Inputs& v) { return ops::cross_entropy(v[0], labels); },
                          {normal({c.rows, c.classes}, 1)}) == "");
  }
  // log Σ exp of logits that overflow on their own.
  const Tensor labels = Tensor::from(std::vector<int64_t>{1, 0}, {2}, Device::reference);
  const Variable z = leaf(Tensor::from(std::vector<double>{1000, 1002, -1000, -1001}, {2, 2}, Device::reference));
  Tensor losses;
  const Variable loss = ops::cross_entropy(z, labels, &losses);
  const double first = std::log1p(std::exp(-2.0)), second = std::log1p(std::exp(-1.0));
  CHECK(std::abs(list(losses)[0] - first) < tolerance_f64);
  CHECK(std::abs(list(losses)[1] - second) < tolerance_f64);
  CHECK(std::abs(loss.value().item() - (first + second) / 2) < tolerance_f64);
  backward(loss);
  CHECK(std::abs(list(z.gradient())[0] - 0.5 / (1 + std::exp(2.0))) < tolerance_f64);
}

TEST_CASE("gradients: channels put together and taken apart") {
  const auto concat = [](const Inputs& v) { return ops::concat_channels(v); };
  CHECK(gradcheck_fault(concat, {normal({2, 3, 1}, 1)}) == "");
  CHECK(gradcheck_fault(concat, {normal({1, 3, 2, 1}, 1), normal({1, 3, 2, 5}, 2), normal({1, 3, 2, 3}, 3)}) == "");
  for (const auto& [begin, end] : {std::pair{0, 1}, std::pair{2, 5}, std::pair{0, 5}}) {
    const auto slice = [&](const Inputs& v) { return ops::slice_channels(v[0], begin, end); };
    CHECK(gradcheck_fault(slice, {normal({1, 2, 3, 5}, 1)}) == "");
  }
  // Slices that overlap add up.
  const auto overlap = [](const Inputs& v) {
    return ops::multiply(ops::slice_channels(v[0], 0, 3), ops::slice_channels(v[0], 2, 5));
  };
  CHECK(gradcheck_fault(overlap, {normal({2, 2, 5}, 1)}) == "");
}

TEST_CASE("gradients: bilinear resize, larger, smaller and to one pixel") {
  for (bool align_corners : {false, true})
    for (const auto& [height, width] : {std::pair{7, 5}, std::pair{2, 3}, std::pair{1, 1}, std::pair{4, 3}}) {
      CAPTURE(align_corners);
      CAPTURE(height);
      const auto resize = [&](const Inputs& v) { return ops::resize_bilinear(v[0], height, width, align_corners); };
      CHECK(gradcheck_fault(resize, {normal({2, 4, 3, 3}, 1)}) == "");
      CHECK(gradcheck_fault(resize, {normal({1, 1, 1, 1}, 1)}) == "");
    }
}

TEST_CASE("gradients: neighbourhoods of points") {
  for (const auto& [points, k, channels] : {std::tuple{1, 1, 1}, std::tuple{6, 3, 3}, std::tuple{5, 5, 5}}) {
    const Tensor x = normal({2, points, channels}, 1);
    const Tensor indices = ops::nearest_neighbours(x, k);
    CHECK(indices.shape() == Shape{2, points, k});
    CHECK(gradcheck_fault([&](const Inputs& v) { return ops::edge_features(v[0], indices); }, {x}) == "");
    CHECK(gradcheck_fault([&](const Inputs& v) { return ops::neighbourhood_max(v[0]); },
                          {distinct({2, points, k, channels}, 2)}) == "");
  }
}

TEST_CASE("nearest_neighbours: nearest first, the point itself before all") {
  const Tensor x = Tensor::from(std::vector<double>{0, 10, 1, 4}, {1, 4, 1}, Device::reference);
  const Tensor i = ops::nearest_neighbours(x, 3);
  CHECK(list(i) == std::vector<double>{0, 2, 3, 1, 3, 2, 2, 0, 3, 3, 2, 0});
}

TEST_CASE("gradients: weights transposed group by group") {
  for (int64_t groups : {1, 2, 3, 6}) {
    CAPTURE(groups);
    const auto transpose = [&](const Inputs& v) { return ops::transpose_groups(v[0], groups); };
    CHECK(gradcheck_fault(transpose, {normal({6, 1, 1, 4}, 1)}) == "");
    const Variable w(normal({6, 1, 1, 4}, 1));
    CHECK(distance(ops::transpose_groups(transpose({w}), groups).value(), w.value()) == 0);
  }
}

TEST_CASE("gradients: tied transfers, P = Rᵀ, with gradients from both uses") {
  // <R x, y> = <x, Rᵀ y> for each group: restriction and prolongation are adjoint.
  const Variable x(normal({1, 3, 2, 8}, 1)), y(normal({1, 3, 2, 4}, 2)), r(normal({4, 1, 1, 4}, 3));
  const ConvParams p{1, 0, 1, 2};
  const double left = ops::dot(ops::conv2d(x, r, {}, p), y.value()).value().item();
  const double right = ops::dot(ops::conv2d(y, ops::transpose_groups(r, 2), {}, p), x.value()).value().item();
  CHECK(std::abs(left - right) < tolerance_f64);
  const auto cycle = [&](const Inputs& v) {
    return ops::conv2d(ops::conv2d(v[0], v[1], {}, p), ops::transpose_groups(v[1], 2), {}, p);
  };
  CHECK(gradcheck_fault(cycle, {x.value(), r.value()}) == "");
}
