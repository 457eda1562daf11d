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
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#include <stb_image_write.h>
#pragma GCC diagnostic pop

#include <algorithm>

#include "core/file.h"
#include "data/resample.h"

namespace mgic {
namespace {

constexpr int64_t most_pixels = int64_t{1} << 28;  // a header may promise more than memory holds

struct Free {
  void operator()(stbi_uc* p) const { stbi_image_free(p); }
};

// Decodes `bytes`, the contents of `file`.
ImageFile decode(const std::filesystem::path& file, const std::string& bytes, int64_t channels) {
  const auto* data = reinterpret_cast<const stbi_uc*>(bytes.data());
  const int size = static_cast<int>(std::min<size_t>(bytes.size(), INT32_MAX));
  int width = 0, height = 0, found = 0;
  if (bytes.empty()) fail_user("{}: is empty", file.string());
  if (stbi_info_from_memory(data, size, &width, &height, &found) == 0)
    fail_user("{}: is no image that can be read (PNG, JPEG, BMP, GIF, PNM): {}", file.string(), stbi_failure_reason());
  if (int64_t{width} * height > most_pixels)
    fail_user("{}: has {}×{} pixels, which is more than {}", file.string(), width, height, most_pixels);
  const std::unique_ptr<stbi_uc, Free> pixels(
      stbi_load_from_memory(data, size, &width, &height, &found, static_cast<int>(channels)));
  if (!pixels) fail_user("{}: the image is damaged: {}", file.string(), stbi_failure_reason());
  const int64_t count = int64_t{height} * width * channels;
  return {height, width, channels, {pixels.get(), pixels.get() + count}};
}

}  // namespace

Sample read_image(const std::filesystem::path& file, const SampleShape& shape) {
  if (shape.channels != 1 && shape.channels != 3)
    fail_user("{}: the network takes {} channels, but image files have 1 or 3", file.string(), shape.channels);
  ImageFile image = read_image(file, shape.channels);
  Sample sample;
  if (image.height == shape.height && image.width == shape.width)
    sample.pixels = std::move(image.pixels);
  else
    sample.pixels = resample(image.pixels, image.height, image.width, shape.channels,
                             {0, 0, static_cast<double>(image.height), static_cast<double>(image.width)}, shape.height,
                             shape.width);
  return sample;
}

ImageFile read_image(const std::filesystem::path& file, int64_t channels) {
  return decode(file, read_file(file), channels);
}

ImageFile read_label_image(const std::filesystem::path& file) {
  const std::string bytes = read_file(file);
  // A PNG begins with 8 bytes of signature and the chunk IHDR: width, height, bits a sample, kind of colour.
  constexpr size_t bits_at = 24, kind_at = 25;
  if (bytes.size() > kind_at && bytes.starts_with("\x89PNG")) {
    const int bits = static_cast<uint8_t>(bytes[bits_at]), kind = static_cast<uint8_t>(bytes[kind_at]);
    if (bits != 8 || kind != 0)
      fail_user("{}: class ids are read from grey PNG files with 8 bits a pixel, and this one {}", file.string(),
                kind == 3   ? "has a palette"
                : kind != 0 ? "is in colours"
                            : fmt::format("has {} bits", bits));
  } else if (!bytes.empty()) {
    fail_user("{}: is no PNG file; class ids are read from PNG files", file.string());
  }
  return decode(file, bytes, 1);
}

void write_png(const std::filesystem::path& file, const ImageFile& image) {
  check(static_cast<int64_t>(image.pixels.size()) == image.height * image.width * image.channels,
        "write_png: {} values are no {}x{}x{} image", image.pixels.size(), image.height, image.width, image.channels);
  std::string bytes;
  const auto append = [](void* to, void* data, int size) {
    static_cast<std::string*>(to)->append(static_cast<const char*>(data), static_cast<size_t>(size));
  };
  check(stbi_write_png_to_func(append, &bytes, static_cast<int>(image.width), static_cast<int>(image.height),
                               static_cast<int>(image.channels), image.pixels.data(),
                               static_cast<int>(image.width * image.channels)) != 0,
        "{}: the PNG could not be made", file.string());
  write_file(file, bytes);
}

}  // namespace mgic
