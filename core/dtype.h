// Element types of a Tensor, and the dispatch from a run-time type to a template.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <string_view>

#include "core/error.h"

namespace mgic {

enum class DType : uint8_t { f32, f64, bf16, i64, u8 };

// bfloat16: the upper half of a float, rounded to nearest even.
struct bf16 {
  uint16_t bits = 0;
  bf16() = default;
  explicit bf16(float value) {
    uint32_t u = std::bit_cast<uint32_t>(value);
    if (std::isnan(value)) {
      bits = static_cast<uint16_t>((u >> 16) | 0x40);  // keep NaN a NaN after truncation
    } else {
      bits = static_cast<uint16_t>((u + 0x7fff + ((u >> 16) & 1)) >> 16);
    }
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

std::string_view name_of(DType dtype);
int64_t size_of(DType dtype);              // bytes an element
DType parse_dtype(std::string_view name);  // throws UserError listing the names
inline bool is_float(DType d) { return d == DType::f32 || d == DType::f64 || d == DType::bf16; }

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::i64;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::u8;
};

// Calls f(float{}) or f(double{}): for kernels that exist in both.
template <class F>
decltype(auto) visit_f32_f64(DType dtype, std::string_view what, F&& f) {
  if (dtype == DType::f32) return f(float{});
  if (dtype == DType::f64) return f(double{});
  fail("{}: takes f32 or f64, not {}", what, name_of(dtype));
}

// Calls f(T{}) with the element type of any dtype.
template <class F>
decltype(auto) visit_any(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f(float{});
    case DType::f64:
      return f(double{});
    case DType::bf16:
      return f(bf16{});
    case DType::i64:
      return f(int64_t{});
    case DType::u8:
      break;
  }
  return f(uint8_t{});
}

}  // namespace mgic
