// The core as the two halves of the file system (names and bytes) see it: rows, operations, and what happens to an inode's
// data when names or sizes change. Implemented by engine.cpp; a test may put a map behind it. Thread-safe.
//
// One operation is one record of the log and one batch of rows, applied in the order in which they are answered
// (volume.md 4). Reads outside an operation see what is committed and take no lock.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "base/bytes.hpp"
#include "base/result.hpp"
#include "codec/keys.hpp"
#include "volume/filesystem.hpp"
#include "volume/rows.hpp"

namespace qs::volume {

/// Whether an operation adds something (refused with ENOSPC when the log is full) or must work on a full volume:
/// unlink, rmdir, truncate downwards, punch, forget (invariant 15).
enum class purpose : std::uint8_t { grow, shrink };

/// Called with key and value in key order; false stops the scan.
using row_visitor = std::function<bool(std::string_view key, byte_span value)>;

/// One changing operation. It holds the operation lock from begin() until commit() or until it is destroyed, which drops it
/// without a trace. Short: no waiting for anything but the local disk. One thread.
class operation {
public:
  virtual ~operation() = default;

  /// What this operation will be called in the log: epoch (24 bits) ‖ counter (40 bits). Never reused.
  [[nodiscard]] virtual std::uint64_t sequence() const = 0;
  /// The moment for times in rows; the same throughout one operation, never earlier than an operation before it.
  [[nodiscard]] virtual file_time now() const = 0;

  /// Rows as they are with this operation's own changes applied. Nothing = no such row.
  virtual result<std::optional<buffer>> get(std::string_view key) = 0;
  /// Keys in [from, end), own changes included.
  virtual status scan(std::string_view from, std::string_view end, const row_visitor& visit) = 0;
  virtual void put(row_key key, buffer value) = 0;
  virtual void erase(row_key key) = 0;
  /// Inodes made (+) and erased (-), for statfs.
  virtual void count_inodes(std::int64_t delta) = 0;

  /// Appends the record, applies the batch, releases the lock. Once. On an error nothing was changed. An operation without
  /// changes commits without a record.
  virtual status commit() = 0;
};

class core {
public:
  virtual ~core() = default;

  /// Takes the operation lock. Errors carry an errno: EROFS (read-only after corruption), EIO (closed), ENOSPC (purpose::grow on
  /// a full log).
  virtual result<std::unique_ptr<operation>> begin(purpose why) = 0;

  virtual result<std::optional<buffer>> get(std::string_view key) const = 0;
  virtual status scan(std::string_view from, std::string_view end, const row_visitor& visit) const = 0;

  [[nodiscard]] virtual const codec::volume_keys& keys() const = 0;
  /// A number that no inode of this volume ever had (epoch of this session ‖ counter).
  virtual inode_number new_inode() = 0;

  /// Within `op`: bytes [from, to) of the inode become zeros (to = UINT64_MAX: to the end of everything, for truncate and
  /// unlink). Adjusts `row.allocated`, and `row.trim_from/to` when there are too many extents to drop at once (a reaper
  /// follows then); the caller puts `row` afterwards, or erases it if the result is true and the file is going away.
  /// Waits (for the local disk) until an earlier trim of this inode is done. `row` is the inode's row as `op` sees it;
  /// it is up to the caller to change `size`.
  /// true: all of it is dropped with this operation; false: a reaper goes on after commit.
  virtual result<bool> drop_extents(operation& op, inode_number inode, inode_row& row, std::uint64_t from,
                                    std::uint64_t to) = 0;

  /// The inode has no name and nobody holds it: its orphan row is committed. Drops its data in batches and, at the end,
  /// calls what was registered with on_reaped(), all in the background. Also done by the core for every orphan row found at start.
  virtual void reap_orphan(inode_number inode) = 0;
  /// The names half erases the rows of an inode without data here (inode, orphan, xattrs; count_inodes(-1)), within `op`.
  /// Registered before the volume starts working.
  virtual void on_reaped(std::function<status(operation& op, inode_number inode)> erase_rows) = 0;
};

} // namespace qs::volume
