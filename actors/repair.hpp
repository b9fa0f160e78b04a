// repair: paces rebuilding and moving. It looks at what the volume has to mend and says how much
// may go on at once: everything the windows carry while something is close to lost, little while
// all is merely being moved. What is mended first is the volume's order (lowest redundancy).
// Restarted alone; it remembers nothing.
#pragma once

#include "actors/interfaces.hpp"
#include "actors/world.hpp"

namespace qs::actors {

struct repair_config {
  mount_actor mount;
  std::chrono::milliseconds interval{200};
  std::size_t urgent = 8; ///< segments at once while redundancy is below what was declared
  std::size_t calm = 4;   ///< … while only moving
};

repair_actor make_repair(caf::actor_system& system, repair_config config);

} // namespace qs::actors
