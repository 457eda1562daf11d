// bench_peak [--threads N] [--seconds S] [--array-mb M]: the machine's roofs as one JSON object on stdout.
//
//   f32_gflops, bf16_gflops   register-only multiply-adds, best vector width; bf16: the dot product, AMX, or f32's
//   triad_gb_s                STREAM triad on arrays far larger than the caches
//   round_trip_ns             a cache line's way from one thread to another and back
#include <omp.h>

#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "bench/machine.h"

int main(int argc, char** argv) {
  int threads = omp_get_max_threads();
  double seconds = 3;
  int64_t array_mb = 256;
  for (int i = 1; i < argc; i += 2) {
    const std::string_view key = argv[i];
    const double value = i + 1 < argc ? std::atof(argv[i + 1]) : 0;
    if (value > 0 && key == "--threads") {
      threads = static_cast<int>(value);
    } else if (value > 0 && key == "--seconds") {
      seconds = value;
    } else if (value >= 1 && key == "--array-mb") {
      array_mb = static_cast<int64_t>(value);
    } else {
      std::fprintf(stderr, "error: %s: usage: bench_peak [--threads N] [--seconds S] [--array-mb M]\n", argv[i]);
      return 2;
    }
  }
  mgic::bench::Triad triad(threads, array_mb);
  std::puts(mgic::bench::measure_machine(threads, seconds, triad).json().dump(2).c_str());
}
