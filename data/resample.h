// Resampling: a box of an image, scaled to another size.
//
//   out(y, x) = Σ w(v) w(u) in(v, u),   w a triangle as wide as an output pixel, at least as an input pixel
//
// Pixels are areas, as in PIL: with downscaling every input pixel counts (no aliasing), with upscaling this is bilinear
// interpolation. Class ids take the nearest pixel.
#pragma once

#include <cstdint>
#include <vector>

namespace mgic {

// A rectangle in pixels, whose corners need not be whole numbers; it lies in the image.
struct Box {
  double top = 0, left = 0, height = 0, width = 0;
};

// (H, W, C) → (to_height, to_width, C); T is uint8_t or float.
template <class T>
std::vector<T> resample(const std::vector<T>& in, int64_t height, int64_t width, int64_t channels, const Box& box,
                        int64_t to_height, int64_t to_width);

// (H, W) → (to_height, to_width).
std::vector<uint8_t> resample_nearest(const std::vector<uint8_t>& in, int64_t height, int64_t width, const Box& box,
                                      int64_t to_height, int64_t to_width);

}  // namespace mgic
