#include "fuse/request.hpp"

#include <cerrno>

#include <sys/stat.h>

namespace qs::fuse {

namespace {

timespec to_timespec(volume::file_time t) noexcept {
  auto ns = t.time_since_epoch();
  auto seconds = std::chrono::floor<std::chrono::seconds>(ns);
  return {static_cast<time_t>(seconds.count()), static_cast<long>((ns - seconds).count())};
}

} // namespace

void fill_stat(struct stat& out, const volume::attributes& attr) noexcept {
  out = {};
  out.st_ino = attr.inode;
  out.st_mode = attr.mode;
  out.st_nlink = attr.nlink;
  out.st_uid = attr.uid;
  out.st_gid = attr.gid;
  out.st_rdev = attr.rdev;
  out.st_size = static_cast<off_t>(attr.size);
  out.st_blksize = 4096;
  out.st_blocks = static_cast<blkcnt_t>(attr.blocks);
  out.st_atim = to_timespec(attr.atime);
  out.st_mtim = to_timespec(attr.mtime);
  out.st_ctim = to_timespec(attr.ctime);
}

fuse_entry_param to_entry(const volume::attributes& attr) noexcept {
  fuse_entry_param entry{};
  entry.ino = attr.inode;
  entry.generation = attr.generation;
  entry.attr_timeout = cache_seconds;
  entry.entry_timeout = cache_seconds;
  fill_stat(entry.attr, attr);
  return entry;
}

int to_errno(const qs::error& e) noexcept {
  if (e.sys != 0) return e.sys;
  switch (e.code) {
  case errc::not_found:
    return ENOENT;
  case errc::already_exists:
    return EEXIST;
  case errc::invalid_argument:
    return EINVAL;
  case errc::no_space:
    return ENOSPC;
  case errc::access_denied:
    return EACCES;
  case errc::unsupported:
    return EOPNOTSUPP;
  default:
    return EIO;
  }
}

request::request(fuse_req_t req) : req_{req} {
  auto& owner = *static_cast<context*>(fuse_req_userdata(req));
  if (!owner.enter()) {
    fuse_reply_err(std::exchange(req_, nullptr), EIO);
    return;
  }
  owner_ = owner.shared_from_this();
}

void request::entry(const volume::attributes& attr) {
  auto param = to_entry(attr);
  files().remember(attr.inode, 1);
  if (fuse_reply_entry(take(), &param) == -ENOENT) files().forget(attr.inode, 1);
  leave();
}

void request::created(const volume::attributes& attr, fuse_file_info info) {
  auto param = to_entry(attr);
  info.keep_cache = 1;
  files().remember(attr.inode, 1);
  if (fuse_reply_create(take(), &param, &info) == -ENOENT) files().forget(attr.inode, 1);
  leave();
}

void request::negative_entry() {
  fuse_entry_param param{};
  param.entry_timeout = cache_seconds;
  finish(fuse_reply_entry(take(), &param));
}

void request::attributes(const volume::attributes& attr) {
  struct stat st;
  fill_stat(st, attr);
  finish(fuse_reply_attr(take(), &st, cache_seconds));
}

void request::page(byte_span data, const std::vector<volume::inode_number>& counted) {
  for (auto inode : counted) files().remember(inode, 1);
  int sent = fuse_reply_buf(take(), reinterpret_cast<const char*>(data.data()), data.size());
  if (sent == -ENOENT)
    for (auto inode : counted) files().forget(inode, 1);
  leave();
}

void request::sized(byte_span data, std::size_t room) {
  if (room == 0) return finish(fuse_reply_xattr(take(), data.size()));
  if (data.size() > room) return error(ERANGE);
  bytes(data);
}

} // namespace qs::fuse
