#include "zdb/data_file.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "zdb/crc32c.hpp"

namespace qs::zdb {

namespace {
constexpr std::size_t window_bytes = 64 << 10;
constexpr std::size_t window_bytes_least = 512;
constexpr std::uint32_t start_every = 256 << 10;

/// Steps over `done` bytes in parts[first...].
void step(std::span<iovec>& parts, std::size_t done) {
  while (!parts.empty() && done >= parts.front().iov_len) {
    done -= parts.front().iov_len;
    parts = parts.subspan(1);
  }
  if (parts.empty()) return;
  parts.front().iov_base = static_cast<char*>(parts.front().iov_base) + done;
  parts.front().iov_len -= done;
}

// Most reads and writes have one part: the plain calls are a few hundred instructions shorter.
ssize_t read_parts(int fd, std::span<iovec> parts, std::uint64_t at) {
  auto where = static_cast<off_t>(at);
  if (parts.size() == 1) return ::pread(fd, parts[0].iov_base, parts[0].iov_len, where);
  return ::preadv(fd, parts.data(), static_cast<int>(parts.size()), where);
}
ssize_t write_parts(int fd, std::span<iovec> parts, std::uint64_t at) {
  auto where = static_cast<off_t>(at);
  if (parts.size() == 1) return ::pwrite(fd, parts[0].iov_base, parts[0].iov_len, where);
  return ::pwritev(fd, parts.data(), static_cast<int>(parts.size()), where);
}
} // namespace

void file_pool::used(data_file& file) {
  if (file.in_pool_) {
    order_.splice(order_.begin(), order_, file.at_);
    return;
  }
  order_.push_front(&file);
  file.at_ = order_.begin();
  file.in_pool_ = true;
  if (order_.size() <= most_) return;
  auto& oldest = *order_.back();
  oldest.fd_.reset();
  forget(oldest);
}

void file_pool::forget(data_file& file) {
  if (!file.in_pool_) return;
  order_.erase(file.at_);
  file.in_pool_ = false;
}

std::filesystem::path data_file_path(const std::filesystem::path& directory, std::uint32_t id) {
  return directory / fmt::format("{:08x}.data", id);
}

data_file::~data_file() { pool_.forget(*this); }

result<std::shared_ptr<unique_fd>> data_file::descriptor() {
  if (!fd_) {
    QS_TRY_ASSIGN(auto fd, open_file(path_, pool_.read_only ? O_RDONLY : O_RDWR));
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0)
      return errno_error(fmt::format("stat {}", path_.string()), errno);
    if (inode_ != 0 && (st.st_ino != inode_ || st.st_dev != device_))
      return error{errc::data_lost, fmt::format("{} is another file now", path_.string())};
    inode_ = st.st_ino;
    device_ = st.st_dev;
    fd_ = std::make_shared<unique_fd>(std::move(fd));
  }
  pool_.used(*this);
  return fd_;
}

result<std::unique_ptr<data_file>> data_file::create(file_pool& pool,
                                                     const std::filesystem::path& directory,
                                                     const file_header& header) {
  std::unique_ptr<data_file> file{new data_file{pool, data_file_path(directory, header.id)}};
  file->header_ = header;
  if (!header.compacted) file->header_.first = file->header_.last = header.id;
  QS_TRY_ASSIGN(auto made, open_file(file->path_, O_RDWR | O_CREAT | O_EXCL));
  made.reset();
  auto bytes = encode_file_header(header);
  iovec part{bytes.data(), bytes.size()};
  auto written = file->append({&part, 1});
  if (!written.ok()) {
    ::unlink(file->path_.c_str());
    return std::move(written).err();
  }
  return file;
}

result<std::unique_ptr<data_file>>
data_file::open(file_pool& pool, const std::filesystem::path& directory, std::uint32_t id) {
  std::unique_ptr<data_file> file{new data_file{pool, data_file_path(directory, id)}};
  QS_TRY_ASSIGN(auto fd, file->descriptor());
  struct stat st {};
  if (::fstat(fd->get(), &st) != 0)
    return errno_error(fmt::format("stat {}", file->path_.string()), errno);
  file->size_ = static_cast<std::uint64_t>(st.st_size);
  std::array<std::byte, file_header_bytes> bytes{};
  QS_TRY(file->read(bytes, 0));
  auto header = decode_file_header(bytes);
  if (!header.ok()) return std::move(header).err().with(file->path_.string());
  if (header->id != id)
    return error{errc::corrupt,
                 fmt::format("{} says it is file {}", file->path_.string(), header->id)};
  file->header_ = *header;
  return file;
}

status data_file::append(std::span<iovec> parts) {
  QS_TRY_ASSIGN(auto fd, descriptor());
  auto at = size_;
  while (!parts.empty()) {
    auto n = write_parts(fd->get(), parts, at);
    if (n > 0) {
      at += static_cast<std::uint64_t>(n);
      pool_.bytes_written += static_cast<std::uint64_t>(n);
      step(parts, static_cast<std::size_t>(n));
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    auto why = n < 0 ? errno : EIO; // some file systems say nothing and write nothing
    // Where nothing was written there is nothing to take back: a read-only disk may be mended.
    if (at > size_ && ::ftruncate(fd->get(), static_cast<off_t>(size_)) != 0)
      return error{errc::corrupt,
                   fmt::format("{}: a failed write could not be taken back", path_.string()),
                   errno};
    auto failed = errno_error(fmt::format("write {}", path_.string()), why);
    if (why == EDQUOT || why == ENOSPC) failed.code = errc::no_space;
    return failed;
  }
  size_ = at;
  return {};
}

status read_exactly(int fd, const std::filesystem::path& path, std::span<iovec> parts,
                    std::uint64_t offset) {
  while (!parts.empty()) {
    auto n = read_parts(fd, parts, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error(fmt::format("read {}", path.string()), errno);
    if (n == 0) return error{errc::corrupt, fmt::format("{} ends too early", path.string())};
    offset += static_cast<std::uint64_t>(n);
    step(parts, static_cast<std::size_t>(n));
  }
  return {};
}

status data_file::read(std::span<iovec> parts, std::uint64_t offset) {
  QS_TRY_ASSIGN(auto fd, descriptor());
  for (auto& p : parts) pool_.bytes_read += p.iov_len;
  return read_exactly(fd->get(), path_, parts, offset);
}

status data_file::read(mutable_byte_span out, std::uint64_t offset) {
  iovec part{out.data(), out.size()};
  return read({&part, out.empty() ? 0U : 1U}, offset);
}

status data_file::cut(std::uint64_t size) {
  if (pool_.read_only) {
    size_ = size;
    return {};
  }
  QS_TRY_ASSIGN(auto fd, descriptor());
  if (::ftruncate(fd->get(), static_cast<off_t>(size)) != 0)
    return errno_error(fmt::format("cut {}", path_.string()), errno);
  size_ = size;
  return {};
}

bool data_file::linked() const {
  struct stat st {};
  // A disk that cannot answer has not lost the file.
  if (::lstat(path_.c_str(), &st) != 0) return errno != ENOENT && errno != ENOTDIR;
  return st.st_ino == inode_ && st.st_dev == device_ && st.st_nlink > 0;
}

// -- starts ---------------------------------------------------------------------------------------

void data_file::passed(std::uint32_t offset, record_place origin) {
  if (!starts_.empty() && offset - starts_.back() < start_every) return;
  starts_.push_back(offset);
  if (header_.compacted) origins_.push_back(origin);
}

std::uint32_t data_file::start_for(record_place origin) const noexcept {
  std::size_t after = 0; // how many starts are at or before it
  if (header_.compacted)
    after = static_cast<std::size_t>(
        std::upper_bound(origins_.begin(), origins_.end(), origin) - origins_.begin());
  else
    after = static_cast<std::size_t>(
        std::upper_bound(starts_.begin(), starts_.end(), origin.offset) - starts_.begin());
  return after == 0 ? std::uint32_t{file_header_bytes} : starts_[after - 1];
}

std::uint32_t data_file::start_before(std::uint64_t offset) const noexcept {
  auto at = std::lower_bound(starts_.begin(), starts_.end(), offset);
  return at == starts_.begin() ? std::uint32_t{file_header_bytes} : *std::prev(at);
}

namespace {
/// Reads a file forward through a window that grows while reading goes straight on: small records
/// cost no call each, and of big ones that are stepped over little more than the header is read.
class window {
public:
  window(int fd, const std::filesystem::path& path, std::uint64_t size)
      : fd_{fd}, path_{path}, file_size_{size} {}
  /// `n` (≤ 64 KiB) bytes at `offset`, which the file must have.
  result<byte_span> at(std::uint64_t offset, std::size_t n) {
    if (offset < start_ || offset + n > start_ + bytes_.size()) {
      auto straight_on = offset <= start_ + bytes_.size();
      size_ = straight_on ? std::min(size_ * 2, window_bytes) : window_bytes_least;
      bytes_.resize(static_cast<std::size_t>(
          std::min<std::uint64_t>(std::max(size_, n), file_size_ - offset)));
      start_ = offset;
      iovec part{bytes_.data(), bytes_.size()};
      auto got = read_exactly(fd_, path_, {&part, bytes_.empty() ? 0U : 1U}, offset);
      if (!got.ok()) {
        bytes_.clear();
        return std::move(got).err();
      }
    }
    return byte_span{bytes_}.subspan(static_cast<std::size_t>(offset - start_), n);
  }

private:
  int fd_;
  const std::filesystem::path& path_;
  std::uint64_t file_size_;
  buffer bytes_;
  std::uint64_t start_ = 0;
  std::size_t size_ = window_bytes_least;
};
} // namespace

result<std::uint64_t> data_file::walk(std::uint64_t from, std::uint64_t verify_from,
                                      const on_record& visit) {
  QS_TRY_ASSIGN(auto fd, descriptor());
  return walk_records(fd->get(), path_, size_, from, verify_from, visit);
}

result<std::uint64_t> walk_records(int fd, const std::filesystem::path& path, std::uint64_t size,
                                   std::uint64_t from, std::uint64_t verify_from,
                                   const on_record& visit) {
  window in{fd, path, size};
  std::array<std::byte, 255> copy; // NOLINT: the key, as the window moves on with the payload
  auto offset = std::max<std::uint64_t>(from, file_header_bytes);
  while (offset + record_header_bytes <= size) {
    QS_TRY_ASSIGN(auto head, in.at(offset, record_header_bytes));
    auto header = peek_record_header(head);
    if (offset + header.record_bytes() > size) return offset;
    QS_TRY_ASSIGN(auto whole, in.at(offset, record_header_bytes + header.key_length));
    auto key = whole.subspan(record_header_bytes);
    if (!record_header_fits(whole.first(record_header_bytes), key,
                            static_cast<std::uint32_t>(offset)))
      return offset;
    auto end = offset + header.record_bytes();
    auto key_copy = mutable_byte_span{copy}.first(key.size());
    std::copy(key.begin(), key.end(), key_copy.begin());
    if (offset >= verify_from) {
      std::uint32_t crc = 0;
      for (auto at = end - header.payload_length; at < end;) {
        auto n = static_cast<std::size_t>(std::min<std::uint64_t>(window_bytes, end - at));
        QS_TRY_ASSIGN(auto body, in.at(at, n));
        crc = crc32c(body, crc);
        at += n;
      }
      if (crc != header.payload_crc) return offset;
    }
    if (!visit(header, key_copy, static_cast<std::uint32_t>(offset))) return offset;
    offset = end;
  }
  return offset;
}

result<std::uint64_t> data_file::next_record(std::uint64_t from) {
  buffer bytes;
  constexpr std::size_t piece = 256 << 10;
  for (auto at = from; at + record_header_bytes <= size_; at += piece) {
    bytes.resize(static_cast<std::size_t>(
        std::min<std::uint64_t>(piece + record_header_bytes + 255, size_ - at)));
    QS_TRY(read(bytes, at));
    for (std::size_t i = 0; i < piece && i + record_header_bytes <= bytes.size(); ++i) {
      auto head = byte_span{bytes}.subspan(i, record_header_bytes);
      auto here = static_cast<std::uint32_t>(at + i);
      if (load_le<std::uint32_t>(head.data() + 24) != here) continue;
      auto header = peek_record_header(head);
      if (i + record_header_bytes + header.key_length > bytes.size()) continue;
      auto key = byte_span{bytes}.subspan(i + record_header_bytes, header.key_length);
      if (record_header_fits(head, key, here)) return at + i;
    }
  }
  return size_;
}

} // namespace qs::zdb
