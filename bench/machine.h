// What the machine can do: the two roofs that every measured time is compared with.
//
//   limit = max(flops / peak of fused multiply-adds, bytes / bandwidth of the triad)
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

namespace mgic::bench {

// The rate of one register-only loop on all threads; a multiply-add counts as two flops.
struct Peak {
  std::string instructions;  // "vfmadd231ps zmm"
  int vector_bits = 0;
  double gflops = 0;
};

// STREAM's triad a = b + s c on three arrays of `array_mb` MiB each, in huge pages as the maps of a network are. A run
// takes some tens of milliseconds, so that it can stand between the things that are timed: on a shared machine the
// bandwidth changes from minute to minute.
class Triad {
 public:
  Triad(int threads, int64_t array_mb);
  double run();            // GB/s as STREAM counts it: three arrays, ordinary stores
  double run_streaming();  // the same with stores that bypass the caches; 0 where there is no such store

 private:
  using Loop = void (*)(float*, const float*, const float*, float, int64_t);
  double run(Loop loop);
  struct Free {
    void operator()(float* p) const;
  };
  int threads_;
  int64_t part_;  // elements a thread
  std::unique_ptr<float[], Free> a_, b_, c_;
};

struct Machine {
  std::string cpu;
  int threads = 1;
  std::vector<Peak> f32, bf16;  // the widths that this processor has, each at its best repetition; bf16 may be empty
  double triad_gb_s = 0, triad_median_gb_s = 0;  // best and median repetition
  double triad_streaming_gb_s = 0;               // best
  // A cache line's way to another thread and back: how far apart the cores are. 0: there is one thread.
  double round_trip_ns = 0;

  double f32_gflops() const;   // the best width
  double bf16_gflops() const;  // of products of bf16: by what it has for them, or in f32 where that is faster
  nlohmann::json json() const;
};

// Measures for about `seconds`. The peaks are the best repetitions: a limit is what the machine can do, not what its
// other tenants leave of it.
Machine measure_machine(int threads, double seconds, Triad& triad);

// Reads a and b, either of which may be empty, and writes y with ordinary stores, each thread its own parts: what maps
// of these sizes take out of cache, whatever is computed. Returns the sum of what was read, so that all of it is.
float plain_pass(int threads, std::span<const float> a, std::span<const float> b, std::span<float> y);

double median(std::vector<double> values);

}  // namespace mgic::bench
