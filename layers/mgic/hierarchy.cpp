#include "layers/mgic/hierarchy.h"

#include <algorithm>

#include "core/error.h"

namespace mgic {

std::vector<Level> hierarchy(int64_t channels, int64_t group_size, int64_t coarsest_width, CoarsestRule rule,
                             int64_t middle, std::optional<int64_t> most_levels) {
  auto coarse_enough = [&](const std::vector<Level>& levels) {
    const int64_t w = levels.back().width;
    return rule == CoarsestRule::reach ? w <= coarsest_width : levels.size() > 1 && w < coarsest_width;
  };
  std::vector<Level> levels{{channels, middle == 0 ? channels : middle, 1}};
  while (!coarse_enough(levels)) {
    const Level& fine = levels.back();
    const Level coarse{fine.width / 2, middle == 0 ? fine.width / 2 : fine.middle / 2, 1};
    if (coarse.width == 0 || coarse.middle == 0)
      fail_user(
          "the {} of level {} would be 0: {} {} cannot be halved {} times; use a larger coarsest_width or more "
          "channels",
          coarse.width == 0 ? "width" : "middle width", levels.size(), coarse.width == 0 ? channels : middle,
          coarse.width == 0 ? "channels" : "middle channels", levels.size());
    levels.push_back(coarse);
  }
  for (size_t l = 0; l + 1 < levels.size(); ++l) {
    int64_t g = std::max<int64_t>(levels[l].width / group_size, 1);
    while (levels[l].width % g != 0 || levels[l + 1].width % g != 0 || levels[l].middle % g != 0) --g;
    levels[l].groups = g;
  }
  if (most_levels && *most_levels < static_cast<int64_t>(levels.size()))
    levels.erase(levels.begin() + *most_levels, levels.end());
  return levels;
}

}  // namespace mgic
