// Element types: names, sizes, dispatch, and bf16's rounding.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "core/device.h"
#include "core/dtype.h"
#include "tests/core/thrown.h"

using namespace mgic;
using test::thrown;

namespace {

float through(float v) { return static_cast<float>(bf16(v)); }
float from_bits(uint32_t bits) { return std::bit_cast<float>(bits); }

}  // namespace

TEST_CASE("dtype: names, sizes and parsing") {
  const std::pair<DType, std::pair<const char*, int64_t>> all[] = {{DType::f32, {"f32", 4}},
                                                                   {DType::f64, {"f64", 8}},
                                                                   {DType::bf16, {"bf16", 2}},
                                                                   {DType::i64, {"i64", 8}},
                                                                   {DType::u8, {"u8", 1}}};
  for (const auto& [dtype, expected] : all) {
    CHECK(name_of(dtype) == expected.first);
    CHECK(size_of(dtype) == expected.second);
    CHECK(parse_dtype(expected.first) == dtype);
    CHECK(is_float(dtype) == (dtype != DType::i64 && dtype != DType::u8));
    CHECK(visit_any(dtype, [](auto zero) { return DTypeOf<decltype(zero)>::value; }) == dtype);
  }
  CHECK(thrown([] { parse_dtype("f16"); }) ==
        "UserError: \"f16\" is no element type; choose one of f32, f64, bf16, i64, u8");
}

TEST_CASE("dtype: visit_f32_f64 refuses the others by name") {
  CHECK(visit_f32_f64(DType::f64, "x", [](auto zero) { return sizeof(zero); }) == 8);
  CHECK(visit_f32_f64(DType::f32, "x", [](auto zero) { return sizeof(zero); }) == 4);
  CHECK(thrown([] { visit_f32_f64(DType::bf16, "softmax", [](auto zero) { return sizeof(zero); }); }) ==
        "Error: softmax: takes f32 or f64, not bf16");
}

TEST_CASE("device: names and parsing") {
  for (Device d : {Device::cpu, Device::reference, Device::cuda, Device::meta}) CHECK(parse_device(name_of(d)) == d);
  CHECK(on_host(Device::cpu));
  CHECK(on_host(Device::reference));
  CHECK_FALSE(on_host(Device::cuda));
  CHECK_FALSE(on_host(Device::meta));
  CHECK(thrown([] { parse_device("gpu"); }) ==
        "UserError: \"gpu\" is no device; choose one of auto, cpu, reference, cuda, meta");
}

TEST_CASE("bf16: rounds to nearest, ties to even") {
  CHECK(bf16(1.0F).bits == 0x3f80);
  CHECK(bf16(-2.0F).bits == 0xc000);
  // 1 + 2^-8 lies halfway between 0x3f80 and 0x3f81: to the even one; 1 + 3·2^-8 halfway between 0x3f81 and 0x3f82.
  CHECK(bf16(1.0F + 0x1p-8F).bits == 0x3f80);
  CHECK(bf16(1.0F + 3 * 0x1p-8F).bits == 0x3f82);
  CHECK(bf16(-(1.0F + 0x1p-8F)).bits == 0xbf80);
  // One bit beside the tie goes to the nearer one.
  CHECK(bf16(from_bits(0x3f808001)).bits == 0x3f81);
  CHECK(bf16(from_bits(0x3f817fff)).bits == 0x3f81);
  // A carry runs into the exponent.
  CHECK(bf16(from_bits(0x3fffffff)).bits == 0x4000);
}

TEST_CASE("bf16: every value of its own survives") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = from_bits(bits << 16);
    if (std::isnan(value)) continue;
    REQUIRE(bf16(value).bits == bits);
  }
}

TEST_CASE("bf16: nearest for a sweep of floats, checked by distance") {
  // Every 9973rd finite positive float: a prime step meets all bits of the mantissa.
  for (uint32_t bits = 0; bits < 0x7f000000; bits += 9973) {
    const double value = from_bits(bits);
    const uint16_t rounded = bf16(static_cast<float>(value)).bits;
    const double below = from_bits((bits >> 16) << 16), above = from_bits(((bits >> 16) + 1) << 16);
    const double got = from_bits(static_cast<uint32_t>(rounded) << 16);
    const double nearest = value - below < above - value ? below : above;
    if (value - below == above - value)
      REQUIRE((rounded & 1) == 0);
    else
      REQUIRE(got == nearest);
  }
}

TEST_CASE("bf16: infinities, overflow, zeros and denormals") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  CHECK(through(infinity) == infinity);
  CHECK(through(-infinity) == -infinity);
  CHECK(through(std::numeric_limits<float>::max()) == infinity);  // nearer to 2^128 than to the largest bf16
  CHECK(bf16(from_bits(0x7f7f7fff)).bits == 0x7f7f);              // just below the tie: the largest one
  CHECK(bf16(0.0F).bits == 0);
  CHECK(bf16(-0.0F).bits == 0x8000);
  CHECK(bf16(from_bits(0x00010000)).bits == 1);  // the smallest denormal bf16
  CHECK(bf16(from_bits(0x00000001)).bits == 0);
}

TEST_CASE("bf16: NaN stays NaN, also where its payload lies in the lower half alone") {
  CHECK(std::isnan(through(std::numeric_limits<float>::quiet_NaN())));
  CHECK(std::isnan(through(from_bits(0x7f800001))));
  CHECK(std::isnan(through(from_bits(0xff800001))));
  CHECK(std::isnan(through(from_bits(0x7fffffff))));  // would carry into -0 if it were rounded
  CHECK(std::signbit(through(from_bits(0xff800001))));
}
