#include "autograd/recorder.h"

namespace mgic {
namespace {

thread_local Recorder* active = nullptr;
thread_local std::string path;

}  // namespace

Recorder::Recorder(bool expand) : expand_(expand), before_(active) { active = this; }
Recorder::~Recorder() { active = before_; }
Recorder* active_recorder() { return active; }

int64_t multiply_accumulates(const Operation& op) {
  // Each output element of both sums over one filter, or one row of the weight matrix.
  if (op.name != "conv2d" && op.name != "linear") return 0;
  const Shape& weight = op.inputs[1].shape();
  return weight[0] == 0 ? 0 : op.output.count() * (weight.count() / weight[0]);
}

const std::string& current_path() { return path; }

PathScope::PathScope(std::string_view name) : before_(path.size()) {
  if (name.empty()) return;
  if (!path.empty()) path += '.';
  path += name;
}

PathScope::~PathScope() { path.resize(before_); }

}  // namespace mgic
