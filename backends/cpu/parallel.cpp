#include "backends/cpu/parallel.h"

#include <omp.h>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace mgic::cpu {

int thread_number() { return omp_get_thread_num(); }

int threads() { return omp_in_parallel() ? 1 : omp_get_max_threads(); }

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
