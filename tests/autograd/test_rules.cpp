// Shape rules: each operation's errors name the operation, the module and the shapes; on meta the rules hold alike and
// nothing is computed.
#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/autograd/support.h"

using namespace mgic;
using namespace mgic::test;

namespace {

Variable of(const Shape& shape, DType dtype = DType::f32, Device device = Device::reference) {
  return Variable(Tensor::zeros(shape, dtype, device));
}
Tensor indices(const Shape& shape) { return Tensor::zeros(shape, DType::i64, Device::reference); }

ops::NormVariables norm(int64_t channels) {
  return {of({channels}), of({channels}), of({channels}).value(), of({channels}).value()};
}
ops::ChainLink link(const Shape& weight, const ConvParams& p = {1, 1, 1, 1}, int64_t channels = 0,
                    Activation activation = Activation::none) {
  return {of(weight), p, channels > 0 ? norm(channels) : ops::NormVariables{}, activation, "conv", "bn"};
}

// What `f` says inside the module net.layer, without the frame that all messages share.
std::string broken(const std::string& op, const std::function<void()>& f) {
  PathScope outer("net"), inner("layer");
  const std::string text = thrown(f), start = "Error: " + op + " (in net.layer): ";
  if (!text.starts_with(start)) return "no such error: " + text;
  return text.substr(start.size());
}

constexpr Activation none = Activation::none;

}  // namespace

TEST_CASE("rules: without a module the operation stands alone") {
  CHECK(thrown([] { ops::add(of({2}), of({3})); }) ==
        "Error: add: both must have one shape; the inputs are f32 (2) on reference, f32 (3) on reference");
}

TEST_CASE("rules: every operation") {
  CHECK(broken("add", [] {
          ops::add(of({2, 3}), of({3}));
        }) == "both must have one shape; the inputs are f32 (2, 3) on reference, f32 (3) on reference");
  CHECK(broken("subtract", [] {
          ops::subtract(of({2}), of({1, 2}));
        }) == "both must have one shape; the inputs are f32 (2) on reference, f32 (1, 2) on reference");
  for (const Shape& b : {Shape{4}, Shape{2, 3}, Shape{5, 3, 3}, Shape{3, 2}, Shape{}, Shape{1}})
    CHECK(broken("multiply",
                 [&] {
                   ops::multiply(of({5, 2, 3}), of(b));
                 }) ==
          "the second must have the first's shape, (C) or (N, C); the inputs are f32 (5, 2, 3) on reference, f32 " +
              b.str() + " on reference");
  CHECK(broken("multiply", [] { ops::multiply(of({3}), of({})); }) ==
        "the second must have the first's shape, (C) or (N, C); the inputs are f32 (3) on reference, f32 () on "
        "reference");
  CHECK(broken("reshape", [] {
          ops::reshape(of({2, 3}), {7});
        }) == "6 elements do not fit shape (7); the inputs are f32 (2, 3) on reference");
  for (double p : {1.0, -0.1, 1.5})
    CHECK(
        broken("dropout", [&] { ops::dropout(of({2}), p, 1); }) ==
        fmt::format("the probability must be at least 0 and below 1, not {}; the inputs are f32 (2) on reference", p));
  CHECK(broken("dot", [] { ops::dot(of({2}), of({3}).value()); }) ==
        "both must have one shape; the inputs are f32 (2) on reference, f32 (3) on reference");

  CHECK(broken("linear",
               [] {
                 ops::linear(of({2, 3}), of({4, 5}), {});
               }) ==
        "x must be (N, in) and the weight (out, in); the inputs are f32 (2, 3) on reference, f32 (4, 5) on reference");
  CHECK(
      broken("linear", [] {
        ops::linear(of({3}), of({4, 3}), {});
      }) == "x must be (N, in) and the weight (out, in); the inputs are f32 (3) on reference, f32 (4, 3) on reference");
  CHECK(broken("linear",
               [] {
                 ops::linear(of({2, 3}), of({4, 3}), of({3}));
               }) ==
        "the bias must have 4 elements; the inputs are f32 (2, 3) on reference, f32 (4, 3) on reference, f32 (3) on "
        "reference");
  CHECK(broken("cross_entropy", [] { ops::cross_entropy(of({6}), indices({6})); }) ==
        "the logits must be (N, K); the inputs are f32 (6) on reference, i64 (6) on reference");
  CHECK(broken("cross_entropy", [] {
          ops::cross_entropy(of({0, 3}), indices({0}));
        }) == "the logits must be (N, K); the inputs are f32 (0, 3) on reference, i64 (0) on reference");
  CHECK(broken("cross_entropy", [] {
          ops::cross_entropy(of({2, 3}), indices({3}));
        }) == "the labels must be i64 (N); the inputs are f32 (2, 3) on reference, i64 (3) on reference");
  CHECK(broken("cross_entropy", [] {
          ops::cross_entropy(of({2, 3}), of({2}).value());
        }) == "the labels must be i64 (N); the inputs are f32 (2, 3) on reference, f32 (2) on reference");

  CHECK(broken("pool2d", [] {
          ops::pool2d(of({2, 3, 4}), {});
        }) == "x must be (N, H, W, C) with at least one pixel; the inputs are f32 (2, 3, 4) on reference");
  CHECK(broken("pool2d", [] {
          ops::pool2d(of({2, 0, 4, 1}), {Pool::max, 2, 1, 1});
        }) == "x must be (N, H, W, C) with at least one pixel; the inputs are f32 (2, 0, 4, 1) on reference");
  for (const PoolParams& p : {PoolParams{Pool::max, 0, 1, 0}, PoolParams{Pool::max, 2, 0, 0},
                              PoolParams{Pool::max, 2, 1, -1}, PoolParams{Pool::max, 3, 1, 2}})
    CHECK(broken("pool2d",
                 [&] {
                   ops::pool2d(of({1, 4, 4, 1}), p);
                 }) ==
          "kernel and stride must be at least 1, padding at least 0 and at most half the kernel; the inputs are f32 "
          "(1, 4, 4, 1) on reference");
  CHECK(broken("pool2d", [] {
          ops::pool2d(of({1, 4, 2, 1}), {Pool::average, 3, 1, 0});
        }) == "the window of 3 pixels does not fit the image; the inputs are f32 (1, 4, 2, 1) on reference");
  CHECK(broken("global_pool", [] {
          ops::global_pool(of({2, 3}), Pool::max);
        }) == "x must be (N, …, C) with at least one pixel; the inputs are f32 (2, 3) on reference");
  CHECK(broken("global_pool", [] {
          ops::global_pool(of({2, 0, 4, 3}), Pool::max);
        }) == "x must be (N, …, C) with at least one pixel; the inputs are f32 (2, 0, 4, 3) on reference");

  CHECK(broken("concat_channels",
               [] {
                 ops::concat_channels({of({2, 3, 1}), of({2, 4, 1})});
               }) ==
        "all parts must agree in every dimension but the channels; the inputs are f32 (2, 3, 1) on reference, f32 (2, "
        "4, 1) on reference");
  CHECK(broken("concat_channels",
               [] {
                 ops::concat_channels({of({2, 3}), of({2, 3, 1})});
               }) ==
        "all parts must agree in every dimension but the channels; the inputs are f32 (2, 3) on reference, f32 (2, 3, "
        "1) on reference");
  CHECK(broken("concat_channels", [] {
          ops::concat_channels({of({2, 3}), Variable()});
        }) == "all parts must agree in every dimension but the channels; the inputs are f32 (2, 3) on reference");
  CHECK(thrown([] { ops::concat_channels({}); }) == "Error: concat_channels: it needs at least one part");
  for (const auto& [begin, end] : {std::pair{-1, 2}, std::pair{2, 2}, std::pair{2, 1}, std::pair{0, 4}})
    CHECK(broken("slice_channels", [&] {
            ops::slice_channels(of({2, 3}), begin, end);
          }) == fmt::format("channels [{}, {}) do not exist; the inputs are f32 (2, 3) on reference", begin, end));
  CHECK(broken("resize_bilinear", [] {
          ops::resize_bilinear(of({2, 0, 4, 3}), 2, 2);
        }) == "x must be (N, H, W, C) with at least one pixel; the inputs are f32 (2, 0, 4, 3) on reference");
  CHECK(broken("resize_bilinear", [] {
          ops::resize_bilinear(of({2, 4, 4, 3}), 0, 2);
        }) == "the new size must be at least 1×1, not 0×2; the inputs are f32 (2, 4, 4, 3) on reference");

  CHECK(broken("nearest_neighbours", [] {
          ops::nearest_neighbours(of({2, 5, 3}).value(), 6);
        }) == "x must be (N, P, C) with at least k = 6 points; the inputs are f32 (2, 5, 3) on reference");
  CHECK(broken("nearest_neighbours", [] {
          ops::nearest_neighbours(of({2, 5, 3}).value(), 0);
        }) == "x must be (N, P, C) with at least k = 0 points; the inputs are f32 (2, 5, 3) on reference");
  CHECK(broken("edge_features",
               [] {
                 ops::edge_features(of({2, 5, 3}), indices({2, 4, 3}));
               }) ==
        "x must be (N, P, C) and the indices i64 (N, P, k); the inputs are f32 (2, 5, 3) on reference, i64 (2, 4, 3) "
        "on reference");
  CHECK(broken("neighbourhood_max", [] {
          ops::neighbourhood_max(of({2, 5, 0, 3}));
        }) == "x must be (N, P, k, C); the inputs are f32 (2, 5, 0, 3) on reference");
  CHECK(broken("transpose_groups",
               [] {
                 ops::transpose_groups(of({6, 1, 1, 2}), 4);
               }) ==
        "the weight must be (O, 1, 1, I/groups) with O a multiple of the 4 groups; the inputs are f32 (6, 1, 1, 2) on "
        "reference");
  CHECK(broken("transpose_groups",
               [] {
                 ops::transpose_groups(of({6, 3, 1, 2}), 2);
               }) ==
        "the weight must be (O, 1, 1, I/groups) with O a multiple of the 2 groups; the inputs are f32 (6, 3, 1, 2) on "
        "reference");
  CHECK(broken("transpose_groups", [] { ops::transpose_groups(of({6, 1, 1, 2}), 0); }).starts_with("the weight must"));
}

TEST_CASE("rules: convolutions") {
  const auto conv = [](const Shape& x, const Shape& w, const ConvParams& p, const Variable& bias = {}) {
    return broken("conv2d", [&] { ops::conv2d(of(x), of(w), bias, p); });
  };
  const auto inputs = [](const Shape& x, const Shape& w) {
    return "; the inputs are f32 " + x.str() + " on reference, f32 " + w.str() + " on reference";
  };
  const Shape x{1, 5, 4, 6}, w{4, 3, 3, 3};
  const ConvParams p{1, 1, 1, 2};
  CHECK(conv({5, 6}, w, p) == "x must be (N, H, W, C) or (N, P, C)" + inputs({5, 6}, w));
  CHECK(conv(x, {4, 3, 3}, p) == "the weight must be (O, kH, kW, I/groups)" + inputs(x, {4, 3, 3}));
  for (const ConvParams& bad : {ConvParams{0, 1, 1, 2}, ConvParams{1, -1, 1, 2}, ConvParams{1, 1, 0, 2},
                                ConvParams{1, 1, 1, 0}, ConvParams{1, 1, 1, -2}})
    CHECK(conv(x, w, bad) == "groups, stride and dilation must be at least 1 and padding at least 0" + inputs(x, w));
  CHECK(conv(x, {5, 3, 3, 3}, p) ==
        "the 5 output channels must be a multiple of the 2 groups" + inputs(x, {5, 3, 3, 3}));
  CHECK(conv(x, {4, 3, 3, 2}, p) == "2 groups of 2 input channels need x to have 4 channels" + inputs(x, {4, 3, 3, 2}));
  CHECK(conv(x, w, {1, 0, 2, 2}) == "the 3×3 kernel does not fit the image" + inputs(x, w));
  CHECK(conv(x, w, p, of({3})) == "the bias must have 4 channels" + inputs(x, w) + ", f32 (3) on reference");
  CHECK(conv({2, 5, 3}, {4, 1, 1, 3}, {1, 1, 1, 1}) ==
        "x (N, P, C) needs a convolution that keeps it one pixel wide" + inputs({2, 5, 3}, {4, 1, 1, 3}));
}

TEST_CASE("rules: batch normalisation") {
  const Variable x = of({2, 3, 4});
  CHECK(broken("batch_norm", [] { ops::batch_norm(of({4}), norm(4), true); }).starts_with("x must be (N, …, C); "));
  CHECK(broken("batch_norm", [&] { ops::batch_norm(x, norm(3), true); }) ==
        "the normalisation's vectors must have 4 channels; the inputs are f32 (2, 3, 4) on reference, f32 (3) on "
        "reference, f32 (3) on reference");
  ops::NormVariables part = norm(4);
  part.running_var = Tensor();
  CHECK(broken("batch_norm", [&] {
          ops::batch_norm(x, part, true);
        }).starts_with("the normalisation's vectors must have 4 channels; "));
  CHECK(broken("batch_norm", [&] {
          ops::batch_norm(x, norm(4), true, {none, of({2, 4}), none});
        }).starts_with("the residual must have x's shape; "));
  CHECK(broken("batch_norm", [] {
          ops::batch_norm(of({0, 4}), norm(4), true);
        }).starts_with("batch statistics need at least one row; "));
  CHECK(ops::batch_norm(of({0, 4}), norm(4), false).shape() == Shape{0, 4});
}

TEST_CASE("rules: chains and corrections") {
  const Variable x = of({1, 4, 4, 2});
  const auto chain = [&](const std::vector<ops::ChainLink>& links, const Variable& residual = {}) {
    return broken("conv_chain", [&] { ops::conv_chain(x, links, residual, none, true); });
  };
  CHECK(chain({}) == "it needs at least one link; the inputs are f32 (1, 4, 4, 2) on reference");
  CHECK(chain({link({3, 3, 3, 2}), link({2, 3, 3, 2})}) ==
        "1 groups of 2 input channels need x to have 2 channels; the inputs are f32 (1, 4, 4, 2) on reference, f32 (3, "
        "3, 3, 2) on reference, f32 (2, 3, 3, 2) on reference");
  CHECK(chain({link({3, 3, 3, 2}, {1, 1, 1, 1}, 2)}).starts_with("the normalisation's vectors must have 3 channels; "));
  CHECK(chain({link({3, 3, 3, 2})}, x).starts_with("the residual must have the output's shape (1, 4, 4, 3); "));
  CHECK(chain({link({2, 3, 3, 2}, {1, 1, 1, 1}, 0, Activation::relu)}, x)
            .starts_with("a residual behind an activation needs a normalisation before it; "));
  const auto correction = [&](const Variable& a, const Variable& b, const ops::ChainLink& l) {
    return broken("coarse_correction", [&] { ops::coarse_correction(x, a, b, l, true); });
  };
  CHECK(correction(of({1, 4, 4, 1}), of({1, 4, 4, 2}), link({2, 1, 1, 1}, {1, 0, 1, 1}))
            .starts_with("a and b must have one shape; "));
  CHECK(correction(of({1, 4, 4, 1}), of({1, 4, 4, 1}), link({3, 1, 1, 1}, {1, 0, 1, 1}))
            .starts_with("the residual must have the output's shape (1, 4, 4, 3); "));
}

TEST_CASE("rules: one device and one element type, and none that is missing") {
  CHECK(broken("add", [] { ops::add(of({2}), of({2}, DType::f64)); }) ==
        "all inputs must have one element type; the inputs are f32 (2) on reference, f64 (2) on reference");
  CHECK(broken("add", [] { ops::add(of({2}), of({2}, DType::f32, Device::cpu)); }) ==
        "all inputs must be on one device; the inputs are f32 (2) on reference, f32 (2) on cpu");
  CHECK(broken("add", [] {
          ops::add(of({2}), of({2}, DType::f32, Device::meta));
        }).starts_with("all inputs must be on one device; "));
  CHECK(broken("add", [] { ops::add(Variable(), of({2})); }) ==
        "its first input is missing; the inputs are f32 (2) on reference");
}

TEST_CASE("rules: f64 on cpu is refused, with what to do") {
  const Variable x = of({1, 3, 3, 2}, DType::f64, Device::cpu), w = of({2, 3, 3, 2}, DType::f64, Device::cpu);
  CHECK(broken("conv2d",
               [&] {
                 ops::conv2d(x, w, {}, {1, 1, 1, 1});
               }) ==
        "the cpu backend does not take f64; use --device reference; the inputs are f64 (1, 3, 3, 2) on cpu, f64 (2, 3, "
        "3, 2) on cpu");
  const std::string message = "the cpu backend does not take f64; use --device reference; ";
  CHECK(broken("activation", [&] { ops::relu(x); }).starts_with(message));
  CHECK(broken("add", [&] { ops::add(x, x); }).starts_with(message));
  CHECK(broken("dot", [&] { ops::sum(x); }).starts_with(message));
  CHECK(broken("global_pool", [&] { ops::global_pool(x, Pool::max); }).starts_with(message));
  CHECK(broken("activation", [] { ops::relu(of({2}, DType::bf16)); }) ==
        "the reference backend does not take bf16; the inputs are bf16 (2) on reference");
}

TEST_CASE("meta: shapes only, of every operation, in every float type") {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16}) {
    const auto m = [&](const Shape& shape) { return leaf(Tensor::empty(shape, dtype, Device::meta)); };
    const auto check = [&](const Variable& y, const Shape& shape) {
      CHECK(y.shape() == shape);
      CHECK(y.value().dtype() == dtype);
      CHECK(y.value().device() == Device::meta);
      CHECK_FALSE(y.requires_gradient());  // there is nothing to differentiate
    };
    const int64_t huge = int64_t{1} << 40;  // nothing is allocated
    check(ops::relu(m({huge, 3})), {huge, 3});
    check(ops::add(m({2}), m({2})), {2});
    check(ops::subtract(m({2}), m({2})), {2});
    check(ops::scale(m({2}), 3), {2});
    check(ops::multiply(m({2, 3, 4}), m({2, 4})), {2, 3, 4});
    check(ops::reshape(m({2, 3}), {6}), {6});
    check(ops::dropout(m({2, 3}), 0.5, 1), {2, 3});
    check(ops::sum(m({2, 3})), {});
    check(ops::linear(m({2, 3}), m({5, 3}), m({5})), {2, 5});
    check(ops::cross_entropy(m({2, 3}), Tensor::empty({2}, DType::i64, Device::meta)), {});
    CHECK(ops::full_precision(m({2, 3})).value().dtype() == (dtype == DType::bf16 ? DType::f32 : dtype));
    check(ops::conv2d(m({1, 7, 6, 4}), m({6, 3, 3, 2}), m({6}), {2, 1, 1, 2}), {1, 4, 3, 6});
    check(ops::conv2d(m({1, 7, 9, 4}), m({6, 3, 5, 2}), {}, {1, 1, 2, 2}), {1, 5, 3, 6});
    check(ops::pool2d(m({2, 7, 6, 3}), {Pool::max, 3, 2, 1}), {2, 4, 3, 3});
    check(ops::global_pool(m({2, 7, 6, 3}), Pool::average), {2, 3});
    check(ops::concat_channels({m({2, 1}), m({2, 4})}), {2, 5});
    check(ops::slice_channels(m({2, 3, 5}), 1, 3), {2, 3, 2});
    check(ops::resize_bilinear(m({2, 3, 5, 4}), 7, 9), {2, 7, 9, 4});
    check(ops::edge_features(m({2, 9, 3}), Tensor::empty({2, 9, 4}, DType::i64, Device::meta)), {2, 9, 4, 6});
    check(ops::neighbourhood_max(m({2, 9, 4, 3})), {2, 9, 3});
    check(ops::transpose_groups(m({6, 1, 1, 2}), 3), {6, 1, 1, 2});
    const ops::NormVariables n{m({6}), m({6}), m({6}).value(), m({6}).value()};
    check(ops::batch_norm(m({2, 3, 6}), n, true), {2, 3, 6});
    const ops::ChainLink l{m({6, 3, 3, 2}), {2, 1, 1, 2}, n, Activation::relu, "", ""};
    check(ops::conv_chain(m({1, 7, 6, 4}), {l}, m({1, 4, 3, 6}), Activation::relu, true), {1, 4, 3, 6});
    const ops::ChainLink p{m({6, 1, 1, 3}), {1, 0, 1, 1}, n, Activation::none, "", ""};
    check(ops::coarse_correction(m({1, 4, 3, 6}), m({1, 4, 3, 3}), m({1, 4, 3, 3}), p, false), {1, 4, 3, 6});
    CHECK(ops::nearest_neighbours(m({2, 9, 3}).value(), 4).shape() == Shape{2, 9, 4});
  }
  CHECK(thrown([] { backend_of(Device::meta); }) ==
        "Error: a tensor on meta has a shape but no data: nothing can be computed with it");
  CHECK(broken("add", [] { ops::add(of({2}, DType::f32, Device::meta), of({3}, DType::f32, Device::meta)); }) ==
        "both must have one shape; the inputs are f32 (2) on meta, f32 (3) on meta");
}
