// Running sums of an epoch, kept on the device and read at log intervals alone; what a task is judged by.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "models/model.h"

namespace mgic {

// What a network is for: a class for each sample, a class for each pixel, or images to images.
enum class Task : uint8_t { classification, segmentation, restoration };
Task task_of(const ModelSpec& model);
// What the best checkpoint is chosen by: "accuracy", "mIoU", "PSNR".
const char* measure_of(Task task);
// "92.37 %", "24.10 dB".
std::string score_text(Task task, double score);

// Rows are samples, or in segmentation pixels whose label counts.
struct Metrics {
  double loss = 0;      // mean over the rows
  double accuracy = 0;  // share of rows whose largest logit is the label's, in [0, 1]
  int64_t samples = 0;
  // Where all of these are counted; [true class][predicted class].
  std::vector<std::vector<int64_t>> confusion;
  std::optional<double> top5;
  double psnr = 0;  // restoration: the mean over the images of 10 log10(1 / mean squared error), pixels in [0, 1]

  double mean_class_accuracy() const;  // mean over the classes that occur of the share recognised
  // Intersection over union, tp / (tp + fp + fn), and its mean over the classes that occur or are predicted.
  std::optional<double> iou(size_t c) const;
  double mean_iou() const;

  double score(Task task) const;
  std::string text(Task task) const;  // "accuracy 92.37 %", "mIoU 61.20 %, pixel accuracy 88.02 %", "PSNR 24.10 dB"
};

class MetricSums {
 public:
  // brief: loss and accuracy. full: top-5 and the confusion matrix too. image: squared error and PSNR.
  enum class Kind : uint8_t { brief, full, image };
  MetricSums(Device device, Kind kind, int64_t classes);

  // logits (…, K), labels (…), losses (…); rows whose label is ignore_index do not count (full alone knows of it).
  void add(const Tensor& losses, const Tensor& logits, const Tensor& labels, int64_t ignore_index = -1);
  void add_image(double squared_error, double psnr);  // of one image
  Metrics read() const;
  void reset();
  Tensor& tensor() { return sums_; }  // f64, for checkpoints

 private:
  Kind kind_;
  int64_t classes_;
  Tensor sums_;  // brief and image (3), full (4 + classes²)
};

}  // namespace mgic
