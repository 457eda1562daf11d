#include "models/summary.h"

#include <algorithm>
#include <map>

namespace mgic {
namespace {

// One row for each path that operations run under.
class Collector final : public Recorder {
 public:
  Collector(Summary& summary) : Recorder(true), summary_(summary) {}

  void operation(const Operation& op) override {
    LayerSummary& row = row_of(std::string(op.path));
    row.output = op.output.shape();
    row.macs += multiply_accumulates(op);
    summary_.macs += multiply_accumulates(op);
    if (row.type.empty()) row.type = op.name;
  }

  LayerSummary& row_of(const std::string& path) {
    auto [it, added] = rows_.try_emplace(path, summary_.layers.size());
    if (added) summary_.layers.push_back({path, "", {}, 0, 0});
    return summary_.layers[it->second];
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
  Collector collector(summary);
  module(Variable(Tensor::empty(input, DType::f32, Device::meta)));
  module.train(training);

  module.each_module([&](const std::string& name, Module& m) {
    auto row = std::ranges::find(summary.layers, name, &LayerSummary::name);
    if (row == summary.layers.end()) return;
    row->type = m.type();
  });
  module.each_parameter([&](const std::string& name, Variable& p) {
    collector.row_of(name.substr(0, name.rfind('.'))).parameters += p.shape().count();
    summary.parameters += p.shape().count();
  });
  return summary;
}

}  // namespace mgic
