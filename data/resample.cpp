#include "data/resample.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "core/error.h"

namespace mgic {
namespace {

// For each output place along one axis: the first input place, and the weights from there on.
struct Axis {
  int64_t taps = 0;  // weights an output place has room for
  std::vector<int64_t> first, count;
  std::vector<float> weights;  // (to, taps)
};

Axis make_axis(int64_t from, double begin, double length, int64_t to) {
  const double scale = length / static_cast<double>(to), reach = std::max(scale, 1.0);
  Axis axis;
  axis.taps = static_cast<int64_t>(std::ceil(reach)) * 2 + 1;
  axis.weights.assign(static_cast<size_t>(to * axis.taps), 0.0f);
  for (int64_t i = 0; i < to; ++i) {
    const double centre = begin + (static_cast<double>(i) + 0.5) * scale;
    const auto low = std::clamp<int64_t>(static_cast<int64_t>(std::floor(centre - reach + 0.5)), 0, from - 1);
    const auto high = std::clamp<int64_t>(static_cast<int64_t>(std::floor(centre + reach + 0.5)), low + 1, from);
    float* w = axis.weights.data() + i * axis.taps;
    double sum = 0;
    for (int64_t k = low; k < high; ++k) {
      const double weight = std::max(0.0, 1 - std::abs(static_cast<double>(k) + 0.5 - centre) / reach);
      w[k - low] = static_cast<float>(weight);
      sum += weight;
    }
    if (sum <= 0) w[0] = 1, sum = 1;  // a box that ends on the image's edge
    for (int64_t k = 0; k < high - low; ++k) w[k] /= static_cast<float>(sum);
    axis.first.push_back(low);
    axis.count.push_back(high - low);
  }
  return axis;
}

template <class T>
T rounded(float value) {
  if constexpr (std::is_same_v<T, uint8_t>)
    return static_cast<uint8_t>(std::clamp(value + 0.5f, 0.0f, 255.0f));
  else
    return value;
}

}  // namespace

template <class T>
std::vector<T> resample(const std::vector<T>& in, int64_t height, int64_t width, int64_t channels, const Box& box,
                        int64_t to_height, int64_t to_width) {
  check(static_cast<int64_t>(in.size()) == height * width * channels, "resample: {} values are no {}x{}x{} image",
        in.size(), height, width, channels);
  const Axis rows = make_axis(height, box.top, box.height, to_height);
  const Axis columns = make_axis(width, box.left, box.width, to_width);
  // Across first, and only those rows that the second pass reads.
  const int64_t begin = rows.first.front(), end = rows.first.back() + rows.count.back(), row = to_width * channels;
  std::vector<float> across(static_cast<size_t>((end - begin) * row), 0.0f);
  for (int64_t y = begin; y < end; ++y)
    for (int64_t x = 0; x < to_width; ++x) {
      const T* from = in.data() + (y * width + columns.first[x]) * channels;
      const float* w = columns.weights.data() + x * columns.taps;
      float* to = across.data() + (y - begin) * row + x * channels;
      for (int64_t k = 0; k < columns.count[x]; ++k)
        for (int64_t c = 0; c < channels; ++c) to[c] += w[k] * static_cast<float>(from[k * channels + c]);
    }
  std::vector<T> out(static_cast<size_t>(to_height * row));
  std::vector<float> sum(static_cast<size_t>(row));
  for (int64_t y = 0; y < to_height; ++y) {
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (int64_t k = 0; k < rows.count[y]; ++k) {
      const float w = rows.weights[y * rows.taps + k];
      const float* from = across.data() + (rows.first[y] + k - begin) * row;
      for (int64_t i = 0; i < row; ++i) sum[i] += w * from[i];
    }
    for (int64_t i = 0; i < row; ++i) out[y * row + i] = rounded<T>(sum[i]);
  }
  return out;
}

template std::vector<uint8_t> resample(const std::vector<uint8_t>&, int64_t, int64_t, int64_t, const Box&, int64_t,
                                       int64_t);
template std::vector<float> resample(const std::vector<float>&, int64_t, int64_t, int64_t, const Box&, int64_t,
                                     int64_t);

std::vector<uint8_t> resample_nearest(const std::vector<uint8_t>& in, int64_t height, int64_t width, const Box& box,
                                      int64_t to_height, int64_t to_width) {
  check(static_cast<int64_t>(in.size()) == height * width, "resample: {} class ids are no {}x{} mask", in.size(),
        height, width);
  const auto place = [](double begin, double length, int64_t i, int64_t to, int64_t from) {
    const double at = begin + (static_cast<double>(i) + 0.5) * length / static_cast<double>(to);
    return std::clamp<int64_t>(static_cast<int64_t>(at), 0, from - 1);
  };
  std::vector<int64_t> columns;
  for (int64_t x = 0; x < to_width; ++x) columns.push_back(place(box.left, box.width, x, to_width, width));
  std::vector<uint8_t> out;
  out.reserve(static_cast<size_t>(to_height * to_width));
  for (int64_t y = 0; y < to_height; ++y) {
    const uint8_t* row = in.data() + place(box.top, box.height, y, to_height, height) * width;
    for (const int64_t x : columns) out.push_back(row[x]);
  }
  return out;
}

}  // namespace mgic
