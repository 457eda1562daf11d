#include "backends/cpu/parallel.h"

#include <omp.h>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace mgic::cpu {

int team_size() { return omp_get_num_threads(); }
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
  const int64_t team = threads(), rounds = parts / team, round = part / team, within = part % team;
  if (rounds < 2 || rounds * team != parts || n < 2 * parts) return n * part / parts;
  // Rounds of a part a thread. The first ones are three quarters, so that a thread that is 1.5 times as fast as another
  // finds enough left, and of the rest the last are the smallest. The parts of a round are alike, so that equally fast
  // threads are done together; what does not divide goes to the last one.
  const auto first = [&](int64_t r) {
    const int64_t left = rounds - r, of = 4 * rounds * (rounds - 1), share = n / team * (of - left * (left + 1)) / of;
    return r == 0 ? 0 : std::min(share, n / team - left) * team;
  };
  const int64_t end = round + 1 < rounds ? first(round + 1) : n;
  return round < rounds ? first(round) + (end - first(round)) * within / team : n;
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
