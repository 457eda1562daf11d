// The part of a pooling window that lies inside of its image: rows [top, bottom), columns [left, right).
#pragma once

#include <cstdint>

namespace mgic::cpu {

struct Window {
  int64_t top, bottom, left, right, image_width;
};

}  // namespace mgic::cpu
