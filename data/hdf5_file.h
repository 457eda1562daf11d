// Arrays from HDF5 files, where the library was found when this was built; an error that says so where not.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace mgic {

bool has_hdf5();

template <class T>
struct Hdf5Array {
  std::vector<int64_t> sizes;
  std::vector<T> values;  // row-major
};

// The array `name` of the file, converted to f32 or i64. Throws UserError naming the file. Not for several threads.
Hdf5Array<float> read_hdf5_floats(const std::filesystem::path& file, const std::string& name);
Hdf5Array<int64_t> read_hdf5_integers(const std::filesystem::path& file, const std::string& name);

}  // namespace mgic
