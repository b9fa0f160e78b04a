#include "base/posix.hpp"

#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

namespace qs {

void unique_fd::reset(int fd) noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

result<unique_fd> open_file(const std::filesystem::path& path, int flags, mode_t mode) {
  auto fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  if (fd < 0) return errno_error(fmt::format("open {}", path.string()), errno);
  return unique_fd{fd};
}

status write_all(int fd, byte_span bytes) {
  while (!bytes.empty()) {
    auto n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno_error("write", errno);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

status read_exactly(int fd, mutable_byte_span out, std::uint64_t offset) {
  while (!out.empty()) {
    auto n = ::pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno_error("read", errno);
    }
    if (n == 0) return error{errc::corrupt, "read: the file ends too early"};
    out = out.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return {};
}

result<std::string> read_file(const std::filesystem::path& path, std::size_t most) {
  QS_TRY_ASSIGN(auto fd, open_file(path, O_RDONLY));
  std::string out;
  for (;;) {
    auto at = out.size();
    out.resize(at + 65536);
    auto n = ::read(fd.get(), out.data() + at, 65536);
    if (n < 0 && errno == EINTR) {
      out.resize(at);
      continue;
    }
    if (n < 0) return errno_error(fmt::format("read {}", path.string()), errno);
    out.resize(at + static_cast<std::size_t>(n));
    if (n == 0) return out;
    if (out.size() > most)
      return error{errc::invalid_argument, fmt::format("read {}: larger than {} bytes", path.string(), most)};
  }
}

namespace {

status replace(const std::filesystem::path& path, byte_span content, mode_t mode, bool overwrite) {
  auto directory = path.parent_path().empty() ? std::filesystem::path{"."} : path.parent_path();
  auto temporary = (directory / fmt::format(".{}.XXXXXX", path.filename().string())).string();
  unique_fd fd{::mkostemp(temporary.data(), O_CLOEXEC)};
  if (!fd.valid()) return errno_error(fmt::format("create a file in {}", directory.string()), errno);
  auto written = write_all(fd.get(), content);
  if (written.ok() && ::fchmod(fd.get(), mode) != 0) written = errno_error("chmod", errno);
  if (written.ok() && ::fsync(fd.get()) != 0) written = errno_error("fsync", errno);
  if (written.ok()) {
    auto placed = overwrite ? ::rename(temporary.c_str(), path.c_str()) : ::link(temporary.c_str(), path.c_str());
    if (placed != 0) written = errno_error("put in place", errno);
  }
  if (!written.ok() || !overwrite) ::unlink(temporary.c_str());
  if (!written.ok()) return std::move(written).err().with(fmt::format("write {}", path.string()));
  return sync_directory(directory);
}

} // namespace

status write_file_atomic(const std::filesystem::path& path, byte_span content, mode_t mode) {
  return replace(path, content, mode, true);
}

status create_file_atomic(const std::filesystem::path& path, byte_span content, mode_t mode) {
  return replace(path, content, mode, false);
}

status sync_directory(const std::filesystem::path& path) {
  QS_TRY_ASSIGN(auto fd, open_file(path, O_RDONLY | O_DIRECTORY));
  if (::fsync(fd.get()) != 0) return errno_error(fmt::format("fsync {}", path.string()), errno);
  return {};
}

status make_directories(const std::filesystem::path& path, mode_t mode) {
  if (path.empty()) return {};
  struct ::stat info {};
  if (::stat(path.c_str(), &info) == 0) {
    if (S_ISDIR(info.st_mode)) return {};
    return errno_error(fmt::format("mkdir {}", path.string()), ENOTDIR);
  }
  if (path.has_parent_path() && path.parent_path() != path) QS_TRY(make_directories(path.parent_path(), mode));
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST)
    return errno_error(fmt::format("mkdir {}", path.string()), errno);
  return {};
}

} // namespace qs
