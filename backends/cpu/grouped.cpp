#include "backends/cpu/grouped.h"

namespace mgic::cpu {

bool grouped_suits(const ConvParams& p, const Shape& x, const Shape& w) {
  const int64_t kernel = w[1], inputs = w[3], outputs = w[0] / p.groups;
  if (p.stride != 1 || p.dilation != 1 || w[2] != kernel || kernel % 2 == 0 || p.padding != kernel / 2) return false;
  if (x.count() == 0) return false;
  const auto fits = [](int64_t n) { return n == 4 || n == 8 || (n % slab_channels == 0 && n <= 64); };
  return p.groups > 1 ? fits(inputs) && fits(outputs) : inputs <= 32 && outputs <= 64;
}

Grouped grouped_of(const ConvParams& p, const Shape& x, const Shape& w) {
  return {x[0], x[1], x[2], p.groups, w[3], w[0] / p.groups, w[1]};
}

}  // namespace mgic::cpu
