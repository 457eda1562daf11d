// Errors: what went wrong, where, which rule, and what to do.
#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <concepts>
#include <stdexcept>
#include <string>
#include <utility>

// Shapes, tensors and whatever else has str() can be passed to a message as they are, and cost nothing until it is
// made.
template <class T>
requires requires(const T& t) {
  { t.str() } -> std::same_as<std::string>;
}
struct fmt::formatter<T> {
  constexpr auto parse(fmt::format_parse_context& context) { return context.begin(); }
  template <class Context>
  auto format(const T& value, Context& context) const {
    const std::string text = value.str();
    return std::copy(text.begin(), text.end(), context.out());
  }
};

namespace mgic {

// A failure inside the framework or of the machine (exit code 1).
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The user's input is wrong (exit code 2); what() may hold several lines, one fault each.
class UserError : public Error {
 public:
  using Error::Error;
};

template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
[[noreturn]] void fail_user(fmt::format_string<Args...> format, Args&&... args) {
  throw UserError(fmt::format(format, std::forward<Args>(args)...));
}

// A rule that the caller must keep. The message is formatted only when it is broken; its arguments are evaluated
// always, so shapes and tensors are passed as they are, not as strings.
template <class... Args>
void check(bool holds, fmt::format_string<Args...> format, Args&&... args) {
  if (!holds) throw Error(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace mgic
