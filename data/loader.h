// DataLoader: batches in a reproducible order, made ahead of time by threads of its own.
//
// The order of an epoch is a function of (seed, epoch), the augmentation of a sample one of (seed, epoch, sample), so
// batches are bitwise the same for every number of threads, and an epoch can be entered at any batch. Reading, decoding
// and augmentation run in the loader's threads.
//
// A sample whose file is damaged (data/corrupt.h) gives its place to the next one of the set where the order is
// shuffled, so that batches stay full; where it is not, in evaluation, it is left out and its batch is smaller.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/batch.h"
#include "data/dataset.h"
#include "data/mix.h"
#include "data/transforms.h"

namespace mgic {

struct LoaderOptions {
  int64_t batch_size = 128;
  bool shuffle = false;
  bool drop_last = false;  // leave a last batch out that is not full
  std::vector<TransformSpec> augment;
  MixOptions mix;
  int64_t threads = 2;   // 0: next() makes each batch itself
  int64_t prefetch = 4;  // batches made ahead, at least 1
  uint64_t seed = 0;
};

class DataLoader {
 public:
  // The data set must outlive the loader. Throws UserError where a transform does not fit the images.
  DataLoader(const Dataset& dataset, const LoaderOptions& options, const Normalization& normalization);
  ~DataLoader();
  DataLoader(const DataLoader&) = delete;
  DataLoader& operator=(const DataLoader&) = delete;

  int64_t batches() const;  // of a whole epoch
  const Dataset& dataset() const { return dataset_; }

  // Begins an epoch, at `first_batch`; whatever was under way is dropped.
  void start(int64_t epoch, int64_t first_batch = 0);

  // The next batch; false at the end of the epoch. What a thread failed with is thrown at its batch's turn, after
  // which only start() helps.
  bool next(Batch& batch);

 private:
  class Pipeline;
  Batch make(int64_t index, Image& image) const;
  bool load(int64_t sample, Image& image) const;

  const Dataset& dataset_;
  LoaderOptions options_;
  Normalizer normalizer_;
  std::vector<std::unique_ptr<Transform>> transforms_;

  // The epoch under way. Threads only read `epoch_` and `order_`, and end before either changes.
  int64_t epoch_ = -1, next_ = 0;
  std::vector<int64_t> order_;  // of the samples; empty where not shuffled
  Image image_;                 // next()'s own work space
  std::unique_ptr<Pipeline> pipeline_;
};

}  // namespace mgic
