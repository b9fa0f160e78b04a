#include "volume/names.hpp"

#include <sys/stat.h>

#include "volume/dirents.hpp"

namespace qs::volume {

namespace {

/// What may be a name in a directory: the kernel never sends others, a damaged journal might.
status check_name(std::string_view name) {
  if (name.empty()) return posix_error(ENOENT);
  if (name.size() > name_bytes_max) return posix_error(ENAMETOOLONG);
  if (name.find('/') != name.npos || name.find('\0') != name.npos) return posix_error(EINVAL);
  return {};
}

bool is_dot(std::string_view name) { return name == "." || name == ".."; }

void touch(inode_row& directory, const operation& op) {
  directory.mtime = directory.ctime = op.now();
}

} // namespace

names::names(core& rows, hash_function hash) : core_{rows}, hash_{std::move(hash)} {
  if (!hash_) hash_ = [this](std::string_view name) { return core_.keys().dirent_hash(name); };
  core_.on_reaped([this](operation& op, inode_number inode) { return erase_rows(op, inode); });
}

result<attributes> names::getattr(inode_number inode) {
  QS_TRY_ASSIGN(auto value, core_.get(inode_key(inode)));
  if (!value) return posix_error(ENOENT);
  QS_TRY_ASSIGN(auto row, decode_inode(*value));
  return to_attributes(inode, row);
}

result<attributes> names::lookup(inode_number parent, std::string_view name) {
  if (name == ".") return getattr(parent);
  if (name == "..") {
    QS_TRY_ASSIGN(auto value, core_.get(inode_key(parent)));
    if (!value) return posix_error(ENOENT);
    QS_TRY_ASSIGN(auto row, decode_inode(*value));
    if (row.parent == 0) return posix_error(ENOTDIR);
    return getattr(row.parent);
  }
  QS_TRY(check_name(name));
  QS_TRY_ASSIGN(auto found, find_dirent(core_, parent, hash_(name), name));
  if (!found) return posix_error(ENOENT);
  return getattr(found->row.inode);
}

result<attributes> names::make(inode_number parent, std::string_view name, std::uint32_t mode,
                               std::uint32_t rdev, std::string_view target, creator who) {
  QS_TRY(check_name(name));
  if (is_dot(name)) return posix_error(EEXIST);
  QS_TRY_ASSIGN(auto op, core_.begin(purpose::grow));
  row_editor rows{*op};
  QS_TRY_ASSIGN(auto* directory, rows.load_directory(parent));
  auto hash = hash_(name);
  QS_TRY_ASSIGN(auto taken, find_dirent(*op, parent, hash, name));
  if (taken) return posix_error(EEXIST);
  bool is_directory = S_ISDIR(mode);
  if (is_directory && directory->nlink >= nlink_max) return posix_error(EMLINK);

  auto inode = core_.new_inode();
  auto& row = rows.add(inode);
  row.generation = op->sequence();
  row.mode = mode;
  row.nlink = is_directory ? 2 : 1;
  row.uid = who.uid;
  row.gid = who.gid;
  if ((directory->mode & S_ISGID) != 0) {
    row.gid = directory->gid;
    if (is_directory) row.mode |= S_ISGID;
  }
  row.rdev = rdev;
  row.target = target;
  row.atime = row.mtime = row.ctime = row.btime = op->now();
  if (is_directory) {
    row.parent = parent;
    ++directory->nlink;
  }
  QS_TRY(insert_dirent(*op, parent, hash, name, inode, mode & S_IFMT));
  touch(*directory, *op);
  op->count_inodes(1);
  auto made = to_attributes(inode, row);
  QS_TRY(rows.commit());
  return made;
}

result<attributes> names::mknod(inode_number parent, std::string_view name, std::uint32_t mode,
                                std::uint32_t rdev, creator who) {
  if ((mode & S_IFMT) == 0) mode |= S_IFREG;
  switch (mode & S_IFMT) {
  case S_IFREG:
  case S_IFIFO:
  case S_IFSOCK:
    return make(parent, name, mode, 0, {}, who);
  case S_IFCHR:
  case S_IFBLK:
    return make(parent, name, mode, rdev, {}, who);
  default:
    return posix_error(EINVAL);
  }
}

result<attributes> names::mkdir(inode_number parent, std::string_view name, std::uint32_t mode,
                                creator who) {
  return make(parent, name, S_IFDIR | (mode & 07777U), 0, {}, who);
}

result<attributes> names::symlink(inode_number parent, std::string_view name,
                                  std::string_view target, creator who) {
  if (target.empty()) return posix_error(ENOENT);
  if (target.size() > symlink_bytes_max) return posix_error(ENAMETOOLONG);
  return make(parent, name, S_IFLNK | 0777, 0, target, who);
}

result<std::string> names::readlink(inode_number inode) {
  QS_TRY_ASSIGN(auto value, core_.get(inode_key(inode)));
  if (!value) return posix_error(ENOENT);
  QS_TRY_ASSIGN(auto row, decode_inode(*value));
  if (!S_ISLNK(row.mode)) return posix_error(EINVAL);
  return std::move(row.target);
}

result<attributes> names::link(inode_number inode, inode_number parent, std::string_view name) {
  QS_TRY(check_name(name));
  if (is_dot(name)) return posix_error(EEXIST);
  QS_TRY_ASSIGN(auto op, core_.begin(purpose::grow));
  row_editor rows{*op};
  QS_TRY_ASSIGN(auto* directory, rows.load_directory(parent));
  QS_TRY_ASSIGN(auto* row, rows.load(inode));
  if (S_ISDIR(row->mode)) return posix_error(EPERM);
  if (row->nlink == 0) return posix_error(ENOENT);
  if (row->nlink >= nlink_max) return posix_error(EMLINK);
  auto hash = hash_(name);
  QS_TRY_ASSIGN(auto taken, find_dirent(*op, parent, hash, name));
  if (taken) return posix_error(EEXIST);
  QS_TRY(insert_dirent(*op, parent, hash, name, inode, row->mode & S_IFMT));
  ++row->nlink;
  row->ctime = op->now();
  touch(*directory, *op);
  auto linked = to_attributes(inode, *row);
  QS_TRY(rows.commit());
  return linked;
}

status names::unlink(inode_number parent, std::string_view name) {
  QS_TRY(check_name(name));
  if (is_dot(name)) return posix_error(EISDIR);
  inode_number orphan = 0;
  {
    QS_TRY_ASSIGN(auto op, core_.begin(purpose::shrink));
    row_editor rows{*op};
    QS_TRY_ASSIGN(auto* directory, rows.load_directory(parent));
    QS_TRY_ASSIGN(auto found, find_dirent(*op, parent, hash_(name), name));
    if (!found) return posix_error(ENOENT);
    QS_TRY_ASSIGN(auto* row, rows.load(found->row.inode));
    if (S_ISDIR(row->mode)) return posix_error(EISDIR);
    QS_TRY(erase_dirent(*op, parent, *found));
    if (row->nlink > 0) --row->nlink;
    row->ctime = op->now();
    touch(*directory, *op);
    if (row->nlink == 0) {
      orphan = found->row.inode;
      op->put(orphan_key(orphan), encode(orphan_row{op->sequence(), {}}));
    }
    QS_TRY(rows.commit());
  }
  if (orphan != 0) orphaned(orphan);
  return {};
}

status names::rmdir(inode_number parent, std::string_view name) {
  QS_TRY(check_name(name));
  if (name == ".") return posix_error(EINVAL);
  if (name == "..") return posix_error(ENOTEMPTY);
  inode_number orphan = 0;
  {
    QS_TRY_ASSIGN(auto op, core_.begin(purpose::shrink));
    row_editor rows{*op};
    QS_TRY_ASSIGN(auto* directory, rows.load_directory(parent));
    QS_TRY_ASSIGN(auto found, find_dirent(*op, parent, hash_(name), name));
    if (!found) return posix_error(ENOENT);
    orphan = found->row.inode;
    QS_TRY_ASSIGN(auto* row, rows.load(orphan));
    if (!S_ISDIR(row->mode)) return posix_error(ENOTDIR);
    QS_TRY_ASSIGN(bool empty, is_empty_directory(*op, orphan));
    if (!empty) return posix_error(ENOTEMPTY);
    QS_TRY(erase_dirent(*op, parent, *found));
    row->nlink = 0;
    row->ctime = op->now();
    if (directory->nlink > 2) --directory->nlink;
    touch(*directory, *op);
    op->put(orphan_key(orphan), encode(orphan_row{op->sequence(), {}}));
    QS_TRY(rows.commit());
  }
  orphaned(orphan);
  return {};
}

result<std::vector<directory_entry>> names::readdir(inode_number inode, std::uint64_t cookie,
                                                    std::size_t most, bool with_attributes) {
  QS_TRY_ASSIGN(auto value, core_.get(inode_key(inode)));
  if (!value) return posix_error(ENOENT);
  QS_TRY_ASSIGN(auto row, decode_inode(*value));
  if (!S_ISDIR(row.mode)) return posix_error(ENOTDIR);
  std::vector<directory_entry> out;
  if (cookie < 1 && out.size() < most) out.push_back({".", 1, inode, S_IFDIR, {}});
  if (cookie < 2 && out.size() < most) out.push_back({"..", 2, row.parent, S_IFDIR, {}});
  if (out.size() < most) {
    auto from = dirent_key(inode, cookie < 3 ? 3 : cookie + 1);
    status broken;
    auto visit = [&](std::string_view key, byte_span bytes) {
      auto parts = parse_dirent_key(key);
      auto entry = decode_dirent(bytes);
      if (!parts || !entry) {
        broken = error{errc::corrupt, "a directory entry is damaged", EIO};
        return false;
      }
      if (entry->inode != 0)
        out.push_back({std::move(entry->name), parts->cookie, entry->inode, entry->type, {}});
      return out.size() < most;
    };
    QS_TRY(core_.scan(from, prefix_end(inode_prefix(row_kind::dirent, inode)), visit));
    QS_TRY(std::move(broken));
  }
  if (!with_attributes) return out;
  for (auto& entry : out) {
    // An entry that went in between has no attributes any more; it is still a valid answer to
    // readdir.
    if (auto attr = getattr(entry.inode)) entry.attr = *attr;
  }
  return out;
}

void names::remember(inode_number inode, std::uint64_t lookups) { holds_.remember(inode, lookups); }

void names::forget(inode_number inode, std::uint64_t lookups) {
  if (holds_.forget(inode, lookups)) core_.reap_orphan(inode);
}

std::vector<inode_number> names::remembered() const { return holds_.all(); }

void names::orphaned(inode_number inode) {
  if (holds_.orphaned(inode)) core_.reap_orphan(inode);
}

status names::erase_rows(operation& op, inode_number inode) {
  QS_TRY_ASSIGN(auto value, op.get(inode_key(inode)));
  if (!value) return {}; // done before: reaping is repeated after a crash
  QS_TRY_ASSIGN(auto row, decode_inode(*value));
  if (row.xattr_bytes != 0) {
    auto prefix = inode_prefix(row_kind::xattr, inode);
    std::vector<row_key> xattrs;
    QS_TRY(op.scan(prefix, prefix_end(prefix), [&](std::string_view key, byte_span) {
      xattrs.emplace_back(key);
      return true;
    }));
    for (auto& key : xattrs) op.erase(std::move(key));
  }
  op.erase(inode_key(inode));
  op.erase(orphan_key(inode));
  op.count_inodes(-1);
  return {};
}

} // namespace qs::volume
