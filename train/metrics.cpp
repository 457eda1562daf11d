#include "train/metrics.h"

#include <fmt/format.h>

#include "backends/backend.h"

namespace mgic {

Task task_of(const ModelSpec& model) {
  if (segments(model)) return Task::segmentation;
  return model_classes(model) == 0 ? Task::restoration : Task::classification;
}

const char* measure_of(Task task) {
  return task == Task::classification ? "accuracy" : task == Task::segmentation ? "mIoU" : "PSNR";
}

std::string score_text(Task task, double score) {
  return task == Task::restoration ? fmt::format("{:.2f} dB", score) : fmt::format("{:.2f} %", 100 * score);
}

double Metrics::mean_class_accuracy() const {
  double sum = 0;
  int64_t present = 0;
  for (size_t c = 0; c < confusion.size(); ++c) {
    int64_t rows = 0;
    for (int64_t n : confusion[c]) rows += n;
    if (rows == 0) continue;
    sum += static_cast<double>(confusion[c][c]) / static_cast<double>(rows);
    ++present;
  }
  return present == 0 ? 0 : sum / static_cast<double>(present);
}

std::optional<double> Metrics::iou(size_t c) const {
  int64_t united = -confusion[c][c];
  for (size_t other = 0; other < confusion.size(); ++other) united += confusion[c][other] + confusion[other][c];
  if (united == 0) return {};
  return static_cast<double>(confusion[c][c]) / static_cast<double>(united);
}

double Metrics::mean_iou() const {
  double sum = 0;
  int64_t present = 0;
  for (size_t c = 0; c < confusion.size(); ++c)
    if (const auto value = iou(c)) {
      sum += *value;
      ++present;
    }
  return present == 0 ? 0 : sum / static_cast<double>(present);
}

double Metrics::score(Task task) const {
  return task == Task::classification ? accuracy : task == Task::segmentation ? mean_iou() : psnr;
}

std::string Metrics::text(Task task) const {
  const std::string main = fmt::format("{} {}", measure_of(task), score_text(task, score(task)));
  return task == Task::segmentation ? fmt::format("{}, pixel accuracy {:.2f} %", main, 100 * accuracy) : main;
}

MetricSums::MetricSums(Device device, Kind kind, int64_t classes)
    : kind_(kind),
      classes_(classes),
      sums_(Tensor::zeros({kind == Kind::full ? 4 + classes * classes : 3}, DType::f64, device)) {}

void MetricSums::add(const Tensor& losses, const Tensor& logits, const Tensor& labels, int64_t ignore_index) {
  const int64_t rows = labels.count();
  const Tensor flat_losses = losses.reshape({rows}), flat_labels = labels.reshape({rows}),
               flat_logits = logits.reshape({rows, logits.shape().last()});
  Backend& backend = backend_of(sums_.device());
  if (kind_ == Kind::full)
    backend.accumulate_confusion(ignore_index, flat_losses, flat_logits, flat_labels, sums_);
  else
    backend.accumulate_metrics(flat_losses, flat_logits, flat_labels, sums_);
}

void MetricSums::add_image(double squared_error, double psnr) {
  Tensor host = sums_.to(Device::cpu);
  double* v = host.data<double>();
  v[0] += squared_error;
  v[1] += psnr;
  v[2] += 1;
  if (!host.shares_storage(sums_)) sums_ = host.to(sums_.device());
}

Metrics MetricSums::read() const {
  const Tensor host = sums_.to(Device::cpu);
  const double* v = host.data<double>();
  Metrics m;
  m.samples = static_cast<int64_t>(v[2]);
  if (m.samples == 0) return m;
  m.loss = v[0] / v[2];
  (kind_ == Kind::image ? m.psnr : m.accuracy) = v[1] / v[2];
  if (kind_ != Kind::full) return m;
  m.top5 = v[3] / v[2];
  m.confusion.assign(static_cast<size_t>(classes_), std::vector<int64_t>(static_cast<size_t>(classes_)));
  const double* count = v + 4;
  for (auto& row : m.confusion)
    for (int64_t& n : row) n = static_cast<int64_t>(*count++);
  return m;
}

void MetricSums::reset() { sums_.fill(0); }

}  // namespace mgic
