// Images from files (PNG, JPEG, BMP, …) through stb_image, and PNG files through stb_image_write.
#pragma once

#include <filesystem>

#include "data/dataset.h"

namespace mgic {

// The image as u8 (H, W, C) in the asked-for shape: converted to its channels, and resized bilinearly where its size is
// another. Throws UserError naming the file.
Sample read_image(const std::filesystem::path& file, const SampleShape& shape);

// The image in its own size, u8 (H, W, channels), channels 1 or 3. Throws UserError naming the file.
struct ImageFile {
  int64_t height = 0, width = 0, channels = 0;
  std::vector<uint8_t> pixels;
};
ImageFile read_image(const std::filesystem::path& file, int64_t channels);

// An image of class ids, (H, W, 1): a PNG with one byte a pixel, whose values are kept as they are. Another kind of PNG
// would be converted on reading, so it is a UserError.
ImageFile read_label_image(const std::filesystem::path& file);

void write_png(const std::filesystem::path& file, const ImageFile& image);

}  // namespace mgic
