#include "autograd/variable.h"

#include <atomic>
#include <chrono>
#include <queue>

#include "autograd/recorder.h"

namespace mgic {
namespace {

thread_local bool enabled = true;
thread_local bool running_backward = false;

std::string who(const Node& node) {
  return node.path.empty() ? std::string(node.name) : fmt::format("{} (in {})", node.name, node.path);
}

}  // namespace

Sink Slot::sink() {
  if (!filled) {
    // What other handles still hold must not change under them.
    if (!gradient.defined() || !gradient.unique()) gradient = Tensor::empty(shape, dtype, device);
    filled = true;
    return {&gradient, Write::overwrite};
  }
  if (!gradient.unique()) gradient = gradient.clone();
  return {&gradient, Write::accumulate};
}

void Slot::take(const Tensor& contribution) {
  if (!filled) {
    gradient = contribution.reshape(shape);
    filled = true;
  } else if (gradient.unique()) {
    backend_of(device).scale(1.0, contribution.reshape(shape), {&gradient, Write::accumulate});
  } else {
    // Element by element, whatever the shape: a backend's tensors have a last dimension, and a scalar has none.
    Tensor sum = Tensor::empty({shape.count()}, dtype, device);
    backend_of(device).add(gradient.reshape(sum.shape()), contribution.reshape(sum.shape()), Broadcast::same, sum);
    gradient = sum.reshape(shape);
  }
}

Variable::Variable(Tensor value, bool requires_gradient) : value_(std::move(value)) {
  if (requires_gradient) {
    check(is_float(value_.dtype()), "a gradient needs a float tensor, not {}", value_);
    slot_ = std::make_shared<Slot>(Slot{value_.shape(), value_.dtype(), value_.device(), {}, false, nullptr});
  }
}

void Variable::clear_gradient() {
  if (slot_) slot_->filled = false;
}

// A chain of a million nodes must not be freed by a million nested destructors: the outermost one frees in a loop.
Node::~Node() { release(); }

void Node::release() {
  thread_local std::vector<std::shared_ptr<Slot>>* trash = nullptr;
  saved.clear();
  backward = nullptr;
  if (trash != nullptr) {
    for (auto& slot : inputs)
      if (slot) trash->push_back(std::move(slot));
    inputs.clear();
    return;
  }
  std::vector<std::shared_ptr<Slot>> mine = std::move(inputs);
  inputs.clear();
  trash = &mine;
  while (!mine.empty()) {
    std::shared_ptr<Slot> slot = std::move(mine.back());
    mine.pop_back();
    slot.reset();  // may append to `mine`
  }
  trash = nullptr;
}

NoGrad::NoGrad() : before_(enabled) { enabled = false; }
NoGrad::~NoGrad() { enabled = before_; }
bool gradients_enabled() { return enabled; }

void backward(const Variable& output, const Tensor& seed) {
  check(!running_backward, "backward was called inside a backward: only first-order gradients are supported");
  check(output.requires_gradient(), "backward: the output does not depend on anything that requires a gradient");
  struct Guard {
    NoGrad no_grad;
    Guard() { running_backward = true; }
    ~Guard() { running_backward = false; }
  } guard;

  const Tensor& value = output.value();
  if (seed.defined()) {
    check(seed.shape() == value.shape() && seed.dtype() == value.dtype() && seed.device() == value.device(),
          "backward: the seed is {}, the output {}", seed, value);
    output.slot()->take(seed);
  } else {
    Tensor ones = Tensor::empty_like(value);
    ones.fill(1.0);
    output.slot()->take(ones);
  }

  // A node is younger than the nodes that made its inputs: youngest first is a topological order.
  using Entry = std::shared_ptr<Slot>;
  auto older = [](const Entry& a, const Entry& b) { return a->node->sequence < b->node->sequence; };
  std::priority_queue<Entry, std::vector<Entry>, decltype(older)> queue(older);
  if (output.slot()->node) queue.push(output.slot());
  Recorder* recorder = active_recorder();

  while (!queue.empty()) {
    const Entry slot = queue.top();
    queue.pop();
    if (!queue.empty() && queue.top() == slot) continue;  // asked for by several consumers, run once
    const std::shared_ptr<Node> node = slot->node;
    if (node->backward == nullptr)
      fail("{}: backward ran through this graph already and freed what it had saved", who(*node));
    SavedTensors saved;
    saved.reserve(node->saved.size());
    for (const Saved& s : node->saved) {
      if (s.tensor.defined() && s.tensor.version() != s.version)
        fail("{}: its saved tensor \"{}\" was changed in place before backward could use it; change a clone instead",
             who(*node), s.name);
      saved.push_back(s.tensor);
    }
    node->saved.clear();
    const Tensor dy = std::move(slot->gradient);
    slot->gradient = Tensor();
    slot->filled = false;
    const auto start = std::chrono::steady_clock::now();
    node->backward(backend_of(slot->device), dy, saved, Sinks(node->inputs));
    if (recorder != nullptr)
      recorder->backward_done(node->name, node->path,
                              std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    saved.clear();
    for (const auto& input : node->inputs)
      if (input && input->node && input->filled) queue.push(input);
    node->release();
  }
}

}  // namespace mgic
