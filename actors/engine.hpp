// The engine: the one process that acts for a volume on this machine (control.md, 1). It holds the
// state lock, owns all actors, and serves the control socket. This is the one header of actors/
// that fuse/ and cli/ see; it knows no CAF. Not the commands (cli) and not the decisions
// (controller). Made and ended on the main thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "actors/mount_port.hpp"
#include "base/phrase.hpp"
#include "base/result.hpp"

namespace qs::actors {

/// Version of the documents on the control socket. Another number = exit 3, "qs restart".
inline constexpr int control_protocol = 1;

struct engine_options {
  std::string volume;                    ///< its name
  root_secret root;                      ///< the 24 words' entropy
  std::filesystem::path state_directory; ///< made with 0700 if it is not there
  std::filesystem::path grid_directory;  ///< the local grid
  std::filesystem::path cache_directory; ///< default of mount.cache.path
  std::filesystem::path wallets_directory;
  std::string program;               ///< path of qs, to run `qs zdb`
  std::shared_ptr<mount_port> mount; ///< may be null
  std::function<void(std::string_view)> progress; ///< told of each step of the start; may be null
  std::size_t workers = 2;      ///< threads of the actor system
};

class engine {
public:
  virtual ~engine() = default;
  /// Blocks until the engine ends: asked to by `qs stop`, a signal (request_stop), destroy, or a
  /// failure. Returns the exit code.
  virtual int wait() = 0;
  /// Orderly stop: unmount, seal and sync, stop connections; nodes run on. Thread-safe, may be
  /// called from a signal thread.
  virtual void request_stop() = 0;
};

/// Locks, opens or makes the state, starts actors and the control socket; the accepted spec is
/// pursued at once. Errors: busy (another engine: exit 5), refused or version_mismatch (exit 3:
/// wrong phrase, newer state), else exit 1.
result<std::unique_ptr<engine>> start_engine(const engine_options& options);

/// <state>/control.sock, and how to reach it where its path is too long for a socket address.
std::filesystem::path control_socket(const std::filesystem::path& state_directory);

/// A fresh look and a plan without an engine: read-only, takes no lock, starts and writes nothing
/// (control.md, 1). The same JSON document as POST /v1/plan gives.
struct offline_request {
  engine_options options;
  std::string spec_text;
  std::string references; ///< JSON object of resolved ${…}
  bool destroy = false;
  bool probe = true; ///< false: qs diff --offline
  std::chrono::milliseconds deadline{3000};
};
std::string plan_without_engine(const offline_request& request);

/// Status, nodes and events from the recorded state alone, when no engine runs. JSON as the control
/// socket gives it.
result<std::string> status_without_engine(const engine_options& options);

} // namespace qs::actors
