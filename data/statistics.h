// Statistics of a data set as its files give it, before augmentation and normalisation.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace mgic {

struct Statistics {
  int64_t samples = 0;                  // that could be read
  int64_t damaged = 0;                  // that could not
  SampleShape shape;                    // that batches have
  std::vector<int64_t> per_class;       // samples, for segmentation pixels
  int64_t ignored = 0;                  // pixels without a class
  std::vector<double> mean, deviation;  // of each channel; bytes divided by 255

  // CRC-32 (zlib's) over all samples in their order: pixels (bytes, or f32 in little-endian order), mask, then the
  // label as eight bytes in little-endian order.
  uint32_t checksum = 0;

  std::vector<Sample> first;  // the first samples, as they were read
};

// Reads every sample; keeps the first `keep`.
Statistics measure(const Dataset& data, int64_t keep);

// How fast a loader is.
struct LoaderSpeed {
  int64_t samples = 0, batches = 0;
  double seconds = 0;
  double samples_per_second() const { return seconds > 0 ? static_cast<double>(samples) / seconds : 0; }
};
class DataLoader;
// Fetches batches, epoch after epoch, for so many seconds and at least one batch; the first batch is not timed where
// there are more.
LoaderSpeed measure_speed(DataLoader& loader, double seconds);

}  // namespace mgic
