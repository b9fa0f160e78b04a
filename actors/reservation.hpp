// reservation: does one thing at a time for one node with its provider, and records it before and
// after.
//
//   planned ──reserve──▶ reserving ──submit: done──▶ deploying ──identity written──▶ ready
//                            │  pending, unknown: resolve again, never submit
//                            └─ refused, absent for sure ──▶ planned: the controller goes on under
//                            the next incarnation
//   ready, lost, … ──cancel──▶ gone
//
// The intent is on disk with a full sync before anything leaves (control.md, 4). Not the decision
// what to do (controller) and not the watching (monitor). Owned by the supervisor; may be restarted
// at any moment: it goes on from its intent.
#pragma once

#include "actors/blocking.hpp"
#include "actors/world.hpp"

namespace qs::actors {

struct reservation_config {
  world_ptr shared;
  blocking_actor blocking;
  model::node_id node;
};

reservation_actor make_reservation(caf::actor_system& system, reservation_config config);

} // namespace qs::actors
