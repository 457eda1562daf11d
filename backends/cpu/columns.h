// Channels-last memory seen as rows that a vector register likes.
//
// An array (rows, C) is also an array (rows / k, k·C), its per-channel parameters repeated k times. k makes k·C a
// multiple of 64 floats, which is a strip of four vectors, so that any C, also 1, 3 or 10, runs in full strips with one
// tail at the array's end instead of one a row. The k copies of a reduction are folded afterwards.
#pragma once

#include <numeric>

#include "backends/cpu/parallel.h"

namespace mgic::cpu {

struct Columns {
  int64_t channels, repeat, width;

  explicit Columns(int64_t channels) : channels(channels) {
    // Parameter rows must stay in cache: odd and large numbers of channels take single vectors, or a tail a row.
    for (int64_t multiple : {64, 16, 1}) {
      repeat = multiple / std::gcd(channels, multiple);
      width = repeat * channels;
      if (width <= 4096) break;
    }
  }

  // The per-channel values f(c), repeated.
  template <class F>
  Scratch<float> expand(F&& f) const {
    Scratch<float> values(width);
    for (int64_t c = 0; c < channels; ++c) values[c] = f(c);
    for (int64_t j = channels; j < width; ++j) values[j] = values[j - channels];
    return values;
  }
  Scratch<float> expand(const float* p) const {
    return expand([&](int64_t c) { return p[c]; });
  }

  // Σ over the copies of column c.
  double fold(const double* sums, int64_t c) const {
    double sum = 0;
    for (int64_t j = c; j < width; j += channels) sum += sums[j];
    return sum;
  }

  // Over `count` elements: f(part, begin, end) with ranges of elements that begin at a wide row.
  int parts(int64_t count) const { return parts_of(wide_rows(count), elements_per_part / width); }
  template <class F>
  void parallel_elements(int64_t count, F&& f) const {
    if (count == 0) return;
    parallel(wide_rows(count), parts(count),
             [&](int part, int64_t begin, int64_t end) { f(part, begin * width, std::min(end * width, count)); });
  }

 private:
  int64_t wide_rows(int64_t count) const { return (count + width - 1) / width; }
};

}  // namespace mgic::cpu
