// The lock of a state directory: flock on <state>/lock, held by the engine for its life. Freed by
// the kernel when the process ends, so nothing is ever broken by hand. The pid in the file is for
// messages only, never for decisions.
#pragma once

#include <filesystem>
#include <optional>

#include <sys/types.h>

#include "base/posix.hpp"

namespace qs::state {

class state_lock {
public:
  /// Makes the directory (0700) and the file (0600) if need be. busy, naming the holder's pid, when
  /// somebody has it.
  static result<state_lock> take(const std::filesystem::path& state_directory);
  /// The watcher's, on <state>/watcher.lock: it says that somebody starts the engine again when it dies.
  static result<state_lock> take_watch(const std::filesystem::path& state_directory);

private:
  explicit state_lock(unique_fd fd) : fd_{std::move(fd)} {}
  unique_fd fd_;
};

/// Does somebody hold it now? Writes nothing and takes nothing for longer than the call. The pid is
/// what the file says, 0 if it says nothing. Nothing when nobody holds it or there is no such file.
std::optional<pid_t> lock_holder(const std::filesystem::path& state_directory);
/// The same of the watcher's.
std::optional<pid_t> watch_holder(const std::filesystem::path& state_directory);

} // namespace qs::state
