// Every function of the cpu backend against the reference backend, in f32 (parity.h).
#include "tests/backends/parity.h"

using namespace mgic;
using namespace mgic::test;

namespace {

// Odd and even, below, at and above the width of a vector, one row and many.
const std::vector<Shape> shapes = {{1, 1, 1, 1},    {1, 1, 1, 40},   {2, 3, 5, 1},   {3, 4, 2, 3},
                                   {2, 7, 5, 10},   {1, 5, 3, 16},   {4, 6, 6, 20},  {2, 9, 7, 64},
                                   {1, 2, 3, 1025}, {8, 12, 20, 24}, {128, 2, 2, 72}};

struct Conv {
  int64_t batch, height, width, inputs, outputs, kernel;
  ConvParams p;
  Shape x() const { return {batch, height, width, inputs}; }
  Shape w() const { return {outputs, kernel, kernel, inputs / p.groups}; }
  Shape y() const {
    const auto out = [&](int64_t in) { return (in + 2 * p.padding - p.dilation * (kernel - 1) - 1) / p.stride + 1; };
    return {batch, out(height), out(width), outputs};
  }
  std::string str() const {
    return fmt::format("x {}, w {}, stride {}, padding {}, dilation {}, groups {}", x().str(), w().str(), p.stride,
                       p.padding, p.dilation, p.groups);
  }
};

const std::vector<Conv> convolutions = {
    {2, 9, 7, 32, 32, 3, {1, 1, 1, 1}},     // dense
    {1, 8, 5, 32, 32, 3, {1, 1, 1, 2}},     // 16 channels a group
    {3, 4, 4, 32, 32, 3, {1, 1, 1, 2}},     // Winograd: all tiles of an image at a time,
    {2, 6, 34, 48, 48, 3, {1, 1, 1, 3}},    // several pieces a row,
    {1, 13, 18, 32, 64, 3, {1, 1, 1, 2}},   // more outputs than inputs, odd,
    {2, 8, 10, 64, 32, 3, {1, 1, 1, 2}},    // two slabs of inputs a group,
    {1, 2, 1, 16, 32, 3, {1, 1, 1, 1}},     // less than a tile,
    {2, 10, 12, 64, 64, 3, {1, 1, 1, 1}},   // dense,
    {2, 6, 22, 32, 32, 3, {1, 1, 1, 2}},    // an odd number of tiles a row,
    {2, 6, 6, 36, 36, 3, {1, 1, 1, 9}},     // groups of 4, of which the last slab is not full,
    {3, 4, 10, 24, 24, 3, {1, 1, 1, 3}},    // groups of 8, likewise,
    {2, 7, 9, 40, 40, 3, {1, 1, 1, 5}},     // of an odd image,
    {2, 8, 2, 16, 16, 3, {1, 1, 1, 2}},     // one tile a row,
    {2, 8, 8, 32, 32, 3, {1, 1, 1, 2}},     // the larger tiles, with 16,
    {1, 4, 16, 24, 24, 3, {1, 1, 1, 3}},    // 8,
    {1, 12, 20, 20, 20, 3, {1, 1, 1, 5}},   // 4 channels,
    {2, 16, 12, 32, 16, 3, {1, 1, 1, 1}},   // and dense,
    {21, 4, 4, 32, 32, 3, {1, 1, 1, 2}},    // several images in one plane,
    {14, 6, 4, 20, 20, 3, {1, 1, 1, 5}},    // of the smaller tiles
    {2, 5, 36, 24, 24, 3, {1, 1, 1, 3}},    // tiles in rows, of which several pieces make a row, with groups of 8,
    {1, 7, 72, 20, 20, 3, {1, 1, 1, 5}},    // and of 4; some blocks of rows of an odd image,
    {2, 9, 33, 16, 16, 3, {1, 1, 1, 4}},    // of an odd width,
    {13, 3, 4, 32, 32, 3, {1, 1, 1, 4}},    // and several images in one plane
    {2, 5, 36, 32, 32, 3, {1, 1, 1, 4}},    // in rows from the map itself: several pieces, with groups of 8,
    {1, 45, 40, 16, 16, 3, {1, 1, 1, 4}},   // some bands of an image, with groups of 4,
    {11, 3, 6, 32, 32, 3, {1, 1, 1, 8}},    // several images, of the smaller tiles
    {21, 4, 4, 32, 32, 3, {1, 1, 1, 4}},    // some images in a block of rows, the last of fewer, with groups of 8,
    {18, 4, 4, 16, 16, 3, {1, 1, 1, 4}},    // of 4,
    {40, 1, 4, 16, 16, 3, {1, 1, 1, 4}},    // of one row
    {4, 32, 32, 64, 64, 3, {1, 1, 1, 8}},   // a map that is stored past the caches, with groups of 8,
    {2, 64, 32, 64, 64, 3, {1, 1, 1, 4}},   // and of 16
    {7, 5, 6, 88, 88, 3, {1, 1, 1, 11}},    // two panels of bundles
    {1, 12, 34, 16, 16, 3, {1, 1, 1, 8}},   // groups of 2, which are merged
    {2, 7, 6, 32, 32, 3, {1, 1, 1, 8}},     // 4
    {2, 7, 6, 24, 24, 3, {1, 1, 1, 24}},    // depthwise
    {1, 9, 9, 16, 16, 5, {2, 2, 1, 16}},    // depthwise, a stride that does not divide
    {2, 13, 10, 40, 40, 3, {1, 2, 2, 40}},  // depthwise, dilated
    {1, 3, 2, 7, 7, 7, {1, 3, 1, 7}},       // depthwise, a kernel larger than the image
    {2, 9, 6, 16, 32, 3, {2, 1, 1, 16}},    // two outputs a group
    {2, 5, 7, 21, 42, 1, {2, 0, 1, 21}},    // two, 1×1
    {1, 8, 9, 40, 160, 3, {3, 1, 1, 40}},   // four
    {1, 5, 6, 12, 48, 4, {2, 0, 1, 12}},    // four, without padding
    {1, 9, 6, 8, 24, 3, {1, 1, 1, 8}},      // three
    {2, 6, 5, 36, 36, 3, {1, 1, 1, 9}},     // 4 channels a group, an odd number of groups
    {2, 6, 5, 16, 16, 3, {1, 1, 1, 8}},     // 2 channels a group
    {3, 11, 6, 3, 20, 3, {2, 1, 1, 1}},     // stem
    {2, 15, 12, 3, 16, 7, {2, 3, 1, 1}},    // the large stem
    {2, 6, 5, 1, 10, 3, {1, 1, 1, 1}},      // one channel
    {1, 12, 10, 16, 24, 3, {1, 2, 2, 4}},   // dilated
    {1, 1, 1, 20, 10, 1, {1, 0, 1, 1}},     // one row
    {2, 5, 3, 10, 20, 1, {1, 0, 1, 5}},     // 1×1, 2 → 4 channels a group
    {2, 5, 3, 24, 12, 1, {1, 0, 1, 6}},     // 4 → 2, an even number of groups
    {2, 5, 3, 20, 10, 1, {1, 0, 1, 5}},     // 4 → 2, an odd number
    {2, 5, 3, 32, 16, 1, {1, 0, 1, 2}},     // transfers: 16 → 8,
    {3, 7, 5, 16, 32, 1, {1, 0, 1, 2}},     // 8 → 16,
    {1, 3, 3, 64, 32, 1, {1, 0, 1, 8}},     // 8 → 4,
    {3, 7, 5, 64, 32, 1, {1, 0, 1, 4}},     // several vectors a row: 16 → 8,
    {3, 7, 5, 32, 64, 1, {1, 0, 1, 4}},     // 8 → 16,
    {3, 7, 5, 32, 64, 1, {1, 0, 1, 8}},     // 4 → 8,
    {2, 6, 5, 40, 20, 1, {1, 0, 1, 2}},     // 20 → 10,
    {2, 6, 5, 24, 12, 1, {1, 0, 1, 1}},     // 24 → 12, one group
    {16, 16, 16, 32, 16, 1, {1, 0, 1, 2}},  // on several threads
    {2, 8, 6, 20, 40, 1, {2, 0, 1, 1}},     // 1×1 with a stride
};

const std::vector<Activation> activations = {Activation::none, Activation::relu, Activation::hswish,
                                             Activation::hsigmoid};

}  // namespace

TEST_CASE("cpu convolutions match the reference") {
  for (const Conv& c : convolutions) {
    const Tensor x = random(c.x(), 1), w = random(c.w(), 2, -0.5, 0.5), dy = random(c.y(), 3);
    const Tensor bias = random({c.outputs}, 4), residual = random(c.y(), 5);
    check_parity("conv2d, " + c.str(), {random(c.y(), 9)}, sum_tolerance,
                 [&](Backend& b, Outputs& out) { b.conv2d(c.p, x, w, {}, {}, Activation::none, out[0]); });
    for (Activation activation : activations)
      check_parity(fmt::format("conv2d with bias, residual, {}, {}", name_of(activation), c.str()), {random(c.y(), 9)},
                   sum_tolerance,
                   [&](Backend& b, Outputs& out) { b.conv2d(c.p, x, w, bias, residual, activation, out[0]); });
    check_parity("conv2d with bias and relu, " + c.str(), {random(c.y(), 9)}, sum_tolerance,
                 [&](Backend& b, Outputs& out) { b.conv2d(c.p, x, w, bias, {}, Activation::relu, out[0]); });
    check_sink("conv2d_backward_data, " + c.str(), c.x(), sum_tolerance,
               [&](Backend& b, Sink dx) { b.conv2d_backward_data(c.p, dy, w, dx); });
    check_sink("conv2d_backward_weights, " + c.str(), c.w(), sum_tolerance,
               [&](Backend& b, Sink dw) { b.conv2d_backward_weights(c.p, x, dy, dw); });
  }
}

// Maps of bf16 numbers: what is stored is off by at most 2⁻⁸ of itself, and where products of bf16 are computed as
// such, weights are rounded too, which their sums average out.
TEST_CASE("cpu convolutions of bf16 maps stay close to f32 on the same numbers") {
  constexpr double tolerance = 1e-2;
  for (const Conv& c : convolutions) {
    const Tensor x = random(c.x(), 1).to(DType::bf16), dy = random(c.y(), 3).to(DType::bf16),
                 residual = random(c.y(), 5).to(DType::bf16);
    const Tensor w = random(c.w(), 2, -0.5, 0.5), bias = random({c.outputs}, 4);
    // Computed by the reference in f32, and by the cpu in bf16, whose result is widened.
    const auto in_bf16 = [](Backend& b, const Tensor& t) { return &b == &cpu_backend() ? t : t.to(DType::f32); };
    check_parity("bf16 conv2d, " + c.str(), {random(c.y(), 9)}, tolerance, [&](Backend& b, Outputs& out) {
      Tensor y = in_bf16(b, out[0].to(DType::bf16));
      b.conv2d(c.p, in_bf16(b, x), w, bias, in_bf16(b, residual), Activation::relu, y);
      out[0] = y.to(DType::f32);
    });
    check_sink("bf16 conv2d_backward_data, " + c.str(), c.x(), tolerance, [&](Backend& b, Sink sink) {
      Tensor dx = in_bf16(b, (*sink).to(DType::bf16));
      b.conv2d_backward_data(c.p, in_bf16(b, dy), w, {&dx, sink.write});
      *sink = dx.to(DType::f32);
    });
    check_sink("bf16 conv2d_backward_weights, " + c.str(), c.w(), tolerance,
               [&](Backend& b, Sink dw) { b.conv2d_backward_weights(c.p, in_bf16(b, x), in_bf16(b, dy), dw); });
  }
}

TEST_CASE("cpu convolutions create their primitives once") {
  const Conv c{3, 10, 9, 48, 48, 3, {1, 1, 1, 2}};  // of no kernel of ours
  const Tensor x = random(c.x(), 1), w = random(c.w(), 2), bias = random({48}, 3);
  Tensor y = Tensor::empty(c.y(), DType::f32, Device::cpu), dx = Tensor::empty_like(x), dw = Tensor::empty_like(w);
  Tensor square = Tensor::empty({270, 270}, DType::f32, Device::cpu);
  const auto run = [&] {
    cpu_backend().conv2d(c.p, x, w, bias, {}, Activation::relu, y);
    cpu_backend().conv2d_backward_data(c.p, y, w, {&dx});
    cpu_backend().conv2d_backward_weights(c.p, x, y, {&dw});
    cpu_backend().matmul(y.reshape({270, 48}), false, y.reshape({270, 48}), true, {}, {&square});
  };
  const auto before = cpu::primitive_counters();
  run();
  const auto once = cpu::primitive_counters();
  CHECK(once.created == before.created + 4);
  run();
  const auto twice = cpu::primitive_counters();
  CHECK(twice.created == once.created);
  CHECK(twice.reused == once.reused + 4);
}

TEST_CASE("cpu normalisation matches the reference") {
  for (const Shape& shape : shapes) {
    const Shape channels{shape.last()};
    // A mean far from zero, where E[x²] − E[x]² would lose the variance.
    for (double offset : {0.0, 100.0}) {
      const Tensor x = random(shape, 1, offset - 2, offset + 2);
      check_parity(fmt::format("norm_statistics, {} around {}", shape.str(), offset),
                   {random(channels, 8), random(channels, 9)}, elementwise_tolerance,
                   [&](Backend& b, Outputs& out) { b.norm_statistics(x, out[0], out[1]); });
    }
    const Tensor x = random(shape, 1), dy = random(shape, 2), residual = random(shape, 3);
    const int64_t rows = shape.rows();
    check_parity("update_running, " + shape.str(), {random(channels, 4), random(channels, 5, 0, 1)},
                 elementwise_tolerance, [&](Backend& b, Outputs& out) {
                   const uint64_t version = out[0].version();
                   b.update_running(random(channels, 6), random(channels, 7, 0, 1), rows, 0.1, out[0], out[1]);
                   CHECK(out[0].version() == version + 1);
                   CHECK(out[1].version() == version + 1);
                 });

    // One row has no deviation of its own to divide by; evaluation covers it.
    for (bool training : {true, false}) {
      Norm norm{random(channels, 4, 0.5, 1.5), random(channels, 5), random(channels, 6, -1, 1),
                random(channels, 7, 0.5, 2), 1e-5};
      if (training) {
        if (rows == 1) continue;
        reference_backend().norm_statistics(x, norm.mean, norm.variance);
      }
      for (Activation inner : activations)
        for (int outer = -1; outer < 4; ++outer) {
          // All pairs of activations on the small shapes, those that networks have on the others.
          if (x.count() > 200 && !(outer < 0 || (inner == Activation::none && outer < 2))) continue;
          Epilogue epilogue{inner, {}, Activation::none};
          if (outer >= 0) epilogue.residual = residual, epilogue.outer = activations[outer];
          const std::string name = fmt::format("{}, {}, {}, {}", shape.str(), name_of(inner),
                                               outer < 0 ? "no residual" : name_of(epilogue.outer), training);
          check_parity("normalize, " + name, {random(shape, 9)}, norm_tolerance,
                       [&](Backend& b, Outputs& out) { b.normalize(norm, x, epilogue, out[0]); });
          for (Write write : {Write::overwrite, Write::accumulate})
            check_parity(fmt::format("normalize_backward, {}, {}", name, write == Write::accumulate),
                         {random(shape, 10), random(channels, 11), random(channels, 12), random(shape, 13)},
                         norm_tolerance, [&](Backend& b, Outputs& out) {
                           b.normalize_backward(norm, training, x, epilogue, dy, {&out[0], write}, {&out[1], write},
                                                {&out[2], write}, outer < 0 ? Sink{} : Sink{&out[3], write});
                         });
        }
    }
  }
}

TEST_CASE("cpu normalisation of maps that are stored past the caches") {
  // The last one has rows of no whole vectors. Without kinks, since some of so many values lie within rounding of one.
  for (const Shape& shape : {Shape{1, 257, 256, 64}, Shape{1, 1024, 63, 65}, Shape{1, 1, 1024, 4099}}) {
    const Shape channels{shape.last()};
    const Tensor x = random(shape, 1), dy = random(shape, 2);
    const Norm norm{random(channels, 4, 0.5, 1.5), random(channels, 5), random(channels, 6),
                    random(channels, 7, 0.5, 2)};
    const Epilogue epilogue{Activation::none, random(shape, 3), Activation::none};
    check_parity("normalize, " + shape.str(), {random(shape, 9)}, norm_tolerance,
                 [&](Backend& b, Outputs& out) { b.normalize(norm, x, epilogue, out[0]); });
    check_parity("normalize_backward, " + shape.str(),
                 {random(shape, 10), random(channels, 11), random(channels, 12), random(shape, 13)}, norm_tolerance,
                 [&](Backend& b, Outputs& out) {
                   b.normalize_backward(norm, true, x, epilogue, dy, {&out[0]}, {&out[1]}, {&out[2]}, {&out[3]});
                 });
  }
}

TEST_CASE("cpu normalisation leaves out gradients that nobody wants") {
  const Shape shape{4, 5, 5, 12}, channels{12};
  const Tensor x = random(shape, 1), dy = random(shape, 2);
  const Norm norm{random(channels, 4, 0.5, 1.5), random(channels, 5), random(channels, 6), random(channels, 7, 0.5, 2)};
  const Epilogue epilogue{Activation::relu, random(shape, 3), Activation::relu};
  for (bool training : {true, false})
    for (int wanted = 0; wanted < 16; ++wanted)
      check_parity(fmt::format("wanted {}, training {}", wanted, training),
                   {random(shape, 10), random(channels, 11), random(channels, 12), random(shape, 13)}, norm_tolerance,
                   [&](Backend& b, Outputs& out) {
                     const auto sink = [&](int i) { return wanted >> i & 1 ? Sink{&out[i]} : Sink{}; };
                     b.normalize_backward(norm, training, x, epilogue, dy, sink(0), sink(1), sink(2), sink(3));
                   });
}

TEST_CASE("cpu elementwise operations match the reference") {
  for (const Shape& shape : shapes) {
    const Tensor a = random(shape, 1, -5, 5), b = random(shape, 2);
    for (Activation activation : activations) {
      const std::string name = fmt::format("{}, {}", name_of(activation), shape.str());
      check_parity("activation " + name, {random(shape, 9)}, elementwise_tolerance,
                   [&](Backend& backend, Outputs& out) { backend.activation(activation, a, out[0]); });
      check_sink("activation_backward " + name, shape, elementwise_tolerance,
                 [&](Backend& backend, Sink dx) { backend.activation_backward(activation, a, b, dx); });
    }
    check_parity("sigmoid " + shape.str(), {random(shape, 9)}, elementwise_tolerance,
                 [&](Backend& backend, Outputs& out) { backend.sigmoid(a, out[0]); });
    check_sink("sigmoid_backward " + shape.str(), shape, elementwise_tolerance,
               [&](Backend& backend, Sink dx) { backend.sigmoid_backward(a, b, dx); });
    check_sink("scale " + shape.str(), shape, elementwise_tolerance,
               [&](Backend& backend, Sink y) { backend.scale(-1.5, a, y); });
    check_parity("subtract " + shape.str(), {random(shape, 9)}, elementwise_tolerance,
                 [&](Backend& backend, Outputs& out) { backend.subtract(a, b, out[0]); });
    for (Broadcast broadcast : {Broadcast::same, Broadcast::channel, Broadcast::sample_channel}) {
      const Shape other = broadcast == Broadcast::same      ? shape
                          : broadcast == Broadcast::channel ? Shape{shape.last()}
                                                            : Shape{shape[0], shape.last()};
      const Tensor factor = random(other, 3);
      const std::string name = fmt::format("{} with {}", shape.str(), other.str());
      check_parity("add " + name, {random(shape, 9)}, elementwise_tolerance,
                   [&](Backend& backend, Outputs& out) { backend.add(a, factor, broadcast, out[0]); });
      check_sink("multiply " + name, shape, elementwise_tolerance,
                 [&](Backend& backend, Sink y) { backend.multiply(a, factor, broadcast, y); });
      check_sink("sum_to " + name, other, sum_tolerance,
                 [&](Backend& backend, Sink y) { backend.sum_to(0.25, a, {}, broadcast, y); });
      check_sink("sum_to of products " + name, other, sum_tolerance,
                 [&](Backend& backend, Sink y) { backend.sum_to(0.5, a, b, broadcast, y); });
    }
    check_sink("dropout " + shape.str(), shape, elementwise_tolerance,
               [&](Backend& backend, Sink y) { backend.dropout(77, 0.3, a, y); });
    check_parity("random_uniform " + shape.str(), {random(shape, 9)}, elementwise_tolerance,
                 [&](Backend& backend, Outputs& out) { backend.random_uniform(78, -1, 3, out[0]); });
    check_parity("fill " + shape.str(), {random(shape, 9)}, 0,
                 [&](Backend& backend, Outputs& out) { backend.fill(2.5, out[0]); });
    const int64_t channels = shape.last(), count = (channels + 1) / 2;
    check_sink("copy_channels " + shape.str(), shape.with(-1, channels + 3), elementwise_tolerance,
               [&](Backend& backend, Sink y) { backend.copy_channels(a, channels - count, count, y, 2); });

    Tensor half = Tensor::zeros(shape, DType::bf16, Device::cpu);
    check_parity("cast to bf16 " + shape.str(), {half}, 0,
                 [&](Backend& backend, Outputs& out) { backend.cast(a, out[0]); });
    half = a.to(DType::bf16);
    check_parity("cast from bf16 " + shape.str(), {random(shape, 9)}, 0,
                 [&](Backend& backend, Outputs& out) { backend.cast(half, out[0]); });
  }
}

TEST_CASE("cpu dropout draws uniform_at's numbers exactly") {
  const Shape shape{3, 1000, 7};
  Tensor ones = Tensor::empty(shape, DType::f32, Device::cpu), y = Tensor::empty_like(ones);
  ones.fill(1);
  for (double p : {0.0, 0.2, 0.5}) {
    cpu_backend().dropout(123456789012345u, p, ones, {&y});
    int64_t wrong = 0;
    for (int64_t i = 0; i < y.count(); ++i)
      wrong += (y.data<float>()[i] != 0) != (uniform_at(123456789012345u, static_cast<uint64_t>(i)) >= p);
    CHECK(wrong == 0);
  }
}

TEST_CASE("cpu pooling matches the reference") {
  struct Case {
    Shape x;
    PoolParams p;
  };
  for (Pool kind : {Pool::max, Pool::average}) {
    for (const Case& c : {Case{{1, 4, 4, 3}, {kind, 2, 2, 0}}, Case{{2, 9, 7, 20}, {kind, 3, 2, 1}},
                          Case{{5, 6, 11, 64}, {kind, 3, 1, 1}}, Case{{1, 5, 5, 1}, {kind, 5, 1, 2}},
                          Case{{16, 16, 12, 24}, {kind, 3, 2, 1}}}) {
      const auto out = [&](int64_t in) { return (in + 2 * c.p.padding - c.p.kernel) / c.p.stride + 1; };
      const Shape y{c.x[0], out(c.x[1]), out(c.x[2]), c.x[3]};
      const std::string name = fmt::format("{} {}", kind == Pool::max ? "max" : "average", c.x.str());
      // Few distinct values, so that ties happen.
      Tensor x = random(c.x, 1, -3, 3);
      for (float& v : x.span<float>()) v = std::round(v);
      Tensor indices = Tensor::zeros(y, DType::i64, Device::cpu);
      check_parity("pool2d " + name, {random(y, 9), indices}, elementwise_tolerance,
                   [&](Backend& b, Outputs& o) { b.pool2d(c.p, x, o[0], o[1]); });
      Tensor scratch = random(y, 9);
      reference_backend().pool2d(c.p, x, scratch, indices);
      const Tensor dy = random(y, 2);
      check_sink("pool2d_backward " + name, c.x, elementwise_tolerance,
                 [&](Backend& b, Sink dx) { b.pool2d_backward(c.p, dy, indices, dx); });
    }
    for (const Shape& shape : shapes) {
      const Shape y{shape[0], shape.last()};
      Tensor x = random(shape, 1, -3, 3);
      for (float& v : x.span<float>()) v = std::round(v);
      Tensor indices = Tensor::zeros(y, DType::i64, Device::cpu);
      check_parity("global_pool " + shape.str(), {random(y, 9), indices}, sum_tolerance,
                   [&](Backend& b, Outputs& o) { b.global_pool(kind, x, o[0], o[1]); });
      Tensor scratch = random(y, 9);
      reference_backend().global_pool(kind, x, scratch, indices);
      const Tensor dy = random(y, 2);
      check_sink("global_pool_backward " + shape.str(), shape, elementwise_tolerance,
                 [&](Backend& b, Sink dx) { b.global_pool_backward(kind, dy, indices, dx); });
    }
  }
}

TEST_CASE("cpu matmul matches the reference") {
  for (auto [m, k, n] :
       std::vector<std::array<int64_t, 3>>{{1, 1, 1}, {1, 20, 10}, {7, 33, 5}, {128, 64, 10}, {65, 3, 130}})
    for (bool transpose_a : {false, true})
      for (bool transpose_b : {false, true}) {
        const Tensor a = random(transpose_a ? Shape{k, m} : Shape{m, k}, 1),
                     b = random(transpose_b ? Shape{n, k} : Shape{k, n}, 2), bias = random({n}, 3);
        const std::string name = fmt::format("matmul {} {} {} {} {}", m, k, n, transpose_a, transpose_b);
        check_sink(name, {m, n}, sum_tolerance,
                   [&](Backend& backend, Sink y) { backend.matmul(a, transpose_a, b, transpose_b, {}, y); });
        check_sink(name + " with bias", {m, n}, sum_tolerance,
                   [&](Backend& backend, Sink y) { backend.matmul(a, transpose_a, b, transpose_b, bias, y); });
      }
}

TEST_CASE("cpu losses and metrics match the reference") {
  for (auto [rows, classes] : std::vector<std::array<int64_t, 2>>{{1, 1}, {1, 10}, {128, 10}, {33, 1000}, {4000, 21}}) {
    const Tensor logits = random({rows, classes}, 1, -8, 8);
    Tensor labels = Tensor::empty({rows}, DType::i64, Device::cpu), scale = Tensor::from<float>({0.5f}, {1});
    for (int64_t n = 0; n < rows; ++n) labels.data<int64_t>()[n] = n * 7 % classes;
    const std::string name = fmt::format("{} rows, {} classes", rows, classes);
    check_parity("cross_entropy, " + name, {random({rows}, 9)}, elementwise_tolerance,
                 [&](Backend& b, Outputs& o) { b.cross_entropy(logits, labels, o[0]); });
    check_sink("cross_entropy_backward, " + name, {rows, classes}, elementwise_tolerance,
               [&](Backend& b, Sink d) { b.cross_entropy_backward(logits, labels, scale, 0.25, d); });

    Tensor losses = random({rows}, 2), expected = Tensor::zeros({3}, DType::f64, Device::cpu);
    reference_backend().accumulate_metrics(losses, logits, labels, expected);
    Tensor sums = Tensor::zeros({3}, DType::f64, Device::cpu);
    const uint64_t version = sums.version();
    cpu_backend().accumulate_metrics(losses, logits, labels, sums);
    CHECK(sums.version() == version + 1);
    CHECK(sums.data<double>()[0] == doctest::Approx(expected.data<double>()[0]));
    CHECK(sums.data<double>()[1] == expected.data<double>()[1]);
    CHECK(sums.data<double>()[2] == expected.data<double>()[2]);

    labels.data<int64_t>()[rows - 1] = classes;
    CHECK_THROWS_AS(cpu_backend().cross_entropy(logits, labels, losses), UserError);
  }
}

TEST_CASE("cpu general losses and confusion matrices match the reference") {
  for (auto [rows, classes] : std::vector<std::array<int64_t, 2>>{{1, 1}, {7, 3}, {130, 40}, {33, 1000}, {4000, 21}}) {
    Tensor logits = random({rows, classes}, 1, -8, 8), labels = Tensor::empty({rows}, DType::i64, Device::cpu);
    // Few distinct values in some rows, so that logits tie.
    for (int64_t i = 0; i < logits.count(); i += 1 + i % 3)
      logits.data<float>()[i] = std::round(logits.data<float>()[i]);
    for (int64_t n = 0; n < rows; ++n) labels.data<int64_t>()[n] = n % 5 == 3 ? 255 : n * 7 % classes;
    const Tensor some = random({classes}, 4, 0.1, 2), scale = Tensor::from<float>({0.5f}, {1});
    for (const CrossEntropyParams& p : {CrossEntropyParams{0, 255}, CrossEntropyParams{0.1, 255}})
      for (const Tensor& weights : {Tensor(), some}) {
        const std::string name = fmt::format("{} rows, {} classes, smoothing {}, {}", rows, classes, p.smoothing,
                                             weights.defined() ? "weights" : "no weights");
        // Sums over the rows.
        check_parity(
            "weighted_cross_entropy, " + name, {random({rows}, 8), random({1}, 9), random({1}, 10)}, sum_tolerance,
            [&](Backend& b, Outputs& o) { b.weighted_cross_entropy(p, logits, labels, weights, o[0], o[1], o[2]); });
        for (float sum : {7.0f, 0.0f}) {
          const Tensor total = Tensor::from<float>({sum}, {1});
          check_sink("weighted_cross_entropy_backward, " + name, {rows, classes}, elementwise_tolerance,
                     [&](Backend& b, Sink d) {
                       b.weighted_cross_entropy_backward(p, logits, labels, weights, total, scale, d);
                     });
        }
      }

    // Sums in f64 of the same numbers in the same order.
    const Tensor losses = random({rows}, 2);
    check_parity(fmt::format("accumulate_confusion, {} rows, {} classes", rows, classes),
                 {Tensor::zeros({4 + classes * classes}, DType::f64, Device::cpu)}, 0, [&](Backend& b, Outputs& o) {
                   const uint64_t version = o[0].version();
                   b.accumulate_confusion(255, losses, logits, labels, o[0]);
                   CHECK(o[0].version() == version + 1);
                 });

    labels.data<int64_t>()[0] = classes;
    Tensor a = random({rows}, 3), mean = random({1}, 3), total = random({1}, 3);
    CHECK_THROWS_AS(cpu_backend().weighted_cross_entropy({0, 255}, logits, labels, {}, a, mean, total), UserError);
  }
}

TEST_CASE("cpu resizes match the reference") {
  struct Case {
    Shape x;
    int64_t height, width;
  };
  for (const Case& c :
       {Case{{1, 1, 1, 1}, 1, 1}, Case{{2, 3, 4, 5}, 5, 7}, Case{{1, 1, 5, 3}, 4, 1}, Case{{3, 9, 7, 20}, 4, 3},
        Case{{2, 5, 6, 21}, 40, 48}, Case{{2, 16, 12, 64}, 32, 24}, Case{{1, 6, 5, 19}, 6, 5}})
    for (bool align_corners : {false, true}) {
      const Shape y{c.x[0], c.height, c.width, c.x[3]};
      const Tensor x = random(c.x, 1), dy = random(y, 2);
      const std::string name = fmt::format("{} to {}, {}", c.x.str(), y.str(), align_corners);
      check_parity("resize_bilinear " + name, {random(y, 9)}, elementwise_tolerance,
                   [&](Backend& b, Outputs& o) { b.resize_bilinear(align_corners, x, o[0]); });
      check_sink("resize_bilinear_backward " + name, c.x, sum_tolerance,
                 [&](Backend& b, Sink dx) { b.resize_bilinear_backward(align_corners, dy, dx); });
    }
}

TEST_CASE("cpu neighbours are exactly the reference's, and edges match") {
  struct Case {
    Shape x;
    int64_t k;
  };
  for (const Case& c : {Case{{1, 1, 1}, 1}, Case{{2, 5, 3}, 5}, Case{{3, 130, 3}, 20}, Case{{2, 257, 64}, 20},
                        Case{{1, 64, 7}, 64}, Case{{5, 90, 33}, 1}, Case{{1, 300, 2}, 100}}) {
    const int64_t batch = c.x[0], points = c.x[1], channels = c.x[2];
    const Shape edges{batch, points, c.k, 2 * channels}, neighbours{batch, points, c.k};
    Tensor indices = Tensor::zeros(neighbours, DType::i64, Device::cpu);
    // Anywhere; on a coarse grid, where many are equally near and some on one spot; in a small cloud far from the
    // origin, where distances through products would be noise; so far apart that squares overflow; and beside a NaN.
    for (const char* kind : {"anywhere", "grid", "far", "huge", "NaN"}) {
      Tensor x = random(c.x, 1);
      for (float& v : x.span<float>()) {
        if (kind == std::string_view("grid")) v = std::round(v);
        if (kind == std::string_view("far")) v = 1000 + v / 1024;
        if (kind == std::string_view("huge")) v *= 1e19f;
      }
      if (kind == std::string_view("NaN")) x.data<float>()[x.count() / 2] = NAN;
      check_parity(fmt::format("nearest_neighbours {}, k {}, {}", c.x.str(), c.k, kind), {indices}, 0,
                   [&](Backend& b, Outputs& o) { b.nearest_neighbours(x, o[0]); });
    }
    const Tensor x = random(c.x, 1), dy = random(edges, 2);
    reference_backend().nearest_neighbours(x, indices);
    const std::string name = fmt::format("{}, k {}", c.x.str(), c.k);
    check_parity("edge_features " + name, {random(edges, 9)}, elementwise_tolerance,
                 [&](Backend& b, Outputs& o) { b.edge_features(x, indices, o[0]); });
    check_sink("edge_features_backward " + name, c.x, sum_tolerance,
               [&](Backend& b, Sink dx) { b.edge_features_backward(dy, indices, dx); });

    // Few distinct values, so that maxima tie.
    Tensor features = random(edges, 3);
    for (float& v : features.span<float>()) v = std::round(v);
    const Shape maxima{batch, points, 2 * channels};
    Tensor winners = Tensor::zeros(maxima, DType::i64, Device::cpu), scratch = random(maxima, 9);
    check_parity("neighbourhood_max " + name, {scratch, winners}, 0,
                 [&](Backend& b, Outputs& o) { b.neighbourhood_max(features, o[0], o[1]); });
    reference_backend().neighbourhood_max(features, scratch, winners);
    check_sink("neighbourhood_max_backward " + name, edges, elementwise_tolerance,
               [&](Backend& b, Sink dx) { b.neighbourhood_max_backward(scratch, winners, dx); });
  }
}

TEST_CASE("cpu optimizer steps match the reference") {
  const std::vector<Shape> parameters = {{1}, {3, 3, 3, 20}, {64, 3, 3, 16}, {10}, {300, 100}};
  const auto updates_of = [](Outputs& t) {
    std::vector<Update> updates;
    for (size_t i = 0; i < t.size(); i += 4)
      updates.push_back({t[i], t[i + 1], t[i + 2], t[i + 3], i == 0 ? 0.0 : 0.1});
    return updates;
  };
  Outputs initial;
  for (size_t i = 0; i < parameters.size(); ++i)
    for (uint64_t k = 0; k < 4; ++k) initial.push_back(random(parameters[i], 4 * i + k, k == 3 ? 0 : -1, 1));

  for (const SgdParams& p :
       {SgdParams{0.1}, SgdParams{0.1, 0.9}, SgdParams{0.1, 0.9, true}, SgdParams{0.1, 0.9, true, true}})
    check_parity("sgd_update", initial, elementwise_tolerance, [&](Backend& b, Outputs& out) {
      auto updates = updates_of(out);
      const uint64_t version = out[0].version();
      b.sgd_update(p, updates);
      CHECK(out[0].version() == version + 1);
    });
  for (int64_t step : {1, 10})
    check_parity("adamw_update", initial, elementwise_tolerance, [&](Backend& b, Outputs& out) {
      auto updates = updates_of(out);
      b.adamw_update({1e-3, 0.9, 0.999, 1e-8, step}, updates);
    });
}

TEST_CASE("cpu keeps NaN visible") {
  Tensor x = random({2, 4, 4, 20}, 1), y = Tensor::empty_like(x);
  x.data<float>()[45] = NAN;
  for (Activation activation : activations) {
    cpu_backend().activation(activation, x, y);
    CHECK(std::isnan(y.data<float>()[45]));
  }
  Tensor pooled = Tensor::empty({2, 20}, DType::f32, Device::cpu),
         winners = Tensor::zeros({2, 20}, DType::i64, Device::cpu);
  cpu_backend().global_pool(Pool::max, x, pooled, winners);
  CHECK(std::isnan(pooled.data<float>()[5]));
  CHECK(winners.data<int64_t>()[5] == 2);
  cpu_backend().sigmoid(x, y);
  CHECK(std::isnan(y.data<float>()[45]));
  Tensor logits = random({2, 10}, 2), labels = Tensor::from<int64_t>({0, 1}, {2}), losses = random({2}, 3);
  logits.data<float>()[17] = NAN;
  cpu_backend().cross_entropy(logits, labels, losses);
  CHECK(std::isfinite(losses.data<float>()[0]));
  CHECK(std::isnan(losses.data<float>()[1]));
}

TEST_CASE("cpu clouds, resizes and sigmoids in bf16 are those in f32, rounded") {
  const auto check_rounded = [](const Outputs& inputs, const Shape& shape,
                                const std::function<void(const Outputs&, Sink)>& operation) {
    Outputs halves, floats;
    for (const Tensor& t : inputs) halves.push_back(t.to(DType::bf16)), floats.push_back(halves.back().to(DType::f32));
    for (Write write : {Write::overwrite, Write::accumulate}) {
      Tensor half = random(shape, 9).to(DType::bf16), wide = half.to(DType::f32);
      operation(halves, {&half, write});
      operation(floats, {&wide, write});
      CHECK(equal(half, wide.to(DType::bf16)));
    }
  };
  Backend& b = cpu_backend();
  const Shape image{2, 5, 4, 19}, large{2, 9, 9, 19}, cloud{2, 30, 5}, edges{2, 30, 7, 10}, maxima{2, 30, 10};
  Tensor indices = Tensor::zeros({2, 30, 7}, DType::i64, Device::cpu), again = indices.clone();
  Tensor winners = Tensor::zeros(maxima, DType::i64, Device::cpu);
  check_rounded({random(image, 1)}, large, [&](const Outputs& in, Sink y) { b.resize_bilinear(false, in[0], *y); });
  check_rounded({random(large, 1)}, image,
                [&](const Outputs& in, Sink dx) { b.resize_bilinear_backward(false, in[0], dx); });
  check_rounded({random(image, 1)}, image, [&](const Outputs& in, Sink y) { b.sigmoid(in[0], *y); });
  check_rounded({random(image, 1), random(image, 2)}, image,
                [&](const Outputs& in, Sink dx) { b.sigmoid_backward(in[0], in[1], dx); });
  const Tensor x = random(cloud, 1).to(DType::bf16);
  b.nearest_neighbours(x, indices);
  b.nearest_neighbours(x.to(DType::f32), again);
  CHECK(equal(indices, again));
  check_rounded({random(cloud, 1)}, edges, [&](const Outputs& in, Sink y) { b.edge_features(in[0], indices, *y); });
  check_rounded({random(edges, 1)}, cloud,
                [&](const Outputs& in, Sink dx) { b.edge_features_backward(in[0], indices, dx); });
  check_rounded({random(edges, 1)}, maxima,
                [&](const Outputs& in, Sink y) { b.neighbourhood_max(in[0], *y, winners); });
  check_rounded({random(maxima, 1)}, edges,
                [&](const Outputs& in, Sink dx) { b.neighbourhood_max_backward(in[0], winners, dx); });
  for (const char* op : {"sigmoid", "resize_bilinear", "nearest_neighbours", "edge_features", "neighbourhood_max"})
    CHECK(b.supports(op, DType::bf16));
}

TEST_CASE("cpu refuses f64 and falls back where it has no kernel") {
  Backend& cpu = cpu_backend();
  CHECK(cpu.supports("conv2d", DType::f32));
  CHECK_FALSE(cpu.supports("conv2d", DType::f64));
  CHECK(cpu.supports("cast", DType::bf16));
  CHECK_FALSE(cpu.supports("cast", DType::f64));
  Tensor x = Tensor::zeros({2, 4}, DType::f64, Device::cpu), y = Tensor::empty_like(x);
  CHECK_THROWS_WITH_AS(cpu.activation(Activation::relu, x, y),
                       "activation: the cpu backend takes f32, not f64 (2, 4) on cpu", Error);

  const Tensor weight = random({8, 1, 1, 4}, 1);
  check_sink("transpose_groups", {8, 1, 1, 4}, elementwise_tolerance,
             [&](Backend& b, Sink t) { b.transpose_groups(2, weight, t); });
}

TEST_CASE("cpu names the operation in oneDNN's errors") {
  const Tensor x = random({1, 4, 4, 8}, 1), w = random({8, 3, 3, 8}, 2);
  Tensor y = random({1, 4, 4, 8}, 3);
  CHECK_THROWS_WITH_AS(cpu_backend().conv2d({1, 0, 1, 1}, x, w, {}, {}, Activation::none, y),
                       doctest::Contains("conv2d of x (1, 4, 4, 8), w (8, 3, 3, 8), stride 1"), Error);
}
