#include "fuse/session.hpp"

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <string>

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/mount.h>
#include <sys/uio.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/log.hpp"
#include "base/posix.hpp"
#include "fuse/mount_point.hpp"

namespace qs::fuse {

namespace {

constexpr int notify_inc_epoch =
    8; // FUSE_NOTIFY_INC_EPOCH, Linux 6.16: newer than Debian 12's linux/fuse.h

/// What libfuse said last on this thread: the text of a failed mount.
std::string& last_words() {
  thread_local std::string text;
  return text;
}

void take_log(fuse_log_level level, const char* format, va_list arguments) {
  char line[512];
  std::vsnprintf(line, sizeof line, format, arguments);
  std::string_view text{line};
  while (text.ends_with('\n')) text.remove_suffix(1);
  last_words() = text;
  if (level <= FUSE_LOG_WARNING)
    log::warning("fuse", "{}", text);
  else
    log::debug("fuse", "{}", text);
}

/// libfuse separates options by commas; a backslash keeps one in a value.
std::string option_value(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == ',' || c == '\\') out.push_back('\\');
    out.push_back(c);
  }
  return out;
}

/// The INIT of the connection that this thread is processing, until it is answered.
struct pending_init {
  bool killpriv_offered = false;
};
thread_local pending_init* init_now = nullptr;

ssize_t read_device(int fd, void* to, std::size_t size, void* userdata) {
  auto got = ::read(fd, to, size);
  if (got < 0 && errno == ENODEV) static_cast<context*>(userdata)->connection_dead = true;
  return got;
}

ssize_t write_device(int fd, iovec* parts, int count, void* userdata) {
  auto* init = std::exchange(init_now, nullptr);
  if (init == nullptr || count != 2 ||
      parts[1].iov_len < offsetof(fuse_init_out, flags) + sizeof(std::uint32_t))
    return ::writev(fd, parts, count);
  auto& owner = *static_cast<context*>(userdata);
  fuse_init_out out{};
  auto size = std::min(parts[1].iov_len, sizeof out);
  std::memcpy(&out, parts[1].iov_base, size);
  if (init->killpriv_offered) {
    out.flags |= FUSE_HANDLE_KILLPRIV_V2;
    owner.handle_killpriv = true;
  }
  iovec patched[2] = {parts[0], {&out, size}};
  return ::writev(fd, patched, 2);
}

/// Looks at what libfuse will not hand on. The buffer comes from the kernel, in native byte order.
void peek(const fuse_buf& buf, context& owner, pending_init& init) {
  current_request_flags().kill_privileges = false;
  if (buf.size < sizeof(fuse_in_header)) return;
  fuse_in_header head;
  std::memcpy(&head, buf.mem, sizeof head);
  const auto* body = static_cast<const char*>(buf.mem) + sizeof head;
  auto left = buf.size - sizeof head;
  if (head.opcode == FUSE_INIT && left >= offsetof(fuse_init_in, flags) + sizeof(std::uint32_t)) {
    fuse_init_in in{};
    std::memcpy(&in, body, std::min(left, sizeof in));
    init.killpriv_offered = in.major == 7 && (in.flags & FUSE_HANDLE_KILLPRIV_V2) != 0;
    init_now = &init;
  } else if (!owner.handle_killpriv) {
    return;
  } else if (head.opcode == FUSE_WRITE && left >= sizeof(fuse_write_in)) {
    fuse_write_in in;
    std::memcpy(&in, body, sizeof in);
    current_request_flags().kill_privileges = (in.write_flags & FUSE_WRITE_KILL_SUIDGID) != 0;
  } else if (head.opcode == FUSE_SETATTR && left >= sizeof(fuse_setattr_in)) {
    fuse_setattr_in in;
    std::memcpy(&in, body, sizeof in);
    current_request_flags().kill_privileges = (in.valid & FATTR_KILL_SUIDGID) != 0;
  }
}

} // namespace

context::~context() {
  if (session == nullptr) return;
  // Frees libfuse's copy of the mount point; it would unmount by path, which may be somebody else's
  // by now, so only when the connection is dead, where it sees that and leaves the path alone.
  if (connection_dead) fuse_session_unmount(session);
  fuse_session_destroy(session);
}

bool context::close(std::chrono::milliseconds deadline) {
  closed_.store(true);
  std::unique_lock lock{mutex};
  return changed.wait_for(lock, deadline, [&] { return in_flight_.load() == 0; });
}

status open_session(context& owner, const std::filesystem::path& path) {
  fuse_set_log_func(take_log);
  last_words().clear();
  auto options = fmt::format("fsname={},subtype=qs,default_permissions,noatime{}",
                             option_value(mount_source(owner.settings.volume_name)),
                             owner.settings.allow_other ? ",allow_other" : "");
  std::string program = "qs";
  std::string dash_o = "-o";
  char* argv[] = {program.data(), dash_o.data(), options.data(), nullptr};
  fuse_args arguments = FUSE_ARGS_INIT(3, argv);
  owner.session = fuse_session_new(&arguments, &operations(), sizeof(fuse_lowlevel_ops), &owner);
  fuse_opt_free_args(&arguments);
  if (owner.session == nullptr)
    return error{errc::io, fmt::format("libfuse does not start a session for {}: {}", path.string(),
                                       last_words())};
  errno = 0;
  if (fuse_session_mount(owner.session, path.c_str()) != 0) {
    int sys = errno;
    auto why = last_words().empty()
                   ? std::string{sys != 0 ? std::strerror(sys) : "fusermount3 refused"}
                   : last_words();
    return error{errc::io, fmt::format("mount at {}: {}", path.string(), why), sys};
  }
  static const fuse_custom_io io{write_device, read_device, nullptr, nullptr};
  int fd = fuse_session_fd(owner.session);
  ::fcntl(fd, F_SETFD, FD_CLOEXEC); // a child that keeps the device would keep a dead mount alive
  int failed = fuse_session_custom_io(owner.session, &io, fd);
  if (failed != 0) {
    QS_TRY(unmount(path, true));
    return errno_error("set up the FUSE device", -failed);
  }
  return {};
}

void serve(context& owner) {
  fuse_buf buf{};
  pending_init init;
  for (;;) {
    int size = fuse_session_receive_buf(owner.session, &buf);
    if (size == -EINTR || size == -EAGAIN) continue;
    if (size <= 0) break;
    peek(buf, owner, init);
    fuse_session_process_buf(owner.session, &buf);
  }
  std::free(buf.mem);
}

bool abort_connection(const std::filesystem::path& path, std::string_view device) {
  // MNT_FORCE aborts first and then finds the mount busy, which is all the same here.
  if (!path.empty() && ::geteuid() == 0 &&
      (::umount2(path.c_str(), MNT_FORCE | UMOUNT_NOFOLLOW) == 0 || errno == EBUSY))
    return true;
  auto colon = device.find(':');
  if (colon == device.npos) return false;
  auto name = fmt::format("/sys/fs/fuse/connections/{}/abort", device.substr(colon + 1));
  unique_fd fd{::open(name.c_str(), O_WRONLY | O_CLOEXEC)};
  return fd.valid() && ::write(fd.get(), "1", 1) == 1;
}

status drop_kernel_caches(context& owner) {
  // Names first: with them go the last references to inodes, whose pages then go by themselves.
  // Older kernels say EINVAL.
  fuse_out_header epoch{sizeof(fuse_out_header), notify_inc_epoch, 0};
  bool told = ::write(fuse_session_fd(owner.session), &epoch, sizeof epoch) == sizeof epoch;
  if (!told) log::debug("fuse", "this kernel keeps names cached: {}", std::strerror(errno));

  int worst = 0;
  for (auto inode : owner.files.remembered()) {
    int failed = fuse_lowlevel_notify_inval_inode(owner.session, inode, 0, 0);
    if (failed != 0 && failed != -ENOENT)
      worst = -failed; // ENOENT: the kernel has dropped it meanwhile
  }
  if (worst != 0) return errno_error("drop the kernel's cached pages", worst);
  return {};
}

void raise_read_ahead(std::string_view device) {
  auto name = fmt::format("/sys/class/bdi/{}/read_ahead_kb", device);
  unique_fd fd{::open(name.c_str(), O_WRONLY | O_CLOEXEC)};
  if (!fd.valid() || ::write(fd.get(), "1024", 4) != 4)
    log::debug("fuse", "read-ahead stays at the kernel's default: {}", std::strerror(errno));
}

} // namespace qs::fuse
