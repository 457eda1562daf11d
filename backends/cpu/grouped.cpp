#include "backends/cpu/grouped.h"

#include "backends/cpu/parallel.h"

namespace mgic::cpu {

int64_t merged_groups(int64_t groups, int64_t inputs, int64_t outputs) {
  int64_t merged = 1;
  while (groups > 1 && merged * std::min(inputs, outputs) < 4) merged *= 2;
  return groups % merged == 0 ? merged : 0;
}

namespace {

bool winograd_suits(int64_t kernel, int64_t inputs, int64_t outputs) {
  const bool whole_slabs = inputs % slab_channels == 0 && outputs % slab_channels == 0;
  return kernel == 3 && (whole_slabs || (inputs == outputs && (inputs == 4 || inputs == 8)));
}

// Groups that have to become one to fill slabs on both sides, so that only few products are with the zeros between
// them; 0 where there are no such.
int64_t merged_to_slabs(int64_t groups, int64_t inputs, int64_t outputs) {
  const int64_t merged = Grouped::filling(inputs, outputs);
  return groups % merged == 0 && (merged == 1 || merged * std::max(inputs, outputs) <= 64) ? merged : 0;
}

// Images whose pixels make the tiles that are taken at a time, but for every thread to have its share of the batch.
int64_t images_at_a_time(const Grouped& g) {
  constexpr int64_t pixels = 128;
  return std::clamp<int64_t>(pixels / g.image_pixels(), 1, std::max<int64_t>(g.batch / threads(), 1));
}

// Lanes of a vector that holds several groups; 0: it holds one only, or a group's sides differ.
int64_t shared_lanes(const Grouped& g) {
  const int64_t lanes = lanes_of(slab_channels);
  return g.inputs == g.outputs && lanes > g.inputs ? lanes : 0;
}

void choose_winograd(Grouped& g) {
  if (!winograd_suits(g.kernel, g.inputs, g.outputs)) return;
  const int64_t images = images_at_a_time(g);
  g.in_rows = g.arithmetic == Arithmetic::f32 && g.inputs < slab_channels && shared_lanes(g) > 0;
  // The larger tiles suit f32 alone (winograd-inl.h). Where they are square, there must be enough of them to serve with
  // one vector of weights, and a thread's own cache has to keep the weights, four times as many as those of the kernel.
  const bool covers = g.height % 4 == 0 && g.width % 4 == 0 && images * g.image_pixels() >= 64;
  const bool large = g.in_rows ? g.width % 4 == 0 : covers && g.inputs * g.outputs <= 64 * 64;
  g.tile = g.arithmetic == Arithmetic::f32 && large ? 4 : 2;
  if (g.whole_tiles()) g.stacked = images;
}

}  // namespace

bool grouped_suits(const ConvParams& p, const Shape& x, const Shape& w) {
  const int64_t kernel = w[1], inputs = w[3], outputs = w[0] / p.groups;
  if (p.stride != 1 || p.dilation != 1 || w[2] != kernel || kernel % 2 == 0 || p.padding != kernel / 2) return false;
  if (x.count() == 0) return false;
  if (p.groups == 1) {
    // Beyond that, a thread's own cache does not keep the transformed weights from one image to the next.
    constexpr int64_t most_weights = 128 * 128;
    const bool winograd = winograd_suits(kernel, inputs, outputs) && inputs * outputs <= most_weights;
    return (inputs <= 32 && outputs <= 64) || winograd;
  }
  const int64_t merged = inputs > 1 && outputs > 1 ? merged_groups(p.groups, inputs, outputs) : 0;
  const auto fits = [](int64_t n) { return n == 4 || n == 8 || (n > 0 && n % slab_channels == 0 && n <= 64); };
  return fits(merged * inputs) && fits(merged * outputs);
}

Grouped grouped_of(const ConvParams& p, const Shape& x, const Shape& w, Arithmetic best) {
  const int64_t inputs = w[3], outputs = w[0] / p.groups;
  const auto merge = [&](int64_t merged, Arithmetic arithmetic) {
    return Grouped{x[0], x[1], x[2], p.groups / merged, merged * inputs, merged * outputs, w[1], merged, arithmetic};
  };
  if (best == Arithmetic::matrices) {
    if (const int64_t merged = merged_to_slabs(p.groups, inputs, outputs); merged > 0) {
      Grouped g = merge(merged, best);
      if (g.kernel > 1) g.stacked = images_at_a_time(g);
      return g;
    }
    best = Arithmetic::f32;
  }
  Grouped g = merge(merged_groups(p.groups, inputs, outputs), best);
  // Filtering along rows takes less time than a kernel's dot products do, but for larger ones: planes are in f32 then.
  const bool in_pairs = best == Arithmetic::pairs && shared_lanes(g) > 0 && g.kernel <= 3;
  if (in_pairs) g.arithmetic = Arithmetic::f32;
  choose_winograd(g);
  g.rounded = in_pairs && g.in_rows && g.whole_tiles();
  return g;
}

int64_t quad_lanes(const Grouped& g) { return g.inputs == 4 ? shared_lanes(g) : 0; }

}  // namespace mgic::cpu
