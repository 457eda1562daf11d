// Optimizers: how parameters follow their gradients. One fused call updates all of them.
//   sgd    g ← g + decay·p;  v ← momentum·v + g;  p ← p − lr (nesterov ? g + momentum·v : v)      (PyTorch's)
//   adamw  decoupled weight decay (Loshchilov & Hutter, 2019)
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/registry.h"
#include "layers/module.h"

namespace mgic {

// Parameters whose name contains `match` have a weight decay of their own.
struct DecayGroup {
  std::string match;
  double weight_decay = 0;

  void fields(Fields& f);
};

// What all optimizers take.
struct OptimizerOptions {
  double lr = 0;
  double weight_decay = 0;
  std::vector<DecayGroup> groups;

  void fields(Fields& f);
  double decay_of(const std::string& parameter) const;  // the first group that matches, else weight_decay
};

class Optimizer {
 public:
  // Takes the module's parameters as they are now: move it to its device before.
  Optimizer(Module& module, const OptimizerOptions& options, const std::vector<std::string>& states);
  virtual ~Optimizer() = default;

  double base_lr() const { return lr_; }
  int64_t steps() const { return steps_; }
  // Updates every parameter that has a gradient, and clears the gradients.
  void step(double lr);

  // For checkpoints: state tensors as "momentum/NAME", and the number of steps done.
  void each_state(const std::function<void(const std::string& name, Tensor&)>& visit);
  void set_steps(int64_t steps) { steps_ = steps; }

 protected:
  virtual void update(Backend& backend, double lr, int64_t step, std::vector<Update>& updates) = 0;

 private:
  struct Slot {
    std::string name;
    Variable* parameter;
    double weight_decay;
    std::vector<Tensor> states;
  };
  double lr_;
  int64_t steps_ = 0;
  std::vector<std::string> state_names_;
  std::vector<Slot> slots_;
  std::vector<Update> updates_;  // of the step at hand; kept, since it is large enough to make the heap grow and shrink
};

struct OptimizerContext {
  Module& module;
};

using OptimizerRegistry = Registry<Optimizer, OptimizerContext>;
using OptimizerSpec = OptimizerRegistry::SpecType;
OptimizerRegistry& optimizer_registry();

}  // namespace mgic
