// The transfers between two levels: 1×1 convolutions in the fine level's groups, without bias.
//   Restriction   r_l = R_l x_l          (w_l → w_{l+1}), with restrict_norm N'(R_l x_l)
//   Prolongation  x + N(P_l (a − b))     (w_{l+1} → w_l), the coarse correction
#pragma once

#include "layers/batch_norm.h"
#include "layers/module.h"

namespace mgic {

struct TransferOptions {
  int64_t fine = 0, coarse = 0;  // channels of the two levels
  int64_t groups = 1;
  bool norm = false;  // restriction: batch normalisation behind it
  Init init;          // of the weight
};

class Restriction final : public Module {
 public:
  explicit Restriction(const TransferOptions& options);
  const Variable& weight() const { return weight_; }
  int64_t groups() const { return groups_; }

 protected:
  Variable forward(const Variable& x) override;

 private:
  int64_t groups_;
  Variable weight_;  // (coarse, 1, 1, fine/groups)
  BatchNorm* norm_ = nullptr;
};

class Prolongation final : public Module {
 public:
  // With `tied` it has no weight of its own: P = Rᵀ per group.
  Prolongation(const TransferOptions& options, const Restriction* tied);
  // x + N(P(a − b)): x on the fine level, a and b on the coarse one.
  Variable correct(const Variable& x, const Variable& a, const Variable& b);

 protected:
  Variable forward(const Variable& coarse) override;  // N(P coarse), without a correction

 private:
  ops::ChainLink link() const;

  int64_t groups_;
  const Restriction* tied_;
  Variable weight_;  // (fine, 1, 1, coarse/groups)
  BatchNorm& norm_;
};

}  // namespace mgic
