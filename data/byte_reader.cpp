#include "data/byte_reader.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "core/error.h"

namespace mgic {
namespace fs = std::filesystem;
namespace {

constexpr int gzip_only = 16 + MAX_WBITS;  // zlib: expect gzip's header and checksum, nothing else

}  // namespace

struct ByteReader::State {
  explicit State(const fs::path& file) : path(file), compressed(file.extension() == ".gz") {
    std::error_code ignored;  // what cannot be examined cannot be opened either
    if (fs::is_directory(path, ignored)) fail_user("{}: is a folder, not a file", path.string());
    errno = 0;
    in.open(path, std::ios::binary);
    if (!in) fail_user("{}: cannot be opened: {}", path.string(), std::strerror(errno));
    if (!compressed) return;
    refill();
    if (zs.avail_in < 2 || buffer[0] != 0x1f || buffer[1] != 0x8b)
      fail_user("{}: is not a gzip file though its name ends in .gz; rename it or fetch it again", path.string());
    check(inflateInit2(&zs, gzip_only) == Z_OK, "zlib cannot start: out of memory");
    started = true;
  }
  ~State() {
    if (started) inflateEnd(&zs);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  int64_t read_file(uint8_t* to, int64_t count) {
    in.read(reinterpret_cast<char*>(to), count);
    if (in.bad()) fail_user("{}: cannot be read: {}", path.string(), std::strerror(errno));
    return in.gcount();
  }
  void refill() {
    zs.next_in = buffer.data();
    zs.avail_in = static_cast<uInt>(read_file(buffer.data(), static_cast<int64_t>(buffer.size())));
  }

  int64_t inflate_some(uint8_t* to, int64_t count) {
    if (zs.avail_in == 0) refill();
    if (zs.avail_in == 0) {
      if (!member_ended) fail_user("{}: the gzip data are truncated; fetch the file again", path.string());
      return 0;
    }
    if (member_ended) inflateReset(&zs);  // gzip files may be strung together
    zs.next_out = to;
    zs.avail_out = static_cast<uInt>(std::min<int64_t>(count, 1 << 30));
    const uInt wanted = zs.avail_out;
    const int status = inflate(&zs, Z_NO_FLUSH);
    member_ended = status == Z_STREAM_END;
    if (status != Z_OK && status != Z_STREAM_END)
      fail_user("{}: the gzip data are corrupt ({}); fetch the file again", path.string(),
                zs.msg != nullptr ? zs.msg : "zlib gives no reason");
    return wanted - zs.avail_out;
  }
  bool finished() {
    if (zs.avail_in == 0) refill();
    return member_ended && zs.avail_in == 0;
  }

  fs::path path;
  bool compressed = false, started = false, member_ended = false;
  std::ifstream in;
  z_stream zs{};
  std::array<uint8_t, 1 << 16> buffer;
};

ByteReader::ByteReader(const fs::path& path) : state_(std::make_unique<State>(path)) {}
ByteReader::~ByteReader() = default;

int64_t ByteReader::read(uint8_t* to, int64_t count) {
  if (!state_->compressed) return state_->read_file(to, count);
  int64_t done = 0;
  while (done < count && !state_->finished()) done += state_->inflate_some(to + done, count - done);
  return done;
}

fs::path plain_or_gz(const fs::path& path) {
  std::error_code ignored;
  if (fs::exists(path, ignored)) return path;
  fs::path other = path;
  if (path.extension() == ".gz")
    other.replace_extension();
  else
    other += ".gz";
  return fs::exists(other, ignored) ? other : path;
}

}  // namespace mgic
