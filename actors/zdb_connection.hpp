// zdb_connection: the actor that owns one node's socket. It connects (through the dialer), does the
// handshake, reads the identity object before anything else is served, pipelines requests in a byte
// window, and tells its listener what changes. A broker: all of them share CAF's one I/O thread, so
// nothing here computes, blocks or logs to a disk. Decides nothing about the node beyond "not the
// node we knew" and "refuses our password": that is the monitor's.
#pragma once

#include <cstdint>

#include <caf/fwd.hpp>
#include <caf/io/fwd.hpp>
#include <caf/typed_actor.hpp>

#include <chrono>
#include <functional>

#include "actors/data_interfaces.hpp"
#include "base/clock.hpp"
#include "base/limits.hpp"
#include "base/posix.hpp"
#include "base/random.hpp"
#include "base/result.hpp"
#include "base/secret.hpp"
#include "net/connector.hpp"

namespace qs::actors {

/// How sockets come to be; tests put a simulated network here.
struct socket_source {
  virtual ~socket_source() = default;
  /// Connects to `where` and calls back exactly once, on any thread.
  virtual void dial(const net::address& where, std::chrono::milliseconds deadline,
                    std::function<void(result<unique_fd>)> done) = 0;
  /// Hands the connected socket to the broker; the number is its connection_handle's id.
  virtual std::int64_t adopt(caf::io::abstract_broker& broker, unique_fd fd) = 0;
};
/// The real thing. The connector must outlive it.
std::shared_ptr<socket_source> real_sockets(net::connector& connector);

/// What the window counts beside a stored value …
inline constexpr std::size_t request_overhead = 128;
/// … and what it counts a read as, before its size is known: a whole shard value of volume.md, 2.
inline constexpr std::size_t read_charge = 192 + 528'384 + request_overhead;

struct connection_config {
  model::node_id node;
  model::endpoint where;  ///< invalid: waits for move_to
  secret_string password; ///< of the namespace
  bool insecure = false;  ///< `hosts` says so: the password may go in clear
  model::object_name identity_name{};
  buffer_ptr identity; ///< the identity object's bytes; never null
  std::size_t window_bytes = limits::connection_window_bytes;
  /// May be null. A handle upwards: let go when the connection ends, so stop connections before
  /// waiting for the listener.
  link_listener_actor listener;
  std::shared_ptr<socket_source> sockets;
  qs::clock* time = nullptr;       ///< null: system_clock()
  random_source* random = nullptr; ///< jitter; null: system_random()
};

/// Starts one; it connects at once. It ends by stop_atom (or an exit message), never by itself.
/// CAF 0.17.6 does not bounce requests to a broker that has ended (other actors:
/// request_receiver_down): always give a timeout.
connection_actor spawn_connection(caf::actor_system& system, connection_config config);

} // namespace qs::actors
