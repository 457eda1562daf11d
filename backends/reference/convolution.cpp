// Convolution of channels-last images, in its three directions.
//
//   y[n, h, v, o] = Σ_{r, s, i} x[n, h·stride − padding + r·dilation, v·stride − padding + s·dilation, first(o) + i]
//                               · w[o, r, s, i]
//
// x (N, H, W, I), w (O, kH, kW, I/groups), y (N, H', W', O). Outside of the image x is zero. Output channel o belongs
// to group o / (O/groups) and sees that group's I/groups input channels, from first(o) on. A convolution couples all
// channels of a group: O · I/groups weights a tap, and this is what MGIC keeps small.
//
// y is bilinear in x and w, a sum of products x[a] · w[b] that go to y[c]. The gradients are sums over the same
// triples (a, b, c): dx[a] = Σ dy[c] · w[b] and dw[b] = Σ dy[c] · x[a].
#include "backends/reference/kernels.h"

namespace mgic {

using namespace reference;

namespace {

// Calls term(a, b, c) for every product x[a] · w[b] that y[c] sums.
template <class Term>
void for_each_product(const ConvParams& p, const Shape& x, const Shape& w, const Shape& y, Term&& term) {
  const int64_t batch = x[0], height = x[1], width = x[2], inputs = x[3];
  const int64_t kernel_height = w[1], kernel_width = w[2], group_inputs = w[3];
  const int64_t out_height = y[1], out_width = y[2], outputs = y[3];
  const int64_t group_outputs = outputs / p.groups;
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t h = 0; h < out_height; ++h)
      for (int64_t v = 0; v < out_width; ++v)
        for (int64_t r = 0; r < kernel_height; ++r)
          for (int64_t s = 0; s < kernel_width; ++s) {
            const int64_t row = h * p.stride - p.padding + r * p.dilation;
            const int64_t column = v * p.stride - p.padding + s * p.dilation;
            if (row < 0 || row >= height || column < 0 || column >= width) continue;  // padding: a zero
            for (int64_t o = 0; o < outputs; ++o) {
              const int64_t first = o / group_outputs * group_inputs;
              const int64_t a = ((n * height + row) * width + column) * inputs + first;
              const int64_t b = ((o * kernel_height + r) * kernel_width + s) * group_inputs;
              const int64_t c = ((n * out_height + h) * out_width + v) * outputs + o;
              for (int64_t i = 0; i < group_inputs; ++i) term(a + i, b + i, c);
            }
          }
}

}  // namespace

void Backend::conv2d(const ConvParams& p, const Tensor& x, const Tensor& w, const Tensor& bias, const Tensor& residual,
                     Activation activation, Tensor& y) {
  naive("conv2d");
  const Values vx = load(x), vw = load(w), vbias = load(bias), vresidual = load(residual);
  Values vy(y.count(), 0.0);
  for_each_product(p, x.shape(), w.shape(), y.shape(),
                   [&](int64_t a, int64_t b, int64_t c) { vy[c] += vx[a] * vw[b]; });
  const int64_t outputs = y.shape().last();
  for (int64_t c = 0; c < y.count(); ++c) {
    if (bias.defined()) vy[c] += vbias[c % outputs];
    if (residual.defined()) vy[c] += vresidual[c];
    vy[c] = activate(activation, vy[c]);
  }
  store(vy, y);
}

void Backend::conv2d_backward_data(const ConvParams& p, const Tensor& dy, const Tensor& w, Sink dx) {
  naive("conv2d_backward_data");
  if (!dx) return;
  const Values vdy = load(dy), vw = load(w);
  Values vdx((*dx).count(), 0.0);
  for_each_product(p, (*dx).shape(), w.shape(), dy.shape(),
                   [&](int64_t a, int64_t b, int64_t c) { vdx[a] += vdy[c] * vw[b]; });
  store(vdx, dx);
}

void Backend::conv2d_backward_weights(const ConvParams& p, const Tensor& x, const Tensor& dy, Sink dw) {
  naive("conv2d_backward_weights");
  if (!dw) return;
  const Values vx = load(x), vdy = load(dy);
  Values vdw((*dw).count(), 0.0);
  for_each_product(p, x.shape(), (*dw).shape(), dy.shape(),
                   [&](int64_t a, int64_t b, int64_t c) { vdw[b] += vdy[c] * vx[a]; });
  store(vdw, dw);
}

}  // namespace mgic
