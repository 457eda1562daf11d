// How work is dealt to the OpenMP threads.
//
// Every thread owns a stretch of a range, the same of every range, so that what it has written it also reads: cores
// that are far from each other share no cache, and what one of them has written comes slowly to the other. A stretch is
// cut into parts, which its owner takes one after the other; a thread that is done takes those that others have not
// begun, so that none waits long for a slower one, or for one that is held up by other work of the machine. The first
// part is the largest; the last ones are small, since they are what one waits for. The cuts depend on the range and the
// number of threads alone, so that reductions whose partial results are combined in the order of the parts are bitwise
// repeatable.
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
int thread_number();     // within the region that this is in
void flush_denormals();  // on this thread, for good: denormals cost a hundred cycles each and mean nothing here

// The number of parts for n items of which at least `grain` make a part.
int parts_of(int64_t n, int64_t grain);
// Where a part of n items begins, none of them empty unless there are fewer items; `backwards`: each owner takes its
// parts from the end.
int64_t part_begin(int64_t n, int parts, int part, bool backwards = false);

// Who takes which of some parts, which are dealt to so many owners.
class Deal {
 public:
  Deal(int parts, int owners, bool backwards) : parts_(parts), owners_(owners), backwards_(backwards), taken_(owners) {}

  int first(int owner) const { return static_cast<int>(int64_t{parts_} * owner / owners_); }
  int owner(int part) const { return static_cast<int>(((part + int64_t{1}) * owners_ - 1) / parts_); }
  // The next part that `owner` has not begun; none: -1.
  int take(int owner) {
    const int i = taken_[static_cast<size_t>(owner)].count.fetch_add(1), count = first(owner + 1) - first(owner);
    return i >= count ? -1 : backwards_ ? first(owner + 1) - 1 - i : first(owner) + i;
  }
  // The one its owner takes behind that; none: -1.
  int behind(int part) const {
    const int next = backwards_ ? part - 1 : part + 1;
    return next >= 0 && next < parts_ && owner(next) == owner(part) ? next : -1;
  }

 private:
  struct alignas(64) Taken {
    std::atomic<int> count{0};
  };
  int parts_, owners_;
  bool backwards_;
  std::vector<Taken> taken_;
};

// f(part, thread, begin, end) for every part. f must not throw.
template <class F>
void parallel(int64_t n, int parts, bool backwards, F&& f) {
  flush_denormals();
  if (parts == 1) return f(0, 0, int64_t{0}, n);
  std::vector<int64_t> begins;
  for (int part = 0; part <= parts; ++part) begins.push_back(part_begin(n, parts, part, backwards));
  const int owners = threads();
  Deal deal(parts, owners, backwards);
  // All threads enter, whatever the number of parts: libgomp ends threads when a smaller team is asked for.
#pragma omp parallel
  {
    flush_denormals();
    const int thread = thread_number();
    for (int k = 0; k < owners; ++k)
      for (int part; (part = deal.take((thread + k) % owners)) >= 0;) {
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
