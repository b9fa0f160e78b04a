// This program started again as another process: as the watcher, or as the engine it watches. What both ends of a start say to
// each other over the readiness pipe stands here. Not who starts what and when (engine_launch, watcher).
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "base/result.hpp"
#include "cli/volume_choice.hpp"

namespace qs::cli {

/// Descriptors of a process started by spawn().
inline constexpr int ready_number = 3; ///< readiness pipe: STEP lines, then READY, or EXIT with the code and what is wrong
inline constexpr int leash_number = 4; ///< one end of the socket pair between watcher and engine

struct spawn_request {
  std::vector<std::string> arguments;
  std::string errors; ///< stderr and stdout go there
  int ready = -1;     ///< becomes ready_number
  int leash = -1;     ///< becomes leash_number
  bool session = false;
};
/// posix_spawn of this program: no code of ours runs between fork and exec, so threads and locks do not matter.
result<pid_t> spawn(const spawn_request& r);

/// `qs run` for this volume, logging to its state directory.
std::vector<std::string> engine_arguments(const chosen_volume& volume);
/// What an engine or watcher says before its log is open, or when it dies.
std::filesystem::path error_file(const chosen_volume& volume);
/// One line of the watcher in the program's log.
void log_line(const chosen_volume& volume, std::string_view text);

/// Writes to the readiness pipe of whoever waits for this start; nothing when fd < 0. The last two close it.
void report_step(int fd, std::string_view what);
void report_ready(int fd);
void report_failure(int fd, int exit, std::string_view message);

/// What came over a readiness pipe.
struct start_report {
  enum class kind : unsigned char { ready, failed, closed, silent, interrupted };
  kind what = kind::closed;
  int exit = 1;        ///< failed
  std::string message; ///< failed
  std::string step;    ///< what it was at last
};
/// Reads until READY, EXIT or the other end closes; each step it tells of starts `patience` anew (zero: without end).
start_report read_start(int fd, std::chrono::milliseconds patience, const std::function<void(const std::string&)>& step);

} // namespace qs::cli
