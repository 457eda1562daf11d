// Module: a layer or a network, which owns named parameters, buffers and children. Names joined by dots are the names
// in checkpoints, summaries, errors and traces.
//
// A module is built on `meta`: shapes without memory, so that a summary costs nothing. `to` gives it memory and
// `initialize` its first values.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "autograd/recorder.h"
#include "autograd/variable.h"
#include "core/registry.h"

namespace mgic {

// How a parameter or buffer begins.
struct Init {
  enum Kind { constant, normal, uniform } kind = constant;
  double value = 0;  // the constant; the deviation; the bound b of U(−b, b)
};

class Module {
 public:
  explicit Module(std::string_view type) : type_(type) {}
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  // Runs forward under this module's name.
  Variable operator()(const Variable& x);

  std::string_view type() const { return type_; }    // "conv2d"
  const std::string& name() const { return name_; }  // within its parent: "conv1", "smooth.0"
  bool training() const { return training_; }
  void train(bool on = true);           // this module and all below
  void to(Device device, DType dtype);  // moves or converts all parameters and buffers
  // Draws every parameter from a stream of its own (seed, its name): independent of the order of construction.
  void initialize(uint64_t seed);
  void clear_gradients();

  // In the order of construction; names are relative to this module.
  void each_parameter(const std::function<void(const std::string& name, Variable&)>& visit);
  void each_buffer(const std::function<void(const std::string& name, Tensor&)>& visit);
  void each_module(const std::function<void(const std::string& name, Module&)>& visit);  // itself first, as ""
  int64_t parameter_count();

 protected:
  virtual Variable forward(const Variable& x) = 0;

  // Called in the constructor; the members live as long as the module.
  void add_parameter(std::string name, Variable& member, const Shape& shape, Init init);
  void add_buffer(std::string name, Tensor& member, const Shape& shape, Init init);
  template <class M>
  M& add_child(std::string name, std::unique_ptr<M> child) {
    M& reference = *child;
    adopt(std::move(name), std::move(child));
    return reference;
  }
  // For modules whose call takes more than one input: runs f under this module's name.
  Variable run_named(const std::function<Variable()>& f);

 private:
  struct OwnParameter {
    std::string name;
    Variable* variable;
    Init init;
  };
  struct OwnBuffer {
    std::string name;
    Tensor* tensor;
    Init init;
  };
  void adopt(std::string name, std::unique_ptr<Module> child);
  void check_new(const std::string& name) const;
  void walk(const std::string& prefix, const std::function<void(const std::string&, Module&)>& visit);

  std::string type_, name_;
  bool training_ = true;
  std::vector<OwnParameter> parameters_;
  std::vector<OwnBuffer> buffers_;
  std::vector<std::unique_ptr<Module>> children_;
};

// What a layer is built for. In a V-cycle: the level's width, its groups, its number, whether it is the last one, and
// the dilation of its spatial kernels. Elsewhere: what arrives, one group, level 0, coarsest, 1.
struct LayerContext {
  int64_t channels = 0;
  int64_t groups = 1;
  int64_t level = 0;
  bool coarsest = true;
  Shape input{};  // of one sample (1, H, W, C) where it is known, else rank 0
  int64_t dilation = 1;
};

using LayerRegistry = Registry<Module, LayerContext>;
using LayerSpec = LayerRegistry::SpecType;

// All layers that JSON can name (layers/register.cpp).
LayerRegistry& layer_registry();

}  // namespace mgic
