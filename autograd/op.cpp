#include "autograd/op.h"

#include <algorithm>
#include <atomic>
#include <chrono>

namespace mgic {

Op::Op(std::string_view name, std::vector<Variable> inputs, Attributes attributes)
    : name_(name), inputs_(std::move(inputs)), attributes_(std::move(attributes)) {
  const Variable& first = inputs_.front();
  rule(first.defined(), "its first input is missing");
  const Tensor& lead = first.value();
  for (const Variable& v : inputs_) {
    if (!v.defined()) continue;
    rule(v.value().device() == lead.device(), "all inputs must be on one device");
    // Beside maps of bf16, parameters stay f32.
    const bool mixes = lead.dtype() == DType::bf16 && v.value().dtype() == DType::f32;
    rule(!is_float(v.value().dtype()) || v.value().dtype() == lead.dtype() || mixes,
         "all inputs must have one element type");
  }
  if (lead.device() != Device::meta) {
    const Backend& backend = backend_of(lead.device());
    rule(backend.supports(name_, lead.dtype()), "the {} backend does not take {}{}", backend.name(),
         name_of(lead.dtype()), lead.dtype() == DType::f64 ? "; use --device reference" : "");
  }
}

void Op::broken(const std::string& rule) const {
  std::string shapes;
  for (const Variable& v : inputs_)
    if (v.defined()) shapes += fmt::format("{}{}", shapes.empty() ? "" : ", ", v.value().str());
  const std::string& path = current_path();
  throw Error(fmt::format("{}{}: {}; the inputs are {}", name_, path.empty() ? "" : fmt::format(" (in {})", path), rule,
                          shapes));
}

void Op::run(const std::function<void(Backend&)>& call) {
  const Device device = inputs_.front().value().device();
  if (device == Device::meta) return;
  if (active_recorder() == nullptr) return call(backend_of(device));
  const auto start = std::chrono::steady_clock::now();
  call(backend_of(device));
  seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Variable Op::result(const Tensor& output, std::vector<Saved> saved, BackwardFunction backward) {
  if (Recorder* recorder = active_recorder()) {
    std::vector<Tensor> inputs;
    for (const Variable& v : inputs_) inputs.push_back(v.value());
    recorder->operation({name_, current_path(), attributes_, inputs, output, seconds_});
  }
  Variable y(output);
  const bool wanted = std::ranges::any_of(inputs_, [](const Variable& v) { return v.requires_gradient(); });
  if (!wanted || !gradients_enabled() || output.device() == Device::meta) return y;

  static std::atomic<uint64_t> sequence{0};
  auto node = std::make_shared<Node>(name_, current_path());
  node->sequence = ++sequence;
  for (const Variable& v : inputs_) node->inputs.push_back(v.slot());
  for (Saved& s : saved)
    if (s.tensor.defined()) s.version = s.tensor.version();
  node->saved = std::move(saved);
  node->backward = std::move(backward);
  y.slot_ = std::make_shared<Slot>(Slot{output.shape(), output.dtype(), output.device(), {}, false, node});
  return y;
}

}  // namespace mgic
