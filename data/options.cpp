#include "data/options.h"

#include "data/subset.h"

namespace mgic {

std::unique_ptr<DataSource> open_data(const DataOptions& options, uint64_t seed) {
  check(options.source.make != nullptr, "the data options name no data set");
  auto source = options.source.make({seed});
  if (options.validation > 0) split_validation(*source, options.validation, seed);
  return source;
}

void check_data(const DataOptions& options, const DataSource& source, Faults& faults) {
  if (source.validation && source.validation->size() == 0)
    faults.add("data.validation", "is so small a share that no sample is left for it");
  if (const int64_t size = source.train->size(); options.batch_size > size)
    faults.add("data.batch_size",
               fmt::format("must be at most the number of training samples, {}, not {}", size, options.batch_size));
  if (options.mix.any() && (source.train->segmentation() || source.train->shape().points))
    faults.add("data.mix", "mixes images with one label each; these data are none");
  for (size_t i = 0; i < options.augment.size(); ++i) {
    try {
      options.augment[i].make({source.train->shape()});
    } catch (const UserError& e) {
      faults.add(fmt::format("data.augment[{}]", i), e.what());
    }
  }
}

LoaderOptions training_loader(const DataOptions& options, uint64_t seed) {
  return {.batch_size = options.batch_size,
          .shuffle = true,
          .drop_last = true,
          .augment = options.augment,
          .mix = options.mix,
          .threads = options.threads,
          .prefetch = options.prefetch,
          .seed = seed};
}

LoaderOptions evaluation_loader(const DataOptions& options) {
  return {.batch_size = options.batch_size, .augment = {}, .threads = options.threads, .prefetch = options.prefetch};
}

}  // namespace mgic
