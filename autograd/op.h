// Op: the frame of a differentiable operation. It checks devices and dtypes, keeps the shape rule next to the
// operation, calls the backend (but not on meta), tells the Recorder and makes the Node:
//
//   Variable relu(const Variable& x) {
//     Op op("relu", {x});
//     Tensor y = Tensor::empty_like(x.value());
//     op.run([&](Backend& b) { b.activation(Activation::relu, x.value(), y); });
//     return op.result(y, {{"x", x.value()}}, [](Backend& b, const Tensor& dy, const SavedTensors& s, const Sinks& d) {
//       b.activation_backward(Activation::relu, s[0], dy, d[0]);
//     });
//   }
#pragma once

#include <fmt/core.h>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "autograd/recorder.h"
#include "autograd/variable.h"

namespace mgic {

class Op {
 public:
  // The first input is the one whose device and dtype all float inputs must share. Absent inputs are undefined.
  Op(std::string_view name, std::vector<Variable> inputs, Attributes attributes = {});

  // A shape rule. The message begins with the operation and ends with its inputs' shapes.
  template <class... Args>
  void rule(bool holds, fmt::format_string<Args...> format, Args&&... args) const {
    if (!holds) broken(fmt::format(format, std::forward<Args>(args)...));
  }

  void run(const std::function<void(Backend&)>& call);

  // The operation's output; with a Node where any input requires a gradient. The function gets the saved tensors and
  // the sinks in the order given here and in the constructor.
  Variable result(const Tensor& output, std::vector<Saved> saved, BackwardFunction backward);

 private:
  [[noreturn]] void broken(const std::string& rule) const;

  std::string_view name_;
  std::vector<Variable> inputs_;
  Attributes attributes_;
  double seconds_ = 0;
};

}  // namespace mgic
