#include "core/log.h"

#include <atomic>
#include <cstdio>

namespace mgic {
namespace {

std::atomic<LogLevel> shown{LogLevel::info};

}  // namespace

void set_log_level(LogLevel level) { shown = level; }

bool logs(LogLevel level) { return level <= shown.load(std::memory_order_relaxed); }

void write_log(LogLevel level, const std::string& text) {
  const char* prefix = level == LogLevel::warning ? "warning: " : level == LogLevel::debug ? "debug: " : "";
  fmt::print(stderr, "{}{}\n", prefix, text);
  std::fflush(stderr);
}

}  // namespace mgic
