// Softmax cross-entropy, one row of logits at a time; the largest logit is subtracted before the exponential.
#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/loss.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include "backends/cpu/simd-inl.h"
#include <hwy/contrib/math/math-inl.h>
#include <cmath>
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

// y (+)= factor softmax(x) − spread, less `hit` at the label; spread may be null, then it is 0.
void row_gradient(const float* x, int64_t n, int64_t label, float factor, float hit, const float* spread,
                  bool accumulate, float* y) {
  const float largest = row_max(x, n);
  const V shift = hn::Set(D(), largest), scale = hn::Set(D(), factor / row_sum(x, largest, n));
  each_vector(0, n, [&](int64_t i, auto memory) HWY_ATTR {
    V v = hn::Mul(scale, exponential(hn::Sub(memory.load(x + i), shift)));
    if (spread != nullptr) v = hn::Sub(v, memory.load(spread + i));
    put(v, accumulate, memory, y + i);
  });
  y[label] -= hit;
}

double row_loss(const float* x, int64_t n, int64_t label) {
  const float largest = row_max(x, n);
  return std::log(static_cast<double>(row_sum(x, largest, n))) + (largest - x[label]);
}

// −Σ spread log softmax(x).
double row_spread_loss(const float* x, int64_t n, const float* spread) {
  const float largest = row_max(x, n);
  const V shift = hn::Set(D(), static_cast<float>(std::log(static_cast<double>(row_sum(x, largest, n))) + largest));
  V sum = hn::Zero(D());
  each_vector(0, n, [&](int64_t i, auto memory) HWY_ATTR {
    sum = hn::MulAdd(memory.load(spread + i), hn::Sub(shift, memory.load(x + i)), sum);
  });
  return static_cast<double>(hn::GetLane(hn::SumOfLanes(D(), sum)));
}

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <optional>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/parallel.h"
#include "backends/cpu/widened.h"

namespace mgic {
namespace cpu {
namespace {

HWY_EXPORT(row_loss);
HWY_EXPORT(row_spread_loss);
HWY_EXPORT(row_gradient);

// Before the threads start, since they cannot throw.
void require_labels(const Tensor& labels, int64_t classes, std::optional<int64_t> ignored = {}) {
  const auto values = labels.span<int64_t>();
  for (size_t row = 0; row < values.size(); ++row)
    if ((values[row] < 0 || values[row] >= classes) && values[row] != ignored)
      fail_user("cross_entropy: the label of row {} is {}, but with {} classes labels are 0 … {}", row, values[row],
                classes, classes - 1);
}

// factor ε/K w: what smoothing gives to each class. Empty without smoothing.
std::vector<float> spread_of(const CrossEntropyParams& p, const float* weights, int64_t classes, double factor) {
  std::vector<float> spread;
  if (p.smoothing > 0)
    for (int64_t k = 0; k < classes; ++k)
      spread.push_back(static_cast<float>(factor * p.smoothing / static_cast<double>(classes) *
                                          (weights != nullptr ? weights[k] : 1.0f)));
  return spread;
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
    for (int64_t n = begin; n < end; ++n)
      loss[n] = static_cast<float>(HWY_DYNAMIC_DISPATCH(row_loss)(x + n * classes, classes, label[n]));
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
    (x + n * classes, classes, label[n], factor, factor, nullptr, accumulates(dlogits), y + n * classes);
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
  const int parts = parts_of(rows, elements_per_part / std::max<int64_t>(classes, 1));
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

void CpuBackend::weighted_cross_entropy(const CrossEntropyParams& p, const Tensor& logits, const Tensor& labels,
                                        const Tensor& weights, Tensor& losses, Tensor& mean, Tensor& total) {
  require_f32("weighted_cross_entropy", {&logits, &weights, &losses, &mean, &total});
  const int64_t rows = logits.shape()[0], classes = logits.shape()[1];
  require_labels(labels, classes, p.ignore_index);
  const float *x = logits.data<float>(), *w = data_or_null(weights);
  const int64_t* label = labels.data<int64_t>();
  const std::vector<float> spread = spread_of(p, w, classes, 1);
  float* loss = losses.data<float>();
  const int parts = parts_of(rows, elements_per_part / std::max<int64_t>(classes, 1));
  Scratch<double> partial(2 * parts);
  parallel(rows, parts, [&](int part, int64_t begin, int64_t end) {
    double sum = 0, weight = 0;
    for (int64_t n = begin; n < end; ++n) {
      loss[n] = 0;
      if (label[n] == p.ignore_index) continue;
      const float* row = x + n * classes;
      const double own = w != nullptr ? w[label[n]] : 1;
      double value = (1 - p.smoothing) * own * HWY_DYNAMIC_DISPATCH(row_loss)(row, classes, label[n]);
      if (!spread.empty()) value += HWY_DYNAMIC_DISPATCH(row_spread_loss)(row, classes, spread.data());
      loss[n] = static_cast<float>(value);
      sum += value;
      weight += own;
    }
    partial[2 * part] = sum;
    partial[2 * part + 1] = weight;
  });
  double sum = 0, weight = 0;
  for (int part = 0; part < parts; ++part) {
    sum += partial[2 * part];
    weight += partial[2 * part + 1];
  }
  *mean.data<float>() = static_cast<float>(weight == 0 ? 0 : sum / weight);
  *total.data<float>() = static_cast<float>(weight);
}

void CpuBackend::weighted_cross_entropy_backward(const CrossEntropyParams& p, const Tensor& logits,
                                                 const Tensor& labels, const Tensor& weights, const Tensor& total,
                                                 const Tensor& scale, Sink dlogits) {
  if (!dlogits) return;
  require_f32("weighted_cross_entropy_backward", {&logits, &weights, &total, &scale, dlogits.tensor});
  const int64_t rows = logits.shape()[0], classes = logits.shape()[1];
  require_labels(labels, classes, p.ignore_index);
  const float *x = logits.data<float>(), *w = data_or_null(weights);
  const int64_t* label = labels.data<int64_t>();
  const double factor = total.item() == 0 ? 0 : scale.item() / total.item();
  const std::vector<float> spread = spread_of(p, w, classes, factor);
  double all = 0;  // that the spread shares add to the softmax's factor
  for (float share : spread) all += share;
  float* y = (*dlogits).data<float>();
  parallel_ranges(rows, classes, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      float* row = y + n * classes;
      if (label[n] == p.ignore_index) {
        if (!accumulates(dlogits)) std::fill(row, row + classes, 0.0f);
        continue;
      }
      const double hit = factor * (1 - p.smoothing) * (w != nullptr ? w[label[n]] : 1);
      HWY_DYNAMIC_DISPATCH(row_gradient)
      (x + n * classes, classes, label[n], static_cast<float>(hit + all), static_cast<float>(hit),
       spread.empty() ? nullptr : spread.data(), accumulates(dlogits), row);
    }
  });
}

void CpuBackend::accumulate_confusion(int64_t ignore_index, const Tensor& losses, const Tensor& logits,
                                      const Tensor& labels, Tensor& sums) {
  if (holds_bf16({&losses, &logits})) {
    Widened w("accumulate_confusion");
    return accumulate_confusion(ignore_index, w(losses), w(logits), labels, sums);
  }
  require_f32("accumulate_confusion", {&losses, &logits});
  const int64_t rows = logits.shape()[0], classes = logits.shape()[1];
  require_labels(labels, classes, ignore_index);
  const float *loss = losses.data<float>(), *x = logits.data<float>();
  const int64_t* label = labels.data<int64_t>();
  // Of each row the largest logit's class, the first of equals, and how many are before the label's.
  Scratch<int64_t> predictions(rows), ranks(rows);
  parallel_ranges(rows, 2 * classes, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      if (label[n] == ignore_index) continue;
      const float *row = x + n * classes, own = row[label[n]];
      predictions[n] = std::max_element(row, row + classes) - row;
      int64_t rank = 0;
      for (int64_t k = 0; k < label[n]; ++k) rank += row[k] >= own ? 1 : 0;
      for (int64_t k = label[n] + 1; k < classes; ++k) rank += row[k] > own ? 1 : 0;
      ranks[n] = rank;
    }
  });
  // The matrix is one for all rows, and may be large beside them.
  double* sum = sums.data<double>();
  for (int64_t n = 0; n < rows; ++n) {
    if (label[n] == ignore_index) continue;
    sum[0] += loss[n];
    sum[1] += predictions[n] == label[n] ? 1 : 0;
    sum[2] += 1;
    sum[3] += ranks[n] < 5 ? 1 : 0;
    sum[4 + label[n] * classes + predictions[n]] += 1;
  }
  sums.changed_in_place();
}

}  // namespace mgic
#endif  // HWY_ONCE
