// The steps of a node's order, each a job on a lane (reservation_jobs.hpp) and a message back.
#include "actors/reservation.hpp"

#include <cstdint>

#include <caf/all.hpp>

#include <fmt/format.h>

#include "actors/reservation_jobs.hpp"
#include "base/limits.hpp"
#include "base/log.hpp"

namespace qs::actors {
namespace {

using verb = node_order_message::verb;
using model::intent;
using model::node_state;
using namespace reservation_jobs;

/// A provider's answer is awaited a little longer than the provider itself takes at most.
constexpr auto job_deadline = limits::provider_call_deadline + std::chrono::seconds{15};
constexpr auto state_deadline = std::chrono::seconds{60};

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
