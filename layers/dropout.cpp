#include "layers/dropout.h"

#include "autograd/ops.h"
#include "core/rng.h"

namespace mgic {
namespace {

thread_local uint64_t current_seed = 0, current_step = 0;

}  // namespace

RandomStep::RandomStep(uint64_t seed, uint64_t step) : seed_before_(current_seed), step_before_(current_step) {
  current_seed = seed;
  current_step = step;
}

RandomStep::~RandomStep() {
  current_seed = seed_before_;
  current_step = step_before_;
}

void DropoutOptions::fields(Fields& f) {
  f("probability", probability, "share of elements that are zeroed", between(0, 0.999));
}

Dropout::Dropout(const DropoutOptions& o) : Module("dropout"), probability_(o.probability) {}

Variable Dropout::forward(const Variable& x) {
  if (!training() || probability_ == 0) return x;
  const std::string& path = current_path();
  const Rng rng(current_seed, Purpose::dropout, current_step, hash_name(path.data(), path.size()));
  return ops::dropout(x, probability_, rng.key());
}

}  // namespace mgic
