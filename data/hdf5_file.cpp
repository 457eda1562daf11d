#include "data/hdf5_file.h"

#include "core/error.h"

// MGIC_HDF5 is set for this file alone, by CMake.
#ifdef MGIC_HDF5
#include <hdf5.h>

namespace mgic {
namespace {

constexpr hsize_t most = hsize_t{1} << 32;  // values: a header may promise more than memory holds

// A handle of the library, and what gives it back.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  bool valid() const { return id_ >= 0; }
  operator hid_t() const { return id_; }  // NOLINT: the library takes nothing else

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

template <class T>
Hdf5Array<T> read(const std::filesystem::path& path, const std::string& name, hid_t type) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // errors are ours to tell
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) fail_user("{}: no such file", path.string());
  const Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  if (!file.valid()) fail_user("{}: is no HDF5 file, or is truncated", path.string());
  const Handle data(H5Dopen2(file, name.c_str(), H5P_DEFAULT), H5Dclose);
  if (!data.valid()) fail_user("{}: has no array \"{}\"", path.string(), name);
  const Handle space(H5Dget_space(data), H5Sclose);
  hsize_t sizes[H5S_MAX_RANK];
  const int rank = space.valid() ? H5Sget_simple_extent_dims(space, sizes, nullptr) : -1;
  Hdf5Array<T> array;
  hsize_t count = 1;
  for (int i = 0; i < rank; ++i) {
    array.sizes.push_back(static_cast<int64_t>(sizes[i]));
    if (sizes[i] > most || (count *= sizes[i]) > most)
      fail_user("{}: the array \"{}\" has more than {} values", path.string(), name, most);
  }
  if (rank < 0) fail_user("{}: the sizes of \"{}\" cannot be read", path.string(), name);
  array.values.resize(count);
  if (H5Dread(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, array.values.data()) < 0)
    fail_user("{}: the array \"{}\" is damaged or holds no numbers", path.string(), name);
  return array;
}

}  // namespace

bool has_hdf5() { return true; }

Hdf5Array<float> read_hdf5_floats(const std::filesystem::path& file, const std::string& name) {
  return read<float>(file, name, H5T_NATIVE_FLOAT);
}
Hdf5Array<int64_t> read_hdf5_integers(const std::filesystem::path& file, const std::string& name) {
  return read<int64_t>(file, name, H5T_NATIVE_INT64);
}

}  // namespace mgic

#else

namespace mgic {
namespace {

[[noreturn]] void absent(const std::filesystem::path& file) {
  fail_user(
      "{}: HDF5 files cannot be read, since mgic was built without libhdf5; install it (Debian: libhdf5-dev) and "
      "build again, or use the OFF files",
      file.string());
}

}  // namespace

bool has_hdf5() { return false; }
Hdf5Array<float> read_hdf5_floats(const std::filesystem::path& file, const std::string&) { absent(file); }
Hdf5Array<int64_t> read_hdf5_integers(const std::filesystem::path& file, const std::string&) { absent(file); }

}  // namespace mgic

#endif
