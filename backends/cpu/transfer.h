// Chains of one transfer: y = N(W (x − minus)) + residual, the V-cycle's restriction and coarse correction.
//
// Without an activation all of it is linear but for the statistics, and those need no raw outputs W v either: their
// mean is W mean(v), their variance diag(W cov(v) Wᵀ). So a forward is one walk over v for its mean and covariance,
// which has half the channels of a prolongation's outputs, and one over v and y. Backward, in the same way, needs sums
// of products of v and dy, and is then a linear map of both.
#pragma once

#include "backends/backend.h"

namespace mgic::cpu {

// Whether the chain is such a one, of sizes that the kernels take.
bool is_transfer(const Chain& chain, const ChainInput& in);

// The raw outputs are never made: states[0].raw is cleared, but where it is y.
void transfer_forward(const Chain& chain, const ChainInput& in, LinkState& state, Tensor& y);
void transfer_backward(const Chain& chain, const ChainInput& in, const LinkState& state, const Tensor& dy,
                       const ChainSinks& sinks);

}  // namespace mgic::cpu
