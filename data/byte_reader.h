// ByteReader: the bytes of a file from its beginning, decompressed where the file's name ends in .gz.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

namespace mgic {

class ByteReader {
 public:
  // Throws UserError naming the file where it cannot be opened, and for a .gz that is not gzip.
  explicit ByteReader(const std::filesystem::path& path);
  ~ByteReader();
  ByteReader(const ByteReader&) = delete;
  ByteReader& operator=(const ByteReader&) = delete;

  // Up to `count` bytes; fewer only at the end. Throws UserError where compressed data are truncated or corrupt.
  int64_t read(uint8_t* to, int64_t count);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The file that is there: `path`, else with .gz appended or taken off; `path` itself where neither exists.
std::filesystem::path plain_or_gz(const std::filesystem::path& path);

}  // namespace mgic
