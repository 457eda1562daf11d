#include "backends/cpu/grouped.h"

namespace mgic::cpu {

int64_t merged_groups(int64_t groups, int64_t inputs, int64_t outputs) {
  int64_t merged = 1;
  while (groups > 1 && merged * std::min(inputs, outputs) < 4) merged *= 2;
  return groups % merged == 0 ? merged : 0;
}

bool grouped_suits(const ConvParams& p, const Shape& x, const Shape& w) {
  const int64_t kernel = w[1], inputs = w[3], outputs = w[0] / p.groups;
  if (p.stride != 1 || p.dilation != 1 || w[2] != kernel || kernel % 2 == 0 || p.padding != kernel / 2) return false;
  if (x.count() == 0) return false;
  if (p.groups == 1) {
    // Beyond that, a thread's own cache does not keep the transformed weights from one image to the next.
    constexpr int64_t most_weights = 128 * 128;
    const bool winograd = kernel == 3 && inputs % slab_channels == 0 && outputs % slab_channels == 0;
    return (inputs <= 32 && outputs <= 64) || (winograd && inputs * outputs <= most_weights);
  }
  const int64_t merged = inputs > 1 && outputs > 1 ? merged_groups(p.groups, inputs, outputs) : 0;
  const auto fits = [](int64_t n) { return n == 4 || n == 8 || (n > 0 && n % slab_channels == 0 && n <= 64); };
  return fits(merged * inputs) && fits(merged * outputs);
}

Grouped grouped_of(const ConvParams& p, const Shape& x, const Shape& w) {
  const int64_t inputs = w[3], outputs = w[0] / p.groups, merged = merged_groups(p.groups, inputs, outputs);
  return {x[0], x[1], x[2], p.groups / merged, merged * inputs, merged * outputs, w[1], merged};
}

int64_t quad_lanes(const Grouped& g) {
  const int64_t lanes = lanes_of(slab_channels);
  return g.inputs == 4 && g.outputs == 4 && lanes > 4 ? lanes : 0;
}

}  // namespace mgic::cpu
