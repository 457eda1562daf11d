// Shape: sizes, bounds and the products that do not overflow.
#include <doctest/doctest.h>

#include <vector>

#include "core/shape.h"
#include "tests/core/thrown.h"

using namespace mgic;
using test::thrown;

TEST_CASE("shape: rank, count and indexing from both ends") {
  const Shape s{2, 3, 4, 5};
  CHECK(s.rank() == 4);
  CHECK(s.count() == 120);
  CHECK(s[0] == 2);
  CHECK(s[3] == 5);
  CHECK(s[-1] == 5);
  CHECK(s[-4] == 2);
  CHECK(s.last() == 5);
  CHECK(s.rows() == 24);
  CHECK(s.sizes().size() == 4);
  CHECK(thrown([&] { s[4]; }) == "Error: dimension 4 of shape (2, 3, 4, 5) does not exist");
  CHECK(thrown([&] { s[-5]; }) == "Error: dimension -5 of shape (2, 3, 4, 5) does not exist");
}

TEST_CASE("shape: a scalar has rank 0 and one element, an empty array none") {
  const Shape scalar;
  CHECK(scalar.rank() == 0);
  CHECK(scalar.count() == 1);
  CHECK(scalar.str() == "()");
  CHECK(thrown([&] { scalar.last(); }) == "Error: dimension -1 of shape () does not exist");
  const Shape empty{3, 0, 2};
  CHECK(empty.count() == 0);
  CHECK(empty.rows() == 0);
  CHECK(Shape{3, 0}.rows() == 0);
}

TEST_CASE("shape: str and equality") {
  CHECK(Shape{8, 32, 32, 3}.str() == "(8, 32, 32, 3)");
  CHECK(Shape{7}.str() == "(7)");
  CHECK(Shape{1, 2} == Shape{1, 2});
  CHECK(Shape{1, 2} != Shape{2, 1});
  CHECK(Shape{1, 2} != Shape{1, 2, 1});
  CHECK(Shape{} != Shape{1});
}

TEST_CASE("shape: with changes one size and leaves the original") {
  const Shape s{2, 3};
  CHECK(s.with(0, 7) == Shape{7, 3});
  CHECK(s.with(-1, 0) == Shape{2, 0});
  CHECK(s.with(-1, 0).count() == 0);
  CHECK(s == Shape{2, 3});
  CHECK(thrown([&] { s.with(2, 1); }) == "Error: dimension 2 of shape (2, 3) does not exist");
  CHECK(thrown([&] { s.with(-3, 1); }) == "Error: dimension -3 of shape (2, 3) does not exist");
  CHECK(thrown([&] { s.with(0, -1); }) == "Error: a shape's sizes are at least 0, not -1");
}

TEST_CASE("shape: five dimensions at most, none negative") {
  CHECK(Shape{1, 2, 3, 4, 5}.count() == 120);
  CHECK(thrown([] { Shape{1, 1, 1, 1, 1, 1}; }) == "Error: a shape has at most 5 dimensions, not 6");
  CHECK(thrown([] { Shape{std::vector<int64_t>(100, 1)}; }) == "Error: a shape has at most 5 dimensions, not 100");
  CHECK(thrown([] { Shape{4, -1}; }) == "Error: a shape's sizes are at least 0, not -1");
  CHECK(thrown([] { Shape{0, INT64_MIN}; }) == "Error: a shape's sizes are at least 0, not -9223372036854775808");
}

TEST_CASE("shape: a product that overflows is an error, even where a later size is 0") {
  const std::string message = "Error: a shape of 1152921504606846976 elements and more is too large";
  const int64_t big = int64_t{1} << 40;
  CHECK(thrown([&] { Shape{big, big}; }) == message);
  CHECK(thrown([&] { Shape{big, big, 0}; }) == message);
  CHECK(thrown([] { Shape{INT64_MAX}; }) == message);
  CHECK(thrown([] { Shape{int64_t{1} << 30, int64_t{1} << 30}; }) == message);
  // 2^32 · 2^32 wraps to 0 in 64 bits.
  CHECK(thrown([] { Shape{int64_t{1} << 32, int64_t{1} << 32}; }) == message);
  CHECK(Shape{(int64_t{1} << 60) - 1}.count() == (int64_t{1} << 60) - 1);
}
