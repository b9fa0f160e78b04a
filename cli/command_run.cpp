// qs run: the engine in this process. Signals are taken by one thread in sigwait, so that a stop is an ordinary call.
#include <csignal>
#include <cstdlib>
#include <thread>

#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <fmt/format.h>

#include "actors/engine.hpp"
#include "base/log.hpp"
#include "cli/commands.hpp"
#include "cli/engine_launch.hpp"
#include "cli/engine_process.hpp"
#include "cli/engine_options.hpp"
#include "cli/exit_codes.hpp"
#include "cli/follow_file.hpp"
#include "cli/watcher.hpp"
#include "fuse/mount.hpp"

namespace qs::cli {
namespace {

/// sd_notify(3) by hand: one datagram to $NOTIFY_SOCKET. Nothing happens without it.
void tell_systemd(std::string_view state) {
  const auto* path = std::getenv("NOTIFY_SOCKET");
  if (path == nullptr || (*path != '/' && *path != '@')) return;
  ::sockaddr_un address{};
  address.sun_family = AF_UNIX;
  auto length = std::string_view{path}.size();
  if (length >= sizeof address.sun_path) return;
  std::memcpy(address.sun_path, path, length);
  if (*path == '@') address.sun_path[0] = '\0';
  unique_fd fd{::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  if (!fd.valid()) return;
  auto size = static_cast<socklen_t>(offsetof(::sockaddr_un, sun_path) + length);
  (void)::sendto(fd.get(), state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<const ::sockaddr*>(&address), size);
}

sigset_t stop_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (auto s : {SIGTERM, SIGINT, SIGHUP, SIGUSR1}) ::sigaddset(&set, s);
  return set;
}

/// Owns the thread in sigwait; SIGUSR1 is its own way out.
class signal_thread {
public:
  explicit signal_thread(actors::engine& target) : thread_{[&target] {
    auto set = stop_signals();
    for (;;) {
      int seen = 0;
      if (::sigwait(&set, &seen) != 0 || seen == SIGUSR1) return;
      if (seen == SIGHUP) continue;
      log::info("engine", "signal {}: stopping in order", seen);
      tell_systemd("STOPPING=1");
      target.request_stop();
    }
  }} {}
  signal_thread(const signal_thread&) = delete;
  signal_thread& operator=(const signal_thread&) = delete;
  ~signal_thread() {
    ::pthread_kill(thread_.native_handle(), SIGUSR1);
    thread_.join();
  }

private:
  std::thread thread_;
};

log::level level_of(const std::string& name) {
  if (name == "debug") return log::level::debug;
  if (name == "warning") return log::level::warning;
  if (name == "error") return log::level::error;
  return log::level::info;
}

struct starter {
  const run_options& o;
  terminal& t;
  leash* watched = nullptr;
  int fail(int exit, const std::string& message) const {
    if (watched != nullptr) watched->ended(exit); // whoever watches by now: this is an answer
    if (o.ready_fd >= 0) log::error("engine", "{}", message);
    log::flush();
    report_failure(o.ready_fd, exit, message);
    return t.fail(exit, message);
  }
  int fail(const error& e) const { return fail(exit_of(e.code), describe(e)); }
};

} // namespace

int command_run(const run_options& o, terminal& t) {
  // Buffers of 64 KiB to some MiB come and go all the time: from the kernel each time they would cost a fault a page. Few arenas,
  // since each keeps its own.
  ::mallopt(M_MMAP_THRESHOLD, 8 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 64 << 20);
  ::mallopt(M_TOP_PAD, 1 << 20);
  ::mallopt(M_ARENA_MAX, 4);
  // Rows, log and caches are as secret as the words, wherever --state-dir says they are; libraries make files of their own.
  ::umask(077);
  if (o.ready_fd >= 0) ::fcntl(o.ready_fd, F_SETFD, FD_CLOEXEC);
  starter s{o, t};
  auto chosen = choose_volume(o.common, o.follow ? need::file : need::name);
  if (!chosen.ok()) return s.fail(chosen.err());
  if (o.watch) return watch_engine(*chosen, o);
  // Before any thread exists, so that all inherit it; whoever is started by the engine gets a clean mask from grid/.
  auto set = stop_signals();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  if (o.ready_fd >= 0 && ::chdir("/") != 0) return s.fail(exit_failed, "chdir / failed");
  log::options l;
  l.least = level_of(o.log_level);
  l.json = o.log_json;
  l.file = o.log_file;
  if (!l.file.empty())
    if (auto made = make_directories(l.file.parent_path(), 0700); !made.ok()) return s.fail(made.err());
  log::configure(l);
  leash watched{o.leash_fd, *chosen};
  s.watched = &watched;
  auto options = engine_options_for(*chosen);
  if (!options.ok()) return s.fail(options.err());
  options->mount = std::make_shared<fuse::mount>();
  options->progress = [fd = o.ready_fd](std::string_view step) { report_step(fd, step); };
  auto engine = actors::start_engine(*options);
  if (!engine.ok()) return s.fail(engine.err());
  log::info("engine", "version {} serves '{}' from {}, process {}", QS_VERSION, chosen->name, chosen->state_directory.string(), ::getpid());
  auto code = 0;
  {
    signal_thread signals{**engine};
    std::optional<file_follower> follower;
    if (o.follow) follower.emplace(o.common);
    report_ready(o.ready_fd);
    tell_systemd("READY=1");
    code = (*engine)->wait();
  }
  engine->reset();
  watched.ended(code);
  log::flush();
  return code;
}

} // namespace qs::cli
