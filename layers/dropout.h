// dropout: in training each element is zeroed with probability p and the rest scaled by 1/(1 − p) (Srivastava et al.,
// 2014); in evaluation the identity. The mask is a function of (seed, step, layer name) alone.
#pragma once

#include "layers/module.h"

namespace mgic {

struct DropoutOptions {
  double probability = 0.5;

  void fields(Fields& f);
};

class Dropout final : public Module {
 public:
  explicit Dropout(const DropoutOptions& options);

 protected:
  Variable forward(const Variable& x) override;

 private:
  double probability_;
};

// Names the training step that runs on this thread; random layers derive their streams from it.
class RandomStep {
 public:
  RandomStep(uint64_t seed, uint64_t step);
  ~RandomStep();
  RandomStep(const RandomStep&) = delete;
  RandomStep& operator=(const RandomStep&) = delete;

 private:
  uint64_t seed_before_, step_before_;
};

}  // namespace mgic
