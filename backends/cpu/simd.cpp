#include "backends/cpu/simd.h"

#include <hwy/highway.h>

#include <algorithm>

#include "backends/cpu/amx.h"
#include "backends/cpu/inspect.h"
#include "core/error.h"

namespace mgic::cpu {
namespace {

// Beside Highway's targets: the best of those, with AMX for products of bf16.
constexpr std::string_view amx = "AMX";
bool chose_amx = true;

}  // namespace

bool uses_amx() { return chose_amx && has_amx(); }

std::vector<std::string_view> simd_targets() {
  std::vector<std::string_view> names;
  if (has_amx()) names.push_back(amx);
  for (int64_t rest = hwy::SupportedTargets() & HWY_TARGETS; rest != 0; rest &= rest - 1)
    names.push_back(hwy::TargetName(rest & -rest));  // a better target has a lower bit
  return names;
}

void use_simd_target(std::string_view name) {
  hwy::SetSupportedTargetsForTest(0);
  chose_amx = name.empty() || name == amx;
  if (!chose_amx) {
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
