// How work is dealt to the OpenMP threads.
//
// A range is cut into contiguous parts, several a thread, which take the next one as they come, so that none waits long
// for a slower one, or for one that is held up by other work of the machine. A thread's first part is the largest, and
// its own, since some of it may still be in its cache; the last ones are small, since they are what one waits for. The
// cuts depend on the range and the number of threads alone, so that reductions whose partial results are combined in
// the order of the parts are bitwise repeatable.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/allocator.h"

namespace mgic::cpu {

// Floats below which a part costs more than it brings (a region costs some microseconds).
constexpr int64_t elements_per_part = 16384;

int threads();           // of the next parallel region; 1 inside of one
int team_size();         // of the region that this is in
int thread_number();     // 0 … team_size() − 1
void flush_denormals();  // on this thread, for good: denormals cost a hundred cycles each and mean nothing here

// The number of parts for n items of which at least `grain` make a part.
int parts_of(int64_t n, int64_t grain);
// Where a part of n items begins, none of them empty unless there are fewer items; `backwards`: they are taken from the
// end.
int64_t part_begin(int64_t n, int parts, int part, bool backwards = false);

// f(part, thread, begin, end) for every part. f must not throw.
template <class F>
void parallel(int64_t n, int parts, bool backwards, F&& f) {
  flush_denormals();
  if (parts == 1) return f(0, 0, int64_t{0}, n);
  std::vector<int64_t> begins;
  for (int part = 0; part <= parts; ++part) begins.push_back(part_begin(n, parts, part, backwards));
  std::atomic<int> taken{0};
  // All threads enter, whatever the number of parts: libgomp ends threads when a smaller team is asked for.
#pragma omp parallel
  {
    flush_denormals();
    const int thread = thread_number(), team = team_size();
    for (int i = thread; i < parts; i = team + taken.fetch_add(1)) {
      const int part = backwards ? parts - 1 - i : i;
      const auto begin = begins.begin() + part;
      f(part, thread, begin[0], begin[1]);
    }
  }
}
// f(part, begin, end).
template <class F>
void parallel(int64_t n, int parts, F&& f) {
  parallel(n, parts, false, [&](int part, int, int64_t begin, int64_t end) { f(part, begin, end); });
}

// f(begin, end) over n items that cost `cost` floats each.
template <class F>
void parallel_ranges(int64_t n, int64_t cost, F&& f) {
  if (n == 0) return;
  parallel(n, parts_of(n, elements_per_part / std::max<int64_t>(cost, 1)),
           [&](int, int64_t begin, int64_t end) { f(begin, end); });
}

// Uninitialised memory from the caching allocator.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : memory_(Allocator::host().allocate(count * static_cast<int64_t>(sizeof(T)))), count_(count) {}
  T* data() { return reinterpret_cast<T*>(memory_.get()); }
  const T* data() const { return reinterpret_cast<const T*>(memory_.get()); }
  int64_t count() const { return count_; }
  T& operator[](int64_t i) { return data()[i]; }
  T operator[](int64_t i) const { return data()[i]; }

 private:
  std::shared_ptr<std::byte> memory_;
  int64_t count_;
};

}  // namespace mgic::cpu
