#include "backends/cpu/parallel.h"

#include <omp.h>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace mgic::cpu {

int thread_number() { return omp_get_thread_num(); }

int threads() { return omp_in_parallel() ? 1 : omp_get_max_threads(); }

int parts_of(int64_t n, int64_t grain) {
  constexpr int a_thread = 4;
  const int team = threads();
  if (team == 1) return 1;
  const auto most = static_cast<int>(std::clamp<int64_t>(n / std::max<int64_t>(grain, 1), 1, a_thread * team));
  return most <= team ? most : most / team * team;
}

int64_t part_begin(int64_t n, int parts, int part, bool backwards) {
  if (backwards) return n - part_begin(n, parts, parts - part);
  const int64_t team = threads(), rounds = parts / team;
  if (rounds < 2 || rounds * team != parts || n < 2 * parts) return n * part / parts;
  // The first part of a stretch is three quarters, so that a thread that is 1.5 times as fast as another finds enough
  // left, and of the rest the last is the smallest.
  const int64_t owner = part / rounds, left = rounds - part % rounds, begin = n * owner / team,
                own = n * (owner + 1) / team - begin, of = 4 * rounds * (rounds - 1);
  return left == rounds ? begin : begin + std::min(own * (of - left * (left + 1)) / of, own - left);
}

void flush_denormals() {
  thread_local bool done = false;
  if (done) return;
  done = true;
#if defined(__SSE__)
  _mm_setcsr(_mm_getcsr() | 0x8040);  // flush to zero, denormals are zero
#elif defined(__aarch64__)
  uint64_t control;
  asm volatile("mrs %0, fpcr" : "=r"(control));
  asm volatile("msr fpcr, %0" : : "r"(control | (uint64_t{1} << 24)));
#endif
}

}  // namespace mgic::cpu
