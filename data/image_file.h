// Images from files (PNG, JPEG, BMP, …) through stb_image.
#pragma once

#include <filesystem>

#include "data/dataset.h"

namespace mgic {

// The image as u8 (H, W, C) in the asked-for shape: converted to its channels, and resized bilinearly where its size is
// another. Throws UserError naming the file.
Sample read_image(const std::filesystem::path& file, const SampleShape& shape);

}  // namespace mgic
