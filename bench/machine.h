// What the machine can do: the two roofs that every measured time is compared with.
//
//   limit = max(flops / peak of fused multiply-adds, bytes / bandwidth of the triad)
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace mgic::bench {

// The rate of one register-only loop on all threads; a multiply-add counts as two flops.
struct Peak {
  std::string instructions;  // "vfmadd231ps zmm"
  int vector_bits = 0;
  double gflops = 0;
};

struct Machine {
  std::string cpu;
  int threads = 1;
  std::vector<Peak> f32, bf16;  // the widths that this processor has, each at its best repetition; bf16 may be empty
  double triad_gb_s = 0;        // a = b + s c as STREAM counts it: three arrays, ordinary stores
  double triad_streaming_gb_s = 0;  // the same with stores that bypass the caches; 0 where there is no such store

  double f32_gflops() const;   // the best width
  double bf16_gflops() const;  // 0 where the processor has no bf16 dot product
  nlohmann::json json() const;
};

// Measures for about `seconds`; the arrays of the triad have `array_mb` MiB each. Every figure is the best repetition:
// a limit is what the machine can do, not what its other tenants leave.
Machine measure_machine(int threads, double seconds, int64_t array_mb);

double median(std::vector<double> values);

}  // namespace mgic::bench
