// Variable: a tensor, its gradient, and the Node that made it. Define-by-run, first order.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backends/backend.h"
#include "core/tensor.h"

namespace mgic {

class Node;

// The gradient's place. It outlives the value that it belongs to, so that a graph holds no values but those that
// backward needs.
struct Slot {
  Shape shape;
  DType dtype;
  Device device;
  Tensor gradient;
  bool filled = false;         // else what `gradient` holds is stale
  std::shared_ptr<Node> node;  // what made the value; null for a leaf

  // Where a kernel writes its contribution.
  Sink sink();
  // Takes a whole tensor as contribution, without a copy where it is the first.
  void take(const Tensor& contribution);
};

class Variable {
 public:
  Variable() = default;  // undefined: an optional input that is absent
  explicit Variable(Tensor value, bool requires_gradient = false);

  bool defined() const { return value_.defined(); }
  const Tensor& value() const { return value_; }
  Tensor& value() { return value_; }
  const Shape& shape() const { return value_.shape(); }
  bool requires_gradient() const { return slot_ != nullptr; }
  // The gradient that backward() left here; an undefined tensor where none has arrived.
  Tensor gradient() const { return slot_ && slot_->filled ? slot_->gradient : Tensor(); }
  void clear_gradient();  // the next contribution overwrites; the memory stays
  const std::shared_ptr<Slot>& slot() const { return slot_; }
  Variable detach() const { return Variable(value_); }

 private:
  friend class Op;
  Tensor value_;
  std::shared_ptr<Slot> slot_;
};

// A tensor that backward needs, with the version it had when it was saved.
struct Saved {
  const char* name;
  Tensor tensor;
  uint64_t version = 0;
};

// The inputs' gradients as a backward function sees them.
class Sinks {
 public:
  explicit Sinks(const std::vector<std::shared_ptr<Slot>>& slots) : slots_(slots) {}
  bool wants(size_t i) const { return slots_[i] != nullptr; }
  Sink operator[](size_t i) const { return slots_[i] ? slots_[i]->sink() : Sink{}; }
  void take(size_t i, const Tensor& contribution) const {
    if (slots_[i]) slots_[i]->take(contribution);
  }

 private:
  const std::vector<std::shared_ptr<Slot>>& slots_;
};

using SavedTensors = std::vector<Tensor>;
using BackwardFunction = std::function<void(Backend&, const Tensor& dy, const SavedTensors&, const Sinks&)>;

// One operation that ran: what it saved and how its gradient is computed. Freed as soon as backward has used it.
class Node {
 public:
  Node(std::string_view name, std::string path) : name(name), path(std::move(path)) {}
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  std::string_view name;
  std::string path;  // of the module that ran it
  uint64_t sequence = 0;
  std::vector<std::shared_ptr<Slot>> inputs;  // null: no gradient wanted
  std::vector<Saved> saved;
  BackwardFunction backward;

  void release();  // saved tensors, function and inputs
};

// Runs backward from `output`, whose gradient is `seed` (ones where undefined), and adds into every leaf's gradient.
// Iterative: the depth of a graph is limited by memory only. Throws where a saved tensor was changed in place, where
// the graph was used already, and where a gradient of a gradient is asked for (only first order is supported).
void backward(const Variable& output, const Tensor& seed = {});

// Switches recording off for its lifetime, on this thread.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};
bool gradients_enabled();

}  // namespace mgic
