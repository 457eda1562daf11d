// Matrix products through oneDNN: y (+)= op(a) op(b) + bias. A transposed factor is the same memory read as
// column-major.
#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/elementwise.h"
#include "backends/cpu/onednn.h"

namespace mgic {

using namespace cpu;

void CpuBackend::matmul(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, const Tensor& bias,
                        Sink y) {
  if (!y) return;
  require_f32("matmul", {&a, &b, &bias, y.tensor});
  using onednn::Desc;
  using onednn::Tag;
  constexpr int64_t operation = 10;
  const int64_t rows = (*y).shape().rows(), columns = (*y).shape().last();
  const int64_t depth = transpose_a ? a.shape().rows() : a.shape().last();
  if (a.count() != rows * depth || b.count() != depth * columns)
    fail("matmul: a {}{} and b {}{} do not fit y {}", a.shape().str(), transpose_a ? " transposed" : "",
         b.shape().str(), transpose_b ? " transposed" : "", (*y).shape().str());
  if (rows == 0 || columns == 0) return;

  const Desc a_desc = onednn::f32_desc({rows, depth}, transpose_a ? Tag::ba : Tag::ab);
  const Desc b_desc = onednn::f32_desc({depth, columns}, transpose_b ? Tag::ba : Tag::ab);
  const Desc y_desc = onednn::f32_desc({rows, columns}, Tag::ab);
  const Desc bias_desc = bias.defined() ? onednn::f32_desc({1, columns}, Tag::ab) : Desc();
  const auto what = [&] {
    return fmt::format("matmul of a {}{}, b {}{}", a.shape().str(), transpose_a ? " transposed" : "", b.shape().str(),
                       transpose_b ? " transposed" : "");
  };
  const auto plan = onednn::plan_for(
      {operation, rows, depth, columns, transpose_a, transpose_b, bias.defined(), accumulates(y)}, what, [&] {
        dnnl::post_ops ops;
        if (accumulates(y)) ops.append_sum(1.0f);
        const auto description =
            onednn::describe<dnnl::matmul>(onednn::attributes_with(ops), a_desc, b_desc, bias_desc, y_desc);
        onednn::Plan plan;
        plan.primitive = dnnl::matmul(description);
        plan.scratchpad = description.scratchpad_desc();
        return plan;
      });
  onednn::guarded(what, [&] {
    onednn::run(plan->primitive, plan->scratchpad,
                {{DNNL_ARG_SRC, a_desc, a.raw()},
                 {DNNL_ARG_WEIGHTS, b_desc, b.raw()},
                 {DNNL_ARG_BIAS, bias_desc, bias.defined() ? bias.raw() : nullptr},
                 {DNNL_ARG_DST, y_desc, (*y).raw()}});
  });
}

}  // namespace mgic
