// The watcher starts the engine and starts it again when it dies; the engine in turn starts a new watcher when its own is gone,
// so that killing any one of the two changes nothing. Between them is a socket pair, the leash: its end tells each of the other's
// death, and END tells the watcher that an engine ended because it was to. Not the start as seen by a command (engine_launch).
#pragma once

#include <memory>

#include "cli/options.hpp"
#include "cli/volume_choice.hpp"

namespace qs::cli {

/// The watcher's main function (qs run --watch): returns its exit code. With a leash it takes over an engine that runs.
int watch_engine(const chosen_volume& volume, const run_options& o);

/// Of an engine that ended with this exit code. Stopped, refused, and another engine's lock are answers; that somebody was busy or did
/// not answer while it started (a grid's lock, a slow disk) is over some time.
bool worth_another_start(int code, bool was_ready, bool lock_is_held) noexcept;

/// The engine's end of the leash: a thread of its own, from when signals are blocked until the engine has ended.
class leash {
public:
  /// Nothing for fd < 0: an engine in the foreground has no watcher.
  leash(int fd, const chosen_volume& volume);
  leash(const leash&) = delete;
  leash& operator=(const leash&) = delete;
  ~leash();
  /// The engine ends in order: the watcher need not start another.
  void ended(int code);

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

} // namespace qs::cli
