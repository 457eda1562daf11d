// Convolutions: which kernel takes which shape, and oneDNN's part of the work.
//
//   x (N, H, W, I), w (O, kH, kW, I/groups), y (N, H', W', O)
//
// Four kernels share the work, by a rule that looks at shapes alone:
// - pointwise.h takes 1×1 convolutions of stride 1 with few channels a group.
// - grouped.h takes the others that MGIC's levels are made of, and narrow dense 3×3 ones.
// - spread.h takes one input a group: depthwise convolutions, and transitions whose groups are gcd(in, out).
// - oneDNN does the rest, with activations as they are and weights reordered to its own choice on every call. Without
//   that reorder, which costs some microseconds, it falls back to its reference kernels.
#include <string>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/elementwise.h"
#include "backends/cpu/onednn.h"
#include "backends/cpu/passes.h"
#include "backends/cpu/pointwise.h"
#include "backends/cpu/spread.h"
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
  Pointwise pointwise_sizes() const { return {batch * height * width, p.groups, group_inputs(), group_outputs()}; }
  bool pointwise() const {
    return kernel_height == 1 && kernel_width == 1 && p.stride == 1 && p.padding == 0 &&
           pointwise_suits(p.groups, group_inputs(), group_outputs());
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

enum class Kernels { pointwise, grouped, spread, onednn, widened };

Kernels kernels_for(const Problem& c, const Shape& x, const Shape& w, std::initializer_list<const Tensor*> maps) {
  const auto all = [&](DType dtype) {
    return std::ranges::all_of(maps, [&](const Tensor* t) { return !t->defined() || t->dtype() == dtype; });
  };
  const bool f32 = all(DType::f32), bf16 = all(DType::bf16);
  if ((f32 || bf16) && c.pointwise()) return Kernels::pointwise;
  if ((f32 || bf16) && grouped_suits(c.p, x, w)) return Kernels::grouped;
  if ((f32 || bf16) && spread_suits(c.p, x, w)) return Kernels::spread;
  return holds_bf16(maps) ? Kernels::widened : Kernels::onednn;
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::conv2d(const ConvParams& p, const Tensor& x, const Tensor& w, const Tensor& bias,
                        const Tensor& residual, Activation activation, Tensor& y) {
  const Problem c(p, x.shape(), w.shape(), y.shape());
  if (y.count() == 0) return;
  switch (kernels_for(c, x.shape(), w.shape(), {&x, &residual, &y})) {
    case Kernels::grouped:
      return with_storage(x,
                          [&](auto zero) { grouped_forward<decltype(zero)>(p, x, w, bias, residual, activation, y); });
    case Kernels::spread:
      return with_storage(x,
                          [&](auto zero) { spread_forward<decltype(zero)>(p, x, w, bias, residual, activation, y); });
    case Kernels::widened: {
      Widened wide("conv2d");
      return conv2d(p, wide(x), w, bias, wide(residual), activation, wide.out(y));
    }
    case Kernels::pointwise:
      require_f32("conv2d", {&w, &bias});
      with_storage(x, [&](auto zero) {
        using T = decltype(zero);
        pointwise_forward(c.pointwise_sizes(), x.data<T>(), w.data<float>(), data_or_null(bias),
                          data_or_null<T>(residual), y.data<T>());
      });
      if (activation != Activation::none) this->activation(activation, y, y);
      return;
    case Kernels::onednn:
      require_f32("conv2d", {&x, &w, &bias, &residual, &y});
      run_forward(c, x.data<float>(), w.data<float>(), data_or_null(bias), data_or_null(residual), activation,
                  y.data<float>());
  }
}

void CpuBackend::conv2d_backward_data(const ConvParams& p, const Tensor& dy, const Tensor& w, Sink dx) {
  if (!dx) return;
  const Shape& x = (*dx).shape();
  const Problem c(p, x, w.shape(), dy.shape());
  if (x.count() == 0) return;
  switch (kernels_for(c, x, w.shape(), {&dy, dx.tensor})) {
    case Kernels::grouped:
      return with_storage(dy, [&](auto zero) { grouped_backward_data<decltype(zero)>(p, dy, w, dx); });
    case Kernels::spread:
      return with_storage(dy, [&](auto zero) { spread_backward_data<decltype(zero)>(p, dy, w, dx); });
    case Kernels::widened: {
      Widened wide("conv2d_backward_data");
      return conv2d_backward_data(p, wide(dy), w, wide.out(dx));
    }
    case Kernels::pointwise:
      require_f32("conv2d_backward_data", {&w});
      return with_storage(dy, [&](auto zero) {
        using T = decltype(zero);
        pointwise_backward_data(c.pointwise_sizes(), dy.data<T>(), w.data<float>(), accumulates(dx), (*dx).data<T>());
      });
    case Kernels::onednn:
      require_f32("conv2d_backward_data", {&dy, &w, dx.tensor});
      into_sink(dx, [&](float* out) { run_backward_data(c, dy.data<float>(), w.data<float>(), out); });
  }
}

void CpuBackend::conv2d_backward_weights(const ConvParams& p, const Tensor& x, const Tensor& dy, Sink dw) {
  if (!dw) return;
  const Shape& w = (*dw).shape();
  const Problem c(p, x.shape(), w, dy.shape());
  if (dy.count() == 0) {
    if (!accumulates(dw)) std::fill_n((*dw).data<float>(), w.count(), 0.0f);
    return;
  }
  switch (kernels_for(c, x.shape(), w, {&x, &dy})) {
    case Kernels::grouped:
      return with_storage(dy, [&](auto zero) { grouped_backward_weights<decltype(zero)>(p, x, dy, dw); });
    case Kernels::spread:
      return with_storage(dy, [&](auto zero) { spread_backward_weights<decltype(zero)>(p, x, dy, dw); });
    case Kernels::widened: {
      Widened wide("conv2d_backward_weights");
      return conv2d_backward_weights(p, wide(x), wide(dy), dw);
    }
    case Kernels::pointwise:
      require_f32("conv2d_backward_weights", {dw.tensor});
      return with_storage(dy, [&](auto zero) {
        using T = decltype(zero);
        pointwise_backward_weights(c.pointwise_sizes(), x.data<T>(), dy.data<T>(), accumulates(dw),
                                   (*dw).data<float>());
      });
    case Kernels::onednn:
      require_f32("conv2d_backward_weights", {&x, &dy, dw.tensor});
      into_sink(dw, [&](float* out) { run_backward_weights(c, x.data<float>(), dy.data<float>(), out); });
  }
}

}  // namespace mgic
