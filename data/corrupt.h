// CorruptFiles: damaged files are named and counted, and skipped up to a number that the configuration sets.
//
// A data set reads each file under guard(). What is wrong with a file is said once, as a warning that names it; one
// more file than `max_corrupt` ends the run.
#pragma once

#include <functional>
#include <mutex>
#include <set>
#include <string>

#include "core/error.h"
#include "core/fields.h"

namespace mgic {

// The sample's file is damaged, which has been said, and may be skipped: training takes the next sample in its place,
// evaluation goes without it.
class CorruptSample : public Error {
 public:
  using Error::Error;
};

class CorruptFiles {
 public:
  explicit CorruptFiles(int64_t most) : most_(most) {}

  // Runs `read`. A UserError in it is reported, and thrown again as CorruptSample, or as UserError once there are more
  // than `most`. Called by several threads at once.
  void guard(const std::function<void()>& read) const;

  int64_t count() const;

 private:
  const int64_t most_;
  mutable std::mutex mutex_;
  mutable std::set<std::string> found_;  // the messages, each of which begins with its file
};

// The key that every data set of many files takes.
struct CorruptOptions {
  int64_t max_corrupt = 0;
  void fields(Fields& f) {
    f("max_corrupt", max_corrupt, "damaged files that are skipped with a warning before the run ends", between(0, 1e9));
  }
};

}  // namespace mgic
