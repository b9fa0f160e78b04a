// The process of a local node: whether it runs, starting it apart from this program, signalling
// exactly it. Whether a server runs is told by the lock it holds on its data, never by a pid; a pid
// is signalled only through a pidfd, after its start time and this boot, or its data directory,
// matched. Knows nothing of reservations. Any thread.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/posix.hpp"
#include "base/result.hpp"
#include "grid/node_directory.hpp"
#include "model/node.hpp"

namespace qs::grid {

/// Somebody holds the data's lock. False also when there is no lock file.
result<bool> server_runs(const node_paths& node);

struct process {
  pid_t pid = 0;
  unique_fd handle; ///< pidfd: stays on this process whatever becomes of the number
};

/// The server of this node, if it lives: by process.json, else (`search`) by a look through /proc.
/// `data`: the directory it was started with, which a renamed node no longer has.
std::optional<process> find_process(const node_paths& node, const std::filesystem::path& data,
                                    bool search);

/// Not scheduled: SIGSTOP or a debugger holds it.
bool is_suspended(pid_t pid);

/// Sends the signal, if it still lives. Errors: io.
status signal_process(const process& p, int signal);
/// Errors: timed_out.
status wait_ended(const process& p, std::chrono::milliseconds deadline);
/// Sends the signal and waits until it ended. Errors: timed_out, io.
status end_process(const process& p, int signal, std::chrono::milliseconds deadline);

/// Starts `PROGRAM zdb --data … --port 0 …` in a session of its own, its output in the node's log,
/// nothing of ours open in it, nobody's child, and writes process.json before it may run. Whoever
/// calls holds the node's lock. Errors: not_found or access_denied (the program), io.
result<process> spawn_server(const std::filesystem::path& program, const node_paths& node);

/// Waits until the spawned server listens. Errors: refused (it ended; with its last words),
/// timed_out.
result<model::endpoint> wait_listening(const node_paths& node, const process& p,
                                       std::chrono::milliseconds deadline);

/// Where a running server listens, `ns` empty. Errors: not_found while it starts, corrupt.
result<model::endpoint> read_endpoint(const node_paths& node);

} // namespace qs::grid
