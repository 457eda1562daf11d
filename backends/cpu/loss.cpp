// Softmax cross-entropy, one row of logits at a time; the largest logit is subtracted before the exponential.
#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/loss.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include "backends/cpu/simd-inl.h"
#include <hwy/contrib/math/math-inl.h>
#include <limits>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {
namespace {

constexpr float lowest = -std::numeric_limits<float>::infinity();

// exp, but NaN stays NaN (Highway's takes it for a very negative number).
HWY_INLINE V exponential(V x) { return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(D(), x)); }

float row_max(const float* x, int64_t n) {
  V largest = hn::Set(D(), lowest);
  each_vector(0, n,
              [&](int64_t i, auto memory) HWY_ATTR { largest = hn::Max(largest, memory.load_or(x + i, lowest)); });
  return hn::GetLane(hn::MaxOfLanes(D(), largest));
}

// Σ exp(x − largest).
float row_sum(const float* x, float largest, int64_t n) {
  const V shift = hn::Set(D(), largest);
  V sum = hn::Zero(D());
  each_vector(0, n, [&](int64_t i, auto memory) HWY_ATTR {
    sum = hn::Add(sum, exponential(hn::Sub(memory.load_or(x + i, lowest), shift)));
  });
  return hn::GetLane(hn::SumOfLanes(D(), sum));
}

// y (+)= factor exp(x − largest) / sum, less `factor` at the label.
void row_gradient(const float* x, int64_t n, int64_t label, float factor, bool accumulate, float* y) {
  const float largest = row_max(x, n);
  const V shift = hn::Set(D(), largest), scale = hn::Set(D(), factor / row_sum(x, largest, n));
  each_vector(0, n, [&](int64_t i, auto memory) HWY_ATTR {
    put(hn::Mul(scale, exponential(hn::Sub(memory.load(x + i), shift))), accumulate, memory, y + i);
  });
  y[label] -= factor;
}

float row_loss(const float* x, int64_t n, int64_t label) {
  const float largest = row_max(x, n);
  return static_cast<float>(std::log(static_cast<double>(row_sum(x, largest, n))) + (largest - x[label]));
}

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/parallel.h"
#include "backends/cpu/widened.h"

namespace mgic {
namespace cpu {
namespace {

HWY_EXPORT(row_loss);
HWY_EXPORT(row_gradient);

// Before the threads start, since they cannot throw.
void require_labels(const Tensor& labels, int64_t classes) {
  const auto values = labels.span<int64_t>();
  for (size_t row = 0; row < values.size(); ++row)
    if (values[row] < 0 || values[row] >= classes)
      fail_user("cross_entropy: the label of row {} is {}, but with {} classes labels are 0 … {}", row, values[row],
                classes, classes - 1);
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::cross_entropy(const Tensor& logits, const Tensor& labels, Tensor& losses) {
  require_f32("cross_entropy", {&logits, &losses});
  const int64_t rows = logits.shape()[0], classes = logits.shape()[1];
  require_labels(labels, classes);
  const float* x = logits.data<float>();
  const int64_t* label = labels.data<int64_t>();
  float* loss = losses.data<float>();
  parallel_ranges(rows, classes, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) loss[n] = HWY_DYNAMIC_DISPATCH(row_loss)(x + n * classes, classes, label[n]);
  });
}

void CpuBackend::cross_entropy_backward(const Tensor& logits, const Tensor& labels, const Tensor& scale, double alpha,
                                        Sink dlogits) {
  if (!dlogits) return;
  require_f32("cross_entropy_backward", {&logits, &scale, dlogits.tensor});
  const int64_t rows = logits.shape()[0], classes = logits.shape()[1];
  require_labels(labels, classes);
  const float factor = static_cast<float>(alpha * scale.item()), *x = logits.data<float>();
  const int64_t* label = labels.data<int64_t>();
  float* y = (*dlogits).data<float>();
  parallel_ranges(rows, classes, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) HWY_DYNAMIC_DISPATCH(row_gradient)
    (x + n * classes, classes, label[n], factor, accumulates(dlogits), y + n * classes);
  });
}

void CpuBackend::accumulate_metrics(const Tensor& losses, const Tensor& logits, const Tensor& labels, Tensor& sums) {
  if (holds_bf16({&losses, &logits})) {
    Widened w("accumulate_metrics");
    return accumulate_metrics(w(losses), w(logits), labels, sums);
  }
  require_f32("accumulate_metrics", {&losses, &logits});
  const int64_t rows = logits.shape()[0], classes = logits.shape()[1];
  const float *loss = losses.data<float>(), *x = logits.data<float>();
  const int64_t* label = labels.data<int64_t>();
  const int parts = parts_of(rows, elements_per_thread / std::max<int64_t>(classes, 1));
  Scratch<double> partial(2 * parts);
  parallel(rows, parts, [&](int part, int64_t begin, int64_t end) {
    double sum = 0, right = 0;
    for (int64_t n = begin; n < end; ++n) {
      const float* row = x + n * classes;
      sum += loss[n];
      right += std::max_element(row, row + classes) - row == label[n] ? 1 : 0;
    }
    partial[2 * part] = sum;
    partial[2 * part + 1] = right;
  });
  double* total = sums.data<double>();
  for (int part = 0; part < parts; ++part) {
    total[0] += partial[2 * part];
    total[1] += partial[2 * part + 1];
  }
  total[2] += static_cast<double>(rows);
  sums.changed_in_place();
}

}  // namespace mgic
#endif  // HWY_ONCE
