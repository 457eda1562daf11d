#include "backends/cpu/widened.h"

#include <exception>
#include <mutex>
#include <set>
#include <string>

#include "backends/cpu/cpu.h"
#include "core/log.h"

namespace mgic::cpu {
namespace {

bool is_bf16(const Tensor& t) { return t.defined() && t.dtype() == DType::bf16; }

}  // namespace

bool holds_bf16(std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* t : tensors)
    if (t != nullptr && is_bf16(*t)) return true;
  return false;
}

Widened::Widened(std::string_view op) {
  if (!logs(LogLevel::debug)) return;
  static std::mutex mutex;
  static std::set<std::string, std::less<>> said;
  std::lock_guard lock(mutex);
  if (said.emplace(op).second) log(LogLevel::debug, "cpu: {} has no bf16 kernel, it is computed in f32", op);
}

Widened::~Widened() noexcept(false) {
  if (std::uncaught_exceptions() > 0) return;  // the outputs are not there
  for (Output& o : outputs_) cpu_backend().cast(o.wide, *o.target);
}

Tensor Widened::operator()(const Tensor& t) {
  if (!is_bf16(t)) return t;
  Tensor wide = Tensor::empty(t.shape(), DType::f32, t.device());
  cpu_backend().cast(t, wide);
  return wide;
}

Tensor& Widened::out(Tensor& t) {
  if (!is_bf16(t)) return t;
  outputs_.push_back({Tensor::empty(t.shape(), DType::f32, t.device()), &t});
  return outputs_.back().wide;
}

Sink Widened::out(Sink sink) {
  if (!sink || !is_bf16(*sink)) return sink;
  Tensor& wide = out(*sink);
  if (sink.write == Write::accumulate) cpu_backend().cast(*sink, wide);
  return {&wide, sink.write};
}

}  // namespace mgic::cpu
