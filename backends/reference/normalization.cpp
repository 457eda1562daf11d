// Batch normalisation (Ioffe & Szegedy, 2015) with what follows it: residual and activations.
//
//   x̂ = (x − mean) / sqrt(variance + eps),   z = gamma · x̂ + beta,   y = outer(inner(z) + residual)
//
// x, y (rows…, C); mean, variance, gamma, beta (C). In training mean and variance are those of x over its rows, so that
// every x̂ depends on every x of its channel; in evaluation they are constants. With dz the gradient of z,
//
//   dgamma = Σ dz · x̂,   dbeta = Σ dz,
//   dx = gamma / sqrt(variance + eps) · (dz − Σ dz / rows − x̂ · Σ(dz · x̂) / rows)
//
// where the two sums are there in training alone: they take out of dz what a shift and a scaling of x would change,
// since normalisation undoes both.
#include <cmath>

#include "backends/reference/kernels.h"

namespace mgic {

using namespace reference;

namespace {

// The normalised values and what is left of the scale, per channel.
struct Normalized {
  Values xhat;               // as x
  Values inverse_deviation;  // (C)
};

Normalized normalized(const Norm& norm, const Tensor& x) {
  Normalized result{load(x), load(norm.variance)};
  for (double& v : result.inverse_deviation) v = 1 / std::sqrt(v + norm.eps);
  const Values mean = load(norm.mean);
  const int64_t channels = x.shape().last();
  for (int64_t i = 0; i < x.count(); ++i)
    result.xhat[i] = (result.xhat[i] - mean[i % channels]) * result.inverse_deviation[i % channels];
  return result;
}

}  // namespace

void Backend::norm_statistics(const Tensor& x, Tensor& mean, Tensor& variance) {
  naive("norm_statistics");
  const Values vx = load(x);
  const int64_t channels = x.shape().last(), rows = x.shape().rows();
  // Centred before squaring: E[x²] − E[x]² would cancel where the mean is large.
  Values vmean(channels, 0.0), vvariance(channels, 0.0);
  for (int64_t i = 0; i < x.count(); ++i) vmean[i % channels] += vx[i];
  for (double& m : vmean) m /= rows;
  for (int64_t i = 0; i < x.count(); ++i) {
    const double centred = vx[i] - vmean[i % channels];
    vvariance[i % channels] += centred * centred;
  }
  for (double& v : vvariance) v /= rows;
  store(vmean, mean);
  store(vvariance, variance);
}

void Backend::update_running(const Tensor& mean, const Tensor& variance, int64_t rows, double momentum,
                             Tensor& running_mean, Tensor& running_var) {
  naive("update_running");
  const Values vmean = load(mean), vvariance = load(variance);
  Values vrunning_mean = load(running_mean), vrunning_var = load(running_var);
  // One row has no unbiased variance: its biased one, zero, keeps the estimate finite.
  const double unbiased = rows > 1 ? static_cast<double>(rows) / (rows - 1) : 1;
  for (size_t c = 0; c < vmean.size(); ++c) {
    vrunning_mean[c] = (1 - momentum) * vrunning_mean[c] + momentum * vmean[c];
    vrunning_var[c] = (1 - momentum) * vrunning_var[c] + momentum * unbiased * vvariance[c];
  }
  update(vrunning_mean, running_mean);
  update(vrunning_var, running_var);
}

void Backend::normalize(const Norm& norm, const Tensor& x, const Epilogue& epilogue, Tensor& y) {
  naive("normalize");
  const Values gamma = load(norm.gamma), beta = load(norm.beta), residual = load(epilogue.residual);
  const Values xhat = normalized(norm, x).xhat;
  const int64_t channels = x.shape().last();
  Values vy(x.count());
  for (int64_t i = 0; i < x.count(); ++i) {
    vy[i] = activate(epilogue.inner, gamma[i % channels] * xhat[i] + beta[i % channels]);
    if (epilogue.residual.defined()) vy[i] = activate(epilogue.outer, vy[i] + residual[i]);
  }
  store(vy, y);
}

void Backend::normalize_backward(const Norm& norm, bool training, const Tensor& x, const Epilogue& epilogue,
                                 const Tensor& dy, Sink dx, Sink dgamma, Sink dbeta, Sink dresidual) {
  naive("normalize_backward");
  const Values gamma = load(norm.gamma), beta = load(norm.beta), residual = load(epilogue.residual);
  const auto [xhat, inverse_deviation] = normalized(norm, x);
  const int64_t channels = x.shape().last();
  const double rows = static_cast<double>(x.shape().rows());

  // Back through the epilogue, and both sums on the way.
  Values d = load(dy), dz(x.count()), sum(channels, 0.0), sum_xhat(channels, 0.0);
  for (int64_t i = 0; i < x.count(); ++i) {
    const int64_t c = i % channels;
    const double z = gamma[c] * xhat[i] + beta[c];
    if (epilogue.residual.defined())
      d[i] = activate_backward(epilogue.outer, activate(epilogue.inner, z) + residual[i], d[i]);
    dz[i] = activate_backward(epilogue.inner, z, d[i]);
    sum[c] += dz[i];
    sum_xhat[c] += dz[i] * xhat[i];
  }

  Values vdx(x.count());
  for (int64_t i = 0; i < x.count(); ++i) {
    const int64_t c = i % channels;
    const double through_statistics = training ? (sum[c] + xhat[i] * sum_xhat[c]) / rows : 0;
    vdx[i] = gamma[c] * inverse_deviation[c] * (dz[i] - through_statistics);
  }
  store(d, dresidual);
  store(vdx, dx);
  store(sum_xhat, dgamma);
  store(sum, dbeta);
}

}  // namespace mgic
