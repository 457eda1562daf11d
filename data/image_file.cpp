#include "data/image_file.h"

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#define STBI_FAILURE_USERMSG
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#include <stb_image.h>
#pragma GCC diagnostic pop

#include <algorithm>
#include <cmath>

#include "core/file.h"

namespace mgic {
namespace {

constexpr int64_t most_pixels = int64_t{1} << 28;  // a header may promise more than memory holds

struct Free {
  void operator()(stbi_uc* p) const { stbi_image_free(p); }
};

// Bilinear, pixels as areas; u8 (H, W, C).
std::vector<uint8_t> resize(const uint8_t* in, int64_t height, int64_t width, const SampleShape& to) {
  std::vector<uint8_t> out(static_cast<size_t>(to.count()));
  auto place = [](int64_t i, int64_t from, int64_t size) {
    const double at = (static_cast<double>(i) + 0.5) * static_cast<double>(from) / static_cast<double>(size) - 0.5;
    return std::clamp(at, 0.0, static_cast<double>(from - 1));
  };
  for (int64_t y = 0; y < to.height; ++y)
    for (int64_t x = 0; x < to.width; ++x) {
      const double v = place(y, height, to.height), u = place(x, width, to.width);
      const auto y0 = static_cast<int64_t>(v), x0 = static_cast<int64_t>(u);
      const int64_t y1 = std::min(y0 + 1, height - 1), x1 = std::min(x0 + 1, width - 1);
      const double fy = v - static_cast<double>(y0), fx = u - static_cast<double>(x0);
      for (int64_t c = 0; c < to.channels; ++c) {
        auto at = [&](int64_t row, int64_t column) { return in[(row * width + column) * to.channels + c]; };
        const double value =
            (1 - fy) * ((1 - fx) * at(y0, x0) + fx * at(y0, x1)) + fy * ((1 - fx) * at(y1, x0) + fx * at(y1, x1));
        out[static_cast<size_t>((y * to.width + x) * to.channels + c)] = static_cast<uint8_t>(std::lround(value));
      }
    }
  return out;
}

}  // namespace

Sample read_image(const std::filesystem::path& file, const SampleShape& shape) {
  if (shape.channels != 1 && shape.channels != 3)
    fail_user("{}: the network takes {} channels, but image files have 1 or 3", file.string(), shape.channels);
  const std::string bytes = read_file(file);
  const auto* data = reinterpret_cast<const stbi_uc*>(bytes.data());
  const int size = static_cast<int>(std::min<size_t>(bytes.size(), INT32_MAX));
  int width = 0, height = 0, channels = 0;
  if (stbi_info_from_memory(data, size, &width, &height, &channels) == 0)
    fail_user("{}: is no image that can be read (PNG, JPEG, BMP, GIF, PNM): {}", file.string(), stbi_failure_reason());
  if (int64_t{width} * height > most_pixels)
    fail_user("{}: has {}×{} pixels, which is more than {}", file.string(), width, height, most_pixels);
  const std::unique_ptr<stbi_uc, Free> pixels(
      stbi_load_from_memory(data, size, &width, &height, &channels, static_cast<int>(shape.channels)));
  if (!pixels) fail_user("{}: the image is damaged: {}", file.string(), stbi_failure_reason());
  Sample sample;
  if (height == shape.height && width == shape.width) {
    auto& out = sample.resize<uint8_t>(shape.count());
    std::copy_n(pixels.get(), shape.count(), out.begin());
  } else {
    sample.pixels = resize(pixels.get(), height, width, shape);
  }
  return sample;
}

}  // namespace mgic
