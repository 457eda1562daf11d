#include "layers/state.h"

#include <fmt/format.h>

#include <functional>
#include <vector>

namespace mgic {
namespace {

// "3 missing (a, b, c)", at most three names.
void describe(std::string& text, const char* kind, const std::vector<std::string>& names) {
  if (names.empty()) return;
  const size_t shown = std::min<size_t>(names.size(), 3);
  text += fmt::format("{}{} {} ({}{})", text.empty() ? "" : "; ", names.size(), kind,
                      fmt::join(names.begin(), names.begin() + static_cast<int64_t>(shown), ", "),
                      names.size() > shown ? ", …" : "");
}

}  // namespace

std::map<std::string, Tensor> state_of(Module& module) {
  std::map<std::string, Tensor> state;
  module.each_parameter([&](const std::string& name, Variable& p) { state[name] = p.value().clone().to(Device::cpu); });
  module.each_buffer([&](const std::string& name, Tensor& b) { state[name] = b.clone().to(Device::cpu); });
  return state;
}

void load_state(Module& module, const std::map<std::string, Tensor>& state, const std::string& source) {
  std::vector<std::string> missing, unexpected, misshaped;
  std::map<std::string, Tensor*> wanted;
  module.each_parameter([&](const std::string& name, Variable& p) { wanted[name] = &p.value(); });
  module.each_buffer([&](const std::string& name, Tensor& b) { wanted[name] = &b; });
  for (const auto& [name, tensor] : wanted) {
    auto it = state.find(name);
    if (it == state.end())
      missing.push_back(name);
    else if (it->second.shape() != tensor->shape())
      misshaped.push_back(fmt::format("{} is {}, not {}", name, it->second.shape().str(), tensor->shape().str()));
  }
  for (const auto& [name, tensor] : state)
    if (!wanted.contains(name) && !name.ends_with("num_batches_tracked")) unexpected.push_back(name);

  std::string wrong;
  describe(wrong, "missing", missing);
  describe(wrong, "unexpected", unexpected);
  describe(wrong, "of another shape", misshaped);
  if (!wrong.empty())
    fail_user("{}: does not fit this network: {}; use the configuration it was made with", source, wrong);
  for (auto& [name, tensor] : wanted) tensor->copy_from(state.at(name).to(tensor->dtype()).to(tensor->device()));
}

}  // namespace mgic
