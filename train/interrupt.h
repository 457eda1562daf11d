// SIGINT and SIGTERM ask a training to stop at the next step; a second one ends the process at once.
#pragma once

namespace mgic {

class InterruptScope {
 public:
  InterruptScope();
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;
  bool requested() const;
};

}  // namespace mgic
