#include "core/tensor.h"

#include <algorithm>
#include <cstring>

#include "core/allocator.h"

namespace mgic {

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  check(device != Device::cuda, "a tensor on cuda: this build has no CUDA; use --device cpu");
  Tensor t;
  t.storage_ = std::make_shared<Storage>();
  t.shape_ = shape;
  t.dtype_ = dtype;
  t.device_ = device;
  if (device != Device::meta) t.storage_->memory = Allocator::host().allocate(t.bytes());
  return t;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  if (device != Device::meta) std::memset(t.raw(), 0, static_cast<size_t>(t.bytes()));
  return t;
}

std::string Tensor::str() const {
  if (!defined()) return "an undefined tensor";
  return fmt::format("{} {} on {}", name_of(dtype_), shape_.str(), name_of(device_));
}

void* Tensor::raw() {
  check(defined(), "data of an undefined tensor was asked for");
  check(device_ != Device::meta, "a tensor on meta has a shape but no data");
  return storage_->memory.get() + offset_;
}

const void* Tensor::raw() const { return const_cast<Tensor*>(this)->raw(); }

void* Tensor::host_data(DType wanted) const {
  check(defined(), "data of an undefined tensor was asked for");
  check(on_host(device_), "data on the host was asked for, but the tensor is {}", *this);
  check(wanted == dtype_, "{} data was asked for, but the tensor is {}", name_of(wanted), *this);
  return storage_->memory.get() + offset_;
}

double Tensor::item() const {
  check(defined() && count() == 1, "item() takes a tensor of one element, not {}", *this);
  return visit_any(dtype_, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (std::is_same_v<T, bf16>)
      return static_cast<double>(static_cast<float>(*data<T>()));
    else
      return static_cast<double>(*data<T>());
  });
}

Tensor Tensor::reshape(const Shape& shape) const {
  check(shape.count() == count(), "reshape: {} does not fit shape {}", *this, shape);
  Tensor t = *this;
  t.shape_ = shape;
  return t;
}

Tensor Tensor::slice(int64_t begin, int64_t end) const {
  check(shape_.rank() >= 1 && begin >= 0 && begin <= end && end <= shape_[0], "slice [{}, {}) is outside of {}", begin,
        end, *this);
  Tensor t = *this;
  t.shape_ = shape_.with(0, end - begin);
  const int64_t row = shape_[0] == 0 ? 0 : bytes() / shape_[0];
  t.offset_ += begin * row;
  return t;
}

Tensor Tensor::clone() const {
  check(defined(), "clone of an undefined tensor");
  Tensor t = empty_like(*this);
  if (device_ != Device::meta) std::memcpy(t.raw(), raw(), static_cast<size_t>(bytes()));
  return t;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  Tensor t = empty(shape_, dtype, device_);
  if (device_ == Device::meta) return t;
  visit_any(dtype_, [&](auto from_zero) {
    using From = decltype(from_zero);
    visit_any(dtype, [&](auto to_zero) {
      using To = decltype(to_zero);
      const From* from = data<From>();
      To* out = t.data<To>();
      for (int64_t i = 0; i < count(); ++i) {
        if constexpr (std::is_same_v<From, To>)
          out[i] = from[i];
        else if constexpr (std::is_same_v<From, bf16>)
          out[i] = static_cast<To>(static_cast<float>(from[i]));
        else if constexpr (std::is_same_v<To, bf16>)
          out[i] = bf16(static_cast<float>(from[i]));
        else
          out[i] = static_cast<To>(from[i]);
      }
    });
  });
  return t;
}

Tensor Tensor::to(Device device) const {
  if (device == device_) return *this;
  check(device_ != Device::meta || device == Device::meta, "a tensor on meta has no data to copy to {}",
        name_of(device));
  Tensor t = empty(shape_, dtype_, device);
  if (device != Device::meta) std::memcpy(t.raw(), raw(), static_cast<size_t>(bytes()));
  return t;
}

void Tensor::fill(double value) {
  if (device_ != Device::meta) {
    visit_any(dtype_, [&](auto zero) {
      using T = decltype(zero);
      T v;
      if constexpr (std::is_same_v<T, bf16>)
        v = bf16(static_cast<float>(value));
      else
        v = static_cast<T>(value);
      std::fill_n(data<T>(), count(), v);
    });
  }
  changed_in_place();
}

void Tensor::copy_from(const Tensor& source) {
  check(source.shape() == shape_ && source.dtype() == dtype_, "copy_from: {} does not fit {}", source, *this);
  if (device_ != Device::meta) std::memmove(raw(), source.raw(), static_cast<size_t>(bytes()));
  changed_in_place();
}

uint64_t Tensor::version() const {
  check(defined(), "version of an undefined tensor");
  return storage_->version;
}

void Tensor::changed_in_place() {
  check(defined(), "an undefined tensor cannot change");
  ++storage_->version;
}

}  // namespace mgic
