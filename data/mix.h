// Mixing of the images of a batch: mixup and cutmix.
//
//   mixup    x_i ← λ x_i + (1 - λ) x_j             (Zhang et al., "mixup: beyond empirical risk minimization", 2018)
//   cutmix   a box of x_j replaces that of x_i      (Yun et al., "CutMix", 2019); λ = the share of x_i that remains
//
// j is the sample before i in the batch, λ ~ Beta(α, α), one for the batch. The loss that belongs to it is
// λ · loss(labels) + (1 - λ) · loss(mixed_labels).
#pragma once

#include "core/fields.h"
#include "core/rng.h"
#include "data/batch.h"

namespace mgic {

struct MixOptions {
  double mixup = 0, cutmix = 0, probability = 1;

  void fields(Fields& f) {
    f("mixup", mixup, "α of mixup; 0: without", between(0, 100));
    f("cutmix", cutmix, "α of cutmix; 0: without; where both are given, each batch gets one of them", between(0, 100));
    f("probability", probability, "of mixing a batch", between(0, 1));
  }
  bool any() const { return (mixup > 0 || cutmix > 0) && probability > 0; }
};

// Mixes the batch in place and sets its mixed_labels and mix.
void mix(Batch& batch, const MixOptions& options, Rng& rng);

}  // namespace mgic
