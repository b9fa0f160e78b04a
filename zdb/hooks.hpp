// The program given with --hook: run with the name of an event, this server's id and the event's
// arguments, as 0-db does. Never with a secret: it gets a few variables of the environment, no open
// files, no passwords. A bounded number at once, the others wait in line, and what does not fit
// there is dropped and said. Asio's I/O thread only; no signal handler, children are known by
// pidfd.
#pragma once

#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include "base/clock.hpp"
#include "base/result.hpp"

namespace qs::zdb {

/// One event, as HOOKS shows it.
struct hook_run {
  std::string type;
  std::vector<std::string> arguments;
  pid_t pid = 0;             ///< 0: waits in line
  std::int64_t created = 0;  ///< unix seconds
  std::int64_t finished = 0; ///< 0: not yet
  int status = 0;            ///< exit code; 128 + signal; -1: could not be run
};

class hook_runner {
public:
  static constexpr std::size_t running_max = 8;
  static constexpr std::size_t waiting_max = 256;
  static constexpr std::size_t remembered_max = 256;
  /// A hook that still runs after this long is killed.
  static constexpr std::chrono::seconds longest_run{600};
  /// Finished ones are shown for this long.
  static constexpr std::int64_t remembered_seconds = 300;

  /// Not enabled with an empty program. `id`: "tcp://address:port" or "unix://path".
  hook_runner(boost::asio::io_context& io, std::string program, const qs::clock& time);
  ~hook_runner();
  hook_runner(const hook_runner&) = delete;
  hook_runner& operator=(const hook_runner&) = delete;

  void set_id(std::string id) { id_ = std::move(id); }
  [[nodiscard]] bool enabled() const noexcept { return !program_.empty(); }
  void run(std::string type, std::vector<std::string> arguments,
           std::function<void(int status)> done = {});
  /// Waits for its end, at most `deadline`. Only at start and stop: it blocks the thread.
  result<int> run_and_wait(std::string type, std::vector<std::string> arguments,
                           std::chrono::milliseconds deadline);
  /// Those that run, wait, or ended not long ago; oldest first.
  [[nodiscard]] std::vector<hook_run> list();
  /// No more are started; those that run are left alone.
  void stop();
  [[nodiscard]] std::uint64_t dropped() const noexcept { return dropped_; }
  [[nodiscard]] std::uint64_t failed() const noexcept { return failed_; }
  /// What execve gets: program, type, id, arguments.
  [[nodiscard]] std::vector<std::string> command_line(const hook_run& what) const;
  /// PATH, HOME, LANG, LC_ALL, TZ, USER and LOGNAME, where set.
  static std::vector<std::string> environment();

private:
  struct entry;
  void start_next();
  void start(const std::shared_ptr<entry>& e);
  void end(entry& e, int status);
  void forget_old();
  [[nodiscard]] std::int64_t now() const;

  boost::asio::io_context& io_;
  std::string program_;
  std::string id_;
  const qs::clock& time_;
  std::list<std::shared_ptr<entry>> entries_;
  std::size_t running_ = 0;
  std::size_t waiting_ = 0;
  std::uint64_t dropped_ = 0;
  std::uint64_t failed_ = 0;
  bool stopped_ = false;
};

/// The hook for "crash": from then on SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGABRT start it before
/// the process ends as it would. Once per process, before threads.
void install_crash_hook(const std::vector<std::string>& command_line);

} // namespace qs::zdb
