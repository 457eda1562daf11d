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

TEST_CASE("parts cover a range, none of them empty, and get smaller round by round") {
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
        // What does not divide goes to the last round.
        const int64_t rest = std::max<int64_t>(n % threads, 1);
        for (int part = threads; part < parts; ++part)
          CHECK(forwards[static_cast<size_t>(part)] <= forwards[static_cast<size_t>(part - threads)] + rest);
      }
  }
}

TEST_CASE("equally fast threads get equal shares, and one that is 1.5 times as fast finds enough") {
  const Machine team(2, "");
  const auto all = sizes(3200, 8, false);
  CHECK(all[0] + all[2] + all[4] + all[6] == all[1] + all[3] + all[5] + all[7]);
  // The first one to be free takes the next part.
  double done[2] = {all[0] / 1.5, static_cast<double>(all[1])};
  for (size_t part = 2; part < 8; ++part) {
    const int thread = done[0] <= done[1] ? 0 : 1;
    done[thread] += static_cast<double>(all[part]) / (thread == 0 ? 1.5 : 1);
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
