// Memory that is wanted soon, fetched while arithmetic leaves memory idle.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace mgic::cpu {

// Rows of memory, of which a share is asked for now and then: asked for in one go, or while values are only copied,
// lines would wait for each other. Rows should be long, so that the hardware sees what comes and helps. Lines come into
// the second cache: the first one may not hold them yet, and asked into it to be written to, they took up to a third
// longer.
class Ahead {
 public:
  explicit Ahead(int64_t shares) : shares_(std::max<int64_t>(shares, 1)) {}

  // The `elements` behind p; nothing where it is null.
  template <class T>
  void add(const T* p, int64_t elements) {
    add(p, 1, elements, elements);
  }
  // `rows` rows of so many elements, `stride` from one to the next.
  template <class T>
  void add(const T* p, int64_t rows, int64_t elements, int64_t stride) {
    constexpr int64_t size = sizeof(T);
    const int64_t lines = (elements * size + line - 1) / line;
    if (p == nullptr || rows * lines == 0) return;
    const auto* first = reinterpret_cast<const std::byte*>(p);
    runs_[count_++] = {
        first, first, first + lines * line, stride * size, 0, rows * lines, rows * lines * one / shares_ + 1};
  }

  // Inlined, since for a call a kernel would have to put its vectors aside.
  [[gnu::always_inline]] void fetch(int64_t shares = 1) {
    asked_ += shares;
    for (int i = 0; i < count_; ++i) {
      Run& run = runs_[i];
      const int64_t due = std::min(asked_ * run.share >> bits, run.lines);
      if (run.done >= due) continue;
      // Not by way of memory, which would take longer than the lines.
      const std::byte *next = run.next, *row_end = run.row_end;
      for (int64_t lines = due - std::exchange(run.done, due); lines > 0; --lines) {
        __builtin_prefetch(next, 0, 2);
        next += line;
        if (next == row_end) {
          run.row += run.stride;
          next = run.row;
          row_end += run.stride;
        }
      }
      run.next = next;
      run.row_end = row_end;
    }
  }

 private:
  static constexpr int64_t line = 64, bits = 16, one = int64_t{1} << bits;
  static constexpr int most = 8;
  struct Run {
    const std::byte *next, *row, *row_end;
    int64_t stride, done, lines, share;  // of all lines with one share, in units of `one`
  };
  Run runs_[most];
  int count_ = 0;
  int64_t shares_, asked_ = 0;
};

}  // namespace mgic::cpu
