// monitor: PINGs every node once per interval through its connection, and turns answers, silence
// and what the links report into observations. Silence accrues only in rounds where at least k
// others answered, and starts at zero with the engine (control.md, 5). It observes; it decides
// nothing. Restarted alone: all it loses is accrued silence.
#pragma once

#include <functional>

#include "actors/interfaces.hpp"
#include "actors/world.hpp"
#include "state/sightings.hpp"

namespace qs::actors {

struct monitor_config {
  world_ptr shared;
  std::function<void(monitor_round)>
      report; ///< to the supervisor, after every round and every change of a link
  std::function<void(doubt_node)> doubt; ///< a node came back in another life
  std::function<void(note_event)> note;
  state::sightings known; ///< of an engine before this one
  /// What is to be known to the next one; not more often than every few minutes. May be null.
  std::function<void(state::sightings)> record;
};

monitor_actor make_monitor(caf::actor_system& system, monitor_config config);

} // namespace qs::actors
