#include "data/corrupt.h"

#include "core/log.h"

namespace mgic {

void CorruptFiles::guard(const std::function<void()>& read) const {
  try {
    read();
  } catch (const UserError& e) {
    const std::string what = e.what();
    std::lock_guard lock(mutex_);
    const bool is_new = found_.insert(what).second;
    const auto number = static_cast<int64_t>(found_.size());
    if (number > most_)
      throw UserError(most_ == 0 ? fmt::format("{}; set data.max_corrupt to skip such files", what)
                                 : fmt::format("{}; this is damaged file number {}, and data.max_corrupt is {}", what,
                                               number, most_));
    if (is_new) log(LogLevel::warning, "{}; skipped: damaged file {} of at most {}", what, number, most_);
    throw CorruptSample(what);
  }
}

int64_t CorruptFiles::count() const {
  std::lock_guard lock(mutex_);
  return static_cast<int64_t>(found_.size());
}

}  // namespace mgic
