#include "cli/engine_launch.hpp"

#include <cerrno>
#include <csignal>
#include <cstdlib>

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/units.hpp"
#include "cli/engine_process.hpp"
#include "cli/exit_codes.hpp"
#include "cli/follow.hpp"
#include "state/lock.hpp"

namespace qs::cli {
namespace {

using namespace std::chrono_literals;
using steady = std::chrono::steady_clock;

/// For one step of a start: a large state on a slow disk takes its time. Nothing is ended when it is over.
constexpr auto start_patience = 10min;

/// What a detached program finds must not depend on the directory it was started from.
void make_environment_absolute(const surroundings& around) {
  auto set = [](const char* name, const std::filesystem::path& value) {
    if (std::getenv(name) != nullptr && !value.empty()) ::setenv(name, value.c_str(), 1);
  };
  set("QS_PHRASE_FILE", around.phrase_file);
  set("QS_GRID_DIR", around.grid_dir);
}

launch_failure as_failure(const error& e) { return {exit_of(e.code), describe(e)}; }

} // namespace

bool engine_runs(const chosen_volume& volume) { return state::lock_holder(volume.state_directory).has_value(); }

std::optional<launch_failure> launch_engine(const chosen_volume& volume, terminal& t) {
  if (auto made = make_directories(volume.state_directory, 0700); !made.ok()) return as_failure(made.err());
  make_environment_absolute(volume.around);
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) return as_failure(errno_error("make a pipe", errno));
  unique_fd read_end{ends[0]};
  unique_fd write_end{ends[1]};
  spawn_request r;
  r.arguments = engine_arguments(volume);
  r.arguments.insert(r.arguments.end(), {"--watch", "--ready-fd", std::to_string(ready_number)});
  r.errors = error_file(volume).string();
  r.ready = write_end.get();
  r.session = true;
  auto pid = spawn(r);
  if (!pid.ok()) return as_failure(pid.err());
  write_end.reset();
  auto report = read_start(read_end.get(), start_patience, [&](const std::string& step) { t.progress("starting the engine: " + step); });
  using kind = start_report::kind;
  switch (report.what) {
  case kind::ready: return std::nullopt;
  case kind::failed: return launch_failure{report.exit, report.message};
  case kind::interrupted:
    return launch_failure{exit_interrupted, "interrupted while the engine was starting; it goes on: 'qs status', 'qs stop'"};
  case kind::closed:
    return launch_failure{exit_again, fmt::format("the engine's watcher ended before the engine was ready; 'qs logs' and {} may say why",
                                                  error_file(volume).string())};
  case kind::silent: break;
  }
  return launch_failure{exit_again, fmt::format("the engine is still starting ({}) and has told nothing for {}; it goes on: 'qs logs' shows what it does",
                                                report.step.empty() ? "its first step" : report.step, format_duration(start_patience))};
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
    auto failed = launch_engine(volume, t);
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

bool watcher_runs(const chosen_volume& volume) { return state::watch_holder(volume.state_directory).has_value(); }

namespace {

/// SIGTERM to this holder of the watcher's lock. The pid in the file is surely its own: it held the lock when its handle was there.
void end_watcher(const chosen_volume& volume, pid_t pid) {
  if (pid <= 0) return;
  unique_fd handle{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))};
  if (!handle.valid() || state::watch_holder(volume.state_directory).value_or(0) != pid) return;
  ::syscall(SYS_pidfd_send_signal, handle.get(), SIGTERM, nullptr, 0);
}

/// Asks the engine that runs now, if one does.
status ask_engine_to_stop(const chosen_volume& volume) {
  auto pid = state::lock_holder(volume.state_directory).value_or(0);
  auto client = control_client::open(volume.state_directory, volume.name, 5s);
  if (client.ok()) {
    auto asked = client->post("/v1/stop", "{}", 30s);
    if (!asked.ok() && asked.err().code == errc::timed_out) return std::move(asked).err();
    return {};
  }
  if (!engine_runs(volume)) return {};
  if (client.err().code != errc::version_mismatch || pid <= 0) return std::move(client).err();
  // Another version's engine understands SIGTERM all the same; the lock says that it is this process.
  ::kill(pid, SIGTERM);
  return {};
}

} // namespace

status stop_engine(const chosen_volume& volume, std::chrono::milliseconds patience, terminal& t) {
  auto pid = state::lock_holder(volume.state_directory);
  if (pid) QS_TRY(ask_engine_to_stop(volume));
  auto until = steady::now() + patience;
  auto watcher = state::watch_holder(volume.state_directory); // this one: somebody else's new start is not ours to end
  for (;;) {
    auto engine = engine_runs(volume);
    if (engine) watcher = state::watch_holder(volume.state_directory);
    // An engine that dies instead of stopping would be started again: its watcher is not wanted any more either. One that stops in
    // order takes its watcher along, and to that one the signal says nothing new.
    if (!engine && (!watcher || state::watch_holder(volume.state_directory) != watcher)) break;
    if (!engine) end_watcher(volume, *watcher);
    if (steady::now() > until)
      return error{errc::timed_out, fmt::format("the engine (process {}) is still stopping: it waits until what was written is safe; 'qs status' shows how far",
                                                pid.value_or(0))};
    t.progress("stopping: sealing, syncing, unmounting");
    if (interruptible_pause(50)) return error{errc::cancelled, "interrupted; the engine goes on stopping"};
  }
  t.progress("");
  return {};
}

} // namespace qs::cli
