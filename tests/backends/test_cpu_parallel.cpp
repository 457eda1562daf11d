// How the cpu backend deals work to its threads.
#include "backends/cpu/parallel.h"
#include "tests/backends/parity.h"

using namespace mgic::cpu;
using namespace mgic::test;

namespace {

// Sizes of the parts of n items.
std::vector<int64_t> sizes(int64_t n, int parts, bool backwards) {
  std::vector<int64_t> all;
  for (int part = 0; part < parts; ++part)
    all.push_back(part_begin(n, parts, part + 1, backwards) - part_begin(n, parts, part, backwards));
  return all;
}

}  // namespace

TEST_CASE("parts cover a range, none of them empty, and those of an owner get smaller") {
  for (int threads : {1, 2, 3, 5}) {
    const Machine team(threads, "");
    for (int64_t n : {1, 2, 3, 4, 7, 8, 15, 16, 17, 32, 100, 12345})
      for (int64_t grain : {1, 3, 1000}) {
        const int parts = parts_of(n, grain);
        CAPTURE(fmt::format("{} threads, {} items, grain {}: {} parts", threads, n, grain, parts));
        CHECK(parts <= std::max<int64_t>(n / grain, 1));
        CHECK((parts <= threads || parts % threads == 0));
        const auto forwards = sizes(n, parts, false), backwards = sizes(n, parts, true);
        CHECK(part_begin(n, parts, 0) == 0);
        CHECK(part_begin(n, parts, parts) == n);
        CHECK(std::vector<int64_t>(backwards.rbegin(), backwards.rend()) == forwards);
        for (int64_t size : forwards) CHECK(size > 0);
        // Of too few items to get smaller, parts differ by the one that does not divide.
        const Deal deal(parts, threads, false);
        for (int part = 0; part < parts; ++part)
          if (const int next = deal.behind(part); next >= 0)
            CHECK(forwards[static_cast<size_t>(next)] <= forwards[static_cast<size_t>(part)] + 1);
      }
  }
}

TEST_CASE("every owner has a stretch of a range, and takes its parts in their order") {
  for (int owners : {1, 2, 3, 5})
    for (int parts : {1, 2, 3, 4, 5, 6, 8, 12, 15, 20}) {
      CAPTURE(fmt::format("{} owners, {} parts", owners, parts));
      Deal forwards(parts, owners, false), backwards(parts, owners, true);
      int all = 0;
      for (int owner = 0; owner < owners; ++owner) {
        std::vector<int> there, back;
        for (int part; (part = forwards.take(owner)) >= 0;) there.push_back(part);
        for (int part; (part = backwards.take(owner)) >= 0;) back.push_back(part);
        CHECK(std::vector<int>(back.rbegin(), back.rend()) == there);
        for (size_t i = 0; i < there.size(); ++i) {
          CHECK(there[i] == all++);
          CHECK(forwards.owner(there[i]) == owner);
          CHECK(forwards.behind(there[i]) == (i + 1 < there.size() ? there[i + 1] : -1));
          CHECK(backwards.behind(there[i]) == (i > 0 ? there[i - 1] : -1));
        }
      }
      CHECK(all == parts);
    }
  const Machine team(3, "");
  for (bool backwards : {false, true})
    for (int owner = 0; owner <= 3; ++owner) CHECK(part_begin(999, 12, 4 * owner, backwards) == 333 * owner);
}

TEST_CASE("equally fast threads get equal shares, and one that is 1.5 times as fast finds enough") {
  const Machine team(2, "");
  const auto all = sizes(3200, 8, false);
  CHECK(all[0] + all[1] + all[2] + all[3] == all[4] + all[5] + all[6] + all[7]);
  Deal deal(8, 2, false);
  // Whoever is free takes its next part, or the other one's.
  const double speed[2] = {1.5, 1};
  double done[2] = {0, 0};
  for (bool left = true; left;) {
    const int thread = done[0] <= done[1] ? 0 : 1;
    int part = deal.take(thread);
    if (part < 0) part = deal.take(1 - thread);
    left = part >= 0;
    if (left) done[thread] += static_cast<double>(all[static_cast<size_t>(part)]) / speed[thread];
  }
  // The best is 3200 items at the speed of both; the smallest part takes the slower one five percent of that.
  CHECK(std::max(done[0], done[1]) < 1.05 * 3200 / 2.5);
}

TEST_CASE("every part is run once, with its own range, whatever the direction") {
  for (int threads : {1, 2, 3})
    for (bool backwards : {false, true}) {
      const Machine team(threads, "");
      const int64_t n = 1000;
      std::vector<int> runs(n, 0);
      const int parts = parts_of(n, 1);
      parallel(n, parts, backwards, [&](int part, int thread, int64_t begin, int64_t end) {
        if (thread >= threads || part >= parts) return;
        for (int64_t i = begin; i < end; ++i) ++runs[static_cast<size_t>(i)];
      });
      CHECK(runs == std::vector<int>(n, 1));
    }
}
