#include "layers/mgic/transfer.h"

#include "autograd/ops.h"

namespace mgic {

Restriction::Restriction(const TransferOptions& o) : Module("restriction"), groups_(o.groups) {
  add_parameter("weight", weight_, {o.coarse, 1, 1, o.fine / o.groups}, o.init);
  if (o.norm) norm_ = &add_child("bn", std::make_unique<BatchNorm>(o.coarse));
}

Variable Restriction::forward(const Variable& x) {
  ops::ChainLink link{weight_, {.groups = groups_}, {}, Activation::none, "", "bn"};
  if (norm_ != nullptr) link.norm = norm_->variables();
  return ops::conv_chain(x, {link}, {}, Activation::none, training());
}

Prolongation::Prolongation(const TransferOptions& o, const Restriction* tied)
    : Module("prolongation"),
      groups_(o.groups),
      tied_(tied),
      norm_(add_child("bn", std::make_unique<BatchNorm>(o.fine))) {
  if (tied_ == nullptr) add_parameter("weight", weight_, {o.fine, 1, 1, o.coarse / o.groups}, o.init);
}

ops::ChainLink Prolongation::link() const {
  const Variable weight = tied_ == nullptr ? weight_ : ops::transpose_groups(tied_->weight(), groups_);
  return {weight, {.groups = groups_}, norm_.variables(), Activation::none, "", "bn"};
}

Variable Prolongation::correct(const Variable& x, const Variable& a, const Variable& b) {
  return run_named([&] { return ops::coarse_correction(x, a, b, link(), training()); });
}

Variable Prolongation::forward(const Variable& coarse) {
  return ops::conv_chain(coarse, {link()}, {}, Activation::none, training());
}

}  // namespace mgic
