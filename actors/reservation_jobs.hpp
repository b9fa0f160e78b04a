// What a reservation does on a lane of the blocking actor, one job at a time: the recorded row and intent of a node are read, the next
// step is decided from them, and what it changes is recorded. Each job touches only what it was given. Internal to reservation.cpp.
#pragma once

#include <cstdint>
#include <string>

#include "actors/world.hpp"
#include "grid/provider.hpp"
#include "model/recorded.hpp"

namespace qs::actors::reservation_jobs {

/// What comes after a job on the state lane.
enum class move : std::uint8_t {
  succeeded,
  failed,
  submit,
  resolve,
  write_identity,
  cancel,
  resolve_cancel
};

/// What a job gives back: the row and the intent as they are recorded now, and what follows.
struct settled {
  status how;
  bool read = false; ///< `row` is the store's
  model::recorded_node row;
  model::intent open;
  grid::answer answer;
  grid::inspection seen;
  move next = move::failed;
};

void enter(model::recorded_node& row, model::node_state state, std::string reason, wall_time now);
model::intent::progress progress_of(grid::outcome what);
status read_row(world& w, settled& s, model::node_id id);
status put_row(world& w, settled& s);
status put_progress(world& w, settled& s, model::intent::progress state);
/// The intent of a reservation, found again or written now. Nothing has left this machine for a
/// node without one.
status begin_reserve(world& w, settled& s, const model::recorded_node& wanted);
/// What an order to resolve is about: whatever of this node is open.
status begin_resolve(world& w, settled& s);
status begin_cancel(world& w, settled& s);
status begin_resize(world& w, settled& s);
/// Records what a provider said of a reservation. The intent stays open until the node is ready: a
/// crash before its identity is written must find it again.
status record_answer(world& w, settled& s);
status record_ready(world& w, settled& s);
/// It was made, and died before it was ready.
status record_lost(world& w, settled& s, std::string reason);
status record_gone(world& w, settled& s);

} // namespace qs::actors::reservation_jobs
