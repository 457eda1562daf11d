// The hierarchy of channels (DESIGN section 6; Eliasof et al., arXiv 2011.09128, section 3).
//   widths:  w_0 = C, w_{l+1} = floor(w_l / 2), until the coarsest rule is met
//   groups:  of level l < L the largest g ≤ max(floor(w_l / s_g), 1) that divides w_l, w_{l+1} and the smoother's
//            middle width; the coarsest level has one group, so that every channel reaches every other
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mgic {

// reach: halve until the width is at most s_c. below: until it is smaller than s_c, and at least once.
enum class CoarsestRule : uint8_t { reach, below };

struct Level {
  int64_t width;   // w_l
  int64_t middle;  // of the smoother: w_l, or the expanded width of an inverted residual
  int64_t groups;
};

// middle = 0: the smoother's middle width is the level's. Throws UserError where a width would reach 0.
// most_levels cuts the coarse levels off: what is then the last one keeps its groups, which nothing couples any more.
std::vector<Level> hierarchy(int64_t channels, int64_t group_size, int64_t coarsest_width, CoarsestRule rule,
                             int64_t middle = 0, std::optional<int64_t> most_levels = {});

}  // namespace mgic
