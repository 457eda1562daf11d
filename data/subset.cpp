#include "data/subset.h"

#include <algorithm>
#include <cmath>

#include "core/rng.h"

namespace mgic {

void split_validation(DataSource& source, double share, uint64_t seed) {
  const std::shared_ptr<const Dataset> whole = std::move(source.train);
  std::vector<int64_t> order = Rng(seed, Purpose::split).permutation(whole->size());
  const auto cut = order.begin() + std::llround(share * static_cast<double>(whole->size()));
  std::sort(order.begin(), cut);
  std::sort(cut, order.end());
  source.validation = std::make_unique<Subset>(whole, std::vector<int64_t>(order.begin(), cut));
  source.train = std::make_unique<Subset>(whole, std::vector<int64_t>(cut, order.end()));
}

}  // namespace mgic
