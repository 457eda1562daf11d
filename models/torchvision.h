// The names that torchvision (0.14) gives to the weights of the models that it has too: dense ResNets, MobileNetV3s,
// DeepLabV3s and LR-ASPPs. Its files become ours and ours become its, tensor by tensor.
#pragma once

#include <map>
#include <string>

#include "layers/module.h"
#include "models/model.h"

namespace mgic {

// Our name of every parameter and buffer to torchvision's; empty where torchvision has no such model.
std::map<std::string, std::string> torchvision_names(const ModelSpec& spec, Module& module);

// load_state of a file that holds our names, or torchvision's. An auxiliary head that the model does without is left
// out.
void load_weights(Module& module, const ModelSpec& spec, const std::map<std::string, Tensor>& tensors,
                  const std::string& source);

// The module's state under torchvision's names and in its shapes (4-D tensors channels-last, as everywhere); UserError
// where torchvision has no such model.
std::map<std::string, Tensor> torchvision_state(const ModelSpec& spec, Module& module);

}  // namespace mgic
