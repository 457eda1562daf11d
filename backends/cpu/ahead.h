// Memory that is wanted soon, fetched while arithmetic leaves memory idle.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace mgic::cpu {

// Runs of memory, of which a share is asked for now and then: asked for in one go, or while values are only copied,
// lines would wait for each other. Runs are contiguous, so that the hardware sees what comes and helps. Lines come into
// the second cache: the first one may not hold them yet, and asked into it to be written to, they took up to a third
// longer.
class Ahead {
 public:
  explicit Ahead(int64_t shares) : shares_(std::max<int64_t>(shares, 1)) {}

  // The `elements` behind p; nothing where it is null.
  template <class T>
  void add(const T* p, int64_t elements) {
    const int64_t bytes = elements * static_cast<int64_t>(sizeof(T));
    const auto* at = reinterpret_cast<const std::byte*>(p);
    if (p != nullptr) runs_[count_++] = {at, at, at + bytes, (bytes + shares_ - 1) / shares_};
  }

  void fetch(int64_t shares = 1) {
    for (int i = 0; i < count_; ++i) {
      Run& run = runs_[i];
      run.due = std::min(run.due + shares * run.share, run.end);
      const std::byte* line = run.next;
      for (; line < run.due; line += 64) __builtin_prefetch(line, 0, 2);
      run.next = line;
    }
  }

 private:
  static constexpr int most = 6;
  struct Run {
    const std::byte *next, *due, *end;
    int64_t share;  // bytes
  };
  Run runs_[most];
  int count_ = 0;
  int64_t shares_;
};

}  // namespace mgic::cpu
