// pointnet (Qi et al., "PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation", 2017): the same
// layers for every point, then the maximum over all points.
//   x (N, P, in_channels) → logits (N, classes)
//
//   x T_0 → 64, 64 → · T_1 → 64, 128, 1024 → max over the points → 512, 256, dropout 0.3, classes
// A transform net predicts T (N, C, C) from the points themselves: 64, 128, 1024, maximum, 512, 256, C² + identity.
// T_1 is kept near a rotation by the extra loss weight · mean_n ‖I − T_1 T_1ᵀ‖² (their equation 2).
// Names: mlp.I.{conv,bn} or mlp.I.{transition,mgic}.…, tnet.J.mlp.I.…, tnet.J.fc.…, classifier.….
#pragma once

#include "models/model.h"
#include "models/point_blocks.h"

namespace mgic {

struct PointNetOptions {
  int64_t in_channels = 3;
  int64_t classes = 40;
  bool transforms = true;
  double transform_weight = 0.001;
  double dropout = 0.3;
  PointBlockSpec block;

  void fields(Fields& f);
};

class PointNet final : public Module, public ExtraLoss {
 public:
  explicit PointNet(const PointNetOptions& options);
  Variable extra_loss(const std::function<Variable(const Variable&)>& of) override;

 protected:
  Variable forward(const Variable& x) override;

 private:
  double transform_weight_;
  std::vector<Module*> mlp_, tnets_, classifier_;
  Module* dropout_;
  Variable transform_;  // T_1 of the last forward in training
};

}  // namespace mgic
