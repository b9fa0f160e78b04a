// The names half of the file system: directories, inodes, links, attributes, xattrs, and who still
// holds an inode. What is below an inode number as bytes is the other half's; both meet in
// core.hpp. Signatures and errors: filesystem.hpp. Thread-safe: changing calls run one at a time
// under the core's operation lock, the others take no lock over rows.
//
// Times: a change of a directory's entries sets its mtime and ctime, a change of an inode its
// ctime. Reading changes nothing: a volume behaves as if mounted noatime (atime is what utimensat
// or the creation set).
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "volume/core.hpp"
#include "volume/filesystem.hpp"
#include "volume/holds.hpp"

namespace qs::volume {

class row_editor;

class names {
public:
  using hash_function = std::function<std::uint64_t(std::string_view)>;

  /// Registers itself with core.on_reaped(). `hash` is for tests of collisions; by default the
  /// volume's keyed hash.
  explicit names(core& rows, hash_function hash = {});

  result<attributes> lookup(inode_number parent, std::string_view name);
  result<attributes> getattr(inode_number inode);
  result<attributes> setattr(inode_number inode, const attribute_changes& changes);
  result<attributes> mknod(inode_number parent, std::string_view name, std::uint32_t mode,
                           std::uint32_t rdev, creator who);
  result<attributes> mkdir(inode_number parent, std::string_view name, std::uint32_t mode,
                           creator who);
  result<attributes> symlink(inode_number parent, std::string_view name, std::string_view target,
                             creator who);
  result<std::string> readlink(inode_number inode);
  result<attributes> link(inode_number inode, inode_number parent, std::string_view name);
  status unlink(inode_number parent, std::string_view name);
  status rmdir(inode_number parent, std::string_view name);
  status rename(inode_number parent, std::string_view name, inode_number new_parent,
                std::string_view new_name, unsigned flags);
  result<std::vector<directory_entry>> readdir(inode_number inode, std::uint64_t cookie,
                                               std::size_t most, bool with_attributes);

  result<buffer> getxattr(inode_number inode, std::string_view name);
  result<std::vector<std::string>> listxattr(inode_number inode);
  status setxattr(inode_number inode, std::string_view name, byte_span value, xattr_mode mode);
  status removexattr(inode_number inode, std::string_view name);

  void remember(inode_number inode, std::uint64_t lookups);
  void forget(inode_number inode, std::uint64_t lookups);
  [[nodiscard]] std::vector<inode_number> remembered() const;

private:
  result<attributes> make(inode_number parent, std::string_view name, std::uint32_t mode,
                          std::uint32_t rdev, std::string_view target, creator who);
  status exchange(row_editor& rows, inode_number parent, std::string_view name,
                  inode_number new_parent, std::string_view new_name);
  status move(row_editor& rows, inode_number parent, std::string_view name, inode_number new_parent,
              std::string_view new_name, bool replace, inode_number& orphan);
  status erase_rows(operation& op, inode_number inode);
  /// After the commit that took an inode's last name.
  void orphaned(inode_number inode);

  core& core_;
  hash_function hash_;
  holds holds_;
};

} // namespace qs::volume
