// Parameters of channels for kernels that read them a slab at a time: padded with zeros to whole slabs.
#pragma once

#include <cmath>

#include "backends/cpu/grouped.h"
#include "backends/cpu/parallel.h"

namespace mgic::cpu {

inline int64_t padded(int64_t channels) { return Grouped::slabs(channels) * slab_channels; }

// f(c) for every channel, zeros behind them.
template <class F>
Scratch<float> channel_vector(int64_t channels, F&& f) {
  Scratch<float> v(padded(channels));
  for (int64_t c = 0; c < v.count(); ++c) v[c] = c < channels ? static_cast<float>(f(c)) : 0.0f;
  return v;
}

// What a normalisation subtracts, multiplies and adds.
struct NormVectors {
  Scratch<float> mean, scale, beta;
  explicit NormVectors(const Norm& n)
      : mean(channel_vector(n.gamma.count(), [p = n.mean.data<float>()](int64_t c) { return p[c]; })),
        scale(channel_vector(n.gamma.count(),
                             [&, g = n.gamma.data<float>(), v = n.variance.data<float>()](int64_t c) {
                               return g[c] / std::sqrt(static_cast<double>(v[c]) + n.eps);
                             })),
        beta(channel_vector(n.gamma.count(), [p = n.beta.data<float>()](int64_t c) { return p[c]; })) {}
};

}  // namespace mgic::cpu
