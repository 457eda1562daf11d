// mgic: the MGIC block, one V-cycle over the channels (DESIGN section 6; Eliasof et al., arXiv 2011.09128,
// algorithm 1). B_l is the smoother of level l, R_l and P_l the transfers, N batch normalisation:
//
//   for l = 0 … L−1:   r_l = R_l x_l;   x_{l+1} = r_l
//   x_L ← B_L(x_L)
//   for l = L−1 … 0:   x_l ← B_l( x_l + N(P_l (x_{l+1} − r_l)) )
//
// It keeps its shape: (N, H, W, C) or (N, P, C); with the bottleneck smoother the input has expansion · C channels.
#pragma once

#include <vector>

#include "layers/mgic/hierarchy.h"
#include "layers/mgic/transfer.h"
#include "layers/module.h"

namespace mgic {

struct MgicOptions {
  LayerSpec smoother{"basic", nullptr, nullptr};
  int64_t group_size = 16;
  int64_t coarsest_width = 16;
  CoarsestRule coarsest_rule = CoarsestRule::reach;
  std::optional<int64_t> most_levels;  // "levels"; 1: grouped convolutions alone, the ablation of the hierarchy
  bool average_transfers = false;      // transfer_init: every weight 1/group_size
  bool tied_transfers = false;
  std::optional<bool> restrict_norm;  // default false
  bool pre_smooth = false;

  void fields(Fields& f);
  void hierarchy_fields(Fields& f);  // all but the smoother
  std::vector<Level> levels(int64_t channels) const;
  int64_t expansion() const { return option_or(smoother.options, "expansion", 1); }
};

class Mgic final : public Module {
 public:
  // channels = w_0; dilation: of the smoothers' spatial kernels.
  Mgic(const MgicOptions& options, int64_t channels, int64_t dilation = 1);

 protected:
  Variable forward(const Variable& x) override;

 private:
  std::vector<Restriction*> restrict_;
  std::vector<Prolongation*> prolong_;
  std::vector<Module*> smooth_, pre_smooth_;
};

}  // namespace mgic
