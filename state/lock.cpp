#include "state/lock.hpp"

#include <cerrno>
#include <charconv>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <fmt/format.h>

namespace qs::state {
namespace {

pid_t read_pid(int fd) {
  char text[24] = {};
  auto n = ::pread(fd, text, sizeof text - 1, 0);
  pid_t pid = 0;
  if (n > 0) std::from_chars(text, text + n, pid);
  return pid;
}

struct ::flock whole_file(short type) {
  struct ::flock what {};
  what.l_type = type;
  what.l_whence = SEEK_SET;
  return what;
}

error taken(const std::filesystem::path& directory, pid_t pid) {
  auto who = pid > 0 ? fmt::format("process {}", pid) : std::string{"another process"};
  return {errc::busy,
          fmt::format("{} is in use by {}: an engine runs there already ('qs status', 'qs stop')",
                      directory.string(), who)};
}

} // namespace

namespace {

constexpr auto engine_lock = "lock";
constexpr auto watcher_lock = "watcher.lock";

result<unique_fd> take_file(const std::filesystem::path& state_directory, const char* name) {
  QS_TRY(make_directories(state_directory));
  QS_TRY_ASSIGN(auto fd, open_file(state_directory / name, O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return taken(state_directory, read_pid(fd.get()));
    return errno_error(fmt::format("lock {}", state_directory.string()), errno);
  }
  // A second lock of the kind that can be asked about without being taken, so that a look never
  // gets in an engine's way.
  auto mine = whole_file(F_WRLCK);
  if (::fcntl(fd.get(), F_OFD_SETLK, &mine) != 0) {
    if (errno == EAGAIN || errno == EACCES) return taken(state_directory, read_pid(fd.get()));
    return errno_error(fmt::format("lock {}", state_directory.string()), errno);
  }
  auto text = fmt::format("{}\n", ::getpid());
  if (::ftruncate(fd.get(), 0) != 0 || ::pwrite(fd.get(), text.data(), text.size(), 0) < 0)
    return errno_error(fmt::format("write {}/{}", state_directory.string(), name), errno);
  return fd;
}

std::optional<pid_t> holder_of(const std::filesystem::path& file) {
  auto fd = open_file(file, O_RDONLY);
  if (!fd.ok()) return std::nullopt;
  auto question = whole_file(F_WRLCK);
  if (::fcntl(fd->get(), F_OFD_GETLK, &question) != 0 || question.l_type == F_UNLCK)
    return std::nullopt;
  return read_pid(fd->get());
}

} // namespace

result<state_lock> state_lock::take(const std::filesystem::path& state_directory) {
  QS_TRY_ASSIGN(auto fd, take_file(state_directory, engine_lock));
  return state_lock{std::move(fd)};
}

result<state_lock> state_lock::take_watch(const std::filesystem::path& state_directory) {
  QS_TRY_ASSIGN(auto fd, take_file(state_directory, watcher_lock));
  return state_lock{std::move(fd)};
}

std::optional<pid_t> lock_holder(const std::filesystem::path& state_directory) {
  return holder_of(state_directory / engine_lock);
}

std::optional<pid_t> watch_holder(const std::filesystem::path& state_directory) {
  return holder_of(state_directory / watcher_lock);
}

} // namespace qs::state
