#include "models/summary.h"

#include <algorithm>
#include <map>
#include <set>

namespace mgic {
namespace {

// One row for each path that operations run under.
class Collector final : public Recorder {
 public:
  Collector(Summary& summary) : Recorder(true), summary_(summary) {}

  void operation(const Operation& op) override {
    const auto [it, added] = rows_.try_emplace(std::string(op.path), summary_.layers.size());
    if (added) summary_.layers.push_back({it->first, std::string(op.name), {}, 0, 0});
    LayerSummary& row = summary_.layers[it->second];
    row.output = op.output.shape();
    row.macs += multiply_accumulates(op);
    summary_.macs += multiply_accumulates(op);
  }

 private:
  Summary& summary_;
  std::map<std::string, size_t> rows_;
};

}  // namespace

Summary summarize(Module& module, const Shape& input) {
  Summary summary;
  const bool training = module.training();
  module.train(false);
  NoGrad no_grad;
  {
    Collector collector(summary);
    module(Variable(Tensor::empty(input, DType::f32, Device::meta)));
  }
  module.train(training);

  // What a module does around its children (an addition, a last activation) makes no row: it has no weights.
  std::set<std::string> containers;
  module.each_module([&](const std::string& name, Module&) {
    for (size_t dot = name.rfind('.'); dot != std::string::npos && dot > 0; dot = name.rfind('.', dot - 1))
      containers.insert(name.substr(0, dot));
    if (!name.empty()) containers.insert("");
  });
  std::erase_if(summary.layers, [&](const LayerSummary& l) { return l.macs == 0 && containers.contains(l.name); });

  module.each_module([&](const std::string& name, Module& m) {
    auto row = std::ranges::find(summary.layers, name, &LayerSummary::name);
    if (row == summary.layers.end()) return;
    row->type = m.type();
  });
  module.each_parameter([&](const std::string& name, Variable& p) {
    const std::string owner = name.substr(0, name.rfind('.'));
    auto row = std::ranges::find(summary.layers, owner, &LayerSummary::name);
    if (row == summary.layers.end()) row = summary.layers.insert(row, {owner, "", {}, 0, 0});
    row->parameters += p.shape().count();
    summary.parameters += p.shape().count();
  });
  return summary;
}

}  // namespace mgic
