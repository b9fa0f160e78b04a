// mount: owns the open volume and the mounted session. Opens, ticks, hands on what the supervisor
// knows, reports figures, mounts, drains, closes. Not the format (volume/) and not the kernel
// (fuse/, through mount_port). What may wait runs as jobs on the blocking actor's volume lane. If
// it fails the engine ends and starts again from the log (control.md, 7).
#pragma once

#include "actors/blocking.hpp"
#include "actors/world.hpp"
#include "volume/executor.hpp"
#include "volume/shard_port.hpp"

namespace qs::actors {

struct mount_config {
  world_ptr shared;
  blocking_actor blocking;
  volume::shard_port* port = nullptr; ///< outlives the actor
  volume::executor* work = nullptr;   ///< outlives the actor
  std::chrono::milliseconds tick_interval{100};
  /// A clear line for people: the supervisor's event list. Called from any thread.
  std::function<void(note_event)> note;
  /// Called when somebody else ended the mount. Any thread.
  std::function<void()> unmounted;
};

mount_actor make_mount(caf::actor_system& system, mount_config config);

} // namespace qs::actors
