// What tests and measurements ask the cpu backend about itself.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace mgic::cpu {

// oneDNN primitives made, found in the cache, and dropped from it.
struct PrimitiveCounters {
  int64_t created = 0, reused = 0, dropped = 0;
};
PrimitiveCounters primitive_counters();

// The instruction sets that the SIMD kernels were compiled for and this machine has, best first.
std::vector<std::string_view> simd_targets();
void use_simd_target(std::string_view name);  // from now on; "" is the best one

}  // namespace mgic::cpu
