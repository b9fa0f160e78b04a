#include "volume/dirents.hpp"

#include <array>

#include <sys/stat.h>

namespace qs::volume {

namespace {

constexpr std::uint64_t first_of_chain(std::uint64_t cookie) {
  return cookie & ~std::uint64_t{0xff};
}

/// Disambiguators in use above 0.
result<std::array<bool, 256>> chain(operation& op, inode_number parent, std::uint64_t first) {
  std::array<bool, 256> used{};
  QS_TRY(op.scan(dirent_key(parent, first + 1), dirent_key(parent, first + 256),
                 [&](std::string_view key, byte_span) {
                   if (auto parts = parse_dirent_key(key)) used[parts->cookie & 0xff] = true;
                   return true;
                 }));
  return used;
}

bool any(const std::array<bool, 256>& used) {
  for (bool one : used)
    if (one) return true;
  return false;
}

} // namespace

status insert_dirent(operation& op, inode_number parent, std::uint64_t hash, std::string_view name,
                     inode_number inode, std::uint32_t type) {
  dirent_row row;
  row.inode = inode;
  row.type = type;
  row.name = name;
  auto first = codec::dirent_cookie(hash, 0);
  auto key = dirent_key(parent, first);
  QS_TRY_ASSIGN(auto value, op.get(key));
  if (!value) {
    op.put(std::move(key), encode(row));
    return {};
  }
  QS_TRY_ASSIGN(auto head, decode_dirent(*value));
  if (head.inode == 0) { // vacant: the name may have its place, the chain stays
    row.chained = true;
    row.unknown = std::move(head.unknown);
    op.put(std::move(key), encode(row));
    return {};
  }
  QS_TRY_ASSIGN(auto used, chain(op, parent, first));
  std::size_t free = 1;
  while (free < used.size() && used[free]) ++free;
  if (free == used.size()) return posix_error(ENOSPC);
  op.put(dirent_key(parent, first + free), encode(row));
  if (!head.chained) {
    head.chained = true;
    op.put(std::move(key), encode(head));
  }
  return {};
}

void replace_dirent(operation& op, inode_number parent, const found_dirent& at, inode_number inode,
                    std::uint32_t type) {
  auto row = at.row;
  row.inode = inode;
  row.type = type;
  op.put(dirent_key(parent, at.cookie), encode(row));
}

status erase_dirent(operation& op, inode_number parent, const found_dirent& at) {
  auto first = first_of_chain(at.cookie);
  if (at.cookie == first && !at.row.chained) {
    op.erase(dirent_key(parent, first));
    return {};
  }
  if (at.cookie != first) op.erase(dirent_key(parent, at.cookie));
  QS_TRY_ASSIGN(auto used, chain(op, parent, first));
  bool others = any(used);
  if (at.cookie == first) {
    if (!others) {
      op.erase(dirent_key(parent, first));
      return {};
    }
    dirent_row vacant;
    vacant.chained = true;
    vacant.unknown = at.row.unknown;
    op.put(dirent_key(parent, first), encode(vacant));
    return {};
  }
  if (others) return {};
  QS_TRY_ASSIGN(auto value, op.get(dirent_key(parent, first)));
  if (!value) return error{errc::corrupt, "a directory entry has lost its chain", EIO};
  QS_TRY_ASSIGN(auto head, decode_dirent(*value));
  if (head.inode == 0) {
    op.erase(dirent_key(parent, first));
  } else {
    head.chained = false;
    op.put(dirent_key(parent, first), encode(head));
  }
  return {};
}

result<bool> is_empty_directory(operation& op, inode_number inode) {
  auto prefix = inode_prefix(row_kind::dirent, inode);
  bool empty = true;
  QS_TRY(op.scan(prefix, prefix_end(prefix), [&](std::string_view, byte_span value) {
    auto row = decode_dirent(value);
    if (row && row->inode == 0) return true;
    empty = false; // a damaged entry counts: never drop what cannot be read
    return false;
  }));
  return empty;
}

result<inode_row*> row_editor::load(inode_number inode) {
  for (auto& [number, row] : rows_)
    if (number == inode) return &row;
  QS_TRY_ASSIGN(auto value, op_.get(inode_key(inode)));
  if (!value) return posix_error(ENOENT);
  QS_TRY_ASSIGN(auto row, decode_inode(*value));
  rows_.emplace_back(inode, std::move(row));
  return &rows_.back().second;
}

result<inode_row*> row_editor::load_directory(inode_number inode) {
  QS_TRY_ASSIGN(auto* row, load(inode));
  if (!S_ISDIR(row->mode)) return posix_error(ENOTDIR);
  if (row->nlink == 0) return posix_error(ENOENT);
  return row;
}

inode_row& row_editor::add(inode_number inode) {
  return rows_.emplace_back(inode, inode_row{}).second;
}

status row_editor::commit() {
  for (const auto& [number, row] : rows_) op_.put(inode_key(number), encode(row));
  return op_.commit();
}

} // namespace qs::volume
