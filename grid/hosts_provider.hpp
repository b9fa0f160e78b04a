// The `hosts` provider (control.md, 4): storage nodes are namespaces on zdb servers, ours or 0-db,
// that run on machines of the user. It makes them (NSNEW, NSSET), looks at them, resizes and
// deletes them; the servers it neither starts nor stops. Whether a namespace is ours is told by
// its derived name and password, never by a record of this machine. Thread-safe; every call but
// prepare() and configure() blocks. What it is told by configure() it forgets with the process.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/limits.hpp"
#include "base/result.hpp"
#include "base/secret.hpp"
#include "codec/keys.hpp"
#include "grid/provider.hpp"

namespace qs::grid {

/// One machine: an entry of `grid: {hosts: […]}`.
struct hosts_machine {
  std::string name;
  std::string address; ///< "192.0.2.7:9900", "[::1]:9900", "unix:/path"
  model::location place;
  std::optional<byte_count> capacity; ///< nothing: what its disk has free
  secret_string password;             ///< of the server's administrator; empty: it has none
  bool insecure = false;              ///< passwords may go in clear to a server without challenges
  bool offered = true; ///< takes new nodes; false: only known for the nodes that are there
};

struct hosts_options {
  codec::volume_keys keys;
  std::vector<hosts_machine> machines;
  /// For connecting and for each answer of a server.
  std::chrono::milliseconds deadline = limits::node_connect_deadline;
  /// For a whole call with all its steps on all machines; what was not said by then is unknown.
  std::chrono::milliseconds call_deadline = limits::provider_call_deadline;
  bool read_only = false; ///< what would change something is refused
  /// For tests: called after every step of submit, resolve, resize, cancel with the step's name.
  std::function<void(std::string_view)> after_step;
};

class hosts_provider : public provider {
public:
  /// The machines from now on; calls under way end with those they began with.
  virtual void configure(std::vector<hosts_machine> machines) = 0;
};

/// Asks nobody yet.
///
/// What the answers mean here, beyond provider.hpp:
/// - submit refused: unknown machine, machine or admin password not accepted before anything was
///   sent, no room, a namespace of that name that is not ours. unknown: anything after NSNEW was
///   sent and not answered, and a server that says "Try again": it makes or deletes that name.
/// - resolve finishes what submit began, and looks where the order was sent as well as where the
///   machine is said to be now. absent only when each of these answers, and again when asked again,
///   that there is no such namespace, or that it is somebody else's.
/// - inspect gone: NamespaceGone, AccessDenied. unknown: Unreachable. Never stopped: the servers
///   are not ours to start.
/// - hosts(): a machine that does not answer is listed, not available.
std::shared_ptr<hosts_provider> make_hosts(hosts_options options);

} // namespace qs::grid
