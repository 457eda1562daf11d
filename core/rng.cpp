#include "core/rng.h"

#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "core/error.h"

namespace mgic {

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(p0)};
    k[0] += 0x9E3779B9;
    k[1] += 0xBB67AE85;
  }
  return c;
}

Rng::Rng(uint64_t seed, Purpose purpose, uint64_t epoch, uint64_t index) {
  // Two bijective rounds mix all 224 bits of the stream's name into the 64-bit key.
  const std::array<uint32_t, 2> seed_key{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  auto a = philox({static_cast<uint32_t>(purpose), static_cast<uint32_t>(epoch), static_cast<uint32_t>(epoch >> 32), 0},
                  seed_key);
  auto b = philox({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), a[2], a[3]}, {a[0], a[1]});
  key_ = {b[0], b[1]};
}

uint32_t Rng::bits() {
  if (left_ == 0) {
    buffer_ = philox({static_cast<uint32_t>(block_), static_cast<uint32_t>(block_ >> 32), 0, 0}, key_);
    ++block_;
    left_ = 4;
  }
  return buffer_[4 - left_--];
}

double Rng::uniform() {
  const uint64_t high = bits();
  const uint64_t low = bits();
  return static_cast<double>(((high << 32) | low) >> 11) * 0x1.0p-53;
}

double Rng::uniform(double low, double high) { return low + (high - low) * uniform(); }

double Rng::normal() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_;
  }
  const double radius = std::sqrt(-2.0 * std::log1p(-uniform()));  // 1 - u is in (0, 1]
  const double angle = 2.0 * std::numbers::pi * uniform();
  spare_ = radius * std::sin(angle);
  has_spare_ = true;
  return radius * std::cos(angle);
}

int64_t Rng::below(int64_t n) {
  check(n >= 1, "a random number below {} does not exist", n);
  const uint64_t range = static_cast<uint64_t>(n);
  const uint64_t limit = UINT64_MAX - UINT64_MAX % range;
  for (;;) {
    const uint64_t high = bits();
    const uint64_t value = (high << 32) | bits();
    if (value < limit) return static_cast<int64_t>(value % range);
  }
}

std::vector<int64_t> Rng::permutation(int64_t n) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  for (int64_t i = n - 1; i > 0; --i) std::swap(order[i], order[below(i + 1)]);
  return order;
}

float uniform_at(uint64_t key, uint64_t i) {
  const uint64_t block = i / 4;
  const auto r = philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), 0, 0},
                        {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)});
  return static_cast<float>(r[i % 4] >> 8) * 0x1.0p-24f;
}

uint64_t hash_name(const char* data, size_t size) {
  uint64_t h = 0xcbf29ce484222325u;
  for (size_t i = 0; i < size; ++i) h = (h ^ static_cast<uint8_t>(data[i])) * 0x100000001b3u;
  return h;
}

}  // namespace mgic
