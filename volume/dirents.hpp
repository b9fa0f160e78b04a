// Directory entries by name: finding, inserting and erasing under the rule of chains (rows.hpp,
// dirent_row), and an editor that keeps the inode rows of one operation. Used by names*.cpp only.
// Values and short calls; one thread at a time.
#pragma once

#include <cerrno>
#include <deque>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>

#include "volume/core.hpp"
#include "volume/rows.hpp"

namespace qs::volume {

struct found_dirent {
  std::uint64_t cookie = 0;
  dirent_row row;
};

/// The entry of that name, or nothing. One get unless hashes collide. `Rows` is a core or an
/// operation.
template <class Rows>
result<std::optional<found_dirent>> find_dirent(Rows& rows, inode_number parent, std::uint64_t hash,
                                                std::string_view name) {
  auto first = codec::dirent_cookie(hash, 0);
  QS_TRY_ASSIGN(auto value, rows.get(dirent_key(parent, first)));
  if (!value) return std::optional<found_dirent>{};
  QS_TRY_ASSIGN(auto row, decode_dirent(*value));
  if (row.name == name) return std::optional{found_dirent{first, std::move(row)}};
  if (!row.chained) return std::optional<found_dirent>{};

  std::optional<found_dirent> found;
  status broken;
  auto visit = [&](std::string_view key, byte_span bytes) {
    auto parts = parse_dirent_key(key);
    auto entry = decode_dirent(bytes);
    if (!parts || !entry) {
      broken = error{errc::corrupt, "a directory entry is damaged", EIO};
      return false;
    }
    if (entry->name != name) return true;
    found = found_dirent{parts->cookie, std::move(*entry)};
    return false;
  };
  QS_TRY(rows.scan(dirent_key(parent, first + 1), dirent_key(parent, first + 256), visit));
  QS_TRY(std::move(broken));
  return found;
}

/// Adds an entry that must not exist yet. ENOSPC if 256 names share the hash.
status insert_dirent(operation& op, inode_number parent, std::uint64_t hash, std::string_view name,
                     inode_number inode, std::uint32_t type);
/// Lets an existing entry lead to another inode; its cookie stays.
void replace_dirent(operation& op, inode_number parent, const found_dirent& at, inode_number inode,
                    std::uint32_t type);
status erase_dirent(operation& op, inode_number parent, const found_dirent& at);
/// No entry but vacant ones. One step of a scan.
result<bool> is_empty_directory(operation& op, inode_number inode);

/// The inode rows that one operation touches: each is read once, and two uses of one inode meet in
/// one row. load() marks a row as changed; commit() writes all of them.
class row_editor {
public:
  explicit row_editor(operation& op) : op_{op} {}

  [[nodiscard]] operation& op() noexcept { return op_; }
  /// ENOENT if there is no such inode. The pointer holds until the editor goes.
  result<inode_row*> load(inode_number inode);
  /// The same, but a directory that still has a name; else ENOTDIR, ENOENT.
  result<inode_row*> load_directory(inode_number inode);
  /// A row that does not exist yet.
  inode_row& add(inode_number inode);
  /// Puts every row and commits the operation.
  status commit();

private:
  operation& op_;
  std::deque<std::pair<inode_number, inode_row>> rows_;
};

} // namespace qs::volume
