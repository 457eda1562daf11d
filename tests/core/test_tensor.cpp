// Tensor: storage that views share, conversions, versions and what its errors say.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/tensor.h"
#include "tests/core/thrown.h"

using namespace mgic;
using test::thrown;

namespace {

Tensor counting(const Shape& shape) {
  Tensor t = Tensor::empty(shape, DType::f32, Device::cpu);
  for (int64_t i = 0; i < t.count(); ++i) t.data<float>()[i] = static_cast<float>(i);
  return t;
}

template <class T>
std::vector<T> values(const Tensor& t) {
  const auto span = t.span<T>();
  return {span.begin(), span.end()};
}

double first_as_double(const Tensor& t) { return t.reshape({t.count()}).slice(0, 1).item(); }

}  // namespace

TEST_CASE("tensor: an undefined one has no storage and says so") {
  const Tensor t;
  CHECK_FALSE(t.defined());
  CHECK(t.str() == "an undefined tensor");
  CHECK(thrown([&] { t.data<float>(); }) == "Error: data of an undefined tensor was asked for");
  CHECK(thrown([&] { t.raw(); }) == "Error: data of an undefined tensor was asked for");
  CHECK(thrown([&] { t.version(); }) == "Error: version of an undefined tensor");
  CHECK(thrown([&] { t.clone(); }) == "Error: clone of an undefined tensor");
  CHECK(thrown([&] { Tensor().changed_in_place(); }) == "Error: an undefined tensor cannot change");
  CHECK(thrown([&] { t.item(); }) == "Error: item() takes a tensor of one element, not an undefined tensor");
  CHECK_FALSE(t.shares_storage(t));
  CHECK_FALSE(t.unique());
}

TEST_CASE("tensor: made with values, zeros, and what it says of itself") {
  const Tensor t = Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3});
  CHECK(t.str() == "f32 (2, 3) on cpu");
  CHECK(t.count() == 6);
  CHECK(t.bytes() == 24);
  CHECK(values<float>(t) == std::vector<float>{1, 2, 3, 4, 5, 6});
  CHECK(thrown([] {
          Tensor::from(std::vector<double>{1, 2}, {3});
        }) == "Error: a tensor of shape (3) needs 3 values, not 2");

  Tensor dirty = Tensor::empty({1000}, DType::u8, Device::cpu);
  dirty.fill(255);
  dirty = Tensor();  // so that zeros() below gets a block that is not zero
  const Tensor zeros = Tensor::zeros({1000}, DType::u8, Device::cpu);
  for (uint8_t v : zeros.span<uint8_t>()) REQUIRE(v == 0);
}

TEST_CASE("tensor: host data comes in the tensor's own type alone") {
  Tensor t = counting({2});
  CHECK(thrown([&] { t.data<double>(); }) == "Error: f64 data was asked for, but the tensor is f32 (2) on cpu");
  CHECK(thrown([&] { t.data<int64_t>(); }) == "Error: i64 data was asked for, but the tensor is f32 (2) on cpu");
}

TEST_CASE("tensor: copies of the handle and views share storage") {
  Tensor t = counting({4, 3});
  Tensor handle = t;
  Tensor view = t.reshape({2, 6});
  Tensor middle = t.slice(1, 3);
  for (const Tensor* other : {&handle, &view, &middle}) CHECK(t.shares_storage(*other));
  middle.data<float>()[0] = 100;
  CHECK(t.data<float>()[3] == 100);
  CHECK(handle.data<float>()[3] == 100);
  CHECK(view.data<float>()[3] == 100);
  CHECK_FALSE(t.shares_storage(t.clone()));
  CHECK_FALSE(t.unique());
  handle = view = middle = Tensor();
  CHECK(t.unique());
}

TEST_CASE("tensor: slices of the first dimension, and slices of slices") {
  const Tensor t = counting({5, 2});
  CHECK(values<float>(t.slice(1, 3)) == std::vector<float>{2, 3, 4, 5});
  CHECK(t.slice(1, 3).shape() == Shape{2, 2});
  CHECK(values<float>(t.slice(1, 4).slice(1, 2)) == std::vector<float>{4, 5});
  CHECK(values<float>(t.slice(2, 5).reshape({6}).slice(5, 6)) == std::vector<float>{9});
  CHECK(t.slice(0, 5).count() == 10);
  CHECK(t.slice(5, 5).count() == 0);
  CHECK(values<float>(t.slice(2, 4).clone()) == std::vector<float>{4, 5, 6, 7});
  CHECK(thrown([&] { t.slice(0, 6); }) == "Error: slice [0, 6) is outside of f32 (5, 2) on cpu");
  CHECK(thrown([&] { t.slice(-1, 2); }) == "Error: slice [-1, 2) is outside of f32 (5, 2) on cpu");
  CHECK(thrown([&] { t.slice(3, 2); }) == "Error: slice [3, 2) is outside of f32 (5, 2) on cpu");
  CHECK(thrown([] { Tensor::empty({}, DType::f32, Device::cpu).slice(0, 1); }) ==
        "Error: slice [0, 1) is outside of f32 () on cpu");
  const Tensor empty = Tensor::empty({0, 3}, DType::f32, Device::cpu);
  CHECK(empty.slice(0, 0).shape() == Shape{0, 3});
}

TEST_CASE("tensor: reshape keeps the count") {
  const Tensor t = counting({4, 3});
  CHECK(t.reshape({12}).shape() == Shape{12});
  CHECK(values<float>(t.reshape({2, 2, 3})) == values<float>(t));
  CHECK(thrown([&] { t.reshape({5}); }) == "Error: reshape: f32 (4, 3) on cpu does not fit shape (5)");
}

TEST_CASE("tensor: every in-place change counts, for all views alike") {
  Tensor t = counting({4});
  Tensor view = t.slice(0, 2);
  const uint64_t before = t.version();
  view.fill(7);
  CHECK(t.version() == before + 1);
  CHECK(view.version() == before + 1);
  t.copy_from(counting({4}));
  CHECK(t.version() == before + 2);
  t.changed_in_place();
  CHECK(t.version() == before + 3);
  const Tensor copy = t.clone();
  CHECK(copy.version() == 0);
  CHECK(t.version() == before + 3);
}

TEST_CASE("tensor: fill of a slice leaves its neighbours") {
  Tensor t = counting({6});
  t.slice(2, 4).fill(-1);
  CHECK(values<float>(t) == std::vector<float>{0, 1, -1, -1, 4, 5});
}

TEST_CASE("tensor: copy_from needs the same shape and type") {
  Tensor t = counting({4});
  CHECK(thrown([&] {
          t.copy_from(counting({2, 2}));
        }) == "Error: copy_from: f32 (2, 2) on cpu does not fit f32 (4) on cpu");
  CHECK(thrown([&] { t.copy_from(t.to(DType::f64)); }) ==
        "Error: copy_from: f64 (4) on cpu does not fit f32 (4) on cpu");
  Tensor row = counting({2, 3});
  row.slice(0, 1).copy_from(row.slice(1, 2));
  CHECK(values<float>(row) == std::vector<float>{3, 4, 5, 3, 4, 5});
}

TEST_CASE("tensor: item of each type") {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::i64, DType::u8}) {
    Tensor t = Tensor::empty({1, 1}, dtype, Device::cpu);
    t.fill(42);
    CHECK(t.item() == 42);
  }
  CHECK(Tensor::from(std::vector<double>{0.1}, {}).item() == 0.1);
  CHECK(thrown([] { counting({2}).item(); }) == "Error: item() takes a tensor of one element, not f32 (2) on cpu");
}

TEST_CASE("tensor: to(dtype) between all pairs") {
  const DType all[] = {DType::f32, DType::f64, DType::bf16, DType::i64, DType::u8};
  for (DType from : all)
    for (DType to : all) {
      CAPTURE(name_of(from));
      CAPTURE(name_of(to));
      Tensor t = Tensor::empty({3}, from, Device::reference);
      t.fill(200);  // every type holds it exactly
      const Tensor converted = t.to(to);
      CHECK(converted.dtype() == to);
      CHECK(converted.device() == Device::reference);
      CHECK(converted.shape() == t.shape());
      CHECK(converted.shares_storage(t) == (from == to));
      for (int64_t i = 0; i < 3; ++i) CHECK(converted.slice(i, i + 1).item() == 200);
    }
  // What the narrower type keeps of it.
  const Tensor fine = Tensor::from(std::vector<double>{1.0 + 0x1p-8, -2.75, 1e300}, {3});
  CHECK(first_as_double(fine.to(DType::bf16)) == 1.0);
  CHECK(Tensor::from(std::vector<double>{-2.75}, {1}).to(DType::i64).item() == -2);  // towards zero
  CHECK(std::isinf(fine.to(DType::f32).data<float>()[2]));
  CHECK(std::isinf(static_cast<float>(fine.to(DType::bf16).data<bf16>()[2])));
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(std::isnan(first_as_double(Tensor::from(std::vector<double>{nan}, {1}).to(DType::bf16).to(DType::f32))));
}

TEST_CASE("tensor: to(device) copies between the host's devices") {
  const Tensor t = counting({3});
  CHECK(t.to(Device::cpu).shares_storage(t));
  const Tensor other = t.to(Device::reference);
  CHECK(other.device() == Device::reference);
  CHECK_FALSE(other.shares_storage(t));
  CHECK(values<float>(other) == values<float>(t));
}

TEST_CASE("tensor: meta has a shape and no data") {
  // 2^55 bytes: were there data, no machine could hold them.
  Tensor t = Tensor::empty({int64_t{1} << 53}, DType::f32, Device::meta);
  CHECK(t.defined());
  CHECK(t.str() == "f32 (9007199254740992) on meta");
  CHECK(thrown([&] { t.raw(); }) == "Error: a tensor on meta has a shape but no data");
  CHECK(thrown([&] { t.data<float>(); }) ==
        "Error: data on the host was asked for, but the tensor is f32 (9007199254740992) on meta");
  CHECK(thrown([&] { t.to(Device::cpu); }) == "Error: a tensor on meta has no data to copy to cpu");
  CHECK(t.to(DType::bf16).dtype() == DType::bf16);
  CHECK(t.clone().shape() == t.shape());
  CHECK_FALSE(t.clone().shares_storage(t));
  CHECK(t.reshape({1, int64_t{1} << 53}).shape().rank() == 2);
  CHECK(t.slice(0, 10).shape() == Shape{10});
  t.fill(1);
  CHECK(t.version() == 1);
  CHECK(Tensor::zeros({5}, DType::i64, Device::meta).dtype() == DType::i64);
  CHECK(counting({3}).to(Device::meta).str() == "f32 (3) on meta");
  CHECK(thrown([] { Tensor::empty({1}, DType::f32, Device::meta).item(); }) ==
        "Error: data on the host was asked for, but the tensor is f32 (1) on meta");
}

TEST_CASE("tensor: empty ones have memory to point at") {
  const Tensor t = Tensor::empty({0, 4}, DType::f32, Device::cpu);
  CHECK(t.defined());
  CHECK(t.count() == 0);
  CHECK(t.data<float>() != nullptr);
  CHECK(t.clone().count() == 0);
  CHECK(t.to(DType::f64).count() == 0);
}
