#include "core/dtype.h"

namespace mgic {

std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::f64:
      return "f64";
    case DType::bf16:
      return "bf16";
    case DType::i64:
      return "i64";
    case DType::u8:
      return "u8";
  }
  return "?";
}

int64_t size_of(DType dtype) {
  return visit_any(dtype, [](auto zero) { return static_cast<int64_t>(sizeof(zero)); });
}

DType parse_dtype(std::string_view name) {
  for (DType d : {DType::f32, DType::f64, DType::bf16, DType::i64, DType::u8})
    if (name_of(d) == name) return d;
  fail_user("\"{}\" is no element type; choose one of f32, f64, bf16, i64, u8", name);
}

}  // namespace mgic
