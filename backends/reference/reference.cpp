#include "backends/reference/reference.h"

namespace mgic {

bool ReferenceBackend::supports(std::string_view op, DType dtype) const {
  if (op == "cast") return is_float(dtype);
  return dtype == DType::f32 || dtype == DType::f64;
}

Backend& reference_backend() {
  static ReferenceBackend backend;
  return backend;
}

}  // namespace mgic
