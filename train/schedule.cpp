#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mgic {
namespace {

struct WarmupOptions {
  double warmup_epochs = 0;

  void fields(Fields& f) {
    f("warmup_epochs", warmup_epochs, "epochs in which the rate rises linearly from near 0", at_least(0));
  }
};

// Warm-up, then `after(progress, epoch)` with progress from 0 to 1 over the remaining steps.
class Warmed final : public Schedule {
 public:
  using After = std::function<double(double progress, double epoch)>;
  Warmed(const WarmupOptions& o, const ScheduleContext& c, After after)
      : context_(c),
        warm_(static_cast<int64_t>(std::llround(o.warmup_epochs * static_cast<double>(c.steps_per_epoch)))),
        after_(std::move(after)) {}

  double factor(int64_t step) const override {
    if (step < warm_) return static_cast<double>(step + 1) / static_cast<double>(warm_);
    const int64_t rest = std::max<int64_t>(context_.total_steps - warm_, 1);
    return after_(static_cast<double>(step - warm_) / static_cast<double>(rest),
                  static_cast<double>(step) / static_cast<double>(context_.steps_per_epoch));
  }

 private:
  ScheduleContext context_;
  int64_t warm_;
  After after_;
};

struct StepOptions {
  WarmupOptions warmup;
  std::vector<int64_t> milestones;
  double gamma = 0.1;

  void fields(Fields& f) {
    warmup.fields(f);
    f("milestones", milestones, "epochs at whose beginning the rate falls", at_least(1));
    f("gamma", gamma, "what it falls by", between(0, 1));
  }
};

struct CosineOptions {
  WarmupOptions warmup;
  double final_factor = 0;

  void fields(Fields& f) {
    warmup.fields(f);
    f("final_factor", final_factor, "share of the rate that is left at the end", between(0, 1));
  }
};

}  // namespace

ScheduleRegistry& schedule_registry() {
  using Made = std::unique_ptr<Schedule>;
  static ScheduleRegistry registry = [] {
    ScheduleRegistry r("schedule");
    r.add(
        "constant", "the same rate throughout", +[](const WarmupOptions& o, const ScheduleContext& c) -> Made {
          return std::make_unique<Warmed>(o, c, [](double, double) { return 1.0; });
        });
    r.add(
        "step", "falls by a factor at given epochs", +[](const StepOptions& o, const ScheduleContext& c) -> Made {
          return std::make_unique<Warmed>(o.warmup, c, [o](double, double epoch) {
            const auto passed =
                std::ranges::count_if(o.milestones, [&](int64_t m) { return epoch >= static_cast<double>(m); });
            return std::pow(o.gamma, static_cast<double>(passed));
          });
        });
    r.add(
        "cosine", "half a cosine from the full rate down",
        +[](const CosineOptions& o, const ScheduleContext& c) -> Made {
          return std::make_unique<Warmed>(o.warmup, c, [o](double progress, double) {
            const double cosine = 0.5 * (1.0 + std::cos(std::numbers::pi * std::min(progress, 1.0)));
            return o.final_factor + (1.0 - o.final_factor) * cosine;
          });
        });
    return r;
  }();
  return registry;
}

}  // namespace mgic
