// oneDNN behind one small wall: the engine and the stream, the difference between its 2.x and 3.x interfaces, its
// errors as ours, and a bounded cache of primitives.
//
// A primitive is compiled for its exact shapes, which takes a hundred times as long as a small layer; so a Key holds
// everything that it depends on, the number of threads included, and a training step in steady state creates none.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>

#include "backends/backend.h"

namespace mgic::cpu::onednn {

using Desc = dnnl::memory::desc;
using Tag = dnnl::memory::format_tag;

const dnnl::engine& engine();
dnnl::stream& stream();

inline Desc f32_desc(const dnnl::memory::dims& dims, Tag tag) { return {dims, dnnl::memory::data_type::f32, tag}; }

// The primitive descriptor of P; in both versions the arguments between are the same.
template <class P, class... Args>
typename P::primitive_desc describe(const dnnl::primitive_attr& attributes, const Args&... args) {
#if DNNL_VERSION_MAJOR >= 3
  return typename P::primitive_desc(engine(), args..., attributes);
#else
  return typename P::primitive_desc(typename P::desc(args...), attributes, engine());
#endif
}

// The same for backward primitives, which want their forward one as a hint.
template <class P, class Hint, class... Args>
typename P::primitive_desc describe_backward(const dnnl::primitive_attr& attributes, const Hint& hint,
                                             const Args&... args) {
#if DNNL_VERSION_MAJOR >= 3
  return typename P::primitive_desc(engine(), args..., hint, attributes);
#else
  return typename P::primitive_desc(typename P::desc(args...), attributes, engine(), hint);
#endif
}

// Appends the activation and returns true where oneDNN has it in both versions.
bool append_activation(dnnl::post_ops& ops, Activation activation);

// Scratchpads come from the caching allocator, not from oneDNN.
dnnl::primitive_attr attributes_with(const dnnl::post_ops& ops = {});

// A primitive that is ready to run, with the layout that it wants its weights in.
struct Plan {
  dnnl::primitive primitive;
  Desc scratchpad;
  Desc weights;             // of the weights or, in backward weights, of their gradient
  dnnl::primitive reorder;  // between that and our own layout; null where they are the same
  Desc reorder_scratchpad;
  bool fused = true;  // whether the epilogue asked for is part of the primitive
};

// Makes plan.reorder where `from` and `to` differ.
void plan_reorder(Plan& plan, const Desc& from, const Desc& to);

struct Key {
  std::array<int64_t, 20> values{};
  Key(std::initializer_list<int64_t> parts);  // the first names the operation; the number of threads is added
  bool operator==(const Key&) const = default;
};

struct Argument {
  int name;   // DNNL_ARG_…
  Desc desc;  // empty: the primitive has no such argument, and it is left out
  const void* data;
};

// Runs with the scratchpad it needs.
void run(const dnnl::primitive& primitive, const Desc& scratchpad, std::initializer_list<Argument> arguments);

// The cached plan of this key, made by `make` where there is none. `what` completes an error: "conv2d of x (…), w (…)".
std::shared_ptr<const Plan> plan_for(const Key& key, const std::function<std::string()>& what,
                                     const std::function<Plan()>& make);

// f(), its oneDNN errors turned into ours.
void guarded(const std::function<std::string()>& what, const std::function<void()>& f);

}  // namespace mgic::cpu::onednn
