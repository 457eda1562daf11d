#include "backends/cpu/simd.h"

#include <hwy/highway.h>

#include <algorithm>

#include "backends/cpu/inspect.h"
#include "core/error.h"

namespace mgic::cpu {

std::vector<std::string_view> simd_targets() {
  std::vector<std::string_view> names;
  for (int64_t rest = hwy::SupportedTargets() & HWY_TARGETS; rest != 0; rest &= rest - 1)
    names.push_back(hwy::TargetName(rest & -rest));  // a better target has a lower bit
  return names;
}

void use_simd_target(std::string_view name) {
  hwy::SetSupportedTargetsForTest(0);
  if (!name.empty()) {
    const auto names = simd_targets();
    check(std::find(names.begin(), names.end(), name) != names.end(), "\"{}\" is no SIMD target of this machine", name);
    int64_t target = 0;
    for (int64_t rest = hwy::SupportedTargets() & HWY_TARGETS; rest != 0; rest &= rest - 1)
      if (name == hwy::TargetName(rest & -rest)) target = rest & -rest;
    hwy::SetSupportedTargetsForTest(target);
  }
  hwy::GetChosenTarget().DeInit();  // the next kernel looks anew
}

}  // namespace mgic::cpu
