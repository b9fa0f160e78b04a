// Starting an engine in the background and finding one that runs: the program spawns itself in a session of its own as a
// small watcher (watcher.hpp), and a pipe brings READY or what is wrong. Not the engine itself (engine_host). Main thread.
#pragma once

#include <chrono>
#include <optional>

#include "cli/control_client.hpp"
#include "cli/options.hpp"
#include "cli/terminal.hpp"
#include "cli/volume_choice.hpp"

namespace qs::cli {

/// Somebody holds the lock of the volume's state.
bool engine_runs(const chosen_volume& volume);

/// Starts watcher and engine and waits until it serves. The error carries the engine's own words; `exit` its exit code.
struct launch_failure {
  int exit = 1;
  std::string message;
};
std::optional<launch_failure> launch_engine(const chosen_volume& volume, terminal& t);

/// A client of the engine that runs, or of one started now.
struct engaged {
  std::optional<control_client> client;
  bool started = false; ///< by this call
  launch_failure failure; ///< when there is no client
};
engaged engage(const chosen_volume& volume, terminal& t);
/// A client of the engine that runs; without one the failure says how to start it.
engaged engage_running(const chosen_volume& volume);

/// Somebody is there who starts the engine again when it dies, or is just waiting to do so.
bool watcher_runs(const chosen_volume& volume);

/// Asks the engine to stop and waits until its lock is free; so for the watcher of one that has died and is about to be started
/// again. Errors: timed_out.
status stop_engine(const chosen_volume& volume, std::chrono::milliseconds patience, terminal& t);

} // namespace qs::cli
