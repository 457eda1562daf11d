// Messages on stderr, by level. A message is formatted only where its level is shown.
#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>

namespace mgic {

// Each shows itself and all before it; info, the default, adds progress and epochs, debug what the engine decides.
enum class LogLevel : uint8_t { error, warning, info, debug };

void set_log_level(LogLevel level);
bool logs(LogLevel level);
void write_log(LogLevel level, const std::string& text);  // one line; warnings begin with "warning: "

template <class... Args>
void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
  if (logs(level)) write_log(level, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace mgic
