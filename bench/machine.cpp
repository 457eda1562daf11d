// How the roofs are measured.
//
// Peak: every thread runs a loop of independent multiply-adds whose operands and results never leave the registers. It
// needs at least latency × units of them in flight (4 × 2 on Zen 4, 4 × 2 on recent Intel cores): 16, or 12 where the
// instruction set has 16 registers only. The instructions are written as such (asm), since a compiler that is given
// arrays may spill them, which halves the result unnoticed. All widths are tried: processors that split 512-bit
// operations reach with 256 bits what others need 512 for, and the bf16 dot product may be fast at one width only.
// Where there is AMX, it is bf16's peak.
//
// Triad: McCalpin's STREAM, a_i = b_i + s c_i, 12 bytes an element in f32. An ordinary store first reads the line that
// it writes, which STREAM does not count; the variant that bypasses the caches shows what this costs.
#include "bench/machine.h"

#include <omp.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "backends/cpu/amx.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mgic::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_of(const std::function<void()>& f) {
  const auto start = Clock::now();
  f();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The shortest of repetitions that fill `seconds`, three at least; the first is warm-up.
double best_seconds(double seconds, const std::function<void()>& f) {
  f();
  double best = 1e30, spent = 0;
  for (int i = 0; i < 3 || spent < seconds; ++i) {
    const double t = seconds_of(f);
    best = std::min(best, t);
    spent += t;
  }
  return best;
}

// A loop of `steps` rounds; each round does `flops` flops.
struct Loop {
  std::string instructions;
  int vector_bits;
  double flops;
  void (*run)(int64_t steps);
};

#if defined(__x86_64__)

// One loop: `count` accumulators of type `vector`, all updated by `instruction` once a round. The two sources are zero:
// denormals and overflow cannot occur, and the time does not depend on values.
#define MGIC_PEAK_LOOP(name, isa, vector, count, instruction)                                       \
  __attribute__((target(isa))) void name(int64_t steps) {                                           \
    vector acc[count], a{}, b{};                                                                    \
    _Pragma("GCC unroll 32") for (int i = 0; i < count; ++i) acc[i] = vector{};                     \
    for (int64_t s = 0; s < steps; ++s) {                                                           \
      _Pragma("GCC unroll 32") for (int i = 0; i < count;                                           \
                                    ++i) asm volatile(instruction : "+v"(acc[i]) : "v"(a), "v"(b)); \
    }                                                                                               \
    _Pragma("GCC unroll 32") for (int i = 0; i < count; ++i) asm volatile("" : : "v"(acc[i]));      \
  }

MGIC_PEAK_LOOP(fma_avx2, "avx2,fma", __m256, 12, "vfmadd231ps %2, %1, %0")
MGIC_PEAK_LOOP(fma_128, "avx512f,avx512vl", __m128, 16, "vfmadd231ps %2, %1, %0")
MGIC_PEAK_LOOP(fma_256, "avx512f,avx512vl", __m256, 16, "vfmadd231ps %2, %1, %0")
MGIC_PEAK_LOOP(fma_512, "avx512f,avx512vl", __m512, 16, "vfmadd231ps %2, %1, %0")
MGIC_PEAK_LOOP(dot_128, "avx512f,avx512vl,avx512bf16", __m128, 16, "vdpbf16ps %2, %1, %0")
MGIC_PEAK_LOOP(dot_256, "avx512f,avx512vl,avx512bf16", __m256, 16, "vdpbf16ps %2, %1, %0")
MGIC_PEAK_LOOP(dot_512, "avx512f,avx512vl,avx512bf16", __m512, 16, "vdpbf16ps %2, %1, %0")
#undef MGIC_PEAK_LOOP

bool has_avx512() { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl"); }

std::vector<Loop> f32_loops() {
  std::vector<Loop> loops;
  if (has_avx512()) {
    loops.push_back({"vfmadd231ps xmm", 128, 16 * 2 * 4, fma_128});
    loops.push_back({"vfmadd231ps ymm", 256, 16 * 2 * 8, fma_256});
    loops.push_back({"vfmadd231ps zmm", 512, 16 * 2 * 16, fma_512});
  } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    loops.push_back({"vfmadd231ps ymm", 256, 12 * 2 * 8, fma_avx2});
  }
  return loops;
}

// Four matrices of sums; registers that nothing was loaded into are zero.
void matrices(int64_t steps) {
  using cpu::amx_multiply;
  const cpu::AmxRegisters registers({{16, 64}, {16, 64}, {16, 64}, {16, 64}, {16, 64}, {16, 64}, {}, {}});
  for (int64_t s = 0; s < steps; ++s) {
    amx_multiply<0, 4, 5>();
    amx_multiply<1, 4, 5>();
    amx_multiply<2, 4, 5>();
    amx_multiply<3, 4, 5>();
  }
}

std::vector<Loop> bf16_loops() {
  if (!has_avx512() || !__builtin_cpu_supports("avx512bf16")) return {};
  std::vector<Loop> loops{{"vdpbf16ps xmm", 128, 16 * 2 * 8, dot_128},
                          {"vdpbf16ps ymm", 256, 16 * 2 * 16, dot_256},
                          {"vdpbf16ps zmm", 512, 16 * 2 * 32, dot_512}};
  if (cpu::has_amx()) loops.push_back({"tdpbf16ps tmm", 8192, 4 * 2 * 16 * 16 * 32, matrices});
  return loops;
}

void triad_streaming(float* a, const float* b, const float* c, float s, int64_t n) {
  const __m128 factor = _mm_set1_ps(s);
  for (int64_t i = 0; i < n; i += 4)
    _mm_stream_ps(a + i, _mm_add_ps(_mm_load_ps(b + i), _mm_mul_ps(factor, _mm_load_ps(c + i))));
  _mm_sfence();
}
constexpr bool has_streaming = true;

#else

std::vector<Loop> f32_loops() { return {}; }
std::vector<Loop> bf16_loops() { return {}; }
void triad_streaming(float*, const float*, const float*, float, int64_t) {}
constexpr bool has_streaming = false;

#endif

// Where no instructions are written down for the processor: whatever the compiler makes of independent multiply-adds.
void plain(int64_t steps) {
  constexpr int count = 64;
  float acc[count] = {}, a = 0;
  asm volatile("" : "+m"(a));  // a value that the compiler does not know
  for (int64_t s = 0; s < steps; ++s)
    for (int i = 0; i < count; ++i) acc[i] = acc[i] * a + a;
  for (float& v : acc) asm volatile("" : "+m"(v));
}

Peak measure(const Loop& loop, int threads, double seconds) {
  constexpr int64_t steps = 1000000;
  const double t = best_seconds(seconds, [&] {
#pragma omp parallel num_threads(threads)
    loop.run(steps);
  });
  return {loop.instructions, loop.vector_bits, 1e-9 * loop.flops * steps * threads / t};
}

void triad(float* __restrict a, const float* __restrict b, const float* __restrict c, float s, int64_t n) {
  for (int64_t i = 0; i < n; ++i) a[i] = b[i] + s * c[i];
}

// Two threads hand a number back and forth, which each may write only when it is its turn; on one core, they let each
// other run. All threads enter: libgomp ends threads when a smaller team is asked for.
double round_trip_ns(int threads) {
  if (threads < 2) return 0;
  constexpr int times = 20000;
  std::atomic<int> turn{0};
  double seconds = 0;
#pragma omp parallel num_threads(threads)
  if (const int thread = omp_get_thread_num(); thread < 2 && omp_get_num_threads() > 1) {
    const auto start = Clock::now();
    for (int i = thread; i < 2 * times; i += 2) {
      for (int waits = 0; turn.load(std::memory_order_acquire) != i; ++waits)
        if (waits > 10000) std::this_thread::yield();
      turn.store(i + 1, std::memory_order_release);
    }
    if (thread == 0) seconds = std::chrono::duration<double>(Clock::now() - start).count();
  }
  return 1e9 * seconds / times;
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

double best(const std::vector<Peak>& peaks) {
  double most = 0;
  for (const Peak& p : peaks) most = std::max(most, p.gflops);
  return most;
}

nlohmann::json json_of(const std::vector<Peak>& peaks) {
  nlohmann::json list = nlohmann::json::array();
  for (const Peak& p : peaks)
    list.push_back({{"instructions", p.instructions}, {"vector_bits", p.vector_bits}, {"gflops", p.gflops}});
  return list;
}

}  // namespace

constexpr std::align_val_t huge_page{1 << 21};

void Triad::Free::operator()(float* p) const { ::operator delete[](p, huge_page); }

Triad::Triad(int threads, int64_t array_mb) : threads_(threads), part_((array_mb << 18) / threads / 16 * 16) {
  for (auto* array : {&a_, &b_, &c_}) {
    array->reset(new (huge_page) float[part_ * threads]);
#if defined(__linux__)
    madvise(array->get(), static_cast<size_t>(part_ * threads) * sizeof(float), MADV_HUGEPAGE);  // a hint
#endif
    // Every thread touches its own part first, so that its pages lie near it.
#pragma omp parallel num_threads(threads)
    std::fill_n(&(*array)[part_ * omp_get_thread_num()], part_, 1.0f);
  }
}

double Triad::run(Loop loop) {
  const double t = seconds_of([&] {
#pragma omp parallel num_threads(threads_)
    {
      const int64_t from = part_ * omp_get_thread_num();
      loop(&a_[from], &b_[from], &c_[from], 3.0f, part_);
    }
  });
  return 1e-9 * 12.0 * static_cast<double>(part_ * threads_) / t;
}

double Triad::run() { return run(triad); }
double Triad::run_streaming() { return has_streaming ? run(triad_streaming) : 0; }

double Machine::f32_gflops() const { return best(f32); }
double Machine::bf16_gflops() const { return std::max(best(bf16), best(f32)); }

nlohmann::json Machine::json() const {
  return {{"cpu", cpu},
          {"threads", threads},
          {"f32_gflops", f32_gflops()},
          {"bf16_gflops", bf16_gflops()},
          {"triad_gb_s", triad_gb_s},
          {"triad_median_gb_s", triad_median_gb_s},
          {"triad_streaming_gb_s", triad_streaming_gb_s},
          {"round_trip_ns", round_trip_ns},
          {"f32", json_of(f32)},
          {"bf16", json_of(bf16)}};
}

Machine measure_machine(int threads, double seconds, Triad& triad) {
  Machine m{.cpu = cpu_name(), .threads = threads};
  std::vector<Loop> f32 = f32_loops();
  const std::vector<Loop> bf16 = bf16_loops();
  if (f32.empty()) f32.push_back({"compiled multiply-adds", 0, 2 * 64, plain});
  const double each = seconds / static_cast<double>(f32.size() + bf16.size() + 2);
  for (const Loop& loop : f32) m.f32.push_back(measure(loop, threads, each));
  for (const Loop& loop : bf16) m.bf16.push_back(measure(loop, threads, each));
  std::vector<double> rates;
  double spent = 0;
  triad.run();  // warm-up
  while (rates.size() < 3 || spent < 2 * each) {
    spent += seconds_of([&] {
      rates.push_back(triad.run());
      m.triad_streaming_gb_s = std::max(m.triad_streaming_gb_s, triad.run_streaming());
    });
  }
  m.triad_gb_s = *std::ranges::max_element(rates);
  m.triad_median_gb_s = median(rates);
  m.round_trip_ns = round_trip_ns(threads);
  return m;
}

float plain_pass(int threads, std::span<const float> a, std::span<const float> b, std::span<float> y) {
  constexpr size_t piece = 64;  // of the longest, read and written in turns: more, and one of them waits for the other
  const size_t pieces = std::max<size_t>(std::max({a.size(), b.size(), y.size()}) / piece, 1);
  float total = 0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
  {
    const auto thread = static_cast<size_t>(omp_get_thread_num()), all = static_cast<size_t>(threads);
    const auto part = [&](auto span, size_t p) {
      const size_t begin = span.size() * p / pieces;
      return span.subspan(begin, span.size() * (p + 1) / pieces - begin);
    };
    for (size_t p = pieces * thread / all; p < pieces * (thread + 1) / all; ++p) {
      float sum = 0;
      for (const std::span<const float> read : {part(a, p), part(b, p)}) {
        const float* values = read.data();
        const auto n = static_cast<int64_t>(read.size());
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; ++i) sum += values[i];
      }
      std::ranges::fill(part(y, p), sum);
      total += sum;
    }
  }
  return total;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace mgic::bench
