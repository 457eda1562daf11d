// DataOptions: the "data" object of an experiment, and the loaders that it asks for.
//
//   "data": {"type": "fashion_mnist", "batch_size": 128, "augment": [{"type": "random_crop", "padding": 2}]}
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/fields.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "data/transforms.h"

namespace mgic {

struct DataOptions {
  DataSpec source;  // "type" and the data set's own keys, which lie beside these
  int64_t batch_size = 128;
  std::vector<TransformSpec> augment;
  MixOptions mix;
  double validation = 0;
  int64_t threads = 2, prefetch = 4;

  void fields(Fields& f) {
    data_registry().read(f, source);
    f("batch_size", batch_size, "samples a step", between(1, max_count));
    f.specs("augment", augment, transform_registry(), "what is done to the training images, in this order");
    f("mix", mix, "mixup and cutmix of the training batches");
    f("validation", validation, "share of the training part that the best checkpoint is chosen on", between(0, 0.9));
    f("threads", threads, "loader threads; 0: load in the training thread", between(0, 256));
    f("prefetch", prefetch, "batches made ahead", between(1, 1024));
  }
};

// Opens the data set: reads its files. A missing or broken file is a UserError that names it.
std::unique_ptr<DataSource> open_data(const DataOptions& options, uint64_t seed);

// What can be judged only once the data are open: a batch larger than the training part (a fault at data.batch_size),
// a transform that does not fit the images (at data.augment[i]).
void check_data(const DataOptions& options, const DataSource& source, Faults& faults);

// Training: shuffled, augmented, the last partial batch dropped. Evaluation: every sample once, in order, as it is.
LoaderOptions training_loader(const DataOptions& options, uint64_t seed);
LoaderOptions evaluation_loader(const DataOptions& options);

}  // namespace mgic
