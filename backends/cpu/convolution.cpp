// Convolutions: which kernel takes which shape, and oneDNN's part of the work.
//
//   x (N, H, W, I), w (O, kH, kW, I/groups), y (N, H', W', O)
//
// Three kernels share the work, by a rule that looks at shapes alone:
// - pointwise.h takes 1×1 convolutions of stride 1 with few channels a group: the transfers of MGIC.
// - A group of one input and several outputs (the transitions, whose groups are gcd(in, out)) becomes a depthwise
//   convolution of x with every channel repeated; oneDNN is ten times as fast at those.
// - oneDNN does the rest, with activations as they are and weights reordered to its own choice on every call. Without
//   that reorder, which costs some microseconds, it falls back to its reference kernels.
#include <string>

#include "backends/cpu/channels.h"
#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/elementwise.h"
#include "backends/cpu/onednn.h"
#include "backends/cpu/pointwise.h"
#include "backends/cpu/widened.h"

namespace mgic {
namespace cpu {
namespace {

using onednn::Desc;
using onednn::Key;
using onednn::Plan;
using onednn::Tag;

enum Operation : int64_t { forward = 1, backward_data, backward_weights };

// The sizes of a convolution, and what oneDNN calls them.
struct Problem {
  int64_t batch, height, width, inputs, outputs, kernel_height, kernel_width, out_height, out_width;
  ConvParams p;

  Problem(const ConvParams& p, const Shape& x, const Shape& w, const Shape& y)
      : batch(x[0]),
        height(x[1]),
        width(x[2]),
        inputs(x[3]),
        outputs(w[0]),
        kernel_height(w[1]),
        kernel_width(w[2]),
        out_height(y[1]),
        out_width(y[2]),
        p(p) {
    if (w[3] * p.groups != inputs || y[3] != outputs || outputs % p.groups != 0)
      fail("conv2d: x {}, w {} and y {} do not fit with {} groups", x.str(), w.str(), y.str(), p.groups);
  }

  int64_t group_inputs() const { return inputs / p.groups; }
  int64_t group_outputs() const { return outputs / p.groups; }
  int64_t rows() const { return batch * height * width; }
  bool pointwise() const {
    return kernel_height == 1 && kernel_width == 1 && p.stride == 1 && p.padding == 0 &&
           pointwise_suits(group_inputs(), group_outputs());
  }
  bool spreads() const { return p.groups > 1 && group_inputs() == 1 && group_outputs() > 1; }
  // The depthwise convolution of `images` images that takes the place of one that spreads.
  Problem spread(int64_t images) const {
    Problem depthwise = *this;
    depthwise.batch = images;
    depthwise.inputs = depthwise.p.groups = outputs;
    return depthwise;
  }

  Desc x() const { return onednn::f32_desc({batch, inputs, height, width}, Tag::nhwc); }
  Desc y() const { return onednn::f32_desc({batch, outputs, out_height, out_width}, Tag::nhwc); }
  Desc bias() const { return onednn::f32_desc({outputs}, Tag::a); }
  Desc weights(Tag dense, Tag grouped) const {
    if (p.groups == 1) return onednn::f32_desc({outputs, inputs, kernel_height, kernel_width}, dense);
    return onednn::f32_desc({p.groups, group_outputs(), group_inputs(), kernel_height, kernel_width}, grouped);
  }
  Desc our_weights() const { return weights(Tag::ohwi, Tag::gohwi); }
  Desc any_weights() const { return weights(Tag::any, Tag::any); }
  dnnl::memory::dims strides() const { return {p.stride, p.stride}; }
  dnnl::memory::dims dilations() const { return {p.dilation - 1, p.dilation - 1}; }
  dnnl::memory::dims padding() const { return {p.padding, p.padding}; }

  Key key(Operation operation, bool bias = false, bool residual = false, Activation activation = {}) const {
    return {operation,
            batch,
            height,
            width,
            inputs,
            outputs,
            kernel_height,
            kernel_width,
            out_height,
            out_width,
            p.stride,
            p.padding,
            p.dilation,
            p.groups,
            bias ? 1 : 0,
            residual ? 1 : 0,
            static_cast<int64_t>(activation)};
  }
  std::string str(std::string_view op) const {
    return fmt::format("{} of x ({}, {}, {}, {}), w ({}, {}, {}, {}), stride {}, padding {}, dilation {}, groups {}",
                       op, batch, height, width, inputs, outputs, kernel_height, kernel_width, group_inputs(), p.stride,
                       p.padding, p.dilation, p.groups);
  }
};

bool is_slow(const char* implementation) { return std::string_view(implementation).starts_with("ref"); }

auto describe_forward(const Problem& c, const dnnl::primitive_attr& attributes, bool bias = false) {
  return onednn::describe<dnnl::convolution_forward>(
      attributes, dnnl::prop_kind::forward_training, dnnl::algorithm::convolution_direct, c.x(), c.any_weights(),
      bias ? c.bias() : Desc(), c.y(), c.strides(), c.dilations(), c.padding(), c.padding());
}

Plan plan_forward(const Problem& c, bool bias, bool residual, Activation activation) {
  dnnl::post_ops ops;
  if (residual) ops.append_binary(dnnl::algorithm::binary_add, c.y());
  Plan plan;
  plan.fused = onednn::append_activation(ops, activation);
  if (!plan.fused) ops = {};
  auto description = describe_forward(c, onednn::attributes_with(ops), bias);
  if (ops.len() > 0 && is_slow(description.impl_info_str())) {  // an epilogue that no fast kernel takes
    plan.fused = false;
    description = describe_forward(c, onednn::attributes_with(), bias);
  }
  plan.primitive = dnnl::convolution_forward(description);
  plan.scratchpad = description.scratchpad_desc();
  plan.weights = description.weights_desc();
  onednn::plan_reorder(plan, c.our_weights(), plan.weights);
  return plan;
}

Plan plan_backward_data(const Problem& c) {
  const auto description = onednn::describe_backward<dnnl::convolution_backward_data>(
      onednn::attributes_with(), describe_forward(c, onednn::attributes_with()), dnnl::algorithm::convolution_direct,
      c.x(), c.any_weights(), c.y(), c.strides(), c.dilations(), c.padding(), c.padding());
  Plan plan;
  plan.primitive = dnnl::convolution_backward_data(description);
  plan.scratchpad = description.scratchpad_desc();
  plan.weights = description.weights_desc();
  onednn::plan_reorder(plan, c.our_weights(), plan.weights);
  return plan;
}

Plan plan_backward_weights(const Problem& c) {
  const auto description = onednn::describe_backward<dnnl::convolution_backward_weights>(
      onednn::attributes_with(), describe_forward(c, onednn::attributes_with()), dnnl::algorithm::convolution_direct,
      c.x(), c.any_weights(), c.y(), c.strides(), c.dilations(), c.padding(), c.padding());
  Plan plan;
  plan.primitive = dnnl::convolution_backward_weights(description);
  plan.scratchpad = description.scratchpad_desc();
  plan.weights = description.diff_weights_desc();
  onednn::plan_reorder(plan, plan.weights, c.our_weights());
  return plan;
}

// Memory for weights in the plan's layout; none where ours is the same.
Scratch<std::byte> room_for_weights(const Plan& plan) {
  return Scratch<std::byte>(plan.reorder ? static_cast<int64_t>(plan.weights.get_size()) : 0);
}

// The weights in the plan's layout.
const void* reordered(const Plan& plan, const Problem& c, const float* w, Scratch<std::byte>& room) {
  if (!plan.reorder) return w;
  onednn::run(plan.reorder, plan.reorder_scratchpad,
              {{DNNL_ARG_FROM, c.our_weights(), w}, {DNNL_ARG_TO, plan.weights, room.data()}});
  return room.data();
}

void run_forward(const Problem& c, const float* x, const float* w, const float* bias, const float* residual,
                 Activation activation, float* y) {
  const auto what = [&] { return c.str("conv2d"); };
  const auto plan = onednn::plan_for(c.key(forward, bias != nullptr, residual != nullptr, activation), what,
                                     [&] { return plan_forward(c, bias != nullptr, residual != nullptr, activation); });
  onednn::guarded(what, [&] {
    auto room = room_for_weights(*plan);
    const void* weights = reordered(*plan, c, w, room);
    onednn::run(plan->primitive, plan->scratchpad,
                {{DNNL_ARG_SRC, c.x(), x},
                 {DNNL_ARG_WEIGHTS, plan->weights, weights},
                 {DNNL_ARG_BIAS, bias == nullptr ? Desc() : c.bias(), bias},
                 {DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, residual == nullptr ? Desc() : c.y(), residual},
                 {DNNL_ARG_DST, c.y(), y}});
  });
  if (plan->fused) return;
  const int64_t count = c.batch * c.out_height * c.out_width * c.outputs;
  if (residual != nullptr) pairwise_all(Pairwise::add, y, residual, false, y, count);
  if (activation != Activation::none) activate_all(activation, y, y, count);
}

void run_backward_data(const Problem& c, const float* dy, const float* w, float* dx) {
  const auto what = [&] { return c.str("conv2d_backward_data"); };
  const auto plan = onednn::plan_for(c.key(backward_data), what, [&] { return plan_backward_data(c); });
  onednn::guarded(what, [&] {
    auto room = room_for_weights(*plan);
    const void* weights = reordered(*plan, c, w, room);
    onednn::run(
        plan->primitive, plan->scratchpad,
        {{DNNL_ARG_DIFF_DST, c.y(), dy}, {DNNL_ARG_WEIGHTS, plan->weights, weights}, {DNNL_ARG_DIFF_SRC, c.x(), dx}});
  });
}

void run_backward_weights(const Problem& c, const float* x, const float* dy, float* dw) {
  const auto what = [&] { return c.str("conv2d_backward_weights"); };
  const auto plan = onednn::plan_for(c.key(backward_weights), what, [&] { return plan_backward_weights(c); });
  onednn::guarded(what, [&] {
    auto room = room_for_weights(*plan);
    void* gradient = plan->reorder ? static_cast<void*>(room.data()) : dw;
    onednn::run(
        plan->primitive, plan->scratchpad,
        {{DNNL_ARG_SRC, c.x(), x}, {DNNL_ARG_DIFF_DST, c.y(), dy}, {DNNL_ARG_DIFF_WEIGHTS, plan->weights, gradient}});
    if (plan->reorder)
      onednn::run(plan->reorder, plan->reorder_scratchpad,
                  {{DNNL_ARG_FROM, plan->weights, gradient}, {DNNL_ARG_TO, c.our_weights(), dw}});
  });
}

// compute(target) overwrites its target; where the sink accumulates, that is a buffer.
template <class F>
void into_sink(Sink sink, F&& compute) {
  float* out = (*sink).data<float>();
  if (!accumulates(sink)) return compute(out);
  Scratch<float> fresh((*sink).count());
  compute(fresh.data());
  scale_all(1, fresh.data(), true, out, (*sink).count());
}

// f(first, images, wide): a convolution that spreads is done for so many images at a time that their repeated channels,
// `wide`, stay in the threads' own caches.
template <class F>
void each_spread(const Problem& c, F&& f) {
  constexpr int64_t floats_per_thread = 96 * 1024;
  const int64_t image = c.height * c.width * c.outputs;
  const int64_t most = std::clamp<int64_t>(threads() * floats_per_thread / std::max<int64_t>(image, 1), 1, c.batch);
  Scratch<float> wide(most * image);
  for (int64_t first = 0; first < c.batch; first += most) f(first, std::min(most, c.batch - first), wide.data());
}

void spread_forward(const Problem& c, const float* x, const float* w, const float* bias, const float* residual,
                    Activation activation, float* y) {
  const int64_t in = c.height * c.width * c.inputs, out = c.out_height * c.out_width * c.outputs;
  each_spread(c, [&](int64_t first, int64_t images, float* wide) {
    repeat_channels(x + first * in, images * in, c.group_outputs(), wide);
    run_forward(c.spread(images), wide, w, bias, residual == nullptr ? nullptr : residual + first * out, activation,
                y + first * out);
  });
}

void spread_backward_data(const Problem& c, const float* dy, const float* w, bool accumulate, float* dx) {
  const int64_t in = c.height * c.width * c.inputs, out = c.out_height * c.out_width * c.outputs;
  each_spread(c, [&](int64_t first, int64_t images, float* wide) {
    run_backward_data(c.spread(images), dy + first * out, w, wide);
    sum_repeated(wide, images * in, c.group_outputs(), accumulate, dx + first * in);
  });
}

void spread_backward_weights(const Problem& c, const float* x, const float* dy, bool accumulate, float* dw) {
  const int64_t in = c.height * c.width * c.inputs, out = c.out_height * c.out_width * c.outputs;
  const int64_t count = c.outputs * c.kernel_height * c.kernel_width;
  Scratch<float> fresh(count);
  each_spread(c, [&](int64_t first, int64_t images, float* wide) {
    repeat_channels(x + first * in, images * in, c.group_outputs(), wide);
    run_backward_weights(c.spread(images), wide, dy + first * out, fresh.data());
    scale_all(1, fresh.data(), accumulate || first > 0, dw, count);
  });
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::conv2d(const ConvParams& p, const Tensor& x, const Tensor& w, const Tensor& bias,
                        const Tensor& residual, Activation activation, Tensor& y) {
  if (holds_bf16({&x, &residual, &y})) {
    Widened wide("conv2d");
    return conv2d(p, wide(x), w, bias, wide(residual), activation, wide.out(y));
  }
  require_f32("conv2d", {&x, &w, &bias, &residual, &y});
  const Problem c(p, x.shape(), w.shape(), y.shape());
  if (y.count() == 0) return;
  const float *px = x.data<float>(), *pw = w.data<float>(), *pbias = data_or_null(bias),
              *presidual = data_or_null(residual);
  float* py = y.data<float>();
  if (c.pointwise()) {
    pointwise_forward({c.rows(), p.groups, c.group_inputs(), c.group_outputs()}, px, pw, py);
    if (pbias != nullptr) add(y, bias, Broadcast::channel, y);
    if (presidual != nullptr) pairwise_all(Pairwise::add, py, presidual, false, py, y.count());
    if (activation != Activation::none) activate_all(activation, py, py, y.count());
  } else if (c.spreads()) {
    spread_forward(c, px, pw, pbias, presidual, activation, py);
  } else {
    run_forward(c, px, pw, pbias, presidual, activation, py);
  }
}

void CpuBackend::conv2d_backward_data(const ConvParams& p, const Tensor& dy, const Tensor& w, Sink dx) {
  if (!dx) return;
  if (holds_bf16({&dy, dx.tensor})) {
    Widened wide("conv2d_backward_data");
    return conv2d_backward_data(p, wide(dy), w, wide.out(dx));
  }
  require_f32("conv2d_backward_data", {&dy, &w, dx.tensor});
  const Problem c(p, (*dx).shape(), w.shape(), dy.shape());
  if ((*dx).count() == 0) return;
  const float *pdy = dy.data<float>(), *pw = w.data<float>();
  if (c.pointwise()) {
    pointwise_backward_data({c.rows(), p.groups, c.group_inputs(), c.group_outputs()}, pdy, pw, accumulates(dx),
                            (*dx).data<float>());
  } else if (c.spreads()) {
    spread_backward_data(c, pdy, pw, accumulates(dx), (*dx).data<float>());
  } else {
    into_sink(dx, [&](float* out) { run_backward_data(c, pdy, pw, out); });
  }
}

void CpuBackend::conv2d_backward_weights(const ConvParams& p, const Tensor& x, const Tensor& dy, Sink dw) {
  if (!dw) return;
  if (holds_bf16({&x, &dy})) {
    Widened wide("conv2d_backward_weights");
    return conv2d_backward_weights(p, wide(x), wide(dy), dw);
  }
  require_f32("conv2d_backward_weights", {&x, &dy, dw.tensor});
  const Problem c(p, x.shape(), (*dw).shape(), dy.shape());
  if (dy.count() == 0) {
    if (!accumulates(dw)) std::fill_n((*dw).data<float>(), (*dw).count(), 0.0f);
    return;
  }
  const float *px = x.data<float>(), *pdy = dy.data<float>();
  if (c.pointwise()) {
    pointwise_backward_weights({c.rows(), p.groups, c.group_inputs(), c.group_outputs()}, px, pdy, accumulates(dw),
                               (*dw).data<float>());
  } else if (c.spreads()) {
    spread_backward_weights(c, px, pdy, accumulates(dw), (*dw).data<float>());
  } else {
    into_sink(dw, [&](float* out) { run_backward_weights(c, px, pdy, out); });
  }
}

}  // namespace mgic
