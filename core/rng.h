// Counter-based random numbers (Philox 4x32-10; Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
//
// A stream is a pure function of (seed, purpose, epoch, index): no state is shared, so no result depends on the
// number of threads or on the order in which streams are used.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mgic {

enum class Purpose : uint32_t { init = 1, shuffle, augment, dropout, data, split, test };

// The Philox bijection: 128-bit counter and 64-bit key to 128 random bits.
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

class Rng {
 public:
  Rng(uint64_t seed, Purpose purpose, uint64_t epoch = 0, uint64_t index = 0);

  uint32_t bits();   // 32 random bits
  double uniform();  // [0, 1), 53 bits
  double uniform(double low, double high);
  double normal();           // mean 0, deviation 1 (Box-Muller)
  int64_t below(int64_t n);  // 0 … n-1 without bias; n >= 1
  bool chance(double p) { return uniform() < p; }
  std::vector<int64_t> permutation(int64_t n);  // Fisher-Yates

  // A 64-bit key for kernels that draw by element number themselves.
  uint64_t key() const { return (static_cast<uint64_t>(key_[1]) << 32) | key_[0]; }

 private:
  std::array<uint32_t, 2> key_;
  uint64_t block_ = 0;
  std::array<uint32_t, 4> buffer_{};
  int left_ = 0;
  double spare_ = 0;
  bool has_spare_ = false;
};

// Uniform in [0, 1) with 24 bits for element i of the stream with this key: for dropout and random fills in kernels.
float uniform_at(uint64_t key, uint64_t i);

uint64_t hash_name(const char* data, size_t size);  // FNV-1a: an index for streams that belong to a name

}  // namespace mgic
