#include "cli/watcher.hpp"

#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <mutex>
#include <optional>
#include <thread>

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/log.hpp"
#include "base/posix.hpp"
#include "cli/engine_process.hpp"
#include "cli/exit_codes.hpp"
#include "state/lock.hpp"

namespace qs::cli {
namespace {

using namespace std::chrono_literals;
using steady = std::chrono::steady_clock;

constexpr auto first_backoff = 250ms;
constexpr auto last_backoff = 30'000ms;
constexpr auto healthy_after = 60s;
constexpr auto said_end = "END ";

volatile std::sig_atomic_t engine_handle = -1; ///< pidfd of the engine, for the signal handler
volatile std::sig_atomic_t asked_to_stop = 0;

void signal_engine() {
  if (engine_handle >= 0) ::syscall(SYS_pidfd_send_signal, engine_handle, SIGTERM, nullptr, 0);
}

void forward(int) {
  asked_to_stop = 1;
  signal_engine();
}

struct two_ends {
  unique_fd ours;
  unique_fd theirs;
};

result<two_ends> make_leash() {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return errno_error("make a socket pair", errno);
  return two_ends{unique_fd{ends[0]}, unique_fd{ends[1]}};
}

unique_fd handle_of(pid_t pid) { return unique_fd{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))}; }

/// An engine that is watched, and how it ended.
struct watched {
  pid_t pid = 0;
  bool child = false; ///< started by this watcher; else taken over
  bool ready = false; ///< it served, once
  unique_fd handle;
  unique_fd line;      ///< the leash
  start_report report; ///< of the start
};

struct ending {
  bool again = false; ///< worth another start
  int exit = exit_failed;
  std::string how;
};

/// By another engine than the one that has just ended.
bool held(const chosen_volume& volume) { return state::lock_holder(volume.state_directory).has_value(); }

ending judge(const chosen_volume& volume, int status, bool was_ready) {
  ending out;
  if (WIFSIGNALED(status)) {
    out.again = was_ready;
    out.how = fmt::format("signal {}", WTERMSIG(status));
  } else {
    auto code = WEXITSTATUS(status);
    out.again = worth_another_start(code, was_ready, code == exit_again && held(volume));
    out.exit = code;
    out.how = fmt::format("code {}", code);
  }
  if (asked_to_stop != 0) out.again = false;
  return out;
}

result<watched> start(const chosen_volume& volume, int waiting) {
  watched out;
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) return errno_error("make a pipe", errno);
  unique_fd read_end{ends[0]};
  unique_fd write_end{ends[1]};
  QS_TRY_ASSIGN(auto ends_of_leash, make_leash());
  spawn_request r;
  r.arguments = engine_arguments(volume);
  r.arguments.insert(r.arguments.end(), {"--ready-fd", std::to_string(ready_number), "--leash-fd", std::to_string(leash_number)});
  r.errors = error_file(volume).string();
  r.ready = write_end.get();
  r.leash = ends_of_leash.theirs.get();
  QS_TRY_ASSIGN(out.pid, spawn(r));
  out.child = true;
  out.line = std::move(ends_of_leash.ours);
  write_end.reset();
  out.handle = handle_of(out.pid);
  engine_handle = out.handle.get();
  if (asked_to_stop != 0) signal_engine();
  // However long it takes: what has not ended is at work, and only whoever asked for the start may lose patience.
  out.report = read_start(read_end.get(), 0ms, [&](const std::string& step) { report_step(waiting, step); });
  out.ready = out.report.what == start_report::kind::ready;
  return out;
}

/// An engine whose watcher is gone. Its pid is sure: it held its end of the leash after the handle was opened.
result<watched> take_over(const run_options& o) {
  watched out;
  out.pid = o.engine_pid;
  out.line = unique_fd{o.leash_fd};
  ::fcntl(o.leash_fd, F_SETFD, FD_CLOEXEC);
  out.handle = handle_of(out.pid);
  engine_handle = out.handle.get();
  out.ready = true;
  ::pollfd p{out.line.get(), POLLIN, 0};
  if (!out.handle.valid() || (::poll(&p, 1, 0) > 0 && (p.revents & POLLHUP) != 0)) engine_handle = -1;
  if (asked_to_stop != 0) signal_engine();
  return out;
}

/// What the engine said over the leash until it let go of it.
std::string last_words(int line) {
  std::string out;
  char buffer[64];
  for (;;) {
    auto n = ::read(line, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return out;
    if (out.size() < 256) out.append(buffer, static_cast<std::size_t>(n));
  }
}

ending wait_for(const chosen_volume& volume, const watched& engine) {
  if (engine.child) {
    int status = 0;
    while (::waitpid(engine.pid, &status, 0) < 0 && errno == EINTR) {}
    engine_handle = -1;
    return judge(volume, status, engine.ready);
  }
  auto words = last_words(engine.line.get());
  // Its lock is free when the process is gone, not when the leash is.
  ::pollfd gone{engine.handle.get(), POLLIN, 0};
  while (engine.handle.valid() && ::poll(&gone, 1, -1) < 0 && errno == EINTR) {}
  engine_handle = -1;
  if (words.rfind(said_end, 0) != 0) return {asked_to_stop == 0, exit_failed, "no word"};
  int code = 0;
  std::from_chars(words.data() + 4, words.data() + words.size(), code);
  auto again = asked_to_stop == 0 && code == exit_again && !held(volume); // it was still starting
  return {again, code, fmt::format("code {}", code)};
}

void keep_errors_small(const chosen_volume& volume) {
  struct ::stat info {};
  auto path = error_file(volume);
  if (::stat(path.c_str(), &info) == 0 && info.st_size > (1 << 20))
    unique_fd emptied{::open(path.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC)};
}

/// Until another start, or as soon as it is not wanted any more: also of a signal that comes just before the wait.
void pause_unless_stopped(std::chrono::milliseconds time) {
  sigset_t stops;
  sigset_t before;
  ::sigemptyset(&stops);
  ::sigaddset(&stops, SIGTERM);
  ::sigaddset(&stops, SIGINT);
  ::sigprocmask(SIG_BLOCK, &stops, &before);
  if (asked_to_stop == 0) {
    timespec left{time.count() / 1000, (time.count() % 1000) * 1'000'000};
    ::ppoll(nullptr, 0, &left, &before);
  }
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
}

void take_signals() {
  struct sigaction action {};
  action.sa_handler = forward;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGINT, &action, nullptr);
  std::signal(SIGHUP, SIG_IGN);
}

} // namespace

bool worth_another_start(int code, bool was_ready, bool lock_is_held) noexcept {
  if (!was_ready) return false; // whoever asked for this start gets the answer
  if (code == exit_again) return !lock_is_held;
  return code != exit_done && code != exit_refused && code != exit_usage;
}

int watch_engine(const chosen_volume& volume, const run_options& o) {
  take_signals();
  if (::chdir("/") != 0) return exit_failed;
  auto backoff = std::chrono::milliseconds{first_backoff};
  auto waiting = o.ready_fd; // whoever started us; only the first start is theirs
  if (waiting >= 0) ::fcntl(waiting, F_SETFD, FD_CLOEXEC);
  auto ever_ready = o.leash_fd >= 0;
  auto adopt = o.leash_fd >= 0;
  std::optional<state::state_lock> known; // by which `qs stop` finds this process while no engine runs
  // The watcher before may still be on its way out; of two that start at once one has it, and the other's engine gives way.
  auto be_known = [&] {
    if (known) return;
    if (auto mine = state::state_lock::take_watch(volume.state_directory)) known.emplace(std::move(*mine));
  };
  for (;;) {
    keep_errors_small(volume);
    be_known();
    auto begun = steady::now();
    auto engine = std::exchange(adopt, false) ? take_over(o) : start(volume, waiting);
    if (!engine.ok()) {
      report_failure(waiting, exit_of(engine.err().code), describe(engine.err()));
      return exit_failed;
    }
    if (engine->ready && waiting >= 0) report_ready(std::exchange(waiting, -1));
    ever_ready = ever_ready || engine->ready;
    engine->ready = ever_ready;
    auto end = wait_for(volume, *engine);
    if (engine->report.what == start_report::kind::failed)
      report_failure(std::exchange(waiting, -1), engine->report.exit, engine->report.message);
    if (!end.again) {
      report_failure(waiting, exit_failed, fmt::format("the engine ended with {} before it was ready; 'qs logs' and {} may say why", end.how,
                                                       error_file(volume).string()));
      return end.exit;
    }
    if (steady::now() - begun > healthy_after) backoff = first_backoff;
    log_line(volume, fmt::format("the engine ended with {}; starting it again in {} ms", end.how, backoff.count()));
    be_known(); // from here on no engine says that somebody is there
    pause_unless_stopped(backoff);
    if (asked_to_stop != 0) return exit_done;
    backoff = std::min(backoff * 2, std::chrono::milliseconds{last_backoff});
  }
}

// -- the engine's end ------------------------------------------------------------------------------------------------

struct leash::impl {
  impl(int fd, const chosen_volume& v) : volume{v}, line{fd} {}

  void run() {
    for (;;) {
      ::pollfd p[2] = {{line.get(), POLLIN, 0}, {wake.get(), POLLIN, 0}};
      if (::poll(p, 2, -1) < 0) continue;
      if (p[1].revents != 0) return;
      char ignored[64];
      if (p[0].revents == 0 || ::read(line.get(), ignored, sizeof ignored) > 0) continue;
      log::warning("engine", "its watcher is gone; starting another");
      if (watcher > 0) (void)::waitpid(watcher, nullptr, 0);
      watcher = 0;
      if (!start_watcher()) return;
    }
  }

  /// Until there is one again; false when the engine ends meanwhile.
  bool start_watcher() {
    if (steady::now() - started > healthy_after) backoff = first_backoff;
    for (;;) {
      ::pollfd p{wake.get(), POLLIN, 0};
      if (::poll(&p, 1, static_cast<int>(backoff.count())) > 0) return false;
      backoff = std::min(backoff * 2, std::chrono::milliseconds{last_backoff});
      auto made = one_more();
      if (made.ok()) return true;
      log::warning("engine", "no watcher: {}", describe(made.err()));
    }
  }

  status one_more() {
    QS_TRY_ASSIGN(auto ends, make_leash());
    spawn_request r;
    r.arguments = engine_arguments(volume);
    r.arguments.insert(r.arguments.end(), {"--watch", "--leash-fd", std::to_string(leash_number), "--engine-pid", std::to_string(::getpid())});
    r.errors = error_file(volume).string();
    r.leash = ends.theirs.get();
    r.session = true;
    QS_TRY_ASSIGN(watcher, spawn(r));
    started = steady::now();
    std::lock_guard lock{mutex};
    line = std::move(ends.ours);
    return {};
  }

  chosen_volume volume;
  std::mutex mutex; ///< guards who holds `line`: replaced by the thread, written to by ended()
  unique_fd line;
  unique_fd wake{::eventfd(0, EFD_CLOEXEC)};
  pid_t watcher = 0; ///< the one that was started here, a child
  steady::time_point started = steady::now();
  std::chrono::milliseconds backoff = first_backoff;
  std::thread thread;
};

leash::leash(int fd, const chosen_volume& volume) {
  if (fd < 0) return;
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  impl_ = std::make_unique<impl>(fd, volume);
  impl_->thread = std::thread{[i = impl_.get()] { i->run(); }};
}

void leash::ended(int code) {
  if (!impl_) return;
  std::lock_guard lock{impl_->mutex};
  (void)write_all(impl_->line.get(), as_bytes(fmt::format("{}{}\n", said_end, code)));
}

leash::~leash() {
  if (!impl_) return;
  std::uint64_t one = 1;
  (void)!::write(impl_->wake.get(), &one, sizeof one);
  impl_->thread.join();
}

} // namespace qs::cli
