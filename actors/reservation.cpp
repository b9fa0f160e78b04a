// Every job on the state lane reads the row it changes from the store and changes only what is its
// own: an accept, or another life of this actor, may have written in between. The lane keeps order,
// so nothing comes between reading and writing.
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
  intent open;
  grid::answer answer;
  grid::inspection seen;
  move next = move::failed;
};

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

} // namespace

struct reservation_state {
  explicit reservation_state(reservation_actor::pointer p) : self{p} {}

  reservation_actor::behavior_type make_behavior() {
    return {[this](const node_order_message& order) -> caf::result<node_report> {
      if (busy) return to_caf({errc::busy, "this node's reservation is at work"});
      if (!config.shared->providers.knows(order.row.provider))
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
    auto row = current.row;
    switch (current.what) {
    case verb::reserve:
      return on_state({}, [row](world& w, settled& s) { return begin_reserve(w, s, row); });
    case verb::resolve:
      return on_state({}, [](world& w, settled& s) { return begin_resolve(w, s); });
    case verb::cancel:
      return on_state({}, [](world& w, settled& s) { return begin_cancel(w, s); });
    case verb::restart:
      return restart();
    case verb::resize:
      return resize();
    case verb::inspect:
      return inspect();
    }
  }

  void go_on(settled s) {
    switch (s.next) {
    case move::succeeded:
      return report(s, true);
    case move::failed:
      return report(s, false);
    case move::submit:
      log::info("reservation", "{}: asking {} for {}", model::to_string(s.row.id), s.row.provider,
                s.row.host);
      return on_provider(
          s, [](grid::provider& p, settled& x) { x.answer = p.submit(x.open.request); },
          [this](settled x) { answered(std::move(x)); });
    case move::resolve:
      return on_provider(
          s, [](grid::provider& p, settled& x) { x.answer = p.resolve(x.open.request); },
          [this](settled x) { answered(std::move(x)); });
    case move::write_identity:
      return write_identity(s);
    case move::cancel:
      return cancel(s);
    case move::resolve_cancel:
      return resolve_cancel(s);
    }
  }

  void answered(settled s) {
    if (current.what != verb::cancel) return on_state(s, record_answer);
    // The reservation is settled on the way to its end.
    on_state(s, [](world& w, settled& x) -> status {
      switch (x.answer.what) {
      case grid::outcome::done:
        QS_TRY(put_progress(w, x, intent::progress::done));
        return begin_cancel(w, x);
      case grid::outcome::refused:
      case grid::outcome::absent:
        QS_TRY(put_progress(w, x, progress_of(x.answer.what)));
        return begin_cancel(w, x);
      default:
        return record_answer(w, x);
      }
    });
  }

  // -- reserve, resolve
  // -------------------------------------------------------------------------------------------

  void write_identity(const settled& s) {
    auto w = config.shared;
    run_blocking<status>(
        self, config.blocking, lane::provider, model::to_string(config.node), job_deadline,
        [w, row = s.row] { return w->write_identity ? w->write_identity(row) : status{}; },
        [this, s](status how) {
          if (how.ok()) return on_state(s, record_ready);
          auto x = s;
          x.answer.detail = describe(how.err());
          if (how.err().code == errc::data_lost) return lost(x, "DataLost");
          if (how.err().code == errc::access_denied) return lost(x, "AccessDenied");
          ask_why(x);
        },
        [this, s](const error& e) { fail(s, e); });
  }

  void lost(const settled& s, const std::string& reason) {
    on_state(s, [reason](world& w, settled& x) { return record_lost(w, x, reason); });
  }

  /// It was made and does not take its identity: its provider may know that it has stopped, or is
  /// gone.
  void ask_why(const settled& s) {
    on_provider(
        s,
        [](grid::provider& p, settled& x) {
          x.seen = p.inspect(x.open.request);
          if (x.seen.what == grid::inspection::state::stopped) p.restart(x.open.request);
        },
        [this](settled x) {
          if (x.seen.what == grid::inspection::state::gone)
            return lost(x, x.seen.reason.empty() ? "DataGone" : x.seen.reason);
          report(x, false); // the intent is open: resolved again
        });
  }

  // -- the others
  // -------------------------------------------------------------------------------------------------

  void restart() {
    with_request([this](settled s) {
      on_provider(
          s, [](grid::provider& p, settled& x) { x.answer = p.restart(x.open.request); },
          [this](settled x) {
            if (x.answer.what != grid::outcome::done) return report(x, false);
            if (!x.answer.where.valid() || x.answer.where == x.row.where) return report(x, true);
            on_state(x, [](world& w, settled& y) {
              y.row.where = y.answer.where;
              y.next = move::succeeded;
              return put_row(w, y);
            });
          });
    });
  }

  void resize() {
    on_state_then(
        {}, [](world& w, settled& s) { return begin_resize(w, s); },
        [this](settled s) {
          on_provider(
              s,
              [size = current.size](grid::provider& p, settled& x) {
                x.answer = p.resize(x.open.request, size);
              },
              [this](settled x) {
                on_state(x, [](world& w, settled& y) -> status {
                  auto fine = y.answer.what == grid::outcome::done;
                  QS_TRY(put_progress(w, y, progress_of(y.answer.what)));
                  y.next = fine ? move::succeeded : move::failed;
                  if (!fine || y.answer.price.units == 0) return {};
                  y.row.price = y.answer.price;
                  return put_row(w, y);
                });
              });
        });
  }

  void cancel(const settled& s) {
    on_provider(
        s, [](grid::provider& p, settled& x) { x.answer = p.cancel(x.open.request); },
        [this](settled x) {
          if (x.answer.what == grid::outcome::done || x.answer.what == grid::outcome::absent)
            return on_state(x, record_gone);
          on_state(x, [](world& w, settled& y) {
            y.next = move::failed;
            return put_progress(w, y, progress_of(y.answer.what));
          });
        });
  }

  /// A cancel without an answer is never sent again blindly: what it would take may be needed by
  /// now. Gone: so be it (and what was left half removed goes). Still there: the order is void, and
  /// is decided again from what is seen.
  void resolve_cancel(const settled& s) {
    on_provider(
        s, [](grid::provider& p, settled& x) { x.answer = p.resolve(x.open.request); },
        [this](settled x) {
          if (x.answer.what == grid::outcome::absent || x.answer.what == grid::outcome::refused)
            return cancel(x);
          on_state(x, [](world& w, settled& y) -> status {
            auto there = y.answer.what == grid::outcome::done;
            y.next = there ? move::succeeded : move::failed;
            if (there) y.answer.detail = "it was not carried out";
            return put_progress(w, y,
                                there ? intent::progress::absent : progress_of(y.answer.what));
          });
        });
  }

  void inspect() {
    with_request([this](settled s) {
      on_provider(
          s, [](grid::provider& p, settled& x) { x.seen = p.inspect(x.open.request); },
          [this](settled x) { report(x, true); });
    });
  }

  // -- how jobs run
  // -----------------------------------------------------------------------------------------------

  template <class Then>
  void with_request(Then then) {
    on_state_then(
        {},
        [](world& w, settled& s) -> status {
          QS_TRY_ASSIGN(auto reserved, w.store->reservation_of(s.row.id, s.row.incarnation));
          if (!reserved)
            return error{errc::not_found,
                         fmt::format("{} was never reserved", model::to_string(s.row.id))};
          s.open = std::move(*reserved);
          return {};
        },
        std::move(then));
  }

  /// One job on the state lane: the row is read again, then `work`; then whatever `next` says.
  template <class Work>
  void on_state(settled s, Work work) {
    on_state_then(std::move(s), std::move(work), [this](settled x) { go_on(std::move(x)); });
  }

  template <class Work, class Then>
  void on_state_then(settled s, Work work, Then then) {
    run_blocking<settled>(
        self, config.blocking, lane::state, {}, state_deadline,
        [w = config.shared, id = config.node, s = std::move(s), work]() mutable {
          s.next = move::failed;
          s.how = read_row(*w, s, id);
          if (s.how.ok()) s.how = work(*w, s);
          return std::move(s);
        },
        [this, then](settled x) {
          if (!x.how.ok()) return fail(x, x.how.err());
          then(std::move(x));
        },
        [this](const error& e) { fail({}, e); });
  }

  template <class Work, class Then>
  void on_provider(const settled& s, Work work, Then then) {
    auto w = config.shared;
    run_blocking<settled>(
        self, config.blocking, lane::provider, model::to_string(config.node), job_deadline,
        [w, s, work] {
          auto x = s;
          if (auto provider = w->providers.get(x.row.provider))
            work(**provider, x);
          else // nothing was asked: as unknown as before
            x.answer.detail = describe(provider.err());
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
    r.row = s.read ? s.row : current.row;
    r.changed = s.read;
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

reservation_actor::behavior_type
reservation(reservation_actor::stateful_pointer<reservation_state> self,
            reservation_config config) {
  self->state.config = std::move(config);
  return self->state.make_behavior();
}

} // namespace

reservation_actor make_reservation(caf::actor_system& system, reservation_config config) {
  return system.spawn(reservation, std::move(config));
}

} // namespace qs::actors
