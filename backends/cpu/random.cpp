// Dropout and random fills: Philox 4x32-10 in vectors, number for number what uniform_at (core/rng.h) gives.
//
//   block b of the stream is philox((b mod 2³², b div 2³², 0, 0), key); its four words are elements 4b … 4b + 3
//   uniform = (word >> 8) · 2⁻²⁴
#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/random.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include "backends/cpu/simd-inl.h"
#include "backends/cpu/random.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {
namespace {

// The 24-bit numbers of elements [first, first + tile), first counting from a tile. A plain loop over blocks, which the
// compiler vectorises once the rounds are unrolled.
HWY_INLINE void words(uint64_t key, int64_t first, uint32_t* HWY_RESTRICT out) {
  constexpr int blocks = random_tile / 4;
  uint32_t word0[blocks], word1[blocks], word2[blocks], word3[blocks];
  const uint64_t block = static_cast<uint64_t>(first) / 4;
  const uint32_t low = static_cast<uint32_t>(block), high = static_cast<uint32_t>(block >> 32);
#pragma omp simd
  for (int b = 0; b < blocks; ++b) {
    uint32_t c0 = low + b, c1 = high, c2 = 0, c3 = 0;
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53} * c0, p1 = uint64_t{0xCD9E8D57} * c2;
      c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
      c1 = static_cast<uint32_t>(p1);
      c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c3 = static_cast<uint32_t>(p0);
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
    word0[b] = c0 >> 8;
    word1[b] = c1 >> 8;
    word2[b] = c2 >> 8;
    word3[b] = c3 >> 8;
  }
  for (int b = 0; b < blocks; ++b) {
    out[4 * b] = word0[b];
    out[4 * b + 1] = word1[b];
    out[4 * b + 2] = word2[b];
    out[4 * b + 3] = word3[b];
  }
}

// y[i] (+)= factor x[i] where the element's number is at least `threshold`, else (+)= 0. begin counts from a tile.
void drop(uint64_t key, uint32_t threshold, float factor, const float* x, bool accumulate, float* y, int64_t begin,
          int64_t end) {
  uint32_t number[random_tile];
  for (int64_t first = begin; first < end; first += random_tile) {
    words(key, first, number);
    const int64_t n = std::min<int64_t>(random_tile, end - first);
    for (int64_t u = 0; u < n; ++u) {
      const float kept = number[u] >= threshold ? factor * x[first + u] : 0.0f;
      y[first + u] = accumulate ? y[first + u] + kept : kept;
    }
  }
}

void uniform(uint64_t key, double low, double width, float* y, int64_t begin, int64_t end) {
  uint32_t number[random_tile];
  for (int64_t first = begin; first < end; first += random_tile) {
    words(key, first, number);
    const int64_t n = std::min<int64_t>(random_tile, end - first);
    for (int64_t u = 0; u < n; ++u) y[first + u] = static_cast<float>(low + width * (number[u] * 0x1.0p-24));
  }
}

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/parallel.h"
#include "backends/cpu/widened.h"

namespace mgic {
namespace cpu {
namespace {

HWY_EXPORT(drop);
HWY_EXPORT(uniform);

// f(begin, end) with ranges that begin at a tile, so that no tile's block numbers pass 2³² within it.
template <class F>
void parallel_tiles(int64_t count, F&& f) {
  parallel_ranges((count + random_tile - 1) / random_tile, 4 * random_tile, [&](int64_t begin, int64_t end) {
    f(begin * random_tile, std::min<int64_t>(end * random_tile, count));
  });
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::dropout(uint64_t key, double p, const Tensor& x, Sink y) {
  if (!y) return;
  if (holds_bf16({&x, y.tensor})) {
    Widened w("dropout");
    return dropout(key, p, w(x), w.out(y));
  }
  require_f32("dropout", {&x, y.tensor});
  check(p >= 0 && p < 1, "dropout: p must lie in [0, 1), not {}", p);
  // uniform ≥ p, asked of the 24-bit number.
  const uint32_t threshold = static_cast<uint32_t>(std::ceil(p * 0x1.0p24));
  const float factor = static_cast<float>(1 / (1 - p)), *px = x.data<float>();
  float* py = (*y).data<float>();
  parallel_tiles(x.count(), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(drop)(key, threshold, factor, px, accumulates(y), py, begin, end);
  });
}

void CpuBackend::random_uniform(uint64_t key, double low, double high, Tensor& y) {
  require_f32("random_uniform", {&y});
  float* py = y.data<float>();
  parallel_tiles(y.count(), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(uniform)(key, low, high - low, py, begin, end);
  });
  y.changed_in_place();
}

}  // namespace mgic
#endif  // HWY_ONCE
