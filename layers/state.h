// The state of a module by name: parameters and buffers, to and from files.
#pragma once

#include <map>
#include <string>

#include "core/tensor.h"
#include "layers/module.h"

namespace mgic {

// Clones on the host, in the module's dtype.
std::map<std::string, Tensor> state_of(Module& module);

// Copies every named tensor into the module, converted to its dtype and device. Missing, unexpected and misshaped names
// are a UserError that begins with `source` and lists the first few of each; the module is then unchanged.
// num_batches_tracked, which other frameworks write, is ignored.
void load_state(Module& module, const std::map<std::string, Tensor>& state, const std::string& source);

}  // namespace mgic
