#include "zdb/hooks.hpp"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <memory>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <fmt/format.h>

#include "base/log.hpp"
#include "base/posix.hpp"

namespace qs::zdb {

namespace {

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  out.reserve(texts.size() + 1);
  for (auto& t : texts) out.push_back(t.data());
  out.push_back(nullptr);
  return out;
}

/// Its own session, no signals blocked or ignored, stdin and stdout nowhere, stderr ours.
result<pid_t> spawn(std::vector<std::string> command_line) {
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
  posix_spawnattr_t how;
  ::posix_spawnattr_init(&how);
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  ::posix_spawnattr_setsigmask(&how, &none);
  ::posix_spawnattr_setsigdefault(&how, &all);
  ::posix_spawnattr_setflags(&how,
                             POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
  auto environment = hook_runner::environment();
  auto arguments = pointers(command_line);
  auto variables = pointers(environment);
  pid_t pid = 0;
  auto rc = ::posix_spawn(&pid, command_line.front().c_str(), &files, &how, arguments.data(),
                          variables.data());
  ::posix_spawnattr_destroy(&how);
  ::posix_spawn_file_actions_destroy(&files);
  if (rc != 0) return errno_error(fmt::format("run {}", command_line.front()), rc);
  return pid;
}

unique_fd open_pidfd(pid_t pid) {
  return unique_fd{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0U))};
}

/// The exit code of a child that has ended.
int reap(pid_t pid) {
  int state = 0;
  while (::waitpid(pid, &state, 0) < 0)
    if (errno != EINTR) return -1;
  return WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
}

} // namespace

struct hook_runner::entry {
  hook_run run;
  std::function<void(int)> done;
  std::unique_ptr<boost::asio::posix::stream_descriptor> process;
  std::unique_ptr<boost::asio::steady_timer> deadline;
};

hook_runner::hook_runner(boost::asio::io_context& io, std::string program, const qs::clock& time)
    : io_{io}, program_{std::move(program)}, time_{time} {}

hook_runner::~hook_runner() = default;

std::int64_t hook_runner::now() const {
  return std::chrono::duration_cast<std::chrono::seconds>(time_.wall().time_since_epoch()).count();
}

std::vector<std::string> hook_runner::environment() {
  std::vector<std::string> out;
  for (auto* name : {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME"})
    if (auto* value = std::getenv(name); value != nullptr)
      out.push_back(fmt::format("{}={}", name, value));
  return out;
}

std::vector<std::string> hook_runner::command_line(const hook_run& what) const {
  std::vector<std::string> out{program_, what.type, id_};
  out.insert(out.end(), what.arguments.begin(), what.arguments.end());
  return out;
}

void hook_runner::run(std::string type, std::vector<std::string> arguments,
                      std::function<void(int)> done) {
  if (!enabled() || stopped_) return;
  // A namespace's name may hold a zero byte; an argument cannot.
  for (auto& a : arguments)
    if (auto zero = a.find('\0'); zero != std::string::npos) a.resize(zero);
  if (waiting_ >= waiting_max) {
    ++dropped_;
    log::warning("zdb", "hook {}: {} wait already, dropped", type, waiting_);
    if (done) done(-1);
    return;
  }
  auto e = std::make_shared<entry>();
  e->run = {std::move(type), std::move(arguments), 0, now(), 0, 0};
  e->done = std::move(done);
  entries_.push_back(std::move(e));
  ++waiting_;
  start_next();
}

void hook_runner::start_next() {
  for (auto& e : entries_) {
    if (waiting_ == 0 || running_ >= running_max || stopped_) return;
    if (e->run.pid == 0 && e->run.finished == 0) start(e);
  }
}

void hook_runner::start(const std::shared_ptr<entry>& e) {
  --waiting_;
  ++running_;
  auto pid = spawn(command_line(e->run));
  if (!pid.ok()) {
    log::error("zdb", "hook {}: {}", e->run.type, describe(pid.err()));
    e->run.pid = -1;
    return boost::asio::post(io_, [this, e] { end(*e, -1); });
  }
  e->run.pid = *pid;
  auto fd = open_pidfd(*pid);
  if (!fd.valid()) {
    log::error("zdb", "hook {}: {}", e->run.type, describe(errno_error("pidfd_open", errno)));
    ::kill(*pid, SIGKILL);
    return boost::asio::post(io_, [this, e] { end(*e, reap(e->run.pid)); });
  }
  e->process = std::make_unique<boost::asio::posix::stream_descriptor>(io_, fd.release());
  e->process->async_wait(boost::asio::posix::stream_descriptor::wait_read,
                         [this, e](const boost::system::error_code& ec) {
                           if (!ec) end(*e, reap(e->run.pid));
                         });
  e->deadline = std::make_unique<boost::asio::steady_timer>(io_, longest_run);
  e->deadline->async_wait([weak = std::weak_ptr{e}](const boost::system::error_code& ec) {
    auto late = weak.lock();
    if (ec || !late || !late->process) return;
    log::warning("zdb", "hook {} still runs after {} s: killed", late->run.type,
                 longest_run.count());
    ::kill(late->run.pid, SIGKILL); // not reaped yet, so the number is still its own
  });
}

void hook_runner::end(entry& e, int status) {
  if (stopped_) return;
  --running_;
  e.run.finished = now();
  e.run.status = status;
  e.process.reset();
  e.deadline.reset();
  if (status != 0) {
    ++failed_;
    log::warning("zdb", "hook {} ended with {}", e.run.type, status);
  }
  if (auto done = std::exchange(e.done, {})) done(status);
  forget_old();
  start_next();
}

void hook_runner::forget_old() {
  auto oldest = now() - remembered_seconds;
  auto finished = entries_.size() - running_ - waiting_;
  for (auto it = entries_.begin(); it != entries_.end();) {
    auto& e = **it;
    auto old = e.run.finished != 0 && (e.run.finished < oldest || finished > remembered_max);
    if (old) --finished;
    it = old ? entries_.erase(it) : std::next(it);
  }
}

std::vector<hook_run> hook_runner::list() {
  forget_old();
  std::vector<hook_run> out;
  for (auto& e : entries_) out.push_back(e->run);
  return out;
}

void hook_runner::stop() {
  stopped_ = true;
  for (auto& e : entries_) {
    e->process.reset();
    e->deadline.reset();
  }
  entries_.clear();
  running_ = waiting_ = 0;
}

result<int> hook_runner::run_and_wait(std::string type, std::vector<std::string> arguments,
                                      std::chrono::milliseconds deadline) {
  QS_TRY_ASSIGN(auto pid, spawn(command_line({type, std::move(arguments), 0, 0, 0, 0})));
  auto fd = open_pidfd(pid);
  pollfd p{fd.get(), POLLIN, 0};
  auto until = time_.boot() + deadline;
  while (fd.valid()) {
    auto left = std::max<std::int64_t>(0, (until - time_.boot()).count());
    auto n = ::poll(&p, 1, static_cast<int>(left));
    if (n > 0) return reap(pid);
    if (n < 0 && errno == EINTR) continue;
    break;
  }
  ::kill(pid, SIGKILL);
  (void)reap(pid);
  return error{errc::timed_out,
               fmt::format("hook {} did not end within {} ms", type, deadline.count())};
}

// -- crash ----------------------------------------------------------------------------------------

namespace {
// Made before anything can crash: a signal handler may neither allocate nor lock.
std::vector<std::string>* crash_texts = nullptr;
std::vector<std::string>* crash_variables = nullptr;
char** crash_arguments = nullptr;
char** crash_environment = nullptr;

void on_crash(int signal) {
  if (::_Fork() == 0) {
    ::execve(crash_arguments[0], crash_arguments, crash_environment);
    ::_exit(127);
  }
  ::raise(signal); // SA_RESETHAND: the default action now
}
} // namespace

void install_crash_hook(const std::vector<std::string>& command_line) {
  crash_texts = new std::vector<std::string>{command_line}; // NOLINT: for the life of the process
  crash_variables = new std::vector<std::string>{hook_runner::environment()}; // NOLINT
  static auto arguments = pointers(*crash_texts);
  static auto variables = pointers(*crash_variables);
  crash_arguments = arguments.data();
  crash_environment = variables.data();
  struct sigaction how {};
  how.sa_handler = on_crash;
  how.sa_flags = static_cast<int>(SA_RESETHAND | SA_NODEFER);
  // Blocked, as the starter may have left them, a fault ends the process without a handler.
  sigset_t faults;
  sigemptyset(&faults);
  for (auto s : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) {
    ::sigaction(s, &how, nullptr);
    sigaddset(&faults, s);
  }
  ::pthread_sigmask(SIG_UNBLOCK, &faults, nullptr);
}

} // namespace qs::zdb
