#include "core/file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "core/error.h"

namespace mgic {
namespace {

// Owns a file descriptor.
class Descriptor {
 public:
  Descriptor(const std::filesystem::path& path, int flags) : path_(path), fd_(::open(path.c_str(), flags, 0644)) {
    if (fd_ < 0) fail_user("{}: cannot be opened: {}", path.string(), std::strerror(errno));
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  void write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail_user("{}: cannot be written: {}", path_.string(), std::strerror(errno));
      bytes.remove_prefix(static_cast<size_t>(n));
    }
  }
  void sync() {
    // EINVAL: the file system has no notion of syncing this kind of file.
    if (::fsync(fd_) != 0 && errno != EINVAL)
      fail_user("{}: cannot be synced to disk: {}", path_.string(), std::strerror(errno));
  }
  void close() {
    if (::close(std::exchange(fd_, -1)) != 0)
      fail_user("{}: cannot be closed: {}", path_.string(), std::strerror(errno));
  }

 private:
  std::filesystem::path path_;
  int fd_;
};

}  // namespace

std::string read_file(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) fail_user("{}: no such file", path.string());
  if (std::filesystem::is_directory(path, error)) fail_user("{}: is a folder, not a file", path.string());
  std::ifstream in(path, std::ios::binary);
  if (!in) fail_user("{}: cannot be opened: {}", path.string(), std::strerror(errno));
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  if (in.bad()) fail_user("{}: cannot be read: {}", path.string(), std::strerror(errno));
  return bytes;
}

void write_file(const std::filesystem::path& path, std::string_view bytes) {
  std::filesystem::path part = path;
  part += ".part";
  try {
    Descriptor out(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC);
    out.write(bytes);
    out.sync();
    out.close();
    std::error_code error;
    std::filesystem::rename(part, path, error);
    if (error) fail_user("{}: cannot be replaced: {}", path.string(), error.message());
  } catch (...) {
    std::error_code ignored;  // the first failure is the one to report
    std::filesystem::remove(part, ignored);
    throw;
  }
}

void sync_path(const std::filesystem::path& path) { Descriptor(path, O_RDONLY | O_CLOEXEC).sync(); }

void append_line(const std::filesystem::path& path, std::string_view line, bool sync) {
  Descriptor out(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC);
  out.write(std::string(line) + "\n");
  if (sync) out.sync();
}

}  // namespace mgic
