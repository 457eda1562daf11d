// Random streams: Philox against its authors' vectors, independence of the streams, and the distributions.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "core/rng.h"
#include "tests/core/thrown.h"

using namespace mgic;

namespace {

using Counter = std::array<uint32_t, 4>;

std::vector<uint32_t> first_bits(Rng rng, int n = 16) {
  std::vector<uint32_t> bits;
  for (int i = 0; i < n; ++i) bits.push_back(rng.bits());
  return bits;
}

constexpr int64_t draws = 200000;
// Five standard errors of each statistic: the seed is fixed, so these pass or fail for good; a stream that is right
// would fail for one seed in two million.
constexpr double standard_errors = 5;

}  // namespace

TEST_CASE("rng: Philox 4x32-10 known answers") {
  // kat_vectors of the Random123 distribution.
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == Counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr uint32_t ones = 0xffffffff;
  CHECK(philox({ones, ones, ones, ones}, {ones, ones}) == Counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("rng: a stream is a function of its name") {
  CHECK(first_bits(Rng(1, Purpose::init, 2, 3)) == first_bits(Rng(1, Purpose::init, 2, 3)));
}

TEST_CASE("rng: streams differ by each of seed, purpose, epoch and index, in both halves of 64 bits") {
  constexpr uint64_t high = uint64_t{1} << 32;
  std::vector<std::vector<uint32_t>> streams;
  for (uint64_t seed : {uint64_t{0}, uint64_t{1}, high, high + 1})
    for (uint64_t epoch : {uint64_t{0}, uint64_t{1}, high})
      for (uint64_t index : {uint64_t{0}, uint64_t{1}, high})
        for (Purpose purpose : {Purpose::init, Purpose::shuffle, Purpose::augment, Purpose::dropout, Purpose::data,
                                Purpose::split, Purpose::test})
          streams.push_back(first_bits(Rng(seed, purpose, epoch, index)));
  CHECK(streams.size() == 4 * 3 * 3 * 7);
  CHECK(std::set(streams.begin(), streams.end()).size() == streams.size());
  // Not even one of the first numbers, in one place, is shared by many.
  std::set<uint32_t> firsts;
  for (const auto& s : streams) firsts.insert(s[0]);
  CHECK(firsts.size() == streams.size());
}

TEST_CASE("rng: purposes keep their numbers, for they are part of every saved run") {
  CHECK(static_cast<uint32_t>(Purpose::init) == 1);
  CHECK(static_cast<uint32_t>(Purpose::shuffle) == 2);
  CHECK(static_cast<uint32_t>(Purpose::augment) == 3);
  CHECK(static_cast<uint32_t>(Purpose::dropout) == 4);
  CHECK(static_cast<uint32_t>(Purpose::data) == 5);
  CHECK(static_cast<uint32_t>(Purpose::split) == 6);
  CHECK(static_cast<uint32_t>(Purpose::test) == 7);
}

TEST_CASE("rng: uniform is in [0, 1) with the moments of a uniform distribution") {
  Rng rng(7, Purpose::test);
  double sum = 0, square = 0, product = 0, before = 0.5, smallest = 1, largest = 0;
  for (int64_t i = 0; i < draws; ++i) {
    const double u = rng.uniform();
    REQUIRE(u >= 0);
    REQUIRE(u < 1);
    smallest = std::min(smallest, u);
    largest = std::max(largest, u);
    sum += u;
    square += (u - 0.5) * (u - 0.5);
    product += (u - 0.5) * (before - 0.5);
    before = u;
  }
  const double n = draws, deviation = std::sqrt(1.0 / 12);
  CHECK(std::abs(sum / n - 0.5) < standard_errors * deviation / std::sqrt(n));
  CHECK(std::abs(square / n - 1.0 / 12) < standard_errors * std::sqrt(1.0 / 180 / n));  // Var (u−½)² = 1/80 − 1/144
  CHECK(std::abs(product / n) < standard_errors / 12 / std::sqrt(n));                   // neighbours are independent
  CHECK(smallest < 1e-3);
  CHECK(largest > 1 - 1e-3);
}

TEST_CASE("rng: uniform between bounds, and chance") {
  Rng rng(8, Purpose::test);
  int64_t hits = 0;
  for (int64_t i = 0; i < draws; ++i) {
    const double u = rng.uniform(-3, 5);
    REQUIRE(u >= -3);
    REQUIRE(u < 5);
    hits += rng.chance(0.3);
  }
  const double n = draws;
  CHECK(std::abs(static_cast<double>(hits) / n - 0.3) < standard_errors * std::sqrt(0.3 * 0.7 / n));
  CHECK_FALSE(rng.chance(0));
  CHECK(rng.chance(1));
}

TEST_CASE("rng: normal has mean 0, variance 1, no skew and a fourth moment of 3") {
  Rng rng(9, Purpose::test);
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0, pairs = 0, before = 0;
  int64_t within = 0;
  for (int64_t i = 0; i < draws; ++i) {
    const double z = rng.normal();
    REQUIRE(std::isfinite(z));
    m1 += z;
    m2 += z * z;
    m3 += z * z * z;
    m4 += z * z * z * z;
    pairs += z * before;
    before = z;
    within += std::abs(z) < 1;
  }
  const double n = draws, root = std::sqrt(n);
  CHECK(std::abs(m1 / n) < standard_errors / root);
  CHECK(std::abs(m2 / n - 1) < standard_errors * std::sqrt(2.0) / root);
  CHECK(std::abs(m3 / n) < standard_errors * std::sqrt(15.0) / root);
  CHECK(std::abs(m4 / n - 3) < standard_errors * std::sqrt(96.0) / root);
  CHECK(std::abs(pairs / n) < standard_errors / root);  // sine and cosine of one angle
  const double share = std::erf(1 / std::sqrt(2.0));
  CHECK(std::abs(static_cast<double>(within) / n - share) < standard_errors * std::sqrt(share * (1 - share)) / root);
}

TEST_CASE("rng: below has no bias, where a plain remainder would have one") {
  // For n = 3·2^61 a remainder of 64 bits falls below 2^62 with probability 3/4, an even draw with 2/3.
  Rng rng(10, Purpose::test);
  const int64_t n = int64_t{3} << 61, limit = int64_t{1} << 62;
  constexpr int64_t tries = 20000;
  int64_t low = 0;
  for (int64_t i = 0; i < tries; ++i) {
    const int64_t v = rng.below(n);
    REQUIRE(v >= 0);
    REQUIRE(v < n);
    low += v < limit;
  }
  const double error = std::sqrt(2.0 / 9 / tries);
  CHECK(std::abs(static_cast<double>(low) / tries - 2.0 / 3) < standard_errors * error);
}

TEST_CASE("rng: below reaches every value alike, and knows its bounds") {
  Rng rng(11, Purpose::test);
  std::vector<int64_t> counts(7, 0);
  constexpr int64_t tries = 70000;
  for (int64_t i = 0; i < tries; ++i) ++counts[static_cast<size_t>(rng.below(7))];
  for (int64_t count : counts)
    CHECK(std::abs(static_cast<double>(count) - tries / 7.0) < standard_errors * std::sqrt(tries * 6.0 / 49));
  CHECK(rng.below(1) == 0);
  CHECK(rng.below(INT64_MAX) >= 0);
  CHECK(test::thrown([&] { rng.below(0); }) == "Error: a random number below 0 does not exist");
  CHECK(test::thrown([&] { rng.below(-5); }) == "Error: a random number below -5 does not exist");
}

TEST_CASE("rng: a permutation is one, and every place gets every element") {
  Rng rng(12, Purpose::test);
  for (int64_t n : {0, 1, 2, 17, 1000}) {
    std::vector<int64_t> order = rng.permutation(n);
    std::sort(order.begin(), order.end());
    REQUIRE(static_cast<int64_t>(order.size()) == n);
    for (int64_t i = 0; i < n; ++i) REQUIRE(order[static_cast<size_t>(i)] == i);
  }
  constexpr int tries = 6000;
  std::vector<std::vector<int>> seen(4, std::vector<int>(4, 0));
  std::set<std::vector<int64_t>> all;
  for (int i = 0; i < tries; ++i) {
    const auto order = rng.permutation(4);
    all.insert(order);
    for (size_t k = 0; k < 4; ++k) ++seen[k][static_cast<size_t>(order[k])];
  }
  CHECK(all.size() == 24);
  for (const auto& place : seen)
    for (int count : place) CHECK(std::abs(count - tries / 4.0) < standard_errors * std::sqrt(tries * 3.0 / 16));
}

TEST_CASE("rng: uniform_at is the stream's own 32-bit numbers, their upper 24 bits") {
  Rng rng(13, Purpose::dropout, 4, 5);
  const uint64_t key = rng.key();
  for (uint64_t i = 0; i < 103; ++i)
    REQUIRE(uniform_at(key, i) == static_cast<float>(rng.bits() >> 8) / static_cast<float>(1 << 24));
  // Far out it is still Philox of the block's number, all 64 bits of it.
  const uint64_t far = (uint64_t{5} << 34) + 6;  // block 5·2^32 + 1, third number
  const auto block = philox({1, 5, 0, 0}, {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)});
  CHECK(uniform_at(key, far) == static_cast<float>(block[2] >> 8) / static_cast<float>(1 << 24));
}

TEST_CASE("rng: uniform_at is below 1 and evenly spread") {
  const uint64_t key = Rng(14, Purpose::dropout).key();
  double sum = 0;
  for (int64_t i = 0; i < draws; ++i) {
    const float u = uniform_at(key, static_cast<uint64_t>(i));
    REQUIRE(u >= 0);
    REQUIRE(u < 1);
    sum += u;
  }
  CHECK(std::abs(sum / draws - 0.5) < standard_errors * std::sqrt(1.0 / 12 / draws));
}

TEST_CASE("rng: hash_name is FNV-1a") {
  // http://www.isthe.com/chongo/tech/comp/fnv: 64-bit test vectors.
  CHECK(hash_name("", 0) == 0xcbf29ce484222325u);
  CHECK(hash_name("a", 1) == 0xaf63dc4c8601ec8cu);
  CHECK(hash_name("foobar", 6) == 0x85944171f73967e8u);
}
