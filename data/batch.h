// Batch: what a step of training or evaluation gets.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace mgic {

struct Batch {
  Tensor images;      // (N, H, W, C), of clouds (N, P, C); f32 on the cpu, normalised
  Tensor labels;      // (N) i64; for segmentation (N, H, W) i64, ignored_label where a pixel has no class
  int64_t index = 0;  // of the batch in its epoch

  // With mixup or cutmix (data/mix.h), else undefined and 1: the loss is
  // mix · loss(labels) + (1 - mix) · loss(mixed_labels).
  Tensor mixed_labels;  // (N) i64
  double mix = 1;
};

}  // namespace mgic
