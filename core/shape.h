// Shape: the sizes of a row-major array, at most five dimensions.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace mgic {

class Shape {
 public:
  static constexpr int max_rank = 5;

  Shape() = default;  // rank 0: a scalar
  Shape(std::initializer_list<int64_t> sizes) : Shape(std::span<const int64_t>(sizes.begin(), sizes.size())) {}
  explicit Shape(std::span<const int64_t> sizes);  // throws where a size is negative or the product overflows

  int rank() const { return rank_; }
  int64_t count() const { return count_; }  // elements
  int64_t operator[](int i) const;          // negative i counts from the end
  int64_t last() const { return (*this)[-1]; }
  // Elements of all dimensions but the last: the pixels of a feature map, the rows of a matrix.
  int64_t rows() const { return last() == 0 ? 0 : count_ / last(); }
  Shape with(int i, int64_t size) const;  // a copy with one size changed
  std::span<const int64_t> sizes() const { return {sizes_.data(), static_cast<size_t>(rank_)}; }
  bool operator==(const Shape& other) const = default;
  std::string str() const;  // "(8, 32, 32, 3)"

 private:
  std::array<int64_t, max_rank> sizes_{};
  int rank_ = 0;
  int64_t count_ = 1;
};

}  // namespace mgic
