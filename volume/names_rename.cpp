// rename(2): one record for move, replace and exchange (volume.md 5).
#include <sys/stat.h>

#include "volume/dirents.hpp"
#include "volume/names.hpp"

namespace qs::volume {

namespace {

constexpr unsigned flag_noreplace = 1; // RENAME_NOREPLACE
constexpr unsigned flag_exchange = 2;  // RENAME_EXCHANGE

status check_rename_name(std::string_view name) {
  if (name.empty()) return posix_error(ENOENT);
  if (name.size() > name_bytes_max) return posix_error(ENAMETOOLONG);
  if (name == "." || name == "..") return posix_error(EBUSY);
  if (name.find('/') != name.npos || name.find('\0') != name.npos) return posix_error(EINVAL);
  return {};
}

/// Whether `directory` is `ancestor` or below it. As many steps as the tree is deep.
result<bool> is_within(operation& op, inode_number directory, inode_number ancestor) {
  while (directory != ancestor) {
    if (directory == root_inode) return false;
    QS_TRY_ASSIGN(auto value, op.get(inode_key(directory)));
    if (!value) return posix_error(ENOENT);
    QS_TRY_ASSIGN(auto row, decode_inode(*value));
    if (row.parent == 0) return posix_error(ENOTDIR);
    directory = row.parent;
  }
  return true;
}

void touch(inode_row& directory, const operation& op) {
  directory.mtime = directory.ctime = op.now();
}

/// A directory goes from one parent to another: `..` and both link counts follow.
status change_parent(inode_row& child, inode_row& from, inode_number to_number, inode_row& to) {
  if (child.parent == to_number) return {};
  if (to.nlink >= nlink_max) return posix_error(EMLINK);
  child.parent = to_number;
  if (from.nlink > 2) --from.nlink;
  ++to.nlink;
  return {};
}

} // namespace

status names::rename(inode_number parent, std::string_view name, inode_number new_parent,
                     std::string_view new_name, unsigned flags) {
  if (flags != 0 && flags != flag_noreplace && flags != flag_exchange) return posix_error(EINVAL);
  QS_TRY(check_rename_name(name));
  QS_TRY(check_rename_name(new_name));
  inode_number orphan = 0;
  {
    QS_TRY_ASSIGN(auto op, core_.begin(purpose::grow));
    row_editor rows{*op};
    if (flags == flag_exchange) return exchange(rows, parent, name, new_parent, new_name);
    QS_TRY(move(rows, parent, name, new_parent, new_name, flags != flag_noreplace, orphan));
  }
  if (orphan != 0) orphaned(orphan);
  return {};
}

status names::move(row_editor& rows, inode_number parent, std::string_view name,
                   inode_number new_parent, std::string_view new_name, bool replace,
                   inode_number& orphan) {
  auto& op = rows.op();
  QS_TRY_ASSIGN(auto* from, rows.load_directory(parent));
  QS_TRY_ASSIGN(auto* to, rows.load_directory(new_parent));
  QS_TRY_ASSIGN(auto source, find_dirent(op, parent, hash_(name), name));
  if (!source) return posix_error(ENOENT);
  QS_TRY_ASSIGN(auto target, find_dirent(op, new_parent, hash_(new_name), new_name));
  if (target && !replace) return posix_error(EEXIST);
  auto moved = source->row.inode;
  if (target && target->row.inode == moved)
    return {}; // two names of one file: POSIX says do nothing
  QS_TRY_ASSIGN(auto* row, rows.load(moved));
  bool is_directory = S_ISDIR(row->mode);
  if (is_directory && parent != new_parent) {
    QS_TRY_ASSIGN(bool within, is_within(op, new_parent, moved));
    if (within) return posix_error(EINVAL);
  }
  if (target) {
    auto old = target->row.inode;
    QS_TRY_ASSIGN(auto* victim, rows.load(old));
    bool victim_is_directory = S_ISDIR(victim->mode);
    if (is_directory && !victim_is_directory) return posix_error(ENOTDIR);
    if (!is_directory && victim_is_directory) return posix_error(EISDIR);
    if (victim_is_directory) {
      QS_TRY_ASSIGN(bool empty, is_empty_directory(op, old));
      if (!empty) return posix_error(ENOTEMPTY);
      victim->nlink = 0;
      if (to->nlink > 2) --to->nlink;
    } else if (victim->nlink > 0) {
      --victim->nlink;
    }
    victim->ctime = op.now();
    if (victim->nlink == 0) {
      orphan = old;
      op.put(orphan_key(old), encode(orphan_row{op.sequence(), {}}));
    }
    replace_dirent(op, new_parent, *target, moved, row->mode & S_IFMT);
    // The replaced entry may head the chain of the one that goes: read that one again.
    QS_TRY_ASSIGN(source, find_dirent(op, parent, hash_(name), name));
    QS_TRY(erase_dirent(op, parent, *source));
  } else {
    QS_TRY(erase_dirent(op, parent, *source));
    QS_TRY(insert_dirent(op, new_parent, hash_(new_name), new_name, moved, row->mode & S_IFMT));
  }
  if (is_directory) QS_TRY(change_parent(*row, *from, new_parent, *to));
  row->ctime = op.now();
  touch(*from, op);
  touch(*to, op);
  auto done = rows.commit();
  if (!done) orphan = 0;
  return done;
}

status names::exchange(row_editor& rows, inode_number parent, std::string_view name,
                       inode_number new_parent, std::string_view new_name) {
  auto& op = rows.op();
  QS_TRY_ASSIGN(auto* left_directory, rows.load_directory(parent));
  QS_TRY_ASSIGN(auto* right_directory, rows.load_directory(new_parent));
  QS_TRY_ASSIGN(auto left, find_dirent(op, parent, hash_(name), name));
  QS_TRY_ASSIGN(auto right, find_dirent(op, new_parent, hash_(new_name), new_name));
  if (!left || !right) return posix_error(ENOENT);
  if (left->row.inode == right->row.inode) return {};
  QS_TRY_ASSIGN(auto* a, rows.load(left->row.inode));
  QS_TRY_ASSIGN(auto* b, rows.load(right->row.inode));
  if (parent != new_parent) {
    if (S_ISDIR(a->mode)) {
      QS_TRY_ASSIGN(bool within, is_within(op, new_parent, left->row.inode));
      if (within) return posix_error(EINVAL);
    }
    if (S_ISDIR(b->mode)) {
      QS_TRY_ASSIGN(bool within, is_within(op, parent, right->row.inode));
      if (within) return posix_error(EINVAL);
    }
    if (S_ISDIR(a->mode)) QS_TRY(change_parent(*a, *left_directory, new_parent, *right_directory));
    if (S_ISDIR(b->mode)) QS_TRY(change_parent(*b, *right_directory, parent, *left_directory));
  }
  replace_dirent(op, parent, *left, right->row.inode, right->row.type);
  replace_dirent(op, new_parent, *right, left->row.inode, left->row.type);
  a->ctime = b->ctime = op.now();
  touch(*left_directory, op);
  touch(*right_directory, op);
  return rows.commit();
}

} // namespace qs::volume
