// A part of another data set, and the split of a training part into what is trained on and what is validated on.
#pragma once

#include <memory>

#include "data/dataset.h"

namespace mgic {

class Subset final : public Dataset {
 public:
  Subset(std::shared_ptr<const Dataset> whole, std::vector<int64_t> indices)
      : whole_(std::move(whole)), indices_(std::move(indices)) {}

  int64_t size() const override { return static_cast<int64_t>(indices_.size()); }
  SampleShape shape() const override { return whole_->shape(); }
  int64_t classes() const override { return whole_->classes(); }
  std::vector<std::string> class_names() const override { return whole_->class_names(); }
  bool segmentation() const override { return whole_->segmentation(); }
  void get(int64_t index, Sample& sample) const override { whole_->get(indices_[static_cast<size_t>(index)], sample); }

 private:
  std::shared_ptr<const Dataset> whole_;
  std::vector<int64_t> indices_;
};

// Moves this share of source.train, drawn from the seed, to source.validation; both keep their samples' order.
void split_validation(DataSource& source, double share, uint64_t seed);

}  // namespace mgic
