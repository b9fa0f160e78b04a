// One data file of a namespace: appended at its end, read anywhere, opened when used. The pool
// keeps the number of descriptors bounded over all namespaces; a sync under way on the helper
// thread shares the descriptor it needs. Everything here belongs to the I/O thread.
#pragma once

#include <algorithm>
#include <filesystem>
#include <functional>
#include <list>
#include <memory>
#include <sys/uio.h>
#include <vector>

#include "base/posix.hpp"
#include "zdb/free_space.hpp"
#include "zdb/gathered_write.hpp"
#include "zdb/id_pages.hpp"
#include "zdb/record.hpp"
#include "zdb/record_cache.hpp"

namespace qs::zdb {

class data_file;

/// Closes the descriptor that was not used for longest when there are more than `most`.
class file_pool {
public:
  /// `directory`: where pages of sequential indexes go (id_pages.hpp); none: they stay in memory.
  explicit file_pool(std::size_t most = 256, std::filesystem::path directory = {},
                     std::size_t frames = id_pages::frames_usual, record_cache small = {0, 0})
      : ids{directory, frames}, space{std::move(directory)}, cache{std::move(small)}, most_{most} {}
  void used(data_file& file);
  void forget(data_file& file);
  [[nodiscard]] std::size_t open_files() const noexcept { return order_.size(); }

  id_pages ids;
  free_space space;
  /// Files are only looked at: what would be cut or deleted stays (qs zdb --dump).
  bool read_only = false;
  // Of all data files, since the start: what INFO tells.
  std::uint64_t bytes_read = 0;
  std::uint64_t bytes_written = 0;

  record_cache cache;            ///< of all data files
  std::vector<gathered_write> spare_writes; ///< empty, its memory for the next who gathers
  std::uint64_t last_serial = 0; ///< of a data_file

private:
  std::size_t most_ = 256;
  std::list<data_file*> order_; ///< newest first
};

/// Walks the records of an open file from `from`; `visit(header, key, offset)` returns false to
/// stop. Records from `verify_from` on must also have a payload that fits its crc. Gives where it
/// stopped: the end of the last good record, or the start of the one at which `visit` said stop. An
/// error is one of reading. Any thread.
using on_record = std::function<bool(const record_header&, byte_span key, std::uint32_t offset)>;
result<std::uint64_t> walk_records(int fd, const std::filesystem::path& path, std::uint64_t size,
                                   std::uint64_t from, std::uint64_t verify_from,
                                   const on_record& visit);
/// Exactly, or an error; errc::corrupt past the end. Any thread.
status read_exactly(int fd, const std::filesystem::path& path, std::span<iovec> parts,
                    std::uint64_t offset);

class data_file {
public:
  /// A new file with its header written, not synced. errc::already_exists never happens: ids are
  /// not reused.
  static result<std::unique_ptr<data_file>>
  create(file_pool& pool, const std::filesystem::path& directory, const file_header& header);
  /// An existing one. Errors: io, corrupt, version_mismatch.
  static result<std::unique_ptr<data_file>>
  open(file_pool& pool, const std::filesystem::path& directory, std::uint32_t id);
  ~data_file();
  data_file(const data_file&) = delete;
  data_file& operator=(const data_file&) = delete;

  /// All of it at the end, or an error and the file as before. `errc::corrupt`: it could not be put
  /// back, write no more.
  status append(std::span<iovec> parts);
  /// Exactly, from `offset`. errc::corrupt past the end of the file.
  status read(std::span<iovec> parts, std::uint64_t offset);
  status read(mutable_byte_span out, std::uint64_t offset);
  /// Cuts a torn tail; in a pool that only reads, from what is looked at.
  status cut(std::uint64_t size);
  /// For the helper thread: stays open as long as it is held.
  result<std::shared_ptr<unique_fd>> descriptor();
  /// The path still leads to this file.
  [[nodiscard]] bool linked() const;

  [[nodiscard]] std::uint32_t id() const noexcept { return header_.id; }
  /// What the pool's cache knows it by: another one each time it is opened.
  [[nodiscard]] std::uint64_t serial() const noexcept { return serial_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] const file_header& header() const noexcept { return header_; }
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

  result<std::uint64_t> walk(std::uint64_t from, std::uint64_t verify_from,
                             const on_record& visit);

  /// Behind damage: the next place that is a record by its position and checksum, or the size.
  result<std::uint64_t> next_record(std::uint64_t from);

  // What of it counts; kept by the namespace.
  std::uint64_t live_bytes = 0;      ///< records that the index points at
  std::uint64_t tombstone_bytes = 0; ///< records that say "deleted"
  bool keep = false; ///< damaged: compaction leaves it alone
  [[nodiscard]] std::uint64_t dead_bytes() const noexcept {
    return size_ - std::min(size_, file_header_bytes + live_bytes + tombstone_bytes);
  }

  /// A record stands at `offset` and was written first at `origin`; called for each in order. Keeps
  /// a place to start from for every 256 KiB.
  void passed(std::uint32_t offset, record_place origin);
  /// The start of a record at or before the first one written at or after `origin`.
  [[nodiscard]] std::uint32_t start_for(record_place origin) const noexcept;
  /// The last start of those before `offset`; the file's first record for all up to that.
  [[nodiscard]] std::uint32_t start_before(std::uint64_t offset) const noexcept;

private:
  friend class file_pool;
  data_file(file_pool& pool, std::filesystem::path path)
      : pool_{pool}, serial_{++pool.last_serial}, path_{std::move(path)} {}

  file_pool& pool_;
  std::uint64_t serial_;
  std::filesystem::path path_;
  file_header header_;
  std::shared_ptr<unique_fd> fd_;
  std::uint64_t size_ = 0;
  std::uint64_t inode_ = 0;
  std::uint64_t device_ = 0;
  std::vector<std::uint32_t> starts_;
  std::vector<record_place> origins_; ///< of the starts; only in a compacted file
  bool in_pool_ = false;
  std::list<data_file*>::iterator at_;
};

std::filesystem::path data_file_path(const std::filesystem::path& directory, std::uint32_t id);

} // namespace qs::zdb
