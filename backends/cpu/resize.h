// Where a row or a column of a resized image lies between two of the image: (1 − weight) low + weight high.
#pragma once

#include <cstdint>

namespace mgic::cpu {

struct Place {
  int64_t low, high;
  float weight;
};

}  // namespace mgic::cpu
