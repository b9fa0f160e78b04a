// supervisor: owns the reconcile loop and every other actor. Each pass reads everything that is
// known (recorded and observed), asks controller::next_actions, and hands each step to the one
// actor that owns the thing acted on. A pass needs no memory of the passes before it; a step whose
// node or volume still has one running waits for the next pass. It also answers the control
// socket's commands. Not the decisions (controller), not the doing (its children).
#pragma once

#include <functional>
#include <memory>

#include "actors/blocking.hpp"
#include "actors/event_feed.hpp"
#include "actors/world.hpp"
#include "actors/zdb_connection.hpp"
#include "volume/executor.hpp"
#include "volume/shard_port.hpp"

namespace qs::actors {

struct supervisor_config {
  world_ptr shared;
  blocking_actor blocking;
  dispersal_actor dispersal;
  volume::shard_port* port = nullptr;
  volume::executor* work = nullptr;
  std::shared_ptr<socket_source> sockets;
  std::shared_ptr<event_feed> feed;
  /// Tests put simulated connections here; null: spawn_connection.
  std::function<connection_actor(caf::actor_system&, connection_config)> connect;
  std::chrono::milliseconds pass_interval{500};
  /// Ends the process: code as in interface.md. Called once, from the supervisor.
  std::function<void(int)> end;
  /// Serves the status page at this address, "" for none. May be null. Runs on a blocking lane.
  std::function<status(const std::string&)> listen;
};

supervisor_actor make_supervisor(caf::actor_system& system, supervisor_config config);

} // namespace qs::actors
