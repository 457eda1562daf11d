// bf16 in operations that have f32 kernels alone: arguments are widened, results rounded back.
//
//   if (holds_bf16({&x, &y})) {
//     Widened w("activation");
//     return activation(kind, w(x), w.out(y));
//   }
#pragma once

#include <deque>
#include <initializer_list>
#include <string_view>

#include "backends/backend.h"

namespace mgic::cpu {

bool holds_bf16(std::initializer_list<const Tensor*> tensors);  // null and undefined ones do not

class Widened {
 public:
  explicit Widened(std::string_view op);  // says once per operation, at log level debug, that it is computed so
  ~Widened() noexcept(false);             // rounds the outputs back
  Widened(const Widened&) = delete;
  Widened& operator=(const Widened&) = delete;

  Tensor operator()(const Tensor& t);
  Tensor& out(Tensor& t);
  Sink out(Sink sink);

 private:
  struct Output {
    Tensor wide;
    Tensor* target;
  };
  std::deque<Output> outputs_;
};

}  // namespace mgic::cpu
