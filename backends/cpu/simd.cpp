#include "backends/cpu/simd.h"

#include <hwy/highway.h>

#include <algorithm>
#include <optional>

#include "backends/cpu/amx.h"
#include "backends/cpu/grouped.h"
#include "backends/cpu/inspect.h"
#include "core/error.h"

namespace mgic::cpu {
namespace {

// Beside Highway's targets, which compute in f32: the best of those, with instructions for products of bf16.
constexpr std::string_view amx = "AMX", dot = "AVX512_BF16";

bool has_dot() {
#if defined(__x86_64__)
  static const bool has = __builtin_cpu_supports("avx512bf16");
  return has;
#else
  return false;
#endif
}

// Intel's dot product takes four times as long as a multiply-add for twice the work, AMD's as long as that
// (bench_peak).
bool dot_pays() { return has_dot() && made_by_amd; }

std::optional<Arithmetic> chosen;

}  // namespace

bool rounds_to_bf16 = has_dot();  // the same instruction set

#if defined(__x86_64__)
const bool made_by_amd = __builtin_cpu_is("amd");
#else
const bool made_by_amd = false;
#endif

Arithmetic bf16_arithmetic() {
  static const Arithmetic fastest = has_amx() ? Arithmetic::matrices : dot_pays() ? Arithmetic::pairs : Arithmetic::f32;
  return chosen.value_or(fastest);
}

std::vector<std::string_view> simd_targets() {
  std::vector<std::string_view> names;
  for (int64_t rest = hwy::SupportedTargets() & HWY_TARGETS; rest != 0; rest &= rest - 1)
    names.push_back(hwy::TargetName(rest & -rest));  // a better target has a lower bit
  if (has_dot()) names.insert(dot_pays() ? names.begin() : names.begin() + 1, dot);
  if (has_amx()) names.insert(names.begin(), amx);
  return names;
}

void use_simd_target(std::string_view name) {
  hwy::SetSupportedTargetsForTest(0);
  const auto names = simd_targets();
  check(name.empty() || std::ranges::find(names, name) != names.end(), "\"{}\" is no SIMD target of this machine",
        name);
  chosen.reset();
  if (!name.empty()) chosen = name == amx ? Arithmetic::matrices : name == dot ? Arithmetic::pairs : Arithmetic::f32;
  if (chosen == Arithmetic::f32) {
    int64_t target = 0;
    for (int64_t rest = hwy::SupportedTargets() & HWY_TARGETS; rest != 0; rest &= rest - 1)
      if (name == hwy::TargetName(rest & -rest)) target = rest & -rest;
    hwy::SetSupportedTargetsForTest(target);
  }
  rounds_to_bf16 = has_dot() && chosen != Arithmetic::f32;
  hwy::GetChosenTarget().DeInit();  // the next kernel looks anew
}

}  // namespace mgic::cpu
