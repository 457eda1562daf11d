#include "train/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/log.h"

namespace mgic {
namespace {

constexpr double terminal_interval = 0.25;  // seconds; a bar that moves smoothly without costing time
constexpr int bar_width = 24;

std::string bar(double share) {
  static const char* eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const int ticks = static_cast<int>(std::clamp(share, 0.0, 1.0) * bar_width * 8);
  std::string text;
  for (int i = 0; i < ticks / 8; ++i) text += "█";
  text += eighths[ticks % 8];
  const int used = ticks / 8 + (ticks % 8 ? 1 : 0);
  return text + std::string(static_cast<size_t>(bar_width - used), ' ');
}

}  // namespace

std::string format_duration(double seconds) {
  const int64_t s = std::llround(seconds);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

Progress::Progress(int64_t total_steps, int64_t done, double interval_seconds)
    : terminal_(isatty(STDERR_FILENO) == 1),
      total_(total_steps),
      first_(done),
      interval_(terminal_ ? terminal_interval : interval_seconds),
      start_(Clock::now()),
      shown_(start_) {}

bool Progress::due(int64_t step) const {
  if (!logs(LogLevel::info)) return false;
  return step == total_ || std::chrono::duration<double>(Clock::now() - shown_).count() >= interval_;
}

void Progress::show(int64_t epoch, int64_t epochs, int64_t step_in_epoch, int64_t steps_per_epoch, int64_t step,
                    const Metrics& m, Task task, double images_per_second) {
  shown_ = Clock::now();
  const double elapsed = std::chrono::duration<double>(shown_ - start_).count();
  const double eta =
      step > first_ ? elapsed / static_cast<double>(step - first_) * static_cast<double>(total_ - step) : 0;
  const std::string numbers = fmt::format("loss {:.4f}  {}  {:6.0f} images/s  ETA {}", m.loss, m.text(task),
                                          images_per_second, format_duration(eta));
  const int digits = static_cast<int>(std::to_string(steps_per_epoch).size());
  if (terminal_) {
    fmt::print(stderr, "\r\x1b[Kepoch {}/{} |{}| {:>{}}/{}  {}", epoch, epochs,
               bar(static_cast<double>(step_in_epoch) / static_cast<double>(steps_per_epoch)), step_in_epoch, digits,
               steps_per_epoch, numbers);
    bar_ = true;
  } else {
    fmt::print(stderr, "epoch {}/{}  step {:>{}}/{}  {}\n", epoch, epochs, step_in_epoch, digits, steps_per_epoch,
               numbers);
  }
  std::fflush(stderr);
}

void Progress::line(const std::string& text) {
  if (bar_) fmt::print(stderr, "\r\x1b[K");
  bar_ = false;
  log(LogLevel::info, "{}", text);
}

void Progress::finish() {
  if (bar_) fmt::print(stderr, "\n");
  bar_ = false;
}

}  // namespace mgic
