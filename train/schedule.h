// Schedules: the learning rate of each step, as a factor of the optimizer's.
// Warm-up of the first n steps: (step + 1) / n; the schedule proper runs behind it.
#pragma once

#include "core/registry.h"

namespace mgic {

class Schedule {
 public:
  virtual ~Schedule() = default;
  virtual double factor(int64_t step) const = 0;  // step from 0
};

struct ScheduleContext {
  int64_t steps_per_epoch = 1, total_steps = 1;
};

using ScheduleRegistry = Registry<Schedule, ScheduleContext>;
using ScheduleSpec = ScheduleRegistry::SpecType;
ScheduleRegistry& schedule_registry();

}  // namespace mgic
