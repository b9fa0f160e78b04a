// The file system without FUSE: inodes, names, bytes. Thread-safe; called on FUSE threads.
// What local state can answer is answered at once. What may need the network (read, some truncates never) takes a
// callback, which is called exactly once, perhaps before the call returns, never with a lock held.
// Errors carry an errno in error::sys; nothing here knows libfuse. Permission checks are the kernel's (default_permissions).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "base/result.hpp"

namespace qs::volume {

using inode_number = std::uint64_t;
inline constexpr inode_number root_inode = 1;
using file_time = std::chrono::sys_time<std::chrono::nanoseconds>;

struct attributes {
  inode_number inode = 0;
  std::uint64_t generation = 0;
  std::uint32_t mode = 0; ///< S_IFMT and permission bits
  std::uint32_t nlink = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t rdev = 0;
  std::uint64_t size = 0;
  std::uint64_t blocks = 0; ///< 512-byte units, for st_blocks
  file_time atime{};
  file_time mtime{};
  file_time ctime{};
};

/// Who makes a new inode. `umask` is already applied to modes by the caller.
struct creator {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
};

/// What setattr changes; absent = left alone.
struct attribute_changes {
  std::optional<std::uint32_t> mode; ///< permission bits only
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
  std::optional<std::uint64_t> size;
  std::optional<file_time> atime;
  std::optional<file_time> mtime;
  bool kill_privileges = false; ///< clear suid/sgid as chown and write by others must
};

struct directory_entry {
  std::string name;
  std::uint64_t cookie = 0; ///< pass it back to go on after this entry; stable while entries come and go
  inode_number inode = 0;
  std::uint32_t type = 0; ///< S_IFMT bits
  std::optional<attributes> attr; ///< filled when asked for (readdirplus)
};

struct space {
  std::uint64_t block_size = 4096;
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;
  std::uint64_t files = 0;      ///< inodes in use
  std::uint64_t files_free = 0;
};

enum class xattr_mode : std::uint8_t { either, create, replace };

class filesystem {
public:
  virtual ~filesystem() = default;

  // -- names; every one of these is one record of the log ---------------------------------------------------------
  virtual result<attributes> lookup(inode_number parent, std::string_view name) = 0;
  virtual result<attributes> getattr(inode_number inode) = 0;
  virtual result<attributes> setattr(inode_number inode, const attribute_changes& changes) = 0;
  /// Regular files, fifos, sockets, devices. A setgid parent hands on its group.
  virtual result<attributes> mknod(inode_number parent, std::string_view name, std::uint32_t mode, std::uint32_t rdev,
                                   creator who) = 0;
  virtual result<attributes> mkdir(inode_number parent, std::string_view name, std::uint32_t mode, creator who) = 0;
  virtual result<attributes> symlink(inode_number parent, std::string_view name, std::string_view target, creator who) = 0;
  virtual result<std::string> readlink(inode_number inode) = 0;
  virtual result<attributes> link(inode_number inode, inode_number parent, std::string_view name) = 0;
  virtual status unlink(inode_number parent, std::string_view name) = 0;
  virtual status rmdir(inode_number parent, std::string_view name) = 0;
  /// flags: RENAME_NOREPLACE, RENAME_EXCHANGE; others EINVAL.
  virtual status rename(inode_number parent, std::string_view name, inode_number new_parent, std::string_view new_name,
                        unsigned flags) = 0;
  /// Entries after `cookie` (0 = from the start, "." and ".." included with cookies 1 and 2), at most `most`.
  virtual result<std::vector<directory_entry>> readdir(inode_number inode, std::uint64_t cookie, std::size_t most,
                                                       bool with_attributes) = 0;

  // -- what the kernel holds on to: an unlinked inode lives until it is forgotten ---------------------------------
  virtual void remember(inode_number inode, std::uint64_t lookups) = 0;
  virtual void forget(inode_number inode, std::uint64_t lookups) = 0;
  /// Every inode remembered and not forgotten: those whose pages the kernel may have. 8 bytes each.
  [[nodiscard]] virtual std::vector<inode_number> remembered() const = 0;

  // -- bytes ------------------------------------------------------------------------------------------------------
  using read_done = std::function<void(result<buffer>)>;
  /// Up to `length` bytes from `offset`; short only at the end of the file. EIO within a bounded time if too few nodes answer.
  virtual void read(inode_number inode, std::uint64_t offset, std::size_t length, read_done done) = 0;
  using write_done = std::function<void(result<std::size_t>)>;
  /// In the log before `done` is called. With `append` the offset is the end of the file. The reply may be delayed (never by the
  /// network directly) when the log is more than half full. ENOSPC at entry, before anything changed, when it is full
  /// or no group is open.
  virtual void write(inode_number inode, std::uint64_t offset, byte_span data, bool append, bool kill_privileges,
                     write_done done) = 0;
  /// mode as fallocate(2): 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE[|KEEP_SIZE]; others EOPNOTSUPP.
  virtual status fallocate(inode_number inode, int mode, std::uint64_t offset, std::uint64_t length) = 0;
  /// SEEK_DATA or SEEK_HOLE; ENXIO past the end.
  virtual result<std::uint64_t> seek(inode_number inode, std::uint64_t offset, int whence) = 0;
  /// One fdatasync of the log, shared by all who wait; covers everything answered before. Blocks for the local disk only.
  virtual status fsync() = 0;

  // -- the rest ---------------------------------------------------------------------------------------------------
  virtual result<buffer> getxattr(inode_number inode, std::string_view name) = 0;
  virtual result<std::vector<std::string>> listxattr(inode_number inode) = 0;
  virtual status setxattr(inode_number inode, std::string_view name, byte_span value, xattr_mode mode) = 0;
  virtual status removexattr(inode_number inode, std::string_view name) = 0;
  virtual space statfs() = 0;
};

} // namespace qs::volume
