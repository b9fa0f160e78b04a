// The operations: decode, call, reply (architecture.md). No decisions here; permission checks are
// the kernel's (default_permissions), locks too (we claim none, so flock, POSIX and OFD locks are
// local), copy_file_range falls back.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include "base/log.hpp"
#include "fuse/request.hpp"

namespace qs::fuse {

namespace {

volume::creator creator_of(fuse_req_t req) {
  const auto* caller = fuse_req_ctx(req);
  return {caller->uid, caller->gid};
}

volume::file_time to_time(const timespec& t) {
  // Rows hold 64-bit nanoseconds: 1677 to 2262. What lies outside is set to the end it lies beyond.
  constexpr std::int64_t seconds_max = 9223372035;
  auto seconds = std::clamp<std::int64_t>(t.tv_sec, -seconds_max, seconds_max);
  return volume::file_time{std::chrono::seconds{seconds} + std::chrono::nanoseconds{t.tv_nsec}};
}

volume::file_time now() {
  timespec t{};
  ::clock_gettime(CLOCK_REALTIME, &t);
  return to_time(t);
}

/// Without FUSE_POSIX_ACL nobody would enforce them: better refused than kept and ignored.
bool is_acl(std::string_view name) { return name.starts_with("system."); }

bool is_special_dot(const std::string& name) { return name == "." || name == ".."; }

void op_init(void* userdata, fuse_conn_info* conn) {
  auto& owner = *static_cast<context*>(userdata);
  // Said in full, since libfuse switches several on by itself. Not wanted: splice (slower, and
  // bytes are ciphertext on disk anyway), HANDLE_KILLPRIV (its first version: see session.cpp for
  // the second), ATOMIC_O_TRUNC (lost without open messages), AUTO_INVAL_DATA (nobody else writes),
  // locks, POSIX_ACL.
  unsigned want = FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS |
                  FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_CACHE_SYMLINKS |
                  FUSE_CAP_NO_OPEN_SUPPORT | FUSE_CAP_NO_OPENDIR_SUPPORT;
  if (owner.settings.writeback) want |= FUSE_CAP_WRITEBACK_CACHE;
  conn->want = want & conn->capable;
  owner.no_open = (conn->want & FUSE_CAP_NO_OPEN_SUPPORT) != 0;
  owner.no_opendir = (conn->want & FUSE_CAP_NO_OPENDIR_SUPPORT) != 0;
  conn->max_write = 1U << 20;
  conn->max_readahead = 1U << 20;
  conn->max_background =
      128; // read-ahead and write-back in flight; libfuse's 12 starves when a node is slow
  conn->congestion_threshold = 96;
  conn->time_gran = 1;
  std::lock_guard lock{owner.mutex};
  owner.ready = true;
  owner.changed.notify_all();
}

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  request r{req};
  if (!r) return;
  auto found = r.files().lookup(parent, name);
  if (found) return r.entry(*found);
  if (to_errno(found.err()) == ENOENT) return r.negative_entry();
  r.fail(found.err());
}

void op_forget(fuse_req_t req, fuse_ino_t inode, std::uint64_t lookups) {
  auto& owner = *static_cast<context*>(fuse_req_userdata(req));
  if (owner.enter()) {
    owner.files.forget(inode, lookups);
    owner.leave();
  }
  fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, std::size_t count, fuse_forget_data* forgets) {
  auto& owner = *static_cast<context*>(fuse_req_userdata(req));
  if (owner.enter()) {
    for (std::size_t i = 0; i < count; ++i) owner.files.forget(forgets[i].ino, forgets[i].nlookup);
    owner.leave();
  }
  fuse_reply_none(req);
}

void op_getattr(fuse_req_t req, fuse_ino_t inode, fuse_file_info*) {
  request r{req};
  if (!r) return;
  auto attr = r.files().getattr(inode);
  if (!attr) return r.fail(attr.err());
  r.attributes(*attr);
}

void op_setattr(fuse_req_t req, fuse_ino_t inode, struct stat* st, int to_set, fuse_file_info*) {
  request r{req};
  if (!r) return;
  volume::attribute_changes changes;
  if ((to_set & FUSE_SET_ATTR_MODE) != 0) changes.mode = st->st_mode & 07777U;
  if ((to_set & FUSE_SET_ATTR_UID) != 0) changes.uid = st->st_uid;
  if ((to_set & FUSE_SET_ATTR_GID) != 0) changes.gid = st->st_gid;
  if ((to_set & FUSE_SET_ATTR_SIZE) != 0) changes.size = static_cast<std::uint64_t>(st->st_size);
  if ((to_set & FUSE_SET_ATTR_ATIME_NOW) != 0)
    changes.atime = now();
  else if ((to_set & FUSE_SET_ATTR_ATIME) != 0)
    changes.atime = to_time(st->st_atim);
  if ((to_set & FUSE_SET_ATTR_MTIME_NOW) != 0)
    changes.mtime = now();
  else if ((to_set & FUSE_SET_ATTR_MTIME) != 0)
    changes.mtime = to_time(st->st_mtim);
  changes.kill_privileges = current_request_flags().kill_privileges;
  auto attr = r.files().setattr(inode, changes);
  if (!attr) return r.fail(attr.err());
  r.attributes(*attr);
}

void op_readlink(fuse_req_t req, fuse_ino_t inode) {
  request r{req};
  if (!r) return;
  auto target = r.files().readlink(inode);
  if (!target) return r.fail(target.err());
  r.target(*target);
}

void answer_entry(request& r, const result<volume::attributes>& made) {
  if (!made) return r.fail(made.err());
  r.entry(*made);
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t rdev) {
  request r{req};
  if (!r) return;
  answer_entry(
      r, r.files().mknod(parent, name, mode, static_cast<std::uint32_t>(rdev), creator_of(req)));
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
  request r{req};
  if (!r) return;
  answer_entry(r, r.files().mkdir(parent, name, mode, creator_of(req)));
}

void op_symlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) {
  request r{req};
  if (!r) return;
  answer_entry(r, r.files().symlink(parent, name, target, creator_of(req)));
}

void op_link(fuse_req_t req, fuse_ino_t inode, fuse_ino_t parent, const char* name) {
  request r{req};
  if (!r) return;
  answer_entry(r, r.files().link(inode, parent, name));
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char* name) {
  request r{req};
  if (r) r.done(r.files().unlink(parent, name));
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char* name) {
  request r{req};
  if (r) r.done(r.files().rmdir(parent, name));
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
               const char* new_name, unsigned flags) {
  request r{req};
  if (r) r.done(r.files().rename(parent, name, new_parent, new_name, flags));
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode,
               fuse_file_info* info) {
  request r{req};
  if (!r) return;
  auto made = r.files().mknod(parent, name, (mode & 07777U) | S_IFREG, 0, creator_of(req));
  if (!made) return r.fail(made.err());
  r.created(*made, *info);
}

/// Files have no state of their own here: what is open is remembered as an inode. ENOSYS spares the
/// kernel open and release for good; it then keeps the page cache over opens by itself.
void op_open(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
  request r{req};
  if (!r) return;
  if (r.owner().no_open) return r.error(ENOSYS);
  info->keep_cache = 1;
  r.opened(*info);
}

void op_release(fuse_req_t req, fuse_ino_t, fuse_file_info*) {
  request r{req};
  if (r) r.error(0);
}

void op_opendir(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
  request r{req};
  if (!r) return;
  if (r.owner().no_opendir) return r.error(ENOSYS);
  info->keep_cache = 1;
  info->cache_readdir = 1;
  r.opened(*info);
}

void op_read(fuse_req_t req, fuse_ino_t inode, std::size_t size, off_t offset, fuse_file_info*) {
  auto r = std::make_shared<request>(req);
  if (!*r) return;
  r->files().read(inode, static_cast<std::uint64_t>(offset), size, [r](result<buffer> data) {
    if (!data) return r->fail(data.err());
    r->bytes(*data);
  });
}

void op_write(fuse_req_t req, fuse_ino_t inode, const char* data, std::size_t size, off_t offset,
              fuse_file_info*) {
  auto r = std::make_shared<request>(req);
  if (!*r) return;
  // O_APPEND: the kernel gives the end of the file as offset, under its inode lock, and is the only
  // writer.
  bool kill = current_request_flags().kill_privileges;
  r->files().write(inode, static_cast<std::uint64_t>(offset),
                   as_bytes(std::string_view{data, size}), false, kill,
                   [r](result<std::size_t> count) {
                     if (!count) return r->fail(count.err());
                     r->written(*count);
                   });
}

void op_flush(fuse_req_t req, fuse_ino_t, fuse_file_info*) {
  request r{req};
  if (r) r.error(ENOSYS); // write(2) has told every error already: no message at close any more
}

void op_fsync(fuse_req_t req, fuse_ino_t, int, fuse_file_info*) {
  request r{req};
  if (r) r.done(r.files().fsync());
}

void op_fallocate(fuse_req_t req, fuse_ino_t inode, int mode, off_t offset, off_t length,
                  fuse_file_info*) {
  request r{req};
  if (r)
    r.done(r.files().fallocate(inode, mode, static_cast<std::uint64_t>(offset),
                               static_cast<std::uint64_t>(length)));
}

void op_lseek(fuse_req_t req, fuse_ino_t inode, off_t offset, int whence, fuse_file_info*) {
  request r{req};
  if (!r) return;
  if (whence != SEEK_DATA && whence != SEEK_HOLE) return r.error(EINVAL);
  auto at = r.files().seek(inode, static_cast<std::uint64_t>(offset), whence);
  if (!at) return r.fail(at.err());
  r.position(*at);
}

/// One page of a directory. Attributes of `.` and `..` are shown, but the kernel counts no lookup
/// for them.
void read_directory(fuse_req_t req, fuse_ino_t inode, std::size_t size, off_t offset, bool plus) {
  request r{req};
  if (!r) return;
  constexpr std::size_t shortest = 32;       // 24 bytes and a name of up to 8
  constexpr std::size_t shortest_plus = 160; // 128 more for the attributes
  auto most = std::max<std::size_t>(size / (plus ? shortest_plus : shortest), 1);
  auto entries = r.files().readdir(inode, static_cast<std::uint64_t>(offset), most, plus);
  if (!entries) return r.fail(entries.err());
  std::vector<char> page(size);
  std::vector<volume::inode_number> counted;
  std::size_t used = 0;
  for (const auto& entry : *entries) {
    fuse_entry_param param{};
    if (entry.attr) param = to_entry(*entry.attr);
    param.attr.st_ino = entry.inode;
    if (!entry.attr) param.attr.st_mode = entry.type;
    auto next = static_cast<off_t>(entry.cookie);
    auto room = size - used;
    auto need = plus ? fuse_add_direntry_plus(r.raw(), page.data() + used, room, entry.name.c_str(),
                                              &param, next)
                     : fuse_add_direntry(r.raw(), page.data() + used, room, entry.name.c_str(),
                                         &param.attr, next);
    if (need > room) break;
    used += need;
    if (plus && entry.attr && !is_special_dot(entry.name)) counted.push_back(entry.inode);
  }
  r.page(as_bytes(std::string_view{page.data(), used}), counted);
}

void op_readdir(fuse_req_t req, fuse_ino_t inode, std::size_t size, off_t offset, fuse_file_info*) {
  read_directory(req, inode, size, offset, false);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t inode, std::size_t size, off_t offset,
                    fuse_file_info*) {
  read_directory(req, inode, size, offset, true);
}

void op_statfs(fuse_req_t req, fuse_ino_t) {
  request r{req};
  if (!r) return;
  auto space = r.files().statfs();
  struct statvfs st {};
  st.f_bsize = st.f_frsize = space.block_size;
  st.f_blocks = space.total_bytes / space.block_size;
  st.f_bfree = st.f_bavail = space.free_bytes / space.block_size;
  st.f_files = space.files + space.files_free;
  st.f_ffree = st.f_favail = space.files_free;
  st.f_namemax = 255;
  r.space(st);
}

void op_setxattr(fuse_req_t req, fuse_ino_t inode, const char* name, const char* value,
                 std::size_t size, int flags) {
  request r{req};
  if (!r) return;
  if (is_acl(name)) return r.error(EOPNOTSUPP);
  auto mode = flags == XATTR_CREATE    ? volume::xattr_mode::create
              : flags == XATTR_REPLACE ? volume::xattr_mode::replace
                                       : volume::xattr_mode::either;
  r.done(r.files().setxattr(inode, name, as_bytes(std::string_view{value, size}), mode));
}

void op_getxattr(fuse_req_t req, fuse_ino_t inode, const char* name, std::size_t size) {
  request r{req};
  if (!r) return;
  if (is_acl(name)) return r.error(EOPNOTSUPP);
  auto value = r.files().getxattr(inode, name);
  if (!value) return r.fail(value.err());
  r.sized(*value, size);
}

void op_listxattr(fuse_req_t req, fuse_ino_t inode, std::size_t size) {
  request r{req};
  if (!r) return;
  auto names = r.files().listxattr(inode);
  if (!names) return r.fail(names.err());
  std::string joined;
  for (const auto& name : *names) joined.append(name).push_back('\0');
  r.sized(as_bytes(joined), size);
}

void op_removexattr(fuse_req_t req, fuse_ino_t inode, const char* name) {
  request r{req};
  if (!r) return;
  if (is_acl(name)) return r.error(EOPNOTSUPP);
  r.done(r.files().removexattr(inode, name));
}

fuse_lowlevel_ops make_operations() {
  fuse_lowlevel_ops ops{};
  ops.init = op_init;
  ops.lookup = op_lookup;
  ops.forget = op_forget;
  ops.forget_multi = op_forget_multi;
  ops.getattr = op_getattr;
  ops.setattr = op_setattr;
  ops.readlink = op_readlink;
  ops.mknod = op_mknod;
  ops.mkdir = op_mkdir;
  ops.symlink = op_symlink;
  ops.link = op_link;
  ops.unlink = op_unlink;
  ops.rmdir = op_rmdir;
  ops.rename = op_rename;
  ops.create = op_create;
  ops.open = op_open;
  ops.release = op_release;
  ops.opendir = op_opendir;
  ops.releasedir = op_release;
  ops.read = op_read;
  ops.write = op_write;
  ops.flush = op_flush;
  ops.fsync = op_fsync;
  ops.fsyncdir = op_fsync;
  ops.fallocate = op_fallocate;
  ops.lseek = op_lseek;
  ops.readdir = op_readdir;
  ops.readdirplus = op_readdirplus;
  ops.statfs = op_statfs;
  ops.setxattr = op_setxattr;
  ops.getxattr = op_getxattr;
  ops.listxattr = op_listxattr;
  ops.removexattr = op_removexattr;
  return ops;
}

} // namespace

const fuse_lowlevel_ops& operations() {
  static const fuse_lowlevel_ops table = make_operations();
  return table;
}

request_flags& current_request_flags() noexcept {
  thread_local request_flags flags;
  return flags;
}

} // namespace qs::fuse
