// What a network costs: parameters and multiply-accumulates of one sample, layer by layer, found by running it on meta.
#pragma once

#include <string>
#include <vector>

#include "layers/module.h"

namespace mgic {

struct LayerSummary {
  std::string name, type;
  Shape output;  // of one sample, N = 1
  int64_t parameters = 0;
  int64_t macs = 0;  // multiply-accumulates of convolutions and linear layers
};

struct Summary {
  int64_t parameters = 0, macs = 0;
  std::vector<LayerSummary> layers;  // those that own parameters or compute, in the order in which they run
};

Summary summarize(Module& module, const Shape& input);  // input (1, H, W, C)

}  // namespace mgic
