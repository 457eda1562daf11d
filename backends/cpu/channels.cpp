// Plain loops: with the number of repetitions known, the compiler turns them into shuffles for every target.
#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/channels.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include "backends/cpu/simd-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {
namespace {

void repeat(const float* HWY_RESTRICT x, int64_t n, int64_t times, float* HWY_RESTRICT y) {
  if (times == 2) {
    for (int64_t i = 0; i < n; ++i) y[2 * i] = y[2 * i + 1] = x[i];
    return;
  }
  for (int64_t i = 0; i < n; ++i)
    for (int64_t t = 0; t < times; ++t) y[i * times + t] = x[i];
}

void sum(const float* HWY_RESTRICT y, int64_t n, int64_t times, bool accumulate, float* HWY_RESTRICT x) {
  if (times == 2) {
    if (accumulate)
      for (int64_t i = 0; i < n; ++i) x[i] += y[2 * i] + y[2 * i + 1];
    else
      for (int64_t i = 0; i < n; ++i) x[i] = y[2 * i] + y[2 * i + 1];
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    float total = accumulate ? x[i] : 0;
    for (int64_t t = 0; t < times; ++t) total += y[i * times + t];
    x[i] = total;
  }
}

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "backends/cpu/channels.h"
#include "backends/cpu/parallel.h"

namespace mgic::cpu {
namespace {

HWY_EXPORT(repeat);
HWY_EXPORT(sum);

}  // namespace

void repeat_channels(const float* x, int64_t count, int64_t times, float* y) {
  parallel_ranges(count, times, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(repeat)(x + begin, end - begin, times, y + begin * times);
  });
}

void sum_repeated(const float* y, int64_t count, int64_t times, bool accumulate, float* x) {
  parallel_ranges(count, times, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(sum)(y + begin * times, end - begin, times, accumulate, x + begin);
  });
}

}  // namespace mgic::cpu
#endif  // HWY_ONCE
