// Pooling over windows and over whole images.
//
//   max:      y[n, h, v, c] = max over the window's pixels; its gradient goes to the pixel that won
//   average:  y[n, h, v, c] = Σ over the window's pixels / kernel², padding counted as zeros
//
// x (N, H, W, C), y (N, H', W', C); the window of (h, v) begins at row h·stride − padding, column v·stride − padding.
// Global pooling takes the whole image (N, …, C) as its one window and gives (N, C).
// indices, as y: the winner's pixel h·W + w. Padding never wins; of equal values the first wins; NaN wins over numbers,
// so that a network that has gone wrong shows it.
#include <cmath>

#include "backends/reference/kernels.h"

namespace mgic {

using namespace reference;

namespace {

// The pixels of one sample.
int64_t pixels_of(const Shape& x) { return x.rows() / std::max<int64_t>(x[0], 1); }

// Calls visit(pixel of x, pixel of y) for every pixel of every window; pixels count through the batch.
template <class Visit>
void for_each_window_pixel(const PoolParams& p, const Shape& x, const Shape& y, Visit&& visit) {
  const int64_t batch = x[0], height = x[1], width = x[2], out_height = y[1], out_width = y[2];
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t h = 0; h < out_height; ++h)
      for (int64_t v = 0; v < out_width; ++v)
        for (int64_t r = 0; r < p.kernel; ++r)
          for (int64_t s = 0; s < p.kernel; ++s) {
            const int64_t row = h * p.stride - p.padding + r, column = v * p.stride - p.padding + s;
            if (row < 0 || row >= height || column < 0 || column >= width) continue;
            visit((n * height + row) * width + column, (n * out_height + h) * out_width + v);
          }
}

// The same for global pooling: the pixels of each sample, in turn.
template <class Visit>
void for_each_sample_pixel(const Shape& x, Visit&& visit) {
  const int64_t pixels = pixels_of(x);
  for (int64_t pixel = 0; pixel < x.rows(); ++pixel) visit(pixel, pixel / pixels);
}

// `walk(visit)` calls visit(pixel of x, pixel of y); `pixels` are those of one sample.
template <class Walk>
void max_forward(const Tensor& x, int64_t pixels, const Walk& walk, Tensor& y, Tensor& indices) {
  const int64_t channels = x.shape().last();
  const Values vx = load(x);
  Values vy(y.count());
  int64_t* winner = indices.data<int64_t>();
  std::fill_n(winner, y.count(), int64_t{-1});
  walk([&](int64_t from, int64_t to) {
    for (int64_t c = 0; c < channels; ++c) {
      const double value = vx[from * channels + c];
      const int64_t at = to * channels + c;
      if (winner[at] >= 0 && !(value > vy[at]) && !std::isnan(value)) continue;
      vy[at] = value;
      winner[at] = from % pixels;
    }
  });
  store(vy, y);
}

void max_backward(const Tensor& dy, const Tensor& indices, int64_t pixels, Sink dx) {
  const int64_t channels = dy.shape().last(), sample = dy.count() / dy.shape()[0];
  const Values vdy = load(dy);
  const int64_t* winner = indices.data<int64_t>();
  Values vdx((*dx).count(), 0.0);
  for (int64_t i = 0; i < dy.count(); ++i) {
    const int64_t pixel = i / sample * pixels + winner[i];
    vdx[pixel * channels + i % channels] += vdy[i];  // windows overlap: a pixel may win several
  }
  store(vdx, dx);
}

template <class Walk>
void average_forward(const Tensor& x, int64_t window, const Walk& walk, Tensor& y) {
  const int64_t channels = x.shape().last();
  const Values vx = load(x);
  Values vy(y.count(), 0.0);
  walk([&](int64_t from, int64_t to) {
    for (int64_t c = 0; c < channels; ++c) vy[to * channels + c] += vx[from * channels + c];
  });
  for (double& v : vy) v /= window;
  store(vy, y);
}

template <class Walk>
void average_backward(const Tensor& dy, int64_t window, const Walk& walk, Sink dx) {
  const int64_t channels = dy.shape().last();
  const Values vdy = load(dy);
  Values vdx((*dx).count(), 0.0);
  walk([&](int64_t to, int64_t from) {
    for (int64_t c = 0; c < channels; ++c) vdx[to * channels + c] += vdy[from * channels + c] / window;
  });
  store(vdx, dx);
}

}  // namespace

void Backend::pool2d(const PoolParams& p, const Tensor& x, Tensor& y, Tensor& indices) {
  naive("pool2d");
  const auto walk = [&](auto&& visit) { for_each_window_pixel(p, x.shape(), y.shape(), visit); };
  if (p.kind == Pool::max)
    max_forward(x, pixels_of(x.shape()), walk, y, indices);
  else
    average_forward(x, p.kernel * p.kernel, walk, y);
}

void Backend::pool2d_backward(const PoolParams& p, const Tensor& dy, const Tensor& indices, Sink dx) {
  naive("pool2d_backward");
  if (!dx) return;
  const Shape x = (*dx).shape();
  const auto walk = [&](auto&& visit) { for_each_window_pixel(p, x, dy.shape(), visit); };
  if (p.kind == Pool::max)
    max_backward(dy, indices, pixels_of(x), dx);
  else
    average_backward(dy, p.kernel * p.kernel, walk, dx);
}

void Backend::global_pool(Pool kind, const Tensor& x, Tensor& y, Tensor& indices) {
  naive("global_pool");
  const auto walk = [&](auto&& visit) { for_each_sample_pixel(x.shape(), visit); };
  if (kind == Pool::max)
    max_forward(x, pixels_of(x.shape()), walk, y, indices);
  else
    average_forward(x, pixels_of(x.shape()), walk, y);
}

void Backend::global_pool_backward(Pool kind, const Tensor& dy, const Tensor& indices, Sink dx) {
  naive("global_pool_backward");
  if (!dx) return;
  const Shape x = (*dx).shape();
  const auto walk = [&](auto&& visit) { for_each_sample_pixel(x, visit); };
  if (kind == Pool::max)
    max_backward(dy, indices, pixels_of(x), dx);
  else
    average_backward(dy, pixels_of(x), walk, dx);
}

}  // namespace mgic
