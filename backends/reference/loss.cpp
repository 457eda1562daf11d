// Softmax cross-entropy, and the running sums of loss and accuracy.
//
//   softmax(x)[k] = exp(x[k]) / Σ_j exp(x[j])
//   loss = −log softmax(x)[label] = log Σ_j exp(x[j]) − x[label]
//   dloss/dx[k] = softmax(x)[k] − (k = label)
//
// The general form, with smoothing ε and class weights w: the target is t[k] = (1 − ε) w[label] (k = label) + ε/K w[k],
//   loss = −Σ_k t[k] log softmax(x)[k]         dloss/dx[k] = softmax(x)[k] Σ_j t[j] − t[k]
//
// logits x (N, K), labels (N) i64 in 0 … K−1, losses (N). The largest logit is subtracted first: softmax stays the
// same, and the largest term of the sum is exp(0), so that nothing overflows and the logarithm's argument is at
// least 1.
#include <cmath>

#include "backends/reference/kernels.h"

namespace mgic {

using namespace reference;

namespace {

// log softmax of each row.
Values log_softmax(const Tensor& logits) {
  const int64_t rows = logits.shape()[0], classes = logits.shape()[1];
  Values v = load(logits);
  for (int64_t n = 0; n < rows; ++n) {
    double* x = v.data() + n * classes;
    const double largest = *std::max_element(x, x + classes);
    double sum = 0;
    for (int64_t k = 0; k < classes; ++k) sum += std::exp(x[k] - largest);
    for (int64_t k = 0; k < classes; ++k) x[k] -= largest + std::log(sum);
  }
  return v;
}

int64_t label_of(const Tensor& labels, int64_t row, int64_t classes) {
  const int64_t label = labels.data<int64_t>()[row];
  if (label < 0 || label >= classes)
    fail_user("cross_entropy: the label of row {} is {}, but with {} classes labels are 0 … {}", row, label, classes,
              classes - 1);
  return label;
}

Values class_weights(const Tensor& weights, int64_t classes) {
  return weights.defined() ? load(weights) : Values(classes, 1.0);
}

}  // namespace

void Backend::cross_entropy(const Tensor& logits, const Tensor& labels, Tensor& losses) {
  naive("cross_entropy");
  const int64_t rows = logits.shape()[0], classes = logits.shape()[1];
  const Values log_p = log_softmax(logits);
  Values v(rows);
  for (int64_t n = 0; n < rows; ++n) v[n] = -log_p[n * classes + label_of(labels, n, classes)];
  store(v, losses);
}

void Backend::cross_entropy_backward(const Tensor& logits, const Tensor& labels, const Tensor& scale, double alpha,
                                     Sink dlogits) {
  naive("cross_entropy_backward");
  const int64_t rows = logits.shape()[0], classes = logits.shape()[1];
  const double factor = alpha * scale.item();
  Values v = log_softmax(logits);
  for (double& e : v) e = factor * std::exp(e);
  for (int64_t n = 0; n < rows; ++n) v[n * classes + label_of(labels, n, classes)] -= factor;
  store(v, dlogits);
}

void Backend::accumulate_metrics(const Tensor& losses, const Tensor& logits, const Tensor& labels, Tensor& sums) {
  naive("accumulate_metrics");
  const int64_t rows = logits.shape()[0], classes = logits.shape()[1];
  const Values vlosses = load(losses), x = load(logits);
  double* sum = sums.data<double>();
  for (int64_t n = 0; n < rows; ++n) {
    const auto row = x.begin() + n * classes;
    const int64_t prediction = std::max_element(row, row + classes) - row;  // the first of equals
    sum[0] += vlosses[n];
    sum[1] += prediction == labels.data<int64_t>()[n] ? 1 : 0;
    sum[2] += 1;
  }
  sums.changed_in_place();
}

void Backend::weighted_cross_entropy(const CrossEntropyParams& p, const Tensor& logits, const Tensor& labels,
                                     const Tensor& weights, Tensor& losses, Tensor& mean, Tensor& total) {
  naive("weighted_cross_entropy");
  const int64_t rows = logits.shape()[0], classes = logits.shape()[1];
  const Values log_p = log_softmax(logits), w = class_weights(weights, classes);
  Values v(rows, 0.0);
  double sum = 0, weight = 0;
  for (int64_t n = 0; n < rows; ++n) {
    if (labels.data<int64_t>()[n] == p.ignore_index) continue;
    const int64_t label = label_of(labels, n, classes);
    const double* x = log_p.data() + n * classes;
    v[n] = -(1 - p.smoothing) * w[label] * x[label];
    if (p.smoothing > 0)  // 0 · −∞ is not 0
      for (int64_t k = 0; k < classes; ++k) v[n] -= p.smoothing / static_cast<double>(classes) * w[k] * x[k];
    sum += v[n];
    weight += w[label];
  }
  store(v, losses);
  store({weight == 0 ? 0 : sum / weight}, mean);
  store({weight}, total);
}

void Backend::weighted_cross_entropy_backward(const CrossEntropyParams& p, const Tensor& logits, const Tensor& labels,
                                              const Tensor& weights, const Tensor& total, const Tensor& scale,
                                              Sink dlogits) {
  naive("weighted_cross_entropy_backward");
  if (!dlogits) return;
  const int64_t rows = logits.shape()[0], classes = logits.shape()[1];
  const double factor = total.item() == 0 ? 0 : scale.item() / total.item();
  const Values w = class_weights(weights, classes);
  double all = 0;
  for (double e : w) all += p.smoothing / static_cast<double>(classes) * e;
  Values v = log_softmax(logits);
  for (int64_t n = 0; n < rows; ++n) {
    double* x = v.data() + n * classes;
    if (labels.data<int64_t>()[n] == p.ignore_index) {
      std::fill(x, x + classes, 0.0);
      continue;
    }
    const int64_t label = label_of(labels, n, classes);
    const double hit = (1 - p.smoothing) * w[label];
    for (int64_t k = 0; k < classes; ++k)
      x[k] = factor * (std::exp(x[k]) * (hit + all) - p.smoothing / static_cast<double>(classes) * w[k]);
    x[label] -= factor * hit;
  }
  store(v, dlogits);
}

void Backend::accumulate_confusion(int64_t ignore_index, const Tensor& losses, const Tensor& logits,
                                   const Tensor& labels, Tensor& sums) {
  naive("accumulate_confusion");
  const int64_t rows = logits.shape()[0], classes = logits.shape()[1];
  const Values vlosses = load(losses), x = load(logits);
  double* sum = sums.data<double>();
  for (int64_t n = 0; n < rows; ++n) {
    if (labels.data<int64_t>()[n] == ignore_index) continue;
    const int64_t label = label_of(labels, n, classes);
    const double* row = x.data() + n * classes;
    const int64_t prediction = std::max_element(row, row + classes) - row;  // the first of equals
    int64_t rank = 0;                                                       // of the label's logit, from 0
    for (int64_t k = 0; k < classes; ++k) rank += row[k] > row[label] || (row[k] == row[label] && k < label) ? 1 : 0;
    sum[0] += vlosses[n];
    sum[1] += prediction == label ? 1 : 0;
    sum[2] += 1;
    sum[3] += rank < 5 ? 1 : 0;
    sum[4 + label * classes + prediction] += 1;
  }
  sums.changed_in_place();
}

}  // namespace mgic
