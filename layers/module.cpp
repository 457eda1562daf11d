#include "layers/module.h"

#include <algorithm>

#include "core/rng.h"

namespace mgic {
namespace {

std::string join(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : name.empty() ? prefix : prefix + "." + name;
}

void draw(Tensor& t, const Init& init, uint64_t seed, const std::string& name) {
  Rng rng(seed, Purpose::init, 0, hash_name(name.data(), name.size()));
  // Drawn in double, so that every dtype and device begins with the same numbers.
  Tensor values = Tensor::empty(t.shape(), DType::f64, Device::reference);
  for (double& v : values.span<double>())
    v = init.kind == Init::constant ? init.value
        : init.kind == Init::normal ? init.value * rng.normal()
                                    : rng.uniform(-init.value, init.value);
  t.copy_from(values.to(t.dtype()).to(t.device()));
}

}  // namespace

Variable Module::operator()(const Variable& x) {
  return run_named([&] { return forward(x); });
}

Variable Module::run_named(const std::function<Variable()>& f) {
  PathScope scope(name_);
  Variable y = f();
  if (Recorder* recorder = active_recorder()) recorder->module_done(current_path(), type_, y.value());
  return y;
}

void Module::train(bool on) {
  training_ = on;
  for (auto& child : children_) child->train(on);
}

void Module::to(Device device, DType dtype) {
  auto moved = [&](const Tensor& t) {
    return t.device() == Device::meta ? Tensor::empty(t.shape(), dtype, device) : t.to(dtype).to(device);
  };
  for (auto& p : parameters_) *p.variable = Variable(moved(p.variable->value()), true);
  for (auto& b : buffers_) *b.tensor = moved(*b.tensor);
  for (auto& child : children_) child->to(device, dtype);
}

void Module::initialize(uint64_t seed) {
  walk("", [&](const std::string& prefix, Module& m) {
    for (auto& p : m.parameters_) draw(p.variable->value(), p.init, seed, join(prefix, p.name));
    for (auto& b : m.buffers_) draw(*b.tensor, b.init, seed, join(prefix, b.name));
  });
}

void Module::clear_gradients() {
  each_parameter([](const std::string&, Variable& p) { p.clear_gradient(); });
}

void Module::each_parameter(const std::function<void(const std::string&, Variable&)>& visit) {
  walk("", [&](const std::string& prefix, Module& m) {
    for (auto& p : m.parameters_) visit(join(prefix, p.name), *p.variable);
  });
}

void Module::each_buffer(const std::function<void(const std::string&, Tensor&)>& visit) {
  walk("", [&](const std::string& prefix, Module& m) {
    for (auto& b : m.buffers_) visit(join(prefix, b.name), *b.tensor);
  });
}

void Module::each_module(const std::function<void(const std::string&, Module&)>& visit) { walk("", visit); }

int64_t Module::parameter_count() {
  int64_t count = 0;
  each_parameter([&](const std::string&, Variable& p) { count += p.shape().count(); });
  return count;
}

void Module::walk(const std::string& prefix, const std::function<void(const std::string&, Module&)>& visit) {
  visit(prefix, *this);
  for (auto& child : children_) child->walk(join(prefix, child->name_), visit);
}

void Module::check_new(const std::string& name) const {
  check(!name.empty(), "{}: a name must not be empty", type_);
  const bool taken = std::ranges::any_of(parameters_, [&](auto& p) { return p.name == name; }) ||
                     std::ranges::any_of(buffers_, [&](auto& b) { return b.name == name; }) ||
                     std::ranges::any_of(children_, [&](auto& c) { return c->name_ == name; });
  if (taken) fail_user("{}: the name \"{}\" is taken already", type_, name);
}

void Module::add_parameter(std::string name, Variable& member, const Shape& shape, Init init) {
  check_new(name);
  member = Variable(Tensor::empty(shape, DType::f32, Device::meta), true);
  parameters_.push_back({std::move(name), &member, init});
}

void Module::add_buffer(std::string name, Tensor& member, const Shape& shape, Init init) {
  check_new(name);
  member = Tensor::empty(shape, DType::f32, Device::meta);
  buffers_.push_back({std::move(name), &member, init});
}

void Module::adopt(std::string name, std::unique_ptr<Module> child) {
  check_new(name);
  child->name_ = std::move(name);
  children_.push_back(std::move(child));
}

}  // namespace mgic
