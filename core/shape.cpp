#include "core/shape.h"

#include <fmt/format.h>

#include "core/error.h"

namespace mgic {

Shape::Shape(std::span<const int64_t> sizes) : rank_(static_cast<int>(sizes.size())) {
  check(sizes.size() <= max_rank, "a shape has at most {} dimensions, not {}", max_rank, sizes.size());
  for (int i = 0; i < rank_; ++i) {
    sizes_[i] = sizes[i];
    check(sizes[i] >= 0, "a shape's sizes are at least 0, not {}", sizes[i]);
    check(!__builtin_mul_overflow(count_, sizes[i], &count_) && count_ < (int64_t{1} << 60),
          "a shape of {} elements and more is too large", int64_t{1} << 60);
  }
}

int64_t Shape::operator[](int i) const {
  int at = i < 0 ? i + rank_ : i;
  check(at >= 0 && at < rank_, "dimension {} of shape {} does not exist", i, *this);
  return sizes_[at];
}

Shape Shape::with(int i, int64_t size) const {
  auto sizes = sizes_;
  int at = i < 0 ? i + rank_ : i;
  check(at >= 0 && at < rank_, "dimension {} of shape {} does not exist", i, *this);
  sizes[at] = size;
  return Shape(std::span<const int64_t>(sizes.data(), rank_));
}

std::string Shape::str() const { return fmt::format("({})", fmt::join(sizes(), ", ")); }

}  // namespace mgic
