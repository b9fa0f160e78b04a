#include "cli/engine_process.hpp"

#include <cerrno>
#include <charconv>
#include <csignal>
#include <optional>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/clock.hpp"
#include "base/posix.hpp"
#include "cli/terminal.hpp"

extern char** environ;

namespace qs::cli {
namespace {

using steady = std::chrono::steady_clock;

void write_text(int fd, std::string_view text) { (void)write_all(fd, as_bytes(text)); }

/// Away from the numbers the new process wants, so that one does not overwrite the other.
unique_fd moved_up(int fd) { return unique_fd{fd < 0 ? -1 : ::fcntl(fd, F_DUPFD_CLOEXEC, 10)}; }

/// The readiness pipe's text so far, taken apart. Nothing while its last line is not whole.
std::optional<start_report> taken_apart(std::string& text, start_report& out, const std::function<void(const std::string&)>& step) {
  while (text.rfind("STEP ", 0) == 0) {
    auto end = text.find('\n');
    if (end == std::string::npos) return std::nullopt;
    out.step = text.substr(5, end - 5);
    text.erase(0, end + 1);
    if (step) step(out.step);
  }
  if (text.rfind("READY\n", 0) != 0) return std::nullopt;
  out.what = start_report::kind::ready;
  return out;
}

} // namespace

result<pid_t> spawn(const spawn_request& r) {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, r.errors.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  ::posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
  auto ready = moved_up(r.ready);
  auto leash = moved_up(r.leash);
  if (ready.valid()) ::posix_spawn_file_actions_adddup2(&files, ready.get(), ready_number);
  if (leash.valid()) ::posix_spawn_file_actions_adddup2(&files, leash.get(), leash_number);
  // Nothing else of ours goes along: a lock or a listening socket in other hands would outlive this process.
  ::posix_spawn_file_actions_addclosefrom_np(&files, leash_number + 1);
  sigset_t none;
  sigset_t all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
  if (r.session) flags = static_cast<short>(flags | POSIX_SPAWN_SETSID);
  ::posix_spawnattr_setflags(&attributes, flags);
  auto arguments = r.arguments;
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (auto& a : arguments) argv.push_back(a.data());
  argv.push_back(nullptr);
  pid_t pid = 0;
  auto failed = ::posix_spawn(&pid, argv.front(), &files, &attributes, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&files);
  ::posix_spawnattr_destroy(&attributes);
  if (failed != 0) return errno_error(fmt::format("start {}", r.arguments.front()), failed);
  return pid;
}

std::vector<std::string> engine_arguments(const chosen_volume& volume) {
  return {this_program().string(), "run", "--volume", volume.name, "--state-dir", volume.state_directory.string(),
          "--log-file", (volume.state_directory / "qs.log").string()};
}

std::filesystem::path error_file(const chosen_volume& volume) { return volume.state_directory / "qs.err"; }

void log_line(const chosen_volume& volume, std::string_view text) {
  auto file = open_file(volume.state_directory / "qs.log", O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (file.ok()) write_text(file->get(), fmt::format("{} warning watcher: {}\n", to_rfc3339(system_clock().wall()), text));
}

void report_step(int fd, std::string_view what) {
  if (fd >= 0) write_text(fd, fmt::format("STEP {}\n", what));
}

void report_ready(int fd) {
  if (fd < 0) return;
  write_text(fd, "READY\n");
  ::close(fd);
}

void report_failure(int fd, int exit, std::string_view message) {
  if (fd < 0) return;
  write_text(fd, fmt::format("EXIT {}\n{}", exit, message));
  ::close(fd);
}

start_report read_start(int fd, std::chrono::milliseconds patience, const std::function<void(const std::string&)>& step) {
  start_report out;
  std::string text;
  auto until = steady::now() + patience;
  while (text.size() < 65536) {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - steady::now()).count();
    if (patience.count() > 0 && left <= 0) {
      out.what = start_report::kind::silent;
      return out;
    }
    ::pollfd p{fd, POLLIN, 0};
    auto ready = ::poll(&p, 1, patience.count() > 0 ? static_cast<int>(std::min<long long>(left, 1000)) : 1000);
    if (interrupted()) {
      out.what = start_report::kind::interrupted;
      return out;
    }
    if (ready < 0 && errno != EINTR) break;
    if (ready <= 0) continue;
    char buffer[4096];
    auto n = ::read(fd, buffer, sizeof buffer);
    if (n == 0) break;
    if (n < 0) continue;
    text.append(buffer, static_cast<std::size_t>(n));
    until = steady::now() + patience;
    if (auto ended = taken_apart(text, out, step)) return *ended;
  }
  if (text.rfind("EXIT ", 0) != 0) return out;
  out.what = start_report::kind::failed;
  auto line_end = std::min(text.find('\n'), text.size());
  std::from_chars(text.data() + 5, text.data() + line_end, out.exit);
  out.message = text.substr(std::min(line_end + 1, text.size()));
  return out;
}

} // namespace qs::cli
