// Every job on the state lane reads the row it changes from the store and changes only what is its
// own: an accept, or another life of this actor, may have written in between. The lane keeps order,
// so nothing comes between reading and writing.
#include "actors/reservation_jobs.hpp"

#include <fmt/format.h>

#include "base/limits.hpp"
#include "base/log.hpp"

namespace qs::actors::reservation_jobs {

using model::intent;
using model::node_state;

bool is_open(const intent& i) {
  return i.state == intent::progress::written || i.state == intent::progress::submitted ||
         i.state == intent::progress::unknown;
}

void enter(model::recorded_node& row, node_state state, std::string reason, wall_time now) {
  if (row.state != state) row.since = now;
  row.state = state;
  row.reason = std::move(reason);
}

intent::progress progress_of(grid::outcome what) {
  switch (what) {
  case grid::outcome::done:
    return intent::progress::done;
  case grid::outcome::pending:
    return intent::progress::submitted;
  case grid::outcome::refused:
    return intent::progress::refused;
  case grid::outcome::absent:
    return intent::progress::absent;
  case grid::outcome::unknown:
    break;
  }
  return intent::progress::unknown;
}

// -- the jobs: each runs on a lane of the blocking actor and touches only what it was given
// ------------------------------

status read_row(world& w, settled& s, model::node_id id) {
  QS_TRY_ASSIGN(auto row, w.store->node(id));
  if (!row)
    return error{errc::not_found, fmt::format("there is no row for {}", model::to_string(id))};
  s.row = std::move(*row);
  s.read = true;
  return {};
}

status put_row(world& w, settled& s) { return w.store->put_node(s.row); }

status put_progress(world& w, settled& s, intent::progress state) {
  if (s.open.number == 0 || (s.open.state == state && s.open.detail == s.answer.detail)) return {};
  s.open.state = state;
  s.open.detail = s.answer.detail;
  return w.store->put_intent(s.open);
}

result<std::optional<intent>> open_intent(world& w, model::node_id node, intent::verb what) {
  QS_TRY_ASSIGN(auto all, w.store->open_intents());
  for (auto& i : all)
    if (i.node == node && i.what == what) return std::optional{std::move(i)};
  return std::optional<intent>{};
}

result<intent> write_intent(world& w, const model::recorded_node& row, intent::verb what,
                            std::string request) {
  intent draft;
  draft.node = row.id;
  draft.incarnation = row.incarnation;
  draft.what = what;
  draft.request = std::move(request);
  draft.written_at = w.time->wall();
  return w.store->add_intent(draft);
}

/// The next attempt of a node whose last one was refused, or is absent for sure.
status next_incarnation(world& w, settled& s, const model::recorded_node& wanted) {
  QS_TRY_ASSIGN(auto before, w.store->reservation_of(s.row.id, s.row.incarnation));
  auto over =
      s.row.state == node_state::planned && (s.row.reason == "Refused" || s.row.reason == "Absent");
  if (!over || wanted.incarnation != s.row.incarnation + 1 || (before && is_open(*before)))
    return error{errc::busy,
                 fmt::format("{} has moved on since this was decided", model::to_string(s.row.id))};
  auto size = s.row.size;
  auto limit = s.row.price_limit;
  auto after = s.row.replaced_by;
  s.row = wanted;
  s.row.size = size;
  s.row.price_limit = limit;
  s.row.replaced_by = after;
  s.row.identity.clear();
  s.row.where = {};
  return {};
}

/// The intent of a reservation, found again or written now. Nothing has left this machine for a
/// node without one.
status begin_reserve(world& w, settled& s, const model::recorded_node& wanted) {
  if (wanted.incarnation != s.row.incarnation) {
    QS_TRY(next_incarnation(w, s, wanted));
  }
  QS_TRY_ASSIGN(auto known, w.store->reservation_of(s.row.id, s.row.incarnation));
  if (known) {
    s.open = std::move(*known);
    s.next = move::resolve;
    return {};
  }
  if (s.row.state != node_state::planned && s.row.state != node_state::reserving)
    return error{errc::busy,
                 fmt::format("{} is {} and cannot be reserved", model::to_string(s.row.id),
                             model::to_string(s.row.state))};
  // Asked before anything is written: a provider that cannot even prepare leaves no trace.
  QS_TRY_ASSIGN(auto provider, w.providers.get(s.row.provider));
  QS_TRY_ASSIGN(auto request,
                provider->prepare({s.row.id, s.row.incarnation, s.row.host, s.row.size,
                                   s.row.price_limit}));
  if (s.row.identity.empty())
    s.row.identity = codec::make_identity(w.keys, s.row.id, s.row.incarnation, *w.random);
  enter(s.row, node_state::reserving, {}, w.time->wall());
  QS_TRY(put_row(w, s));
  QS_TRY_ASSIGN(s.open, write_intent(w, s.row, intent::verb::reserve, std::move(request)));
  s.next = move::submit;
  return {};
}

/// What an order to resolve is about: whatever of this node is open.
status begin_resolve(world& w, settled& s) {
  QS_TRY_ASSIGN(auto cancel, open_intent(w, s.row.id, intent::verb::cancel));
  if (cancel) {
    s.open = std::move(*cancel);
    s.next = move::resolve_cancel;
    return {};
  }
  QS_TRY_ASSIGN(auto resize, open_intent(w, s.row.id, intent::verb::resize));
  if (resize) {
    // The node itself says how large it is; what is not right is ordered again.
    s.open = std::move(*resize);
    QS_TRY(put_progress(w, s, intent::progress::absent));
    s.next = move::succeeded;
    return {};
  }
  QS_TRY_ASSIGN(auto known, w.store->reservation_of(s.row.id, s.row.incarnation));
  if (known) {
    s.open = std::move(*known);
    s.next = move::resolve;
    return {};
  }
  // Killed between the row and the intent: nothing has left, so it is as if nothing had been begun.
  if (s.row.state == node_state::reserving) {
    enter(s.row, node_state::planned, {}, w.time->wall());
    QS_TRY(put_row(w, s));
  }
  s.next = move::succeeded;
  return {};
}

status begin_cancel(world& w, settled& s) {
  if (s.row.state == node_state::gone) {
    s.next = move::succeeded;
    return {};
  }
  QS_TRY_ASSIGN(auto reserved, w.store->reservation_of(s.row.id, s.row.incarnation));
  if (!reserved || reserved->state == intent::progress::refused ||
      reserved->state == intent::progress::absent) {
    // Never reserved: nothing to end, the row alone goes.
    enter(s.row, node_state::gone, s.row.reason, w.time->wall());
    s.next = move::succeeded;
    return put_row(w, s);
  }
  if (is_open(*reserved) &&
      (s.row.state == node_state::reserving || reserved->state != intent::progress::submitted)) {
    // It may still come to be: what nobody knows of cannot be ended.
    s.open = std::move(*reserved);
    s.next = move::resolve;
    return {};
  }
  auto request = reserved->request;
  if (is_open(*reserved)) { // deployed, but never made ready: that attempt ends here
    s.open = std::move(*reserved);
    QS_TRY(put_progress(w, s, intent::progress::done));
  }
  QS_TRY_ASSIGN(auto before, open_intent(w, s.row.id, intent::verb::cancel));
  if (before) {
    s.open = std::move(*before);
  } else {
    QS_TRY_ASSIGN(s.open, write_intent(w, s.row, intent::verb::cancel, std::move(request)));
  }
  s.next = move::cancel;
  return {};
}

status begin_resize(world& w, settled& s) {
  QS_TRY_ASSIGN(auto reserved, w.store->reservation_of(s.row.id, s.row.incarnation));
  if (!reserved)
    return error{errc::not_found, fmt::format("{} was never reserved", model::to_string(s.row.id))};
  QS_TRY_ASSIGN(auto before, open_intent(w, s.row.id, intent::verb::resize));
  if (before) {
    s.open = std::move(*before);
  } else {
    QS_TRY_ASSIGN(s.open, write_intent(w, s.row, intent::verb::resize, reserved->request));
  }
  return {};
}

/// Records what a provider said of a reservation. The intent stays open until the node is ready: a
/// crash before its identity is written must find it again.
status record_answer(world& w, settled& s) {
  auto coming = s.row.state == node_state::reserving || s.row.state == node_state::deploying;
  switch (s.answer.what) {
  case grid::outcome::done: {
    auto changed = s.row;
    changed.where = s.answer.where;
    if (s.answer.price.units != 0) changed.price = s.answer.price;
    if (s.row.state == node_state::reserving)
      enter(changed, node_state::deploying, {}, w.time->wall());
    auto same = changed.where == s.row.where && changed.price == s.row.price &&
                changed.state == s.row.state;
    s.row = std::move(changed);
    if (!same) QS_TRY(put_row(w, s));
    if (coming) {
      QS_TRY(put_progress(w, s, intent::progress::submitted));
      s.next = move::write_identity;
      return {};
    }
    s.next = move::succeeded;
    return put_progress(w, s, intent::progress::done);
  }
  case grid::outcome::refused:
  case grid::outcome::absent: {
    s.next = move::failed;
    QS_TRY(put_progress(w, s, progress_of(s.answer.what)));
    if (!coming)
      return {}; // a node that was there: its monitor and its provider's word say what became of it
    // Back to planned: the controller chooses another host under the next incarnation.
    enter(s.row, node_state::planned,
          s.answer.what == grid::outcome::refused ? "Refused" : "Absent", w.time->wall());
    s.row.where = {};
    return put_row(w, s);
  }
  case grid::outcome::pending:
  case grid::outcome::unknown:
    break;
  }
  s.next = move::failed;
  return put_progress(w, s, progress_of(s.answer.what));
}

status record_ready(world& w, settled& s) {
  if (s.row.state == node_state::reserving || s.row.state == node_state::deploying) {
    enter(s.row, node_state::ready, {}, w.time->wall());
    QS_TRY(put_row(w, s));
  }
  s.next = move::succeeded;
  return put_progress(w, s, intent::progress::done);
}

/// It was made, and died before it was ready.
status record_lost(world& w, settled& s, std::string reason) {
  if (s.row.state == node_state::reserving || s.row.state == node_state::deploying) {
    enter(s.row, node_state::lost, std::move(reason), w.time->wall());
    QS_TRY(put_row(w, s));
  }
  s.next = move::failed;
  return put_progress(w, s, intent::progress::done);
}

status record_gone(world& w, settled& s) {
  QS_TRY(put_progress(w, s, intent::progress::done));
  enter(s.row, node_state::gone, s.row.reason, w.time->wall());
  s.next = move::succeeded;
  return put_row(w, s);
}

} // namespace qs::actors::reservation_jobs
