// setattr and extended attributes.
#include <limits>

#include <sys/stat.h>

#include "volume/dirents.hpp"
#include "volume/names.hpp"

namespace qs::volume {

namespace {

constexpr std::uint64_t to_the_end = std::numeric_limits<std::uint64_t>::max();
/// What the kernel allows, and what keeps every offset arithmetic free of overflow.
constexpr std::uint64_t file_bytes_max = std::uint64_t(std::numeric_limits<std::int64_t>::max());

/// suid, and sgid where it means "run as group" and not "locks are mandatory".
void clear_privileges(inode_row& row) {
  if (!S_ISREG(row.mode)) return;
  row.mode &= ~std::uint32_t{S_ISUID};
  if ((row.mode & S_IXGRP) != 0) row.mode &= ~std::uint32_t{S_ISGID};
}

status check_xattr_name(std::string_view name) {
  if (name.empty() || name.size() > name_bytes_max || name.find('\0') != name.npos)
    return posix_error(ERANGE);
  return {};
}

} // namespace

result<attributes> names::setattr(inode_number inode, const attribute_changes& changes) {
  auto why = purpose::grow;
  if (changes.size) {
    QS_TRY_ASSIGN(auto before, getattr(inode));
    if (S_ISDIR(before.mode)) return posix_error(EISDIR);
    if (!S_ISREG(before.mode)) return posix_error(EINVAL);
    if (*changes.size > file_bytes_max) return posix_error(EFBIG);
    if (*changes.size <= before.size) why = purpose::shrink;
  }
  QS_TRY_ASSIGN(auto op, core_.begin(why));
  row_editor rows{*op};
  QS_TRY_ASSIGN(auto* row, rows.load(inode));
  bool owner_changes = changes.uid.has_value() || changes.gid.has_value();
  if (changes.kill_privileges || (owner_changes && !changes.mode)) clear_privileges(*row);
  if (changes.mode) row->mode = (row->mode & S_IFMT) | (*changes.mode & 07777U);
  if (changes.uid) row->uid = *changes.uid;
  if (changes.gid) row->gid = *changes.gid;
  if (changes.size) {
    if (*changes.size < row->size) {
      auto dropped = core_.drop_extents(*op, inode, *row, *changes.size, to_the_end);
      if (!dropped) return std::move(dropped).err();
    }
    row->size = *changes.size;
    row->mtime = op->now();
  }
  if (changes.atime) row->atime = *changes.atime;
  if (changes.mtime) row->mtime = *changes.mtime;
  row->ctime = op->now();
  auto after = to_attributes(inode, *row);
  QS_TRY(rows.commit());
  return after;
}

result<buffer> names::getxattr(inode_number inode, std::string_view name) {
  QS_TRY(check_xattr_name(name));
  QS_TRY_ASSIGN(auto value, core_.get(xattr_key(inode, name)));
  if (!value) return posix_error(ENODATA);
  return std::move(*value);
}

result<std::vector<std::string>> names::listxattr(inode_number inode) {
  QS_TRY_ASSIGN(auto value, core_.get(inode_key(inode)));
  if (!value) return posix_error(ENOENT);
  QS_TRY_ASSIGN(auto row, decode_inode(*value));
  std::vector<std::string> out;
  if (row.xattr_bytes == 0) return out;
  auto prefix = inode_prefix(row_kind::xattr, inode);
  QS_TRY(core_.scan(prefix, prefix_end(prefix), [&](std::string_view key, byte_span) {
    if (auto name = parse_xattr_key(key)) out.emplace_back(*name);
    return true;
  }));
  return out;
}

status names::setxattr(inode_number inode, std::string_view name, byte_span value,
                       xattr_mode mode) {
  QS_TRY(check_xattr_name(name));
  if (value.size() > xattr_value_bytes_max) return posix_error(E2BIG);
  QS_TRY_ASSIGN(auto op, core_.begin(purpose::grow));
  row_editor rows{*op};
  QS_TRY_ASSIGN(auto* row, rows.load(inode));
  auto key = xattr_key(inode, name);
  QS_TRY_ASSIGN(auto before, op->get(key));
  if (before && mode == xattr_mode::create) return posix_error(EEXIST);
  if (!before && mode == xattr_mode::replace) return posix_error(ENODATA);
  if (!before) {
    auto need = row->xattr_bytes + name.size() + 1;
    if (need > xattr_list_bytes_max)
      return posix_error(ENOSPC); // as ext4 and xfs: no room for one more
    row->xattr_bytes = static_cast<std::uint32_t>(need);
  }
  op->put(std::move(key), to_buffer(value));
  row->ctime = op->now();
  return rows.commit();
}

status names::removexattr(inode_number inode, std::string_view name) {
  QS_TRY(check_xattr_name(name));
  QS_TRY_ASSIGN(auto op, core_.begin(purpose::shrink));
  row_editor rows{*op};
  QS_TRY_ASSIGN(auto* row, rows.load(inode));
  auto key = xattr_key(inode, name);
  QS_TRY_ASSIGN(auto before, op->get(key));
  if (!before) return posix_error(ENODATA);
  auto bytes = static_cast<std::uint32_t>(name.size() + 1);
  row->xattr_bytes -= std::min(row->xattr_bytes, bytes);
  op->erase(std::move(key));
  row->ctime = op->now();
  return rows.commit();
}

} // namespace qs::volume
