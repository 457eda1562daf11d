// Colours of class ids: those of PASCAL VOC, which set the bits of the id, from the top, in red, green and blue in
// turn. 0 is black, 1 dark red, 2 dark green, …; ignored_label is cream.
#pragma once

#include <array>
#include <cstdint>

#include "data/dataset.h"

namespace mgic {

using Color = std::array<uint8_t, 3>;

constexpr Color class_color(int64_t id) {
  Color color{};
  int64_t rest = id;
  for (int shift = 7; shift >= 0; --shift, rest >>= 3)
    for (int c = 0; c < 3; ++c) color[c] = static_cast<uint8_t>(color[c] | ((rest >> c & 1) << shift));
  return color;  // of 255 this is (224, 224, 192)
}

}  // namespace mgic
