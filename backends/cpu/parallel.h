// How work is dealt to the OpenMP threads.
//
// A range is cut into one contiguous part a thread. The cuts depend on the range and the number of threads alone, so
// that reductions whose partial results are combined in the order of the parts are bitwise repeatable.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "core/allocator.h"

namespace mgic::cpu {

// Floats below which a second thread costs more than it brings (a region costs some microseconds).
constexpr int64_t elements_per_thread = 16384;

int threads();           // of the next parallel region; 1 inside of one
void flush_denormals();  // on this thread, for good: denormals cost a hundred cycles each and mean nothing here

// The number of parts for n items of which at least `grain` make a part.
inline int parts_of(int64_t n, int64_t grain) {
  return static_cast<int>(std::clamp<int64_t>(n / std::max<int64_t>(grain, 1), 1, threads()));
}
inline int64_t part_begin(int64_t n, int parts, int part) { return n * part / parts; }

// f(part, begin, end) for every part, none of them empty unless n is 0. f must not throw.
template <class F>
void parallel(int64_t n, int parts, F&& f) {
  flush_denormals();
  if (parts == 1) return f(0, int64_t{0}, n);
    // All threads enter, whatever the number of parts: libgomp ends threads when a smaller team is asked for.
#pragma omp parallel for schedule(static, 1)
  for (int part = 0; part < parts; ++part) {
    flush_denormals();
    f(part, part_begin(n, parts, part), part_begin(n, parts, part + 1));
  }
}

int thread_number();  // 0 … threads() − 1, inside of a region

// The same with several parts a thread, which take the next one as they come: a thread that is held up by other work of
// the machine costs the time of a part, not of the whole. f(part, thread, begin, end); `backwards`: the last part
// first.
constexpr int chunks_per_thread = 4;
inline int chunks_of(int64_t n) { return static_cast<int>(std::min<int64_t>(n, threads() * chunks_per_thread)); }
template <class F>
void parallel_chunks(int64_t n, int parts, bool backwards, F&& f) {
  flush_denormals();
#pragma omp parallel for schedule(dynamic, 1)
  for (int i = 0; i < parts; ++i) {
    flush_denormals();
    const int part = backwards ? parts - 1 - i : i;
    f(part, thread_number(), part_begin(n, parts, part), part_begin(n, parts, part + 1));
  }
}

// f(begin, end) over n items that cost `cost` floats each.
template <class F>
void parallel_ranges(int64_t n, int64_t cost, F&& f) {
  if (n == 0) return;
  parallel(n, parts_of(n, elements_per_thread / std::max<int64_t>(cost, 1)),
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
