// Sliding windows: a segmentation network evaluated on images larger than those that it was trained on.
//
// Windows of one size stand `stride` pixels apart; where the last of a row would leave the image it is shifted inside.
//   logits(pixel) = mean of the logits of all windows that cover the pixel
// A window as large as the image gives what the network gives without windows.
#pragma once

#include <vector>

#include "core/fields.h"
#include "layers/module.h"

namespace mgic {

// The "evaluation" object of an experiment.
struct EvaluationOptions {
  std::vector<int64_t> window, stride;  // [height, width]; without a window: the whole image at once

  void fields(Fields& f);
  bool slides() const { return !window.empty(); }
};

// Where windows of this length begin on a side of `size` pixels: 0, stride, 2·stride, …, and last size − window, so
// that every pixel is covered. A window longer than the side is the side.
std::vector<int64_t> window_starts(int64_t size, int64_t window, int64_t stride);

// images (N, H, W, C), in the precision and on the device of the model → logits (N, H, W, K) f32 (f64 stays f64), the
// same as those of the model but averaged over the windows. Nothing is recorded for a backward pass.
Tensor sliding_logits(Module& model, const Tensor& images, const EvaluationOptions& options);

}  // namespace mgic
