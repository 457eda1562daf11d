#include "data/statistics.h"

#include <zlib.h>

#include <array>
#include <bit>
#include <chrono>
#include <cmath>

#include "data/corrupt.h"
#include "data/loader.h"

namespace mgic {
namespace {

static_assert(std::endian::native == std::endian::little, "the checksum is over bytes in little-endian order");

uint32_t add_to(uint32_t crc, const void* data, size_t bytes) {
  if (bytes == 0) return crc;  // zlib takes a null pointer for "begin anew"
  return static_cast<uint32_t>(crc32_z(crc, static_cast<const Bytef*>(data), bytes));
}

}  // namespace

Statistics measure(const Dataset& data, int64_t keep) {
  Statistics s;
  s.shape = data.shape();
  s.per_class.assign(static_cast<size_t>(data.classes()), 0);
  const auto channels = static_cast<size_t>(s.shape.channels);
  std::vector<double> sums(channels), squares(channels);
  int64_t values = 0;  // of each channel
  Sample sample;
  for (int64_t i = 0; i < data.size(); ++i) {
    try {
      data.get(i, sample);
    } catch (const CorruptSample&) {
      ++s.damaged;
      continue;
    }
    ++s.samples;
    std::visit(
        [&](const auto& pixels) {
          constexpr double unit = sizeof(pixels[0]) == 1 ? 255 : 1;
          for (size_t k = 0; k < pixels.size(); ++k) {
            const double v = pixels[k] / unit;
            sums[k % channels] += v;
            squares[k % channels] += v * v;
          }
          values += static_cast<int64_t>(pixels.size() / channels);
          s.checksum = add_to(s.checksum, pixels.data(), pixels.size() * sizeof(pixels[0]));
        },
        sample.pixels);
    s.checksum = add_to(s.checksum, sample.mask.data(), sample.mask.size());
    s.checksum = add_to(s.checksum, &sample.label, sizeof(sample.label));
    if (!data.segmentation())
      ++s.per_class.at(static_cast<size_t>(sample.label));
    else
      for (const uint8_t id : sample.mask) ++(id == ignored_label ? s.ignored : s.per_class.at(id));
    if (static_cast<int64_t>(s.first.size()) < keep) s.first.push_back(sample);
  }
  for (size_t c = 0; c < channels && values > 0; ++c) {
    const double mean = sums[c] / static_cast<double>(values);
    s.mean.push_back(mean);
    s.deviation.push_back(std::sqrt(std::max(0.0, squares[c] / static_cast<double>(values) - mean * mean)));
  }
  return s;
}

LoaderSpeed measure_speed(DataLoader& loader, double seconds) {
  using Clock = std::chrono::steady_clock;
  if (loader.batches() == 0) fail_user("there is not one whole batch to load");
  LoaderSpeed speed;
  Batch batch;
  int64_t epoch = 0;
  loader.start(epoch);
  if (loader.batches() > 1) loader.next(batch);  // threads have begun, files lie in the cache
  const auto begin = Clock::now();
  while (speed.batches == 0 || speed.seconds < seconds) {
    if (!loader.next(batch)) {
      loader.start(++epoch);
      if (epoch > 1 && speed.batches == 0) fail_user("no sample can be read");
      continue;
    }
    ++speed.batches;
    speed.samples += batch.images.shape()[0];
    speed.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  }
  return speed;
}

}  // namespace mgic
