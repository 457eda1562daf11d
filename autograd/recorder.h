// Recorder: receives every operation that runs on this thread, on any device, meta included. Summaries, dry runs,
// traces, per-layer timing and the search for the first layer that is not finite are consumers of it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/tensor.h"

namespace mgic {

struct Attribute {
  std::string_view name;
  std::variant<int64_t, double, std::string_view> value;
};
using Attributes = std::vector<Attribute>;

struct Operation {
  std::string_view name;  // "conv2d"
  std::string_view path;  // of the module that ran it: "stages.0.0.mgic.smooth.1.conv1"
  const Attributes& attributes;
  const std::vector<Tensor>& inputs;  // undefined where an optional input is absent
  const Tensor& output;
  double seconds;  // of the forward call
};

class Recorder {
 public:
  // With `expand`, fused units run as the plain operations that they are made of, so that each one is seen.
  explicit Recorder(bool expand);
  virtual ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  bool expands() const { return expand_; }
  virtual void operation(const Operation&) {}
  virtual void module_done(std::string_view /*path*/, std::string_view /*type*/, const Tensor& /*output*/) {}
  virtual void backward_done(std::string_view /*operation*/, std::string_view /*path*/, double /*seconds*/) {}
  virtual void update_done(double /*seconds*/) {}  // the optimizer's, of all parameters

 private:
  bool expand_;
  Recorder* before_;
};

Recorder* active_recorder();  // the innermost one alive on this thread, or null

// Multiply-accumulates of a convolution or a linear operation; 0 for all others.
int64_t multiply_accumulates(const Operation& operation);

// The dotted path of the module that runs now, on this thread.
const std::string& current_path();
class PathScope {
 public:
  explicit PathScope(std::string_view name);
  ~PathScope();
  PathScope(const PathScope&) = delete;
  PathScope& operator=(const PathScope&) = delete;

 private:
  size_t before_;
};

}  // namespace mgic
