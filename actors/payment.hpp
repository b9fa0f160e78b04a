// payment: knows what the wallet holds and what everything costs, and says no. Before a node is
// reserved it is asked; it refuses what the balance cannot carry or what goes over `max_per_month`.
// It tells the other volumes of the phrase this volume's burn (wallet book) and asks for money when
// the runway is short. It never pays by itself: the local grid's ledger charges by time. If it
// fails the engine ends (control.md, 7).
#pragma once

#include <functional>
#include <optional>

#include "actors/blocking.hpp"
#include "actors/world.hpp"

namespace qs::actors {

struct payment_config {
  world_ptr shared;
  blocking_actor blocking;
  std::function<void(note_event)> note;
  std::chrono::milliseconds interval{30'000};
};

/// What a month of this node costs as far as it is known: its price, before that the limit that was
/// agreed to, and nothing where its grid does not charge. Any thread.
model::money expected_cost(world& w, const model::recorded_node& row);

payment_actor make_payment(caf::actor_system& system, payment_config config);

} // namespace qs::actors
