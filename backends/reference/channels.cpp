// Moving channels, and resizing images.
//
//   copy_channels: y[…, to + c] = x[…, from + c], c = 0 … count − 1. One call is a slice, several are a concatenation.
//
//   transpose_groups: y[g·I + i, o] = x[g·O + o, i] for the O rows and I columns of group g of a 1×1 weight.
//
//   resize_bilinear: y[n, h, v, c] = Σ over the two rows and two columns of x around the point (h, v), each weighted
//   by its nearness. x (N, H, W, C), y (N, H', W', C). Output row h lies at
//     align_corners:  h · (H − 1) / (H' − 1), or 0 where H' = 1: the corners' centres stay corners
//     otherwise:      (h + ½) · H / H' − ½, at least 0: pixels are areas
//   as in PyTorch's interpolate (aten/src/ATen/native/UpSample.h), and likewise for columns.
#include <cmath>

#include "backends/reference/kernels.h"

namespace mgic {

using namespace reference;

namespace {

// Output position `at` is (1 − weight) · input[low] + weight · input[high].
struct Neighbours {
  int64_t low, high;
  double weight;
};

Neighbours neighbours(bool align_corners, int64_t in, int64_t out, int64_t at) {
  double place;
  if (align_corners)
    place = out > 1 ? at * static_cast<double>(in - 1) / (out - 1) : 0;
  else
    place = std::max((at + 0.5) * in / out - 0.5, 0.0);
  const int64_t low = std::min(static_cast<int64_t>(std::floor(place)), in - 1);
  return {low, std::min(low + 1, in - 1), place - low};
}

// Calls term(a, c, weight) for each of the four pixels a of x that pixel c of y is made of.
template <class Term>
void for_each_term(bool align_corners, const Shape& x, const Shape& y, Term&& term) {
  const int64_t batch = x[0], height = x[1], width = x[2], out_height = y[1], out_width = y[2];
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t h = 0; h < out_height; ++h) {
      const auto row = neighbours(align_corners, height, out_height, h);
      const int64_t top = (n * height + row.low) * width, bottom = (n * height + row.high) * width;
      for (int64_t v = 0; v < out_width; ++v) {
        const auto column = neighbours(align_corners, width, out_width, v);
        const int64_t c = (n * out_height + h) * out_width + v;
        term(top + column.low, c, (1 - row.weight) * (1 - column.weight));
        term(top + column.high, c, (1 - row.weight) * column.weight);
        term(bottom + column.low, c, row.weight * (1 - column.weight));
        term(bottom + column.high, c, row.weight * column.weight);
      }
    }
}

}  // namespace

void Backend::copy_channels(const Tensor& x, int64_t from, int64_t count, Sink y, int64_t to) {
  naive("copy_channels");
  if (!y) return;
  const int64_t rows = x.shape().rows(), x_channels = x.shape().last(), y_channels = (*y).shape().last();
  visit_f32_f64(x.dtype(), "copy_channels", [&](auto zero) {
    using T = decltype(zero);
    for (int64_t row = 0; row < rows; ++row) {
      const T* source = x.data<T>() + row * x_channels + from;
      T* target = (*y).data<T>() + row * y_channels + to;
      for (int64_t c = 0; c < count; ++c) target[c] = y.write == Write::accumulate ? target[c] + source[c] : source[c];
    }
  });
}

void Backend::transpose_groups(int64_t groups, const Tensor& x, Sink y) {
  naive("transpose_groups");
  const int64_t rows = x.shape()[0] / groups, columns = x.shape().last();
  const Values vx = load(x);
  Values vy(vx.size());
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t o = 0; o < rows; ++o)
      for (int64_t i = 0; i < columns; ++i) vy[(g * columns + i) * rows + o] = vx[(g * rows + o) * columns + i];
  store(vy, y);
}

void Backend::resize_bilinear(bool align_corners, const Tensor& x, Tensor& y) {
  naive("resize_bilinear");
  const int64_t channels = x.shape().last();
  const Values vx = load(x);
  Values vy(y.count(), 0.0);
  for_each_term(align_corners, x.shape(), y.shape(), [&](int64_t a, int64_t c, double weight) {
    for (int64_t k = 0; k < channels; ++k) vy[c * channels + k] += weight * vx[a * channels + k];
  });
  store(vy, y);
}

void Backend::resize_bilinear_backward(bool align_corners, const Tensor& dy, Sink dx) {
  naive("resize_bilinear_backward");
  if (!dx) return;
  const int64_t channels = dy.shape().last();
  const Values vdy = load(dy);
  Values vdx((*dx).count(), 0.0);
  for_each_term(align_corners, (*dx).shape(), dy.shape(), [&](int64_t a, int64_t c, double weight) {
    for (int64_t k = 0; k < channels; ++k) vdx[a * channels + k] += weight * vdy[c * channels + k];
  });
  store(vdx, dx);
}

}  // namespace mgic
