#include "actors/reservation.hpp"

#include <cstdint>

#include <caf/all.hpp>

#include <fmt/format.h>

#include "base/limits.hpp"
#include "base/log.hpp"

namespace qs::actors {
namespace {

using verb = node_order_message::verb;
using model::intent;
using model::node_state;

/// A provider's answer is awaited a little longer than the provider itself takes at most.
constexpr auto job_deadline = limits::provider_call_deadline + std::chrono::seconds{15};
constexpr auto state_deadline = std::chrono::seconds{60};

/// What a job on the state or provider lane gives back: the row and the intent as they are recorded now.
struct settled {
  status how;
  model::recorded_node row;
  intent open;
  grid::answer answer;
  grid::inspection seen;
  bool fresh = false; ///< the intent was written by this very order: nothing can have left yet
};

void enter(model::recorded_node& row, node_state state, std::string reason, wall_time now) {
  if (row.state != state) row.since = now;
  row.state = state;
  row.reason = std::move(reason);
}

intent::progress progress_of(grid::outcome what) {
  switch (what) {
  case grid::outcome::done: return intent::progress::done;
  case grid::outcome::pending: return intent::progress::submitted;
  case grid::outcome::refused: return intent::progress::refused;
  case grid::outcome::absent: return intent::progress::absent;
  case grid::outcome::unknown: break;
  }
  return intent::progress::unknown;
}

// -- the jobs: each runs on a lane of the blocking actor and touches only what it was given ------------------------------

/// The intent of a reservation, found again or written now. Nothing has left this machine when it returns.
settled write_reserve_intent(world& w, model::recorded_node row) {
  settled out;
  auto known = w.store->reservation_of(row.id, row.incarnation);
  if (!known.ok()) return {std::move(known).err(), row, {}, {}, {}, false};
  if (row.identity.empty()) row.identity = codec::make_identity(w.keys, row.id, row.incarnation, *w.random);
  enter(row, node_state::reserving, {}, w.time->wall());
  if (auto put = w.store->put_node(row); !put.ok()) return {std::move(put).err(), row, {}, {}, {}, false};
  if (known->has_value()) {
    out.open = **known;
  } else {
    auto* provider = w.provider_of(row);
    auto request = provider->prepare({row.id, row.incarnation, row.host, row.size, row.price_limit});
    if (!request.ok()) return {std::move(request).err(), row, {}, {}, {}, false};
    intent draft;
    draft.node = row.id;
    draft.incarnation = row.incarnation;
    draft.what = intent::verb::reserve;
    draft.request = *request;
    draft.written_at = w.time->wall();
    auto added = w.store->add_intent(draft);
    if (!added.ok()) return {std::move(added).err(), row, {}, {}, {}, false};
    out.open = *added;
    out.fresh = true;
  }
  out.row = row;
  return out;
}

/// Records a reservation's answer: the intent first, then the row that follows from it.
settled record_answer(world& w, settled s) {
  s.open.state = progress_of(s.answer.what);
  s.open.detail = s.answer.detail;
  s.how = w.store->put_intent(s.open);
  if (!s.how.ok()) return s;
  if (s.answer.what == grid::outcome::done) {
    s.row.where = s.answer.where;
    if (s.answer.price.units != 0) s.row.price = s.answer.price;
    if (s.row.state == node_state::reserving) enter(s.row, node_state::deploying, {}, w.time->wall());
  } else if (s.answer.what == grid::outcome::refused || s.answer.what == grid::outcome::absent) {
    // Back to planned: the controller chooses another host under the next incarnation.
    auto refused = s.answer.what == grid::outcome::refused;
    enter(s.row, node_state::planned, refused ? "Refused" : "Absent", w.time->wall());
  } else {
    return s;
  }
  s.how = w.store->put_node(s.row);
  return s;
}

settled record_ready(world& w, settled s) {
  enter(s.row, node_state::ready, {}, w.time->wall());
  s.how = w.store->put_node(s.row);
  return s;
}

settled record_gone(world& w, settled s) {
  s.open.state = intent::progress::done;
  s.how = w.store->put_intent(s.open);
  if (!s.how.ok()) return s;
  enter(s.row, node_state::gone, s.row.reason, w.time->wall());
  s.how = w.store->put_node(s.row);
  return s;
}

/// The request under which a node was reserved, and an intent of `what` beside it; nothing submitted yet.
settled write_intent(world& w, const model::recorded_node& row, intent::verb what) {
  settled out;
  out.row = row;
  auto reserved = w.store->reservation_of(row.id, row.incarnation);
  if (!reserved.ok()) return {std::move(reserved).err(), row, {}, {}, {}, false};
  if (!reserved->has_value()) {
    out.how = error{errc::not_found, fmt::format("{} was never reserved", model::to_string(row.id))};
    return out;
  }
  intent draft;
  draft.node = row.id;
  draft.incarnation = row.incarnation;
  draft.what = what;
  draft.request = (*reserved)->request;
  draft.written_at = w.time->wall();
  auto added = w.store->add_intent(draft);
  if (!added.ok()) return {std::move(added).err(), row, {}, {}, {}, false};
  out.open = *added;
  return out;
}

settled record_row(world& w, settled s) {
  s.open.state = progress_of(s.answer.what);
  s.open.detail = s.answer.detail;
  s.how = s.open.number == 0 ? status{} : w.store->put_intent(s.open);
  if (s.how.ok()) s.how = w.store->put_node(s.row);
  return s;
}

} // namespace

struct reservation_state {
  explicit reservation_state(reservation_actor::pointer p) : self{p} {}

  reservation_actor::behavior_type make_behavior() {
    return {[this](const node_order_message& order) -> caf::result<node_report> {
      if (busy) return to_caf({errc::busy, "this node's reservation is at work"});
      if (config.shared->provider_of(order.row) == nullptr)
        return to_caf({errc::unsupported, fmt::format("no provider '{}'", order.row.provider)});
      busy = true;
      current = order;
      promise = self->make_response_promise<node_report>();
      auto answer = promise;
      start_order();
      return answer;
    }};
  }

  void start_order() {
    switch (current.what) {
    case verb::reserve:
    case verb::resolve: return reserve();
    case verb::restart: return restart();
    case verb::resize: return resize();
    case verb::cancel: return cancel();
    case verb::inspect: return inspect();
    }
  }

  // -- reserve, resolve -------------------------------------------------------------------------------------------

  void reserve() {
    on_state([w = config.shared, row = current.row] { return write_reserve_intent(*w, row); }, [this](settled s) {
      // Only an intent of this very order may be submitted. Any other may have left already: ask what became of it.
      if (s.fresh && current.what == verb::reserve) return submit(s);
      resolve(s);
    });
  }

  void submit(const settled& s) {
    log::info("reservation", "{}: asking {} for {}", model::to_string(s.row.id), s.row.provider, s.row.host);
    on_provider(s, [](grid::provider& p, settled& x) { x.answer = p.submit(x.open.request); },
                [this](settled x) { answered(std::move(x)); });
  }

  void resolve(const settled& s) {
    on_provider(s, [](grid::provider& p, settled& x) { x.answer = p.resolve(x.open.request); },
                [this](settled x) { answered(std::move(x)); });
  }

  void answered(settled s) {
    on_state([w = config.shared, s] { return record_answer(*w, s); }, [this](settled x) {
      if (x.answer.what != grid::outcome::done) return report(x, false);
      write_identity(x);
    });
  }

  void write_identity(const settled& s) {
    auto w = config.shared;
    run_blocking<status>(
      self, config.blocking, lane::provider, {}, job_deadline,
      [w, row = s.row] { return w->write_identity ? w->write_identity(row) : status{}; },
      [this, s](status how) {
        auto x = s;
        x.how = std::move(how);
        if (!x.how.ok()) {
          x.answer.detail = describe(x.how.err());
          return report(x, false);
        }
        if (x.row.state == node_state::ready) return report(x, true);
        on_state([world = config.shared, x] { return record_ready(*world, x); },
                 [this](settled y) { report(y, true); });
      },
      [this, s](const error& e) { fail(s, e); });
  }

  // -- the others -------------------------------------------------------------------------------------------------

  void restart() {
    with_request([this](settled s) {
      on_provider(s, [](grid::provider& p, settled& x) { x.answer = p.restart(x.open.request); }, [this](settled x) {
        if (x.answer.what != grid::outcome::done) return report(x, false);
        if (x.answer.where == x.row.where) return report(x, true);
        x.row.where = x.answer.where;
        x.open = {};
        on_state([w = config.shared, x] { return record_row(*w, x); }, [this](settled y) { report(y, true); });
      });
    });
  }

  void resize() {
    on_state([w = config.shared, row = current.row] { return write_intent(*w, row, intent::verb::resize); },
             [this](settled s) {
               on_provider(
                 s, [size = current.size](grid::provider& p, settled& x) { x.answer = p.resize(x.open.request, size); },
                 [this](settled x) {
                   if (x.answer.what == grid::outcome::done) {
                     x.row.size = current.size;
                     if (x.answer.price.units != 0) x.row.price = x.answer.price;
                   }
                   on_state([w = config.shared, x] { return record_row(*w, x); },
                            [this](settled y) { report(y, y.answer.what == grid::outcome::done); });
                 });
             });
  }

  void cancel() {
    on_state(
      [w = config.shared, row = current.row] {
        auto s = write_intent(*w, row, intent::verb::cancel);
        // Never reserved: nothing to end, the row alone goes.
        if (!s.how.ok() && s.how.err().code == errc::not_found) {
          s.how = {};
          s.answer.what = grid::outcome::absent;
          enter(s.row, node_state::gone, s.row.reason, w->time->wall());
          s.how = w->store->put_node(s.row);
        }
        return s;
      },
      [this](settled s) {
        if (s.answer.what == grid::outcome::absent) return report(s, true);
        on_provider(s, [](grid::provider& p, settled& x) { x.answer = p.cancel(x.open.request); }, [this](settled x) {
          if (x.answer.what != grid::outcome::done && x.answer.what != grid::outcome::absent) {
            on_state([w = config.shared, x] { return record_row(*w, x); }, [this](settled y) { report(y, false); });
            return;
          }
          on_state([w = config.shared, x] { return record_gone(*w, x); }, [this](settled y) { report(y, true); });
        });
      });
  }

  void inspect() {
    with_request([this](settled s) {
      on_provider(s, [](grid::provider& p, settled& x) { x.seen = p.inspect(x.open.request); },
                  [this](settled x) { report(x, true); });
    });
  }

  // -- how jobs run -----------------------------------------------------------------------------------------------

  template <class Then>
  void with_request(Then then) {
    on_state(
      [w = config.shared, row = current.row] {
        settled s;
        s.row = row;
        auto reserved = w->store->reservation_of(row.id, row.incarnation);
        if (!reserved.ok())
          s.how = std::move(reserved).err();
        else if (!reserved->has_value())
          s.how = error{errc::not_found, "never reserved"};
        else
          s.open = **reserved;
        return s;
      },
      std::move(then));
  }

  template <class Work, class Then>
  void on_state(Work work, Then then) {
    run_blocking<settled>(
      self, config.blocking, lane::state, {}, state_deadline, std::move(work),
      [this, then](settled s) {
        if (!s.how.ok()) return fail(s, s.how.err());
        then(std::move(s));
      },
      [this](const error& e) { fail({{}, current.row, {}, {}, {}, false}, e); });
  }

  template <class Work, class Then>
  void on_provider(const settled& s, Work work, Then then) {
    auto w = config.shared;
    run_blocking<settled>(
      self, config.blocking, lane::provider, model::to_string(config.node), job_deadline,
      [w, s, work] {
        auto x = s;
        work(*w->provider_of(x.row), x);
        return x;
      },
      then, [this, s](const error& e) { fail(s, e); });
  }

  void fail(const settled& s, const error& e) {
    auto x = s;
    x.answer.detail = describe(e);
    log::warning("reservation", "{}: {}", model::to_string(config.node), x.answer.detail);
    report(x, false);
  }

  void report(const settled& s, bool ok) {
    node_report r;
    r.node = config.node;
    r.what = current.what;
    r.ok = ok;
    r.row = s.row.id.valid() ? s.row : current.row;
    r.changed = true;
    r.seen = s.seen;
    r.detail = s.answer.detail;
    busy = false;
    promise.deliver(r);
  }

  reservation_actor::pointer self;
  reservation_config config;
  bool busy = false;
  node_order_message current;
  caf::typed_response_promise<node_report> promise;
  static inline const char* name = "qs.reservation";
};

namespace {

reservation_actor::behavior_type reservation(reservation_actor::stateful_pointer<reservation_state> self,
                                             reservation_config config) {
  self->state.config = std::move(config);
  return self->state.make_behavior();
}

} // namespace

reservation_actor make_reservation(caf::actor_system& system, reservation_config config) {
  return system.spawn(reservation, std::move(config));
}

} // namespace qs::actors
