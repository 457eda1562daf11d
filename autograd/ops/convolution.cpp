// Convolution, batch normalisation, and the chains and corrections that fuse them.
//   y[n, i, j, o] = Σ_{u, v, c} w[o, u, v, c] · x[n, s·i + d·u − p, s·j + d·v − p, group(o) + c]
#include <algorithm>

#include "autograd/op.h"
#include "autograd/ops.h"

namespace mgic::ops {
namespace {

// (N, P, C) is (N, P, 1, C); everything else stays as it is.
Tensor as_map(const Tensor& t) {
  const Shape& s = t.shape();
  return t.defined() && s.rank() == 3 ? t.reshape({s[0], s[1], 1, s[2]}) : t;
}

// The same of a gradient's place. The view keeps the place's storage from being alone, so that every sink that may
// share it must have been asked for before.
Sink as_map(Sink sink, Tensor& view) {
  if (!sink || (*sink).shape().rank() != 3) return sink;
  view = as_map(*sink);
  return {&view, sink.write};
}

Shape conv_shape(const Op& op, const Shape& x, const Shape& w, const ConvParams& p) {
  op.rule(x.rank() == 4, "x must be (N, H, W, C) or (N, P, C)");
  op.rule(w.rank() == 4, "the weight must be (O, kH, kW, I/groups)");
  op.rule(p.groups >= 1 && p.stride >= 1 && p.dilation >= 1 && p.padding >= 0,
          "groups, stride and dilation must be at least 1 and padding at least 0");
  op.rule(w[0] % p.groups == 0, "the {} output channels must be a multiple of the {} groups", w[0], p.groups);
  op.rule(w[3] * p.groups == x[3], "{} groups of {} input channels need x to have {} channels", p.groups, w[3],
          w[3] * p.groups);
  auto out = [&](int64_t in, int64_t kernel) { return (in + 2 * p.padding - p.dilation * (kernel - 1) - 1); };
  op.rule(out(x[1], w[1]) >= 0 && out(x[2], w[2]) >= 0, "the {}×{} kernel does not fit the image", w[1], w[2]);
  return {x[0], out(x[1], w[1]) / p.stride + 1, out(x[2], w[2]) / p.stride + 1, w[0]};
}

// A point cloud is one pixel wide, and its output must be too.
void check_width(const Op& op, const Shape& given, const Shape& y) {
  op.rule(given.rank() != 3 || y[2] == 1, "x (N, P, C) needs a convolution that keeps it one pixel wide");
}

// The output as the caller shaped the input: rank 3 stays rank 3.
Tensor as_input(const Tensor& y, const Tensor& x) {
  const Shape& s = y.shape();
  return x.shape().rank() == 3 ? y.reshape({s[0], s[1], s[3]}) : y;
}

Attributes attributes_of(const ConvParams& p) {
  return {{"stride", p.stride}, {"padding", p.padding}, {"dilation", p.dilation}, {"groups", p.groups}};
}

void check_norm(const Op& op, const NormVariables& norm, int64_t channels, bool training, int64_t rows) {
  for (const Tensor* t : {&norm.gamma.value(), &norm.beta.value(), &norm.running_mean, &norm.running_var})
    op.rule(t->defined() && t->shape() == Shape{channels}, "the normalisation's vectors must have {} channels",
            channels);
  op.rule(!training || rows > 0, "batch statistics need at least one row");
}

// Inputs of the fused node: x, minus, residual, then weight, gamma, beta of every link.
constexpr size_t fixed_inputs = 3, inputs_per_link = 3;

Variable fused(std::string_view name, const Variable& x, const Variable& minus, const std::vector<ChainLink>& links,
               const Variable& residual, Activation outer, bool training) {
  std::vector<Variable> inputs{x, minus, residual};
  for (const ChainLink& l : links) inputs.insert(inputs.end(), {l.weight, l.norm.gamma, l.norm.beta});
  Op op(name, inputs, {{"links", static_cast<int64_t>(links.size())}});
  op.rule(!links.empty(), "it needs at least one link");
  op.rule(!minus.defined() || minus.shape() == x.shape(), "a and b must have one shape");

  const auto differentiated = [](const Variable& v) { return v.requires_gradient(); };
  Chain chain{{}, outer, training, gradients_enabled() && std::ranges::any_of(inputs, differentiated)};
  ChainInput in{as_map(x.value()), as_map(minus.value()), as_map(residual.value())};
  std::vector<LinkState> states;
  Shape shape = in.x.shape();
  const DType dtype = in.x.dtype();
  const Device device = in.x.device();
  for (const ChainLink& l : links) {
    shape = conv_shape(op, shape, l.weight.shape(), l.conv);
    check_width(op, x.shape(), shape);
    LinkState state{Tensor::empty(shape, dtype, device), {}, {}};
    Link link{l.conv, l.weight.value(), {}, {}, {}, {}, l.norm.eps, l.norm.momentum, l.activation};
    if (l.norm.gamma.defined()) {
      check_norm(op, l.norm, shape.last(), training, shape.rows());
      link.gamma = l.norm.gamma.value();
      link.beta = l.norm.beta.value();
      link.running_mean = l.norm.running_mean;
      link.running_var = l.norm.running_var;
      if (training) {
        state.mean = Tensor::empty_like(link.gamma);
        state.variance = Tensor::empty_like(link.gamma);
      }
    }
    chain.links.push_back(std::move(link));
    states.push_back(std::move(state));
  }
  op.rule(!residual.defined() || in.residual.shape() == shape, "the residual must have the output's shape {}", shape);
  const Link& last = chain.links.back();
  op.rule(!residual.defined() || last.gamma.defined() || last.activation == Activation::none,
          "a residual behind an activation needs a normalisation before it");
  const bool bare = !last.gamma.defined() && last.activation == Activation::none && !residual.defined();
  Tensor y = bare ? states.back().raw : Tensor::empty(shape, dtype, device);
  op.run([&](Backend& b) { b.conv_chain(chain, in, states, y); });

  // Of the running statistics only evaluation makes use; in training they may change before backward.
  std::vector<Saved> saved{{"x", in.x}, {"minus", in.minus}, {"residual", in.residual}};
  for (size_t i = 0; i < links.size(); ++i) {
    saved.push_back({"weight", chain.links[i].weight});
    saved.push_back({"gamma", chain.links[i].gamma});
    saved.push_back({"raw", states[i].raw});
    if (training) continue;
    saved.push_back({"running_mean", chain.links[i].running_mean});
    saved.push_back({"running_var", chain.links[i].running_var});
  }
  return op.result(as_input(y, x.value()), std::move(saved),
                   [chain = std::move(chain), states = std::move(states)](Backend& b, const Tensor& dy,
                                                                          const SavedTensors& s, const Sinks& d) {
                     ChainInput in{s[0], s[1], s[2]};
                     // Asked for in the order in which the backend writes: inputs that are one variable share a sink.
                     ChainSinks sinks;
                     // With nothing behind the addition the residual's gradient is dy itself, which needs no copy.
                     if (chain.outer == Activation::none)
                       d.take(2, dy);
                     else
                       sinks.residual = d[2];
                     sinks.links.resize(chain.links.size());
                     for (size_t i = chain.links.size(); i-- > 0;) {
                       const size_t at = fixed_inputs + inputs_per_link * i;
                       sinks.links[i] = {d[at], d[at + 1], d[at + 2]};
                     }
                     sinks.x = d[0];
                     sinks.minus = d[1];
                     Tensor views[fixed_inputs];
                     sinks.residual = as_map(sinks.residual, views[0]);
                     sinks.x = as_map(sinks.x, views[1]);
                     sinks.minus = as_map(sinks.minus, views[2]);
                     b.conv_chain_backward(chain, in, states, as_map(dy), sinks);
                   });
}

// The same as fused(), one plain operation at a time, each under its module's path.
Variable unfused(const Variable& x, const Variable& minus, const std::vector<ChainLink>& links,
                 const Variable& residual, Activation outer, bool training) {
  Variable y = minus.defined() ? subtract(x, minus) : x;
  for (size_t i = 0; i < links.size(); ++i) {
    const ChainLink& l = links[i];
    {
      PathScope scope(l.conv_name);
      y = conv2d(y, l.weight, {}, l.conv);
    }
    if (l.norm.gamma.defined()) {
      PathScope scope(l.norm_name);
      y = batch_norm(y, l.norm, training);
    }
    if (l.activation != Activation::none) y = activation(y, l.activation);
  }
  if (!residual.defined()) return y;
  y = add(y, residual);
  return outer == Activation::none ? y : activation(y, outer);
}

bool expanding() { return active_recorder() != nullptr && active_recorder()->expands(); }

}  // namespace

Variable conv2d(const Variable& x, const Variable& weight, const Variable& bias, const ConvParams& params) {
  Op op("conv2d", {x, weight, bias}, attributes_of(params));
  const Tensor map = as_map(x.value());
  const Shape shape = conv_shape(op, map.shape(), weight.shape(), params);
  check_width(op, x.shape(), shape);
  op.rule(!bias.defined() || bias.shape() == Shape{shape.last()}, "the bias must have {} channels", shape.last());
  Tensor y = Tensor::empty(shape, map.dtype(), map.device());
  op.run([&](Backend& b) { b.conv2d(params, map, weight.value(), bias.value(), {}, Activation::none, y); });
  return op.result(as_input(y, x.value()), {{"x", map}, {"weight", weight.value()}},
                   [params](Backend& b, const Tensor& dy, const SavedTensors& s, const Sinks& d) {
                     const Tensor gradient = as_map(dy);
                     if (d.wants(0)) {
                       Tensor view;
                       b.conv2d_backward_data(params, gradient, s[1], as_map(d[0], view));
                     }
                     if (d.wants(1)) b.conv2d_backward_weights(params, s[0], gradient, d[1]);
                     if (d.wants(2)) b.sum_to(1.0, gradient, {}, Broadcast::channel, d[2]);
                   });
}

Variable batch_norm(const Variable& x, const NormVariables& norm, bool training, const NormEpilogue& epilogue) {
  Op op("batch_norm", {x, norm.gamma, norm.beta, epilogue.residual}, {{"eps", norm.eps}});
  op.rule(x.shape().rank() >= 2, "x must be (N, …, C)");
  const int64_t channels = x.shape().last();
  check_norm(op, norm, channels, training, x.shape().rows());
  op.rule(!epilogue.residual.defined() || epilogue.residual.shape() == x.shape(), "the residual must have x's shape");
  Norm n{norm.gamma.value(), norm.beta.value(), norm.running_mean, norm.running_var, norm.eps};
  if (training) {
    n.mean = Tensor::empty_like(norm.running_mean);
    n.variance = Tensor::empty_like(norm.running_var);
  }
  const Epilogue end{epilogue.inner, epilogue.residual.value(), epilogue.outer};
  Tensor y = Tensor::empty_like(x.value());
  op.run([&](Backend& b) {
    if (training) {
      Tensor mean = norm.running_mean, variance = norm.running_var;  // handles to the module's storage
      b.norm_statistics(x.value(), n.mean, n.variance);
      b.update_running(n.mean, n.variance, x.shape().rows(), norm.momentum, mean, variance);
    }
    b.normalize(n, x.value(), end, y);
  });
  return op.result(
      y, {{"x", x.value()}, {"gamma", n.gamma}, {"mean", n.mean}, {"variance", n.variance}, {"residual", end.residual}},
      [n, end, training](Backend& b, const Tensor& dy, const SavedTensors& s, const Sinks& d) {
        const Sink dresidual = d[3];  // written first: x may be its own residual
        const Sink dx = d[0], dgamma = d[1], dbeta = d[2];
        b.normalize_backward(n, training, s[0], end, dy, dx, dgamma, dbeta, dresidual);
      });
}

Variable conv_chain(const Variable& x, const std::vector<ChainLink>& links, const Variable& residual, Activation outer,
                    bool training) {
  if (expanding()) return unfused(x, {}, links, residual, outer, training);
  return fused("conv_chain", x, {}, links, residual, outer, training);
}

Variable coarse_correction(const Variable& x, const Variable& a, const Variable& b, const ChainLink& prolongation,
                           bool training) {
  if (expanding()) return unfused(a, b, {prolongation}, x, Activation::none, training);
  return fused("coarse_correction", a, b, {prolongation}, x, Activation::none, training);
}

Variable transpose_groups(const Variable& weight, int64_t groups) {
  Op op("transpose_groups", {weight}, {{"groups", groups}});
  const Shape& s = weight.shape();
  op.rule(s.rank() == 4 && s[1] == 1 && s[2] == 1 && groups >= 1 && s[0] % groups == 0,
          "the weight must be (O, 1, 1, I/groups) with O a multiple of the {} groups", groups);
  Tensor y = Tensor::empty({s[3] * groups, 1, 1, s[0] / groups}, weight.value().dtype(), weight.value().device());
  op.run([&](Backend& b) { b.transpose_groups(groups, weight.value(), {&y}); });
  return op.result(y, {}, [groups](Backend& b, const Tensor& dy, const SavedTensors&, const Sinks& d) {
    if (d.wants(0)) b.transpose_groups(groups, dy, d[0]);  // its own inverse
  });
}

}  // namespace mgic::ops
