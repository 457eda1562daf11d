// Tensor: a contiguous, row-major array with shared storage. No strides, no hidden layouts.
//
// Feature maps are channels-last (N, H, W, C), point clouds (N, P, C), convolution weights (O, kH, kW, I/groups),
// linear weights (out, in).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"
#include "core/shape.h"

namespace mgic {

class Tensor {
 public:
  Tensor() = default;  // undefined: no shape, no storage

  static Tensor empty(const Shape& shape, DType dtype, Device device);  // contents undefined; no data on meta
  static Tensor empty_like(const Tensor& other) { return empty(other.shape(), other.dtype(), other.device()); }
  static Tensor zeros(const Shape& shape, DType dtype, Device device);
  template <class T>
  static Tensor from(const std::vector<T>& values, const Shape& shape, Device device = Device::cpu);

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  int64_t count() const { return shape_.count(); }
  int64_t bytes() const { return count() * size_of(dtype_); }
  std::string str() const;  // "f32 (8, 32, 32, 3) on cpu"

  // Host access; the type must be the tensor's own. Throws on cuda, on meta and where undefined.
  template <class T>
  T* data() {
    return static_cast<T*>(host_data(DTypeOf<T>::value));
  }
  template <class T>
  const T* data() const {
    return static_cast<const T*>(host_data(DTypeOf<T>::value));
  }
  template <class T>
  std::span<T> span() {
    return {data<T>(), static_cast<size_t>(count())};
  }
  template <class T>
  std::span<const T> span() const {
    return {data<T>(), static_cast<size_t>(count())};
  }
  void* raw();  // any dtype, any device with memory
  const void* raw() const;
  double item() const;  // the one element of a tensor, as a double

  // Views that share storage.
  Tensor reshape(const Shape& shape) const;        // same count
  Tensor slice(int64_t begin, int64_t end) const;  // [begin, end) of the first dimension

  Tensor clone() const;
  Tensor to(DType dtype) const;          // converted copy on the same host device; itself if equal
  Tensor to(Device device) const;        // copied to the other device; itself if equal
  void fill(double value);               // in place
  void copy_from(const Tensor& source);  // in place; same shape and dtype, both on the host

  // Every in-place change counts; a Node compares the version it saved with the one it finds.
  uint64_t version() const;
  void changed_in_place();
  bool shares_storage(const Tensor& other) const { return storage_ && storage_ == other.storage_; }
  bool unique() const { return storage_ && storage_.use_count() == 1; }

 private:
  struct Storage {
    std::shared_ptr<std::byte> memory;  // null on meta
    uint64_t version = 0;
  };
  void* host_data(DType wanted) const;

  std::shared_ptr<Storage> storage_;
  int64_t offset_ = 0;  // bytes
  Shape shape_{0};
  DType dtype_ = DType::f32;
  Device device_ = Device::cpu;
};

template <class T>
Tensor Tensor::from(const std::vector<T>& values, const Shape& shape, Device device) {
  check(static_cast<int64_t>(values.size()) == shape.count(), "a tensor of shape {} needs {} values, not {}", shape,
        shape.count(), values.size());
  Tensor t = empty(shape, DTypeOf<T>::value, device);
  std::copy(values.begin(), values.end(), t.data<T>());
  return t;
}

}  // namespace mgic
