// dgcnn (Wang et al., "Dynamic Graph CNN for Learning on Point Clouds", 2019): every layer joins each point with its k
// nearest neighbours in the space of its own features.
//   x (N, P, in_channels) → logits (N, classes)
//
//   edge layer:  y_i = max_j leaky( h(x_j − x_i, x_i)),  j among the k neighbours of i, h a 1×1 convolution and BN
//   embed( concat of all edge layers' outputs ), maximum and mean over the points, hidden layers, classes
// leaky is LeakyReLU with slope 0.2; being monotone, it stands behind the maximum, where there is k times less to do.
// Names: edge.I.{conv,bn} or edge.I.{transition,mgic}.…, embed.…, classifier.I.{linear,bn}, and a last
// classifier.I for the logits.
#pragma once

#include "models/point_blocks.h"

namespace mgic {

struct DgcnnOptions {
  int64_t in_channels = 3;
  int64_t classes = 40;
  int64_t k = 20;
  std::vector<int64_t> channels{64, 64, 128, 256};
  int64_t embedding = 1024;
  std::vector<int64_t> hidden{512, 256};
  double dropout = 0.5;
  PointBlockSpec block;

  void fields(Fields& f);
};

class Dgcnn final : public Module {
 public:
  explicit Dgcnn(const DgcnnOptions& options);

 protected:
  Variable forward(const Variable& x) override;

 private:
  int64_t k_;
  std::vector<Module*> edges_;
  Module *embed_, *dropout_;
  std::vector<Module*> classifier_;
};

}  // namespace mgic
