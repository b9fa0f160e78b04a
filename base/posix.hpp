// The few POSIX calls every room needs, with errors as values: owned descriptors, whole-file reads and
// atomic replacement. Not an abstraction over files: the log, the zdb engine and the cache do their own I/O.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <utility>

#include "base/bytes.hpp"
#include "base/result.hpp"

namespace qs {

/// Owns a file descriptor; closes it when it goes.
class unique_fd {
public:
  unique_fd() = default;
  explicit unique_fd(int fd) noexcept : fd_{fd} {}
  unique_fd(unique_fd&& other) noexcept : fd_{std::exchange(other.fd_, -1)} {}
  unique_fd& operator=(unique_fd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  unique_fd(const unique_fd&) = delete;
  unique_fd& operator=(const unique_fd&) = delete;
  ~unique_fd() { reset(); }

  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] bool valid() const noexcept { return fd_ >= 0; }
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
  void reset(int fd = -1) noexcept;

private:
  int fd_ = -1;
};

/// open(2) with O_CLOEXEC.
result<unique_fd> open_file(const std::filesystem::path& path, int flags, mode_t mode = 0600);
/// Writes all of it, over short writes and EINTR.
status write_all(int fd, byte_span bytes);
/// pread(2) until `out` is full; an early end of file is errc::corrupt.
status read_exactly(int fd, mutable_byte_span out, std::uint64_t offset);
/// The whole file, refused over `most` bytes.
result<std::string> read_file(const std::filesystem::path& path, std::size_t most = 64 << 20);
/// Temporary file, fsync, rename, fsync of the directory: after a crash the old or the new content, never a mixture.
status write_file_atomic(const std::filesystem::path& path, byte_span content, mode_t mode = 0600);
/// As above, but errc::already_exists if there is a file: never overwrites.
status create_file_atomic(const std::filesystem::path& path, byte_span content, mode_t mode = 0600);
/// fsync of a directory, so that names made in it survive a power cut.
status sync_directory(const std::filesystem::path& path);
/// mkdir -p; what it makes gets `mode`.
status make_directories(const std::filesystem::path& path, mode_t mode = 0700);

} // namespace qs
