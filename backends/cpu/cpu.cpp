#include "backends/cpu/cpu.h"

#include <mutex>
#include <set>
#include <string>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/parallel.h"
#include "core/log.h"

namespace mgic {

bool CpuBackend::supports(std::string_view op, DType dtype) const {
  if (op == "fill") return true;
  if (dtype != DType::bf16) return dtype == DType::f32;
  // bf16 maps: chains and normalisation have kernels, the others here compute in f32 (widened.h).
  static const std::set<std::string_view> bf16_ops{
      "cast",    "conv2d",   "conv_chain",      "coarse_correction",  "batch_norm",    "activation",
      "add",     "subtract", "scale",           "multiply",           "pool2d",        "global_pool",
      "dropout", "sigmoid",  "resize_bilinear", "nearest_neighbours", "edge_features", "neighbourhood_max"};
  return bf16_ops.contains(op);
}

int CpuBackend::threads() const { return cpu::threads(); }

void CpuBackend::naive(std::string_view op) {
  static std::mutex mutex;
  static std::set<std::string, std::less<>> said;
  std::lock_guard lock(mutex);
  if (said.emplace(op).second) log(LogLevel::info, "cpu: {} has no fast kernel yet, the naive one is used", op);
}

Backend& cpu_backend() {
  static CpuBackend backend;
  return backend;
}

namespace cpu {

void require_f32(std::string_view op, std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* t : tensors)
    if (t != nullptr && t->defined() && (t->dtype() != DType::f32 || !on_host(t->device())))
      fail("{}: the cpu backend takes f32, not {}", op, *t);
}

}  // namespace cpu
}  // namespace mgic
