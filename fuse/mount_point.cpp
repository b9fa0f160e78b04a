#include "fuse/mount_point.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/log.hpp"
#include "base/posix.hpp"

extern char** environ;

namespace qs::fuse {

namespace {

namespace fs = std::filesystem;

/// "\040" back to a blank: the kernel writes blank, tab, newline and backslash as three octal
/// digits.
std::string unescape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  auto digit = [](char c) { return c >= '0' && c <= '7'; };
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && digit(text[i + 1]) && digit(text[i + 2]) &&
        digit(text[i + 3])) {
      out.push_back(static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                      (text[i + 3] - '0')));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

std::vector<std::string_view> words(std::string_view line) {
  std::vector<std::string_view> out;
  while (!line.empty()) {
    auto end = std::min(line.find(' '), line.size());
    if (end > 0) out.push_back(line.substr(0, end));
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  return out;
}

/// Runs a program and gives its exit code; what it prints goes nowhere.
result<int> run(const char* program, std::vector<std::string> arguments) {
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (auto& a : arguments) argv.push_back(a.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
  pid_t pid = 0;
  int failed = posix_spawnp(&pid, program, &files, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  if (failed != 0) return errno_error(fmt::format("run {}", program), failed);
  int code = 0;
  while (::waitpid(pid, &code, 0) < 0) {
    if (errno != EINTR) return errno_error(fmt::format("wait for {}", program), errno);
  }
  return WIFEXITED(code) ? WEXITSTATUS(code) : 128;
}

bool user_allow_other() {
  auto conf = read_file("/etc/fuse.conf", 1 << 20);
  if (!conf) return false;
  std::string_view rest = *conf;
  while (!rest.empty()) {
    auto end = std::min(rest.find('\n'), rest.size());
    auto found = words(rest.substr(0, end));
    if (found.size() == 1 && found[0] == "user_allow_other") return true;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return false;
}

status check_device(const actors::mount_settings& settings) {
  unique_fd device{::open("/dev/fuse", O_RDWR | O_CLOEXEC)};
  if (!device.valid()) {
    int sys = errno;
    if (sys == ENOENT || sys == ENODEV || sys == ENXIO)
      return error{errc::unsupported,
                   "this machine has no /dev/fuse, so nothing can be mounted: load the module "
                   "(modprobe fuse), or give "
                   "the container the device; everything but the mount works",
                   sys};
    return error{
        errc::unsupported,
        fmt::format(
            "/dev/fuse cannot be opened ({}): give this user or container access to the device; "
            "everything but the mount works",
            describe(posix_error(sys))),
        sys};
  }
  if (settings.allow_other && ::geteuid() != 0 && !user_allow_other())
    return error{errc::invalid_argument, "mount.options.allow_other is only for root unless "
                                         "/etc/fuse.conf says user_allow_other: add that line "
                                         "or leave the option out"};
  return {};
}

/// errno of looking at `path`, 0 if it is there. After a crash of its server a FUSE mount answers
/// ENOTCONN, but its root's attributes may still be cached and look well: only statfs always asks
/// the server.
int look_at(const fs::path& path, struct stat& st) {
  if (::stat(path.c_str(), &st) != 0) return errno;
  auto entry = mount_at(path);
  if (!entry || !*entry || !(*entry)->type.starts_with("fuse")) return 0;
  struct statfs ignored {};
  return ::statfs(path.c_str(), &ignored) == 0 || errno != ENOTCONN ? 0 : ENOTCONN;
}

/// A dead mount of our own is taken away, or, by who only looks, left for the mount that follows.
status dead_mount(const fs::path& path, const actors::mount_settings& settings, dead_mounts dead) {
  QS_TRY_ASSIGN(auto entry, mount_at(path));
  if (entry && is_ours(*entry, settings.volume_name)) {
    if (dead == dead_mounts::leave) return {};
    log::info("fuse", "taking away the dead mount of {} at {}", settings.volume_name,
              path.string());
    return unmount(path, true);
  }
  auto what = entry ? fmt::format("{} ({})", entry->source, entry->type) : std::string{"something"};
  return error{
      errc::busy,
      fmt::format("at {} there is a dead mount of {}, which is not ours: take it away with "
                  "`fusermount3 -u -z {}` (or umount -l, as root)",
                  path.string(), what, path.string()),
      ENOTCONN};
}

} // namespace

std::vector<mount_entry> parse_mountinfo(std::string_view text) {
  std::vector<mount_entry> out;
  while (!text.empty()) {
    auto end = std::min(text.find('\n'), text.size());
    auto fields = words(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    // id parent major:minor root mount-point options [optional…] - type source super-options
    auto dash = std::find(fields.begin(), fields.end(), "-");
    if (fields.size() < 9 || fields.end() - dash < 3 || dash - fields.begin() < 6) continue;
    out.push_back({std::string{fields[2]}, unescape(fields[4]), unescape(*(dash + 1)),
                   unescape(*(dash + 2))});
  }
  return out;
}

std::optional<mount_entry> topmost_mount(const std::vector<mount_entry>& table,
                                         const fs::path& path) {
  auto it = std::find_if(table.rbegin(), table.rend(),
                         [&](const mount_entry& e) { return e.path == path; });
  if (it == table.rend()) return {};
  return *it;
}

result<std::optional<mount_entry>> mount_at(const fs::path& path) {
  QS_TRY_ASSIGN(auto text, read_file("/proc/self/mountinfo", 64 << 20));
  return topmost_mount(parse_mountinfo(text), path);
}

std::string mount_source(std::string_view volume_name) { return fmt::format("qs:{}", volume_name); }

bool is_ours(const mount_entry& entry, std::string_view volume_name) {
  return entry.type == mount_type && entry.source == mount_source(volume_name);
}

result<fs::path> resolve_mount_point(const fs::path& path) {
  std::error_code failed;
  auto whole = fs::canonical(path, failed);
  if (!failed) return whole;
  auto absolute = fs::absolute(path, failed).lexically_normal();
  if (!absolute.has_filename()) absolute = absolute.parent_path();
  auto parent = fs::canonical(absolute.parent_path(), failed);
  if (failed) return errno_error(fmt::format("mount point {}", path.string()), failed.value());
  return parent / absolute.filename();
}

status check_mount_point(const actors::mount_settings& settings, dead_mounts dead) {
  auto shown = settings.path.string();
  auto resolved = resolve_mount_point(settings.path);
  if (!resolved) {
    if (resolved.err().code == errc::not_found)
      return error{
          errc::not_found,
          fmt::format("mount point {} does not exist: make it with `mkdir -p {}`", shown, shown),
          ENOENT};
    return std::move(resolved).err();
  }
  struct stat st {};
  int sys = look_at(*resolved, st);
  if (sys == ENOTCONN || sys == ECONNABORTED) {
    QS_TRY(dead_mount(*resolved, settings, dead));
    if (dead == dead_mounts::leave) return check_device(settings);
    sys = look_at(*resolved, st);
  }
  if (sys == ENOENT)
    return error{
        errc::not_found,
        fmt::format("mount point {} does not exist: make it with `mkdir -p {}`", shown, shown),
        sys};
  if (sys != 0) return errno_error(fmt::format("look at mount point {}", shown), sys);
  if (!S_ISDIR(st.st_mode))
    return error{errc::invalid_argument,
                 fmt::format("mount point {} is not a directory: choose another mount.path", shown),
                 ENOTDIR};
  QS_TRY_ASSIGN(auto mounted, mount_at(*resolved));
  if (mounted) {
    auto hint = is_ours(*mounted, settings.volume_name)
                    ? "by another process that serves this volume"
                    : "unmount it, or choose another mount.path";
    return error{errc::busy,
                 fmt::format("mount point {} is in use: {} ({}) is mounted there; {}", shown,
                             mounted->source, mounted->type, hint),
                 EBUSY};
  }
  std::error_code failed;
  bool empty = fs::is_empty(*resolved, failed);
  if (failed) return errno_error(fmt::format("look into mount point {}", shown), failed.value());
  if (!empty)
    return error{errc::refused,
                 fmt::format("mount point {} is not empty: what is in it would be hidden; empty it "
                             "or choose another "
                             "mount.path",
                             shown),
                 ENOTEMPTY};
  return check_device(settings);
}

status unmount(const fs::path& path, bool lazy) {
  if (::geteuid() == 0) {
    if (::umount2(path.c_str(), UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0) return {};
    int sys = errno;
    auto doing = fmt::format("unmount {}", path.string());
    if (sys == EBUSY) return error{errc::busy, fmt::format("{}: still in use", doing), sys};
    if (sys == EINVAL || sys == ENOENT)
      return error{errc::not_found, fmt::format("{}: not mounted", doing), sys};
    return errno_error(doing, sys);
  }
  std::vector<std::string> arguments{"fusermount3", "-u", "-q"};
  if (lazy) arguments.push_back("-z");
  arguments.insert(arguments.end(), {"--", path.string()});
  QS_TRY_ASSIGN(int code, run("fusermount3", arguments));
  if (code == 0) return {};
  QS_TRY_ASSIGN(auto still, mount_at(path));
  if (!still)
    return error{errc::not_found, fmt::format("unmount {}: not mounted", path.string()), EINVAL};
  return error{errc::busy,
               fmt::format("unmount {}: still in use (fusermount3 says {})", path.string(), code),
               EBUSY};
}

} // namespace qs::fuse
