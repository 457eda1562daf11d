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

// ---- The training unit, composed of the plain functions ----

Norm norm_of(const Link& link, const LinkState& state, bool training) {
  return {link.gamma, link.beta, training ? state.mean : link.running_mean,
          training ? state.variance : link.running_var, link.eps};
}

namespace {

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
  end_chain(chain, in, states, y);
}

void Backend::end_chain(const Chain& chain, const ChainInput& in, const std::vector<LinkState>& states, Tensor& y) {
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

}  // namespace mgic
