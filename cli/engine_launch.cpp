#include "cli/engine_launch.hpp"

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/clock.hpp"
#include "cli/exit_codes.hpp"
#include "state/lock.hpp"

extern char** environ;

namespace qs::cli {
namespace {

using namespace std::chrono_literals;
using steady = std::chrono::steady_clock;

constexpr int pipe_fd = 3;
constexpr auto start_patience = 120s;
constexpr auto first_backoff = 250ms;
constexpr auto last_backoff = 30'000ms;
constexpr auto healthy_after = 60s;

struct spawn_request {
  std::vector<std::string> arguments;
  std::string errors; ///< stderr and stdout go there
  int ready = -1;     ///< becomes descriptor 3
  bool session = false;
};

/// posix_spawn of this program: no code of ours runs between fork and exec, so threads and locks do not matter.
result<pid_t> spawn(const spawn_request& r) {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, r.errors.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  ::posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
  if (r.ready >= 0) ::posix_spawn_file_actions_adddup2(&files, r.ready, pipe_fd);
  sigset_t none;
  sigset_t all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
  if (r.session) flags = static_cast<short>(flags | POSIX_SPAWN_SETSID);
  ::posix_spawnattr_setflags(&attributes, flags);
  std::vector<char*> argv;
  auto arguments = r.arguments;
  for (auto& a : arguments) argv.push_back(a.data());
  argv.push_back(nullptr);
  pid_t pid = 0;
  auto failed = ::posix_spawn(&pid, argv.front(), &files, &attributes, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&files);
  ::posix_spawnattr_destroy(&attributes);
  if (failed != 0) return errno_error(fmt::format("start {}", r.arguments.front()), failed);
  return pid;
}

/// What a detached program finds must not depend on the directory it was started from.
void make_environment_absolute(const surroundings& around) {
  auto set = [](const char* name, const std::filesystem::path& value) {
    if (std::getenv(name) != nullptr && !value.empty()) ::setenv(name, value.c_str(), 1);
  };
  set("QS_PHRASE_FILE", around.phrase_file);
  set("QS_GRID_DIR", around.grid_dir);
}

std::vector<std::string> engine_arguments(const chosen_volume& volume) {
  return {this_program().string(), "run", "--volume", volume.name, "--state-dir", volume.state_directory.string(),
          "--log-file", (volume.state_directory / "qs.log").string()};
}

std::filesystem::path error_file(const chosen_volume& volume) { return volume.state_directory / "qs.err"; }

launch_failure as_failure(const error& e) { return {exit_of(e.code), describe(e)}; }

/// Reads until the other end closes or the deadline passes.
std::string read_report(int fd, std::chrono::milliseconds patience) {
  std::string out;
  auto until = steady::now() + patience;
  while (out.size() < 65536) {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - steady::now()).count();
    if (left <= 0) break;
    ::pollfd p{fd, POLLIN, 0};
    auto ready = ::poll(&p, 1, static_cast<int>(std::min<long long>(left, 1000)));
    if (ready < 0 && errno != EINTR) break;
    if (interrupted()) break;
    if (ready <= 0) continue;
    char buffer[4096];
    auto n = ::read(fd, buffer, sizeof buffer);
    if (n == 0) break;
    if (n > 0) out.append(buffer, static_cast<std::size_t>(n));
    if (out.rfind("READY\n", 0) == 0) break;
  }
  return out;
}

void write_text(int fd, std::string_view text) { (void)write_all(fd, as_bytes(text)); }

/// One line in the program's log, while no engine writes it.
void log_line(const chosen_volume& volume, std::string_view text) {
  auto file = open_file(volume.state_directory / "qs.log", O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (file.ok()) write_text(file->get(), fmt::format("{} warning watcher: {}\n", to_rfc3339(system_clock().wall()), text));
}

std::string how_it_ended(int status) {
  if (WIFSIGNALED(status)) return fmt::format("signal {}", WTERMSIG(status));
  return fmt::format("code {}", WEXITSTATUS(status));
}

} // namespace

bool engine_runs(const chosen_volume& volume) { return state::lock_holder(volume.state_directory).has_value(); }

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

std::optional<launch_failure> launch_engine(const chosen_volume& volume) {
  if (auto made = make_directories(volume.state_directory, 0700); !made.ok()) return as_failure(made.err());
  make_environment_absolute(volume.around);
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) return as_failure(errno_error("make a pipe", errno));
  unique_fd read_end{ends[0]};
  unique_fd write_end{ends[1]};
  spawn_request r;
  r.arguments = engine_arguments(volume);
  r.arguments.insert(r.arguments.end(), {"--watch", "--ready-fd", std::to_string(pipe_fd)});
  r.errors = error_file(volume).string();
  r.ready = write_end.get();
  r.session = true;
  auto pid = spawn(r);
  if (!pid.ok()) return as_failure(pid.err());
  write_end.reset();
  auto report = read_report(read_end.get(), start_patience);
  if (report.rfind("READY\n", 0) == 0) return std::nullopt;
  if (report.rfind("EXIT ", 0) == 0) {
    launch_failure out;
    auto line_end = std::min(report.find('\n'), report.size());
    std::from_chars(report.data() + 5, report.data() + line_end, out.exit);
    out.message = report.substr(std::min(line_end + 1, report.size()));
    return out;
  }
  if (interrupted()) return launch_failure{exit_interrupted, "interrupted while the engine was starting; it goes on: 'qs status', 'qs stop'"};
  return launch_failure{exit_again, fmt::format("the engine did not get ready in {} s; 'qs logs' shows what it does", start_patience.count())};
}

engaged engage_running(const chosen_volume& volume) {
  engaged out;
  auto runs = engine_runs(volume);
  if (!runs) {
    out.failure = {exit_again, fmt::format("no engine runs for '{}'; 'qs start' starts one", volume.name)};
    return out;
  }
  auto client = control_client::open(volume.state_directory, volume.name, 15s);
  if (client.ok())
    out.client.emplace(std::move(*client));
  else
    out.failure = as_failure(client.err());
  return out;
}

engaged engage(const chosen_volume& volume, terminal& t) {
  engaged out;
  if (!engine_runs(volume)) {
    t.progress("starting the engine");
    auto failed = launch_engine(volume);
    t.progress("");
    // Somebody else may have been faster: then theirs is as good.
    if (failed && !(failed->exit == exit_again && engine_runs(volume))) {
      out.failure = *failed;
      return out;
    }
    out.started = !failed;
  }
  auto found = engage_running(volume);
  found.started = out.started;
  return found;
}

status stop_engine(const chosen_volume& volume, std::chrono::milliseconds patience, terminal& t) {
  if (!engine_runs(volume)) return {};
  auto pid = state::lock_holder(volume.state_directory).value_or(0);
  auto client = control_client::open(volume.state_directory, volume.name, 5s);
  if (client.ok()) {
    auto asked = client->post("/v1/stop", "{}", 30s);
    if (!asked.ok() && asked.err().code == errc::timed_out) return std::move(asked).err();
  } else if (client.err().code == errc::version_mismatch && pid > 0) {
    // Another version's engine understands SIGTERM all the same; the lock says that it is this process.
    ::kill(pid, SIGTERM);
  } else {
    return std::move(client).err();
  }
  auto until = steady::now() + patience;
  while (engine_runs(volume)) {
    if (steady::now() > until)
      return error{errc::timed_out, fmt::format("the engine (process {}) is still stopping: it waits until what was written is safe; 'qs status' shows how far", pid)};
    t.progress("stopping: sealing, syncing, unmounting");
    if (interruptible_pause(50)) return error{errc::cancelled, "interrupted; the engine goes on stopping"};
  }
  t.progress("");
  return {};
}

// -- the watcher -----------------------------------------------------------------------------------------------------

namespace {

volatile std::sig_atomic_t engine_pid = 0;
volatile std::sig_atomic_t asked_to_stop = 0;

void forward(int) {
  asked_to_stop = 1;
  if (engine_pid > 0) ::kill(engine_pid, SIGTERM);
}

/// What the watcher does with how an engine ended after it had been ready once, or before.
bool worth_another(int status, bool was_ready) {
  if (asked_to_stop != 0) return false;
  if (WIFSIGNALED(status)) return was_ready;
  auto code = WEXITSTATUS(status);
  // Stopped, refused, and somebody else's lock are answers; anything else is worth another try once it has run.
  return was_ready && code != exit_done && code != exit_refused && code != exit_again && code != exit_usage;
}

struct one_run {
  int status = 0;
  bool ready = false;
  std::string report;
};

result<one_run> run_engine(const chosen_volume& volume) {
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) return errno_error("make a pipe", errno);
  unique_fd read_end{ends[0]};
  unique_fd write_end{ends[1]};
  spawn_request r;
  r.arguments = engine_arguments(volume);
  r.arguments.insert(r.arguments.end(), {"--ready-fd", std::to_string(pipe_fd)});
  r.errors = error_file(volume).string();
  r.ready = write_end.get();
  QS_TRY_ASSIGN(auto pid, spawn(r));
  write_end.reset();
  engine_pid = pid;
  if (asked_to_stop != 0) ::kill(pid, SIGTERM);
  one_run out;
  out.report = read_report(read_end.get(), start_patience);
  out.ready = out.report.rfind("READY\n", 0) == 0;
  return out;
}

int wait_for_engine() {
  int status = 0;
  while (::waitpid(engine_pid, &status, 0) < 0 && errno == EINTR) {}
  engine_pid = 0;
  return status;
}

void keep_errors_small(const chosen_volume& volume) {
  struct ::stat info {};
  auto path = error_file(volume);
  if (::stat(path.c_str(), &info) == 0 && info.st_size > (1 << 20))
    unique_fd emptied{::open(path.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC)};
}

} // namespace

int watch_engine(const chosen_volume& volume, const run_options& o) {
  struct sigaction action {};
  action.sa_handler = forward;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGINT, &action, nullptr);
  std::signal(SIGHUP, SIG_IGN);
  if (::chdir("/") != 0) return exit_failed;
  auto backoff = std::chrono::milliseconds{first_backoff};
  auto waiting = o.ready_fd; // whoever started us; only the first start is theirs
  if (waiting >= 0) ::fcntl(waiting, F_SETFD, FD_CLOEXEC);
  auto ever_ready = false;
  for (;;) {
    keep_errors_small(volume);
    auto begun = steady::now();
    auto run = run_engine(volume);
    if (!run.ok()) {
      report_failure(waiting, exit_of(run.err().code), describe(run.err()));
      return exit_failed;
    }
    if (run->ready && waiting >= 0) report_ready(std::exchange(waiting, -1));
    ever_ready = ever_ready || run->ready;
    auto status = wait_for_engine();
    if (waiting >= 0 && run->report.rfind("EXIT ", 0) == 0) {
      write_text(waiting, run->report);
      ::close(std::exchange(waiting, -1));
    }
    if (!worth_another(status, ever_ready)) {
      report_failure(waiting, exit_failed, fmt::format("the engine ended with {} before it was ready; 'qs logs' and {} may say why", how_it_ended(status),
                                                       error_file(volume).string()));
      return WIFEXITED(status) ? WEXITSTATUS(status) : exit_failed;
    }
    if (steady::now() - begun > healthy_after) backoff = first_backoff;
    log_line(volume, fmt::format("the engine ended with {}; starting it again in {} ms", how_it_ended(status), backoff.count()));
    ::poll(nullptr, 0, static_cast<int>(backoff.count()));
    if (asked_to_stop != 0) return exit_done;
    backoff = std::min(backoff * 2, std::chrono::milliseconds{last_backoff});
  }
}

} // namespace qs::cli
