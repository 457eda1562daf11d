#include "train/optimizer.h"

#include <chrono>

#include "autograd/recorder.h"

namespace mgic {
namespace {

struct SgdOptions {
  OptimizerOptions common{.lr = 0.1, .groups = {}};
  double momentum = 0;
  bool nesterov = false;

  void fields(Fields& f) {
    common.fields(f);
    f("momentum", momentum, "share of the last step that is kept", between(0, 1));
    f("nesterov", nesterov, "looks ahead along the momentum");
    f.check(!nesterov || momentum > 0, "nesterov", "needs a momentum above 0");
  }
};

class Sgd final : public Optimizer {
 public:
  Sgd(Module& module, const SgdOptions& o)
      : Optimizer(module, o.common, o.momentum > 0 ? std::vector<std::string>{"momentum"} : std::vector<std::string>{}),
        options_(o) {}

 protected:
  void update(Backend& backend, double lr, int64_t step, std::vector<Update>& updates) override {
    backend.sgd_update({lr, options_.momentum, options_.nesterov, step == 1}, updates);
  }

 private:
  SgdOptions options_;
};

struct AdamWOptions {
  OptimizerOptions common{.lr = 1e-3, .weight_decay = 0.01, .groups = {}};
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;

  void fields(Fields& f) {
    common.fields(f);
    f("beta1", beta1, "decay of the mean gradient", between(0, 0.999999));
    f("beta2", beta2, "decay of the mean squared gradient", between(0, 0.999999999));
    f("eps", eps, "added to the root of the mean squared gradient", above(0));
  }
};

class AdamW final : public Optimizer {
 public:
  AdamW(Module& module, const AdamWOptions& o) : Optimizer(module, o.common, {"mean", "square"}), options_(o) {}

 protected:
  void update(Backend& backend, double lr, int64_t step, std::vector<Update>& updates) override {
    backend.adamw_update({lr, options_.beta1, options_.beta2, options_.eps, step}, updates);
  }

 private:
  AdamWOptions options_;
};

}  // namespace

void DecayGroup::fields(Fields& f) {
  f("match", match, "a part of the parameters' names, for example \"bn\"", any().need());
  f("weight_decay", weight_decay, "of these parameters", between(0, 1));
}

void OptimizerOptions::fields(Fields& f) {
  f("lr", lr, "learning rate before the schedule", above(0));
  f("weight_decay", weight_decay, "pulls every parameter towards 0", between(0, 1));
  f("groups", groups, "parameters with another weight decay; the first match counts");
}

double OptimizerOptions::decay_of(const std::string& parameter) const {
  for (const DecayGroup& group : groups)
    if (parameter.find(group.match) != std::string::npos) return group.weight_decay;
  return weight_decay;
}

Optimizer::Optimizer(Module& module, const OptimizerOptions& options, const std::vector<std::string>& states)
    : lr_(options.lr), state_names_(states) {
  module.each_parameter([&](const std::string& name, Variable& p) {
    Slot slot{name, &p, options.decay_of(name), {}};
    for (size_t i = 0; i < states.size(); ++i)
      slot.states.push_back(Tensor::zeros(p.shape(), p.value().dtype(), p.value().device()));
    slots_.push_back(std::move(slot));
  });
}

void Optimizer::step(double lr) {
  updates_.clear();
  for (Slot& s : slots_) {
    const Tensor gradient = s.parameter->gradient();
    if (!gradient.defined()) continue;
    updates_.push_back({s.parameter->value(), gradient, s.states.empty() ? Tensor() : s.states[0],
                        s.states.size() < 2 ? Tensor() : s.states[1], s.weight_decay});
  }
  check(!updates_.empty(), "the optimizer found no gradient: run backward before step");
  const auto start = std::chrono::steady_clock::now();
  update(backend_of(updates_.front().parameter.device()), lr, ++steps_, updates_);
  if (Recorder* recorder = active_recorder())
    recorder->update_done(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  updates_.clear();
  for (Slot& s : slots_) s.parameter->clear_gradient();
}

void Optimizer::each_state(const std::function<void(const std::string&, Tensor&)>& visit) {
  for (Slot& s : slots_)
    for (size_t i = 0; i < s.states.size(); ++i) visit(state_names_[i] + "/" + s.name, s.states[i]);
}

OptimizerRegistry& optimizer_registry() {
  using Made = std::unique_ptr<Optimizer>;
  static OptimizerRegistry registry = [] {
    OptimizerRegistry r("optimizer");
    r.add(
        "sgd", "stochastic gradient descent with momentum",
        +[](const SgdOptions& o, const OptimizerContext& c) -> Made { return std::make_unique<Sgd>(c.module, o); });
    r.add(
        "adamw", "Adam with decoupled weight decay",
        +[](const AdamWOptions& o, const OptimizerContext& c) -> Made { return std::make_unique<AdamW>(c.module, o); });
    return r;
  }();
  return registry;
}

}  // namespace mgic
