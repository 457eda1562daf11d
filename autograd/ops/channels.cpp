// Concatenation and slices of channels, and bilinear resizing.
#include "autograd/op.h"
#include "autograd/ops.h"

namespace mgic::ops {

Variable concat_channels(const std::vector<Variable>& parts) {
  check(!parts.empty(), "concat_channels: it needs at least one part");
  Op op("concat_channels", parts);
  const Shape& first = parts.front().shape();
  int64_t channels = 0;
  for (const Variable& part : parts) {
    op.rule(part.defined() && part.shape().rank() >= 2 && part.shape().with(-1, 1) == first.with(-1, 1),
            "all parts must agree in every dimension but the channels");
    channels += part.shape().last();
  }
  Tensor y = Tensor::empty(first.with(-1, channels), parts[0].value().dtype(), parts[0].value().device());
  op.run([&](Backend& b) {
    int64_t at = 0;
    for (const Variable& part : parts) {
      b.copy_channels(part.value(), 0, part.shape().last(), {&y}, at);
      at += part.shape().last();
    }
  });
  std::vector<int64_t> widths;
  for (const Variable& part : parts) widths.push_back(part.shape().last());
  return op.result(y, {}, [widths](Backend& b, const Tensor& dy, const SavedTensors&, const Sinks& d) {
    int64_t at = 0;
    for (size_t i = 0; i < widths.size(); ++i) {
      if (d.wants(i)) b.copy_channels(dy, at, widths[i], d[i], 0);
      at += widths[i];
    }
  });
}

Variable slice_channels(const Variable& x, int64_t begin, int64_t end) {
  Op op("slice_channels", {x}, {{"begin", begin}, {"end", end}});
  const Shape& s = x.shape();
  op.rule(s.rank() >= 2 && begin >= 0 && begin < end && end <= s.last(), "channels [{}, {}) do not exist", begin, end);
  Tensor y = Tensor::empty(s.with(-1, end - begin), x.value().dtype(), x.value().device());
  op.run([&](Backend& b) { b.copy_channels(x.value(), begin, end - begin, {&y}, 0); });
  return op.result(y, {}, [begin, end, s](Backend& b, const Tensor& dy, const SavedTensors&, const Sinks& d) {
    if (!d.wants(0)) return;
    Tensor gradient = Tensor::empty(s, dy.dtype(), dy.device());
    b.fill(0.0, gradient);
    b.copy_channels(dy, 0, end - begin, {&gradient}, begin);
    d.take(0, gradient);
  });
}

Variable resize_bilinear(const Variable& x, int64_t height, int64_t width, bool align_corners) {
  Op op("resize_bilinear", {x}, {{"height", height}, {"width", width}, {"align_corners", int64_t{align_corners}}});
  const Shape& s = x.shape();
  op.rule(s.rank() == 4 && s[1] >= 1 && s[2] >= 1, "x must be (N, H, W, C) with at least one pixel");
  op.rule(height >= 1 && width >= 1, "the new size must be at least 1×1, not {}×{}", height, width);
  Tensor y = Tensor::empty({s[0], height, width, s[3]}, x.value().dtype(), x.value().device());
  op.run([&](Backend& b) { b.resize_bilinear(align_corners, x.value(), y); });
  return op.result(y, {}, [align_corners](Backend& b, const Tensor& dy, const SavedTensors&, const Sinks& d) {
    if (d.wants(0)) b.resize_bilinear_backward(align_corners, dy, d[0]);
  });
}

}  // namespace mgic::ops
