// Progress of a training: a bar on a terminal, else one line per interval. On stderr, at log level info.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "train/metrics.h"

namespace mgic {

std::string format_duration(double seconds);  // "1:23", "2:03:04"

class Progress {
 public:
  // `done` of `total` steps were done before this process began.
  Progress(int64_t total_steps, int64_t done, double interval_seconds);

  // Whether a line is due, so that metrics are read only then.
  bool due(int64_t step) const;
  void show(int64_t epoch, int64_t epochs, int64_t step_in_epoch, int64_t steps_per_epoch, int64_t step,
            const Metrics& metrics, Task task, double images_per_second);
  // Prints above the bar.
  void line(const std::string& text);
  void finish();

 private:
  using Clock = std::chrono::steady_clock;
  bool terminal_;
  int64_t total_, first_;
  double interval_;
  Clock::time_point start_, shown_;
  bool bar_ = false;
};

}  // namespace mgic
