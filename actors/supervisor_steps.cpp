#include "actors/supervisor_state.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/log.hpp"

namespace qs::actors {
namespace {

using namespace std::chrono_literals;
using controller::step_kind;
using model::node_state;
using verb = node_order_message::verb;

/// A node whose order failed, or a volume or mount that would not open, is tried again after so
/// long.
constexpr auto retry_after = 2s;
/// A connection asks its node for its figures when they are ten seconds old.
constexpr auto figures_after = 12s;

std::string_view word(verb what) {
  switch (what) {
  case verb::reserve:
    return "reserve";
  case verb::resolve:
    return "resolve";
  case verb::restart:
    return "restart";
  case verb::resize:
    return "resize";
  case verb::cancel:
    return "cancel";
  case verb::inspect:
    return "inspect";
  }
  return "?";
}

} // namespace

void supervisor_state::start_step(const controller::step& step) {
  auto now = config.shared->time->wall();
  auto uptime = config.shared->time->boot();
  auto* r = step.node.valid() ? row(step.node) : nullptr;
  auto node_free =
      r != nullptr && !busy_nodes.contains(step.node) && uptime >= node_retry_at[step.node];
  switch (step.kind) {
  case step_kind::reserve:
    if (!node_free) return;
    if (!step.row) return reserve(*r);
    // Another host: recorded before anything is asked of it, so that nothing else is placed there.
    if (!state_busy) put_rows({*step.row}, recorded.next_node_number);
    return;
  case step_kind::resolve:
    if (node_free) order_node(*r, verb::resolve);
    return;
  case step_kind::restart:
    if (node_free) order_node(*r, verb::restart);
    return;
  case step_kind::resize:
    if (node_free) order_node(*r, verb::resize, step.size);
    return;
  case step_kind::retire:
    if (node_free) retire(step.node);
    return;
  case step_kind::cancel:
    if (node_free && recorded.destroying) order_node(*r, verb::cancel);
    return;
  case step_kind::mark_lost:
    return mark(step.node, node_state::lost, step.reason);
  case step_kind::mark_unreachable:
    return mark(step.node, node_state::unreachable, step.reason);
  case step_kind::mark_ready:
    return mark(step.node, node_state::ready, {});
  case step_kind::drain:
    return mark(step.node, node_state::draining, step.reason);
  case step_kind::replace: {
    // One after the other: the second of a decision waits for the next pass, which gives it the
    // next number.
    if (state_busy || !node_free || !step.row || step.row->id.number != recorded.next_node_number)
      return;
    auto old = *r;
    // observe() counts these rows: the bound of a day holds over restarts of the engine, too.
    if (old.state == node_state::unreachable) old.reason = replaced_unreachable;
    old.replaced_by = step.row->id;
    old.since = now;
    old.state = node_state::replaced;
    auto fresh = *step.row;
    fresh.since = now;
    note("warning", "NodeReplaced", model::to_string(old.id),
         fmt::format("{} on {} takes its place: {}", model::to_string(fresh.id), fresh.host,
                     step.reason));
    return put_rows({fresh, old}, fresh.id.number + 1);
  }
  case step_kind::make_volume:
    if (!volume_busy && uptime >= volume_retry_at) open(true, step.groups);
    return;
  case step_kind::open_volume:
    if (!volume_busy && uptime >= volume_retry_at) open(false, {});
    return;
  case step_kind::set_groups:
    if (!volume_busy) set_groups(step);
    return;
  case step_kind::mount:
    if (!mount_busy && uptime >= mount_retry_at) mount();
    return;
  case step_kind::unmount:
    if (!mount_busy) unmount();
    return;
  case step_kind::close_volume:
    if (!volume_busy) close_and_forget();
    return;
  }
}

// -- nodes
// -----------------------------------------------------------------------------------------------------------

/// Payment is asked first: what the wallet cannot carry is not reserved.
void supervisor_state::reserve(model::recorded_node r) {
  busy_nodes.insert(r.id);
  self->request(payment_, 60s, price_check{r})
      .then(
          [this, r](done) {
            busy_nodes.erase(r.id);
            order_node(r, verb::reserve);
          },
          [this, r](caf::error& e) {
            busy_nodes.erase(r.id);
            node_retry_at[r.id] = config.shared->time->boot() + retry_after;
            auto text = describe(from_caf(e));
            if (payment_problem != text)
              note("error", "PaymentRefused", model::to_string(r.id), text);
            payment_problem = text;
          });
}

void supervisor_state::order_node(model::recorded_node r, verb what, byte_count size) {
  auto& actor = reservations[r.id];
  if (!actor) {
    actor = make_reservation(self->system(), {config.shared, config.blocking, r.id});
    self->monitor(actor);
  }
  busy_nodes.insert(r.id);
  auto node = r.id;
  self->request(actor, std::chrono::minutes{5}, node_order_message{what, std::move(r), size})
      .then([this](const node_report& report) { node_done(report); },
            [this, node](caf::error& e) {
              log::warning("supervisor", "{}: {}", model::to_string(node), describe(from_caf(e)));
              // Its actor is gone or stuck; the next order starts a new one, which goes on from the
              // intent.
              if (auto found = reservations.find(node); found != reservations.end()) {
                self->send_exit(found->second, caf::exit_reason::kill);
                reservations.erase(found);
              }
              node_retry_at[node] = config.shared->time->boot() + retry_after;
              if (auto* left = row(node); left != nullptr && ends(node))
                end_not_settled(*left, describe(from_caf(e)));
              reload(node);
            });
}

void supervisor_state::node_done(const node_report& report) {
  auto now = config.shared->time->wall();
  auto subject = model::to_string(report.node);
  if (report.what == verb::inspect) return inspected(report);
  if (auto* r = row(report.node); r != nullptr && report.changed) {
    auto detail = report.detail.empty() ? report.row.reason : report.detail;
    if (r->state != report.row.state) {
      if (report.row.state == node_state::ready)
        note("info", "NodeReady", subject,
             fmt::format("on {} ({}{}{})", report.row.host, report.row.place.farm,
                         report.row.place.country.empty() ? "" : ", ", report.row.place.country));
      else if (report.row.state == node_state::gone)
        note("info", "NodeGone", subject,
             fmt::format("its reservation on {} has ended", report.row.host));
      else if (report.row.state == node_state::planned)
        note("warning", "NodeRefused", subject,
             fmt::format("{} did not take it: {}", report.row.host, detail));
      else if (report.row.state == node_state::lost)
        note("warning", "NodeLost", subject, detail);
    }
    if (report.row.state == node_state::planned && !report.row.reason.empty()) {
      recorded.refused_hosts[{report.row.provider, report.row.host}] = now;
      write_advisory({fmt::format("the refusal of {}", report.row.host),
                      [provider = report.row.provider, host = report.row.host](
                          state::store& s) { return s.put_refusal(provider, host); }});
    }
  }
  if (report.what == verb::restart && report.ok)
    note("info", "NodeRestarted", subject, "its process was down, its data whole");
  auto uptime = config.shared->time->boot();
  // What was done shows when the node is asked for its figures again; until then the same step
  // would come in every pass.
  if (report.ok && report.what == verb::resize) node_retry_at[report.node] = uptime + figures_after;
  if (report.ok && report.what == verb::restart) node_retry_at[report.node] = uptime + retry_after;
  if (!report.ok) {
    // The machine of a node that leaves may be gone for good: it is asked less and less often.
    auto doublings = leaves(report.row) ? end_not_settled(report.row, report.detail) : 0;
    node_retry_at[report.node] = uptime + retry_after * (1U << doublings);
    log::info("supervisor", "{}: {} is not settled: {}", subject, word(report.what), report.detail);
  }
  inspections.erase(report.node);
  if (report.changed) ++node_changes;
  if (report.ok) open_ends.erase(report.node);
  if (report.ok) payment_problem.clear();
  reload(report.node);
}

/// A node is free for the next order when memory holds what its last one left in the state.
void supervisor_state::reload(model::node_id node) {
  on_state([store = config.shared->store.get()] { return look_at_state(*store); },
           [this, node](loaded_state l) {
             busy_nodes.erase(node);
             take_state(std::move(l));
             update_connections();
             tell_nodes();
             tell_budget();
             poke();
           });
}

void supervisor_state::inspected(const node_report& report) {
  busy_nodes.erase(report.node);
  inspected_at[report.node] =
      config.shared->time
          ->boot(); // counted from the answer: a slow provider must not keep a node busy
  inspections[report.node] = report.seen;
  auto moved = report.seen.what == grid::inspection::state::running && report.seen.where.valid();
  if (auto* r = row(report.node);
      moved && !state_busy && r != nullptr && !(r->where == report.seen.where)) {
    auto changed = *r;
    changed.where = report.seen.where;
    put_rows({changed}, recorded.next_node_number);
  }
  poke();
}

void supervisor_state::mark(model::node_id node, node_state state, const std::string& reason) {
  auto* r = row(node);
  if (r == nullptr || r->state == state || busy_nodes.contains(node) || state_busy) return;
  auto changed = *r;
  changed.state = state;
  changed.reason = reason;
  changed.since = config.shared->time->wall();
  auto level = state == node_state::ready || state == node_state::draining ? "info" : "warning";
  auto kind = state == node_state::ready      ? "NodeReady"
              : state == node_state::lost     ? "NodeLost"
              : state == node_state::draining ? "NodeDraining"
                                              : "NodeUnreachable";
  note(level, kind, model::to_string(node), reason.empty() ? "answers again" : reason);
  put_rows({changed}, recorded.next_node_number);
}

void supervisor_state::put_rows(std::vector<model::recorded_node> rows, std::uint32_t next_number) {
  state_busy = true;
  on_state([store = config.shared->store.get(), rows,
            next_number] { return store->put_nodes(rows, next_number); },
           [this, rows, next_number](status how) {
             state_busy = false;
             if (!how.ok()) return state_failed(how.err());
             for (const auto& fresh : rows) {
               if (auto* r = row(fresh.id))
                 *r = fresh;
               else
                 recorded.nodes.push_back(fresh);
             }
             recorded.next_node_number = std::max(recorded.next_node_number, next_number);
             update_connections();
             tell_nodes();
             tell_budget();
             poke();
           });
}

// -- the volume
// ------------------------------------------------------------------------------------------------------

void supervisor_state::set_groups(const controller::step& step) {
  volume_busy = true;
  auto capacity = desired->storage.capacity;
  self->send(mount_, change_capacity{capacity});
  self->request(mount_, 60s, change_groups{step.groups})
      .then(
          [this, groups = step.groups, capacity, reason = step.reason](done) {
            note("info", "GroupsChanged", "volume",
                 reason.empty() ? fmt::format("{} placement groups", groups.size()) : reason);
            auto s = recorded.volume;
            s.groups = groups;
            s.capacity = capacity;
            volume.view.groups = groups;
            on_state([store = config.shared->store.get(), s] { return store->put_summary(s); },
                     [this, s](status how) {
                       volume_busy = false;
                       // The volume has them; the row is for those who look without it, and is
                       // written again.
                       if (!how.ok()) {
                         summary_last.clear();
                         advisory_trouble("the groups of the volume", how.err());
                       }
                       recorded.volume = s;
                       refresh_report();
                       poke();
                     });
          },
          [this](caf::error& e) {
            volume_busy = false;
            note("error", "GroupsRefused", "volume", describe(from_caf(e)));
          });
}

void supervisor_state::mount() {
  mount_busy = true;
  self->request(mount_, 120s, do_mount{mount_wish()})
      .then(
          [this](done) {
            mount_busy = false;
            mount_problem.clear();
            // Until the next report says so itself: the same step must not come once more.
            volume.mounted = true;
            volume.mount_path = mount_wish().path.string();
            note("info", "Mounted", "mount", volume.mount_path);
            refresh_report();
            poke();
          },
          [this](caf::error& e) {
            mount_busy = false;
            mount_retry_at = config.shared->time->boot() + 5s;
            auto text = describe(from_caf(e));
            if (text != mount_problem) note("warning", "NotMounted", "mount", text);
            mount_problem = text;
          });
}

void supervisor_state::unmount() {
  mount_busy = true;
  self->request(mount_, 120s, do_unmount{})
      .then(
          [this](done) {
            mount_busy = false;
            note("info", "Unmounted", "mount", "on command");
            refresh_report();
            poke();
          },
          [this](caf::error& e) {
            mount_busy = false;
            note("warning", "StillMounted", "mount", describe(from_caf(e)));
          });
}

// -- the end
// ---------------------------------------------------------------------------------------------------------

/// destroy: the mount is gone; the volume is closed, its local files go, and the summary says there
/// is none any more.
void supervisor_state::close_and_forget() {
  volume_busy = true;
  self->request(mount_, std::chrono::minutes{40}, close_volume{true, volume_options()})
      .then(
          [this](done) {
            volume = {};
            model::volume_summary none;
            on_state(
                [store = config.shared->store.get(), none] { return store->put_summary(none); },
                [this, none](status how) {
                  volume_busy = false;
                  if (!how.ok()) return state_failed(how.err());
                  recorded.volume = none;
                  note("info", "VolumeGone", "volume", "its files on this machine are deleted");
                  poke();
                });
          },
          [this](caf::error& e) {
            volume_busy = false;
            note("error", "VolumeNotClosed", "volume", describe(from_caf(e)));
          });
}

/// Everything is cancelled: nothing is left to keep true, so the engine ends.
void supervisor_state::finish_destroy() {
  if (ended) return;
  ended = true;
  note("info", "Destroyed", "volume", "nothing of it is left running, mounted or reserved");
  config.end(0);
}

caf::result<done> supervisor_state::stop(bool) {
  auto answer = self->make_response_promise<done>();
  if (stopping && stops.empty()) { // the engine has failed: crash-only, nothing is closed in order
    answer.deliver(done{});
    return answer;
  }
  stops.push_back(answer); // who asks again while it goes on is answered with the first, when all is closed
  if (stops.size() > 1) return answer;
  stopping = true;
  log::info("supervisor", "stopping: unmounting");
  self->request(mount_, 120s, do_unmount{})
      .then([this](done) { stop_tree(); }, [this](caf::error&) { stop_tree(); });
  return answer;
}

void supervisor_state::stop_tree() {
  log::info("supervisor", "stopping: sealing what is open and waiting for the nodes, at most 20 s");
  auto close = [this] {
    log::info("supervisor", "stopping: closing the volume");
    auto end = [this] {
      for (auto& [node, l] : links) caf::anon_send(l.actor, stop_atom_v);
      links.clear();
      self->send_exit(monitor_, caf::exit_reason::user_shutdown);
      self->send_exit(repair_, caf::exit_reason::user_shutdown);
      self->send_exit(payment_, caf::exit_reason::user_shutdown);
      self->send_exit(mount_, caf::exit_reason::user_shutdown);
      for (auto& [node, r] : reservations) self->send_exit(r, caf::exit_reason::user_shutdown);
      reservations.clear();
      for (auto& asked : std::exchange(stops, {})) asked.deliver(done{});
      self->quit();
    };
    self->request(mount_, std::chrono::minutes{10}, close_volume{})
        .then([end](done) { end(); }, [end](caf::error&) { end(); });
  };
  self->request(mount_, 40s, do_drain{20s})
      .then([close](done) { close(); }, [close](caf::error&) { close(); });
}

} // namespace qs::actors
