#include "backends/backend.h"

#include <fmt/format.h>

#include "backends/cpu/cpu.h"
#include "backends/cuda/cuda.h"
#include "backends/reference/reference.h"

namespace mgic {

std::string_view name_of(Activation activation) {
  switch (activation) {
    case Activation::none:
      return "none";
    case Activation::relu:
      return "relu";
    case Activation::hswish:
      return "hswish";
    case Activation::hsigmoid:
      return "hsigmoid";
  }
  return "?";
}

Backend& backend_of(Device device) {
  switch (device) {
    case Device::cpu:
      return cpu_backend();
    case Device::reference:
      return reference_backend();
    case Device::cuda:
      return cuda_backend();
    case Device::meta:
      break;
  }
  fail("a tensor on meta has a shape but no data: nothing can be computed with it");
}

Device choose_device(std::string_view name) {
  if (name == "auto") return cuda_usable() ? Device::cuda : Device::cpu;
  const Device device = parse_device(name);
  if (device == Device::cuda && !cuda_usable())
    fail_user("device cuda: this build has no CUDA, or there is no GPU; use --device cpu");
  return device;
}

Backend& Backend::fallback(std::string_view op) { fail("{}: the {} backend does not have it", op, name()); }

// ---- The training unit, composed of the plain functions ----

namespace {

Norm norm_of(const Link& link, const LinkState& state, bool training) {
  return {link.gamma, link.beta, training ? state.mean : link.running_mean,
          training ? state.variance : link.running_var, link.eps};
}

// What the chain's end does after the last convolution's normalisation.
Epilogue end_of(const Chain& chain, const Tensor& residual) {
  return {chain.links.back().activation, residual, chain.outer};
}

// The input of link i, remade from the raw output before it.
Tensor input_of(Backend& backend, const Chain& chain, const ChainInput& in, const std::vector<LinkState>& states,
                size_t i) {
  Tensor result;
  if (i == 0) {
    if (!in.minus.defined()) return in.x;
    result = Tensor::empty_like(in.x);
    backend.subtract(in.x, in.minus, result);
    return result;
  }
  const Link& before = chain.links[i - 1];
  const Tensor& raw = states[i - 1].raw;
  if (!before.gamma.defined() && before.activation == Activation::none) return raw;
  result = Tensor::empty_like(raw);
  if (before.gamma.defined())
    backend.normalize(norm_of(before, states[i - 1], chain.training), raw, {before.activation, {}, {}}, result);
  else
    backend.activation(before.activation, raw, result);
  return result;
}

}  // namespace

void Backend::conv_chain(const Chain& chain, const ChainInput& in, std::vector<LinkState>& states, Tensor& y) {
  for (size_t i = 0; i < chain.links.size(); ++i) {
    const Link& link = chain.links[i];
    LinkState& state = states[i];
    conv2d(link.conv, input_of(*this, chain, in, states, i), link.weight, {}, {}, Activation::none, state.raw);
    if (!link.gamma.defined() || !chain.training) continue;
    norm_statistics(state.raw, state.mean, state.variance);
    Tensor mean = link.running_mean, variance = link.running_var;  // handles: the storage is the module's
    update_running(state.mean, state.variance, state.raw.shape().rows(), link.momentum, mean, variance);
  }
  const Link& last = chain.links.back();
  const Tensor& raw = states.back().raw;
  const Epilogue end = end_of(chain, in.residual);
  if (last.gamma.defined()) {
    normalize(norm_of(last, states.back(), chain.training), raw, end, y);
  } else if (end.residual.defined()) {
    check(end.inner == Activation::none, "conv_chain: a residual behind an activation needs a normalisation before it");
    add(raw, end.residual, Broadcast::same, y);
    if (end.outer != Activation::none) activation(end.outer, y.clone(), y);
  } else if (end.inner != Activation::none) {
    activation(end.inner, raw, y);
  } else {
    check(y.shares_storage(raw), "conv_chain: a chain that ends in a bare convolution writes its output as `raw`");
  }
}

void Backend::conv_chain_backward(const Chain& chain, const ChainInput& in, const std::vector<LinkState>& states,
                                  const Tensor& dy, const ChainSinks& sinks) {
  Tensor gradient = dy;  // of the value that the link at hand has made
  for (size_t i = chain.links.size(); i-- > 0;) {
    const Link& link = chain.links[i];
    const Tensor& raw = states[i].raw;
    const bool last = i + 1 == chain.links.size();
    const Epilogue end = last ? end_of(chain, in.residual) : Epilogue{link.activation, {}, {}};
    const Sink dresidual = last ? sinks.residual : Sink{};

    Tensor draw;  // of the raw convolution output
    if (link.gamma.defined()) {
      draw = Tensor::empty_like(raw);
      normalize_backward(norm_of(link, states[i], chain.training), chain.training, raw, end, gradient, {&draw},
                         sinks.links[i].gamma, sinks.links[i].beta, dresidual);
    } else if (end.residual.defined()) {
      draw = gradient;
      if (end.outer != Activation::none) {
        Tensor sum = Tensor::empty_like(raw);
        add(raw, end.residual, Broadcast::same, sum);
        draw = Tensor::empty_like(raw);
        activation_backward(end.outer, sum, gradient, {&draw});
      }
      if (dresidual) scale(1.0, draw, dresidual);
    } else if (end.inner != Activation::none) {
      draw = Tensor::empty_like(raw);
      activation_backward(end.inner, raw, gradient, {&draw});
    } else {
      draw = gradient;
    }

    if (sinks.links[i].weight)
      conv2d_backward_weights(link.conv, input_of(*this, chain, in, states, i), draw, sinks.links[i].weight);
    if (i > 0) {
      gradient = Tensor::empty_like(states[i - 1].raw);
      conv2d_backward_data(link.conv, draw, link.weight, {&gradient});
    } else if (sinks.x && !sinks.minus) {
      conv2d_backward_data(link.conv, draw, link.weight, sinks.x);
    } else if (sinks.x || sinks.minus) {
      gradient = Tensor::empty_like(in.x);
      conv2d_backward_data(link.conv, draw, link.weight, {&gradient});
      if (sinks.x) scale(1.0, gradient, sinks.x);
      if (sinks.minus) scale(-1.0, gradient, sinks.minus);
    }
  }
}

// ---- Everything else has no default ----

void Backend::conv2d(const ConvParams& p, const Tensor& x, const Tensor& w, const Tensor& bias, const Tensor& residual,
                     Activation activation, Tensor& y) {
  fallback("conv2d").conv2d(p, x, w, bias, residual, activation, y);
}
void Backend::conv2d_backward_data(const ConvParams& p, const Tensor& dy, const Tensor& w, Sink dx) {
  fallback("conv2d_backward_data").conv2d_backward_data(p, dy, w, dx);
}
void Backend::conv2d_backward_weights(const ConvParams& p, const Tensor& x, const Tensor& dy, Sink dw) {
  fallback("conv2d_backward_weights").conv2d_backward_weights(p, x, dy, dw);
}
void Backend::norm_statistics(const Tensor& x, Tensor& mean, Tensor& variance) {
  fallback("norm_statistics").norm_statistics(x, mean, variance);
}
void Backend::update_running(const Tensor& mean, const Tensor& variance, int64_t rows, double momentum,
                             Tensor& running_mean, Tensor& running_var) {
  fallback("update_running").update_running(mean, variance, rows, momentum, running_mean, running_var);
}
void Backend::normalize(const Norm& norm, const Tensor& x, const Epilogue& epilogue, Tensor& y) {
  fallback("normalize").normalize(norm, x, epilogue, y);
}
void Backend::normalize_backward(const Norm& norm, bool training, const Tensor& x, const Epilogue& epilogue,
                                 const Tensor& dy, Sink dx, Sink dgamma, Sink dbeta, Sink dresidual) {
  fallback("normalize_backward").normalize_backward(norm, training, x, epilogue, dy, dx, dgamma, dbeta, dresidual);
}
void Backend::activation(Activation activation, const Tensor& x, Tensor& y) {
  fallback("activation").activation(activation, x, y);
}
void Backend::activation_backward(Activation activation, const Tensor& x, const Tensor& dy, Sink dx) {
  fallback("activation_backward").activation_backward(activation, x, dy, dx);
}
void Backend::scale(double alpha, const Tensor& x, Sink y) { fallback("scale").scale(alpha, x, y); }
void Backend::add(const Tensor& a, const Tensor& b, Broadcast broadcast, Tensor& y) {
  fallback("add").add(a, b, broadcast, y);
}
void Backend::subtract(const Tensor& a, const Tensor& b, Tensor& y) { fallback("subtract").subtract(a, b, y); }
void Backend::multiply(const Tensor& a, const Tensor& b, Broadcast broadcast, Sink y) {
  fallback("multiply").multiply(a, b, broadcast, y);
}
void Backend::sum_to(double alpha, const Tensor& a, const Tensor& b, Broadcast broadcast, Sink y) {
  fallback("sum_to").sum_to(alpha, a, b, broadcast, y);
}
void Backend::pool2d(const PoolParams& p, const Tensor& x, Tensor& y, Tensor& indices) {
  fallback("pool2d").pool2d(p, x, y, indices);
}
void Backend::pool2d_backward(const PoolParams& p, const Tensor& dy, const Tensor& indices, Sink dx) {
  fallback("pool2d_backward").pool2d_backward(p, dy, indices, dx);
}
void Backend::global_pool(Pool kind, const Tensor& x, Tensor& y, Tensor& indices) {
  fallback("global_pool").global_pool(kind, x, y, indices);
}
void Backend::global_pool_backward(Pool kind, const Tensor& dy, const Tensor& indices, Sink dx) {
  fallback("global_pool_backward").global_pool_backward(kind, dy, indices, dx);
}
void Backend::matmul(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, const Tensor& bias, Sink y) {
  fallback("matmul").matmul(a, transpose_a, b, transpose_b, bias, y);
}
void Backend::cross_entropy(const Tensor& logits, const Tensor& labels, Tensor& losses) {
  fallback("cross_entropy").cross_entropy(logits, labels, losses);
}
void Backend::cross_entropy_backward(const Tensor& logits, const Tensor& labels, const Tensor& scale, double alpha,
                                     Sink dlogits) {
  fallback("cross_entropy_backward").cross_entropy_backward(logits, labels, scale, alpha, dlogits);
}
void Backend::accumulate_metrics(const Tensor& losses, const Tensor& logits, const Tensor& labels, Tensor& sums) {
  fallback("accumulate_metrics").accumulate_metrics(losses, logits, labels, sums);
}
void Backend::dropout(uint64_t key, double p, const Tensor& x, Sink y) { fallback("dropout").dropout(key, p, x, y); }
void Backend::copy_channels(const Tensor& x, int64_t from, int64_t count, Sink y, int64_t to) {
  fallback("copy_channels").copy_channels(x, from, count, y, to);
}
void Backend::transpose_groups(int64_t groups, const Tensor& x, Sink y) {
  fallback("transpose_groups").transpose_groups(groups, x, y);
}
void Backend::resize_bilinear(bool align_corners, const Tensor& x, Tensor& y) {
  fallback("resize_bilinear").resize_bilinear(align_corners, x, y);
}
void Backend::resize_bilinear_backward(bool align_corners, const Tensor& dy, Sink dx) {
  fallback("resize_bilinear_backward").resize_bilinear_backward(align_corners, dy, dx);
}
void Backend::nearest_neighbours(const Tensor& x, Tensor& indices) {
  fallback("nearest_neighbours").nearest_neighbours(x, indices);
}
void Backend::edge_features(const Tensor& x, const Tensor& indices, Tensor& y) {
  fallback("edge_features").edge_features(x, indices, y);
}
void Backend::edge_features_backward(const Tensor& dy, const Tensor& indices, Sink dx) {
  fallback("edge_features_backward").edge_features_backward(dy, indices, dx);
}
void Backend::neighbourhood_max(const Tensor& x, Tensor& y, Tensor& winners) {
  fallback("neighbourhood_max").neighbourhood_max(x, y, winners);
}
void Backend::neighbourhood_max_backward(const Tensor& dy, const Tensor& winners, Sink dx) {
  fallback("neighbourhood_max_backward").neighbourhood_max_backward(dy, winners, dx);
}
void Backend::sgd_update(const SgdParams& p, std::vector<Update>& updates) {
  fallback("sgd_update").sgd_update(p, updates);
}
void Backend::adamw_update(const AdamWParams& p, std::vector<Update>& updates) {
  fallback("adamw_update").adamw_update(p, updates);
}
void Backend::cast(const Tensor& x, Tensor& y) { fallback("cast").cast(x, y); }
void Backend::fill(double value, Tensor& y) { fallback("fill").fill(value, y); }
void Backend::random_uniform(uint64_t key, double low, double high, Tensor& y) {
  fallback("random_uniform").random_uniform(key, low, high, y);
}

}  // namespace mgic
