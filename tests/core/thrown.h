// What a function throws, as text: "Error: …" or "UserError: …", so that a test pins both the message and the kind.
#pragma once

#include <exception>
#include <string>

#include "core/error.h"

namespace mgic::test {

template <class F>
std::string thrown(F&& f) {
  try {
    f();
  } catch (const UserError& e) {
    return std::string("UserError: ") + e.what();
  } catch (const Error& e) {
    return std::string("Error: ") + e.what();
  } catch (const std::exception& e) {
    return std::string("not of ours: ") + e.what();
  }
  return "nothing";
}

inline bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace mgic::test
