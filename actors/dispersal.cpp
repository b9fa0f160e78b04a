// Links, windows, writes, barriers. Reads are in dispersal_fetch.cpp.
#include <cstdint>

#include "actors/dispersal.hpp"

#include <caf/all.hpp>

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "actors/caf_error.hpp"
#include "actors/dispersal_state.hpp"

namespace qs::actors {

namespace {

// The connection has its own, shorter deadlines and always answers; these only catch one that died
// without a word.
constexpr std::chrono::seconds store_backstop{60};
constexpr std::chrono::seconds barrier_backstop{180}; // two minutes on a server without SYNC
constexpr std::chrono::seconds check_backstop{30};
constexpr std::chrono::seconds stop_most{20};
constexpr std::size_t names_at_once = 1024;

error not_attached(model::node_id node) {
  return {errc::unreachable, fmt::format("{} is not connected", model::to_string(node))};
}

} // namespace

void dispersal_state::start(dispersal_self::pointer me, dispersal_config config) {
  self = me;
  cfg = config;
  if (cfg.time == nullptr) cfg.time = &system_clock();
  self->set_exit_handler([this](caf::exit_msg& m) {
    let_go();
    self->quit(std::move(m.reason));
  });
}

// -- links and windows
// --------------------------------------------------------------------------------

void dispersal_state::attach(model::node_id node, const connection_actor& connection) {
  if (stopping) return;
  auto old = find(node);
  if (old && old->connection == connection) return;
  if (old) detach(node);
  auto fresh = std::make_shared<link>();
  fresh->node = node;
  fresh->connection = connection;
  fresh->last_answer = now();
  links[node] = std::move(fresh);
}

void dispersal_state::detach(model::node_id node) {
  auto it = links.find(node);
  if (it == links.end()) return;
  auto old = std::move(it->second);
  links.erase(it);
  old->attached = false;
  for (std::size_t k = 0; k < kinds; ++k)
    for (auto& op : std::exchange(old->lanes[k].waiting, {})) {
      if (is_left_over(op, static_cast<traffic>(k))) continue;
      if (op.store)
        op.store->tell(op.at, volume::shard_outcome::unreachable);
      else
        answered(op.read, op.at, old, not_attached(node));
    }
  for (auto& a : std::exchange(old->unconfirmed, {}))
    a.job->tell(a.shard, volume::shard_outcome::unconfirmed);
  end_if_idle();
}

/// What is on its way to a node that stands still stays so. What waits behind that would only use up
/// what may be late: the volume sends it again when the node is back.
void dispersal_state::link_changed(const link_report& r) {
  auto to = find(r.node);
  if (!to) return;
  to->stalled = r.stalled;
  if (!r.stalled) return;
  for (auto& l : to->lanes)
    for (auto& op : std::exchange(l.waiting, {})) {
      if (op.store)
        op.store->tell(op.at, volume::shard_outcome::unreachable);
      else
        l.waiting.push_back(std::move(op));
    }
}

dispersal_state::link_ptr dispersal_state::find(model::node_id node) const {
  auto it = links.find(node);
  return it == links.end() ? nullptr : it->second;
}

std::size_t dispersal_state::node_window(traffic kind) const {
  switch (kind) {
  case traffic::read:
    return cfg.node_read_window;
  case traffic::write:
    return cfg.node_write_window;
  case traffic::background:
    return cfg.node_background_window;
  }
  return 0;
}

std::size_t dispersal_state::total_window(traffic kind) const {
  switch (kind) {
  case traffic::read:
    return cfg.total_read_window;
  case traffic::write:
    return cfg.total_write_window;
  case traffic::background:
    return cfg.total_background_window;
  }
  return 0;
}

void dispersal_state::enqueue(const link_ptr& to, traffic kind, operation what) {
  auto& waiting = to->lanes[static_cast<std::size_t>(kind)].waiting;
  while (!waiting.empty() && is_left_over(waiting.front(), kind)) waiting.pop_front();
  waiting.push_back(std::move(what));
  pump(to, kind);
}

bool dispersal_state::is_left_over(const operation& op, traffic kind) {
  return op.read && (op.read->finished || op.read->sources[op.at].lane != kind);
}

void dispersal_state::pump(const link_ptr& to, traffic kind) {
  auto k = static_cast<std::size_t>(kind);
  auto& l = to->lanes[k];
  while (!l.waiting.empty()) {
    auto& next = l.waiting.front();
    if (is_left_over(next, kind)) {
      l.waiting.pop_front();
      continue;
    }
    if (l.in_flight > 0 && l.in_flight + next.cost > node_window(kind)) return;
    // Background work gives way: while others wait for this node, one operation at a time.
    if (kind == traffic::background && l.in_flight > 0 &&
        (!to->lanes[0].waiting.empty() || !to->lanes[1].waiting.empty()))
      return;
    if (total[k] > 0 && total[k] + next.cost > total_window(kind)) {
      if (!std::exchange(l.starved, true)) starved[k].push_back(to);
      return;
    }
    auto op = std::move(next);
    l.waiting.pop_front();
    l.in_flight += op.cost;
    total[k] += op.cost;
    if (op.store)
      send_store(to, kind, std::move(op));
    else
      send_read(to, kind, std::move(op));
  }
}

void dispersal_state::release(const link_ptr& to, traffic kind, std::size_t cost) {
  auto k = static_cast<std::size_t>(kind);
  QS_ASSERT(to->lanes[k].in_flight >= cost && total[k] >= cost);
  to->lanes[k].in_flight -= cost;
  total[k] -= cost;
  pump(to, kind);
  if (kind != traffic::background) pump(to, traffic::background);
  // Those that only the total held up, in the order in which they began to wait.
  for (auto n = starved[k].size(); n > 0 && total[k] < total_window(kind); --n) {
    auto other = std::move(starved[k].front());
    starved[k].pop_front();
    other->lanes[k].starved = false;
    pump(other, kind);
  }
}

// -- writes
// -------------------------------------------------------------------------------------------

void dispersal_state::store(const store_job_ptr& job) {
  if (stopping) return; // the job says so as it goes
  auto kind = job->request.background ? traffic::background : traffic::write;
  for (std::size_t i = 0; i < job->request.shards.size(); ++i) {
    auto& shard = job->request.shards[i];
    auto to = find(shard.node);
    if (!to || !shard.value || to->stalled) {
      job->tell(i, volume::shard_outcome::unreachable);
      continue;
    }
    enqueue(to, kind, {job, nullptr, i, shard.value->size() + request_overhead});
  }
}

void dispersal_state::send_store(const link_ptr& to, traffic kind, operation what) {
  auto& shard = what.store->request.shards[what.at];
  what.store->stages[what.at] = store_job::stage::sent;
  self->request(to->connection, store_backstop, store_atom_v, shard.name, shard.value)
      .then(
          [this, to, kind, job = what.store, at = what.at, cost = what.cost](std::uint64_t life) {
            acknowledge(to, job, at, life, cost);
            release(to, kind, cost);
            end_if_idle();
          },
          [this, to, kind, job = what.store, at = what.at, cost = what.cost](const caf::error& e) {
            job->tell(at, outcome_of(from_caf(e)));
            release(to, kind, cost);
            end_if_idle();
          });
}

void dispersal_state::acknowledge(const link_ptr& to, const store_job_ptr& job, std::size_t shard,
                                  std::uint64_t life, std::size_t bytes) {
  job->tell(shard, volume::shard_outcome::acknowledged);
  if (!to->attached) return job->tell(shard, volume::shard_outcome::unconfirmed);
  to->unconfirmed.push_back({job, shard, life});
  to->unconfirmed_bytes += bytes;
  if (job->request.sync_soon || stopping || to->unconfirmed_bytes >= cfg.barrier_bytes) {
    to->sync_soon = true;
    if (!to->syncing) send_barrier(to);
  } else {
    arm_barriers();
  }
}

void dispersal_state::send_barrier(const link_ptr& to) {
  to->syncing = true;
  to->sync_soon = false;
  to->unconfirmed_bytes = 0;
  ++barriers;
  auto batch = std::make_shared<std::vector<acknowledged>>(std::exchange(to->unconfirmed, {}));
  auto after = [this, to] {
    to->syncing = false;
    --barriers;
    if (!to->unconfirmed.empty()) {
      if (to->sync_soon || stopping)
        send_barrier(to);
      else
        arm_barriers();
    }
    end_if_idle();
  };
  self->request(to->connection, barrier_backstop, barrier_atom_v)
      .then(
          [batch, after](std::uint64_t life) {
            // The barrier covers what the server of this life acknowledged, and nothing of an
            // earlier one.
            for (auto& a : *batch)
              a.job->tell(a.shard, a.life == life ? volume::shard_outcome::confirmed
                                                  : volume::shard_outcome::unconfirmed);
            after();
          },
          [batch, after](const caf::error&) {
            for (auto& a : *batch) a.job->tell(a.shard, volume::shard_outcome::unconfirmed);
            after();
          });
}

void dispersal_state::arm_barriers() {
  if (std::exchange(barriers_armed, true)) return;
  caf::delayed_anon_send(caf::actor_cast<caf::actor>(self), cfg.barrier_every, barrier_atom_v);
}

void dispersal_state::on_barriers() {
  barriers_armed = false;
  // One that is under way arms the next when it is answered.
  for (auto& [node, l] : links)
    if (!l->unconfirmed.empty() && !l->syncing) send_barrier(l);
}

void dispersal_state::remove(const remove_job_ptr& job, std::size_t from) {
  auto to = find(job->node);
  if (stopping) return;
  if (!to) return job->answer(not_attached(job->node));
  auto names = job->names;
  auto end = std::min(names->size(), from + names_at_once);
  if (from > 0 || end < names->size())
    names = std::make_shared<const object_names>(names->begin() + static_cast<std::ptrdiff_t>(from),
                                                 names->begin() + static_cast<std::ptrdiff_t>(end));
  ++small_jobs;
  self->request(to->connection, store_backstop, del_atom_v, names)
      .then(
          [this, job, end](caf::ok_atom) {
            --small_jobs;
            if (end < job->names->size())
              remove(job, end);
            else
              job->answer({});
            end_if_idle();
          },
          [this, job](const caf::error& e) {
            --small_jobs;
            job->answer(from_caf(e));
            end_if_idle();
          });
}

void dispersal_state::check(const check_job_ptr& job) {
  auto to = find(job->node);
  if (stopping) return;
  if (!to) return job->answer(not_attached(job->node));
  ++small_jobs;
  self->request(to->connection, check_backstop, check_atom_v, job->name)
      .then(
          [this, job](bool intact) {
            --small_jobs;
            job->answer(intact);
            end_if_idle();
          },
          [this, job](const caf::error& e) {
            --small_jobs;
            auto why = from_caf(e);
            if (why.code == errc::not_found)
              job->answer(false);
            else
              job->answer(std::move(why));
            end_if_idle();
          });
}

// -- the rest
// -----------------------------------------------------------------------------------------

void dispersal_state::arm() {
  std::optional<boot_time> next;
  if (!due.empty()) next = due.begin()->first;
  if (stopping) next = next ? std::min(*next, stop_by) : stop_by;
  if (!next || (alarm_at && *alarm_at <= *next)) return;
  alarm_at = next;
  caf::delayed_anon_send(caf::actor_cast<caf::actor>(self), std::max(*next - now(), boot_time{1}),
                         alarm_atom_v, ++alarm_number);
}

void dispersal_state::on_alarm(std::uint64_t number) {
  if (number != alarm_number) return;
  alarm_at.reset();
  auto t = now();
  while (!due.empty() && due.begin()->first <= t) {
    auto f = due.begin()->second;
    due.erase(due.begin());
    f->timer.reset();
    on_timer(f);
  }
  if (stopping && t >= stop_by) return end_if_idle();
  arm();
}

dispersal_report dispersal_state::report() const {
  dispersal_report r;
  r.nodes = links.size();
  r.read_bytes_in_flight = total[0];
  r.write_bytes_in_flight = total[1];
  r.background_bytes_in_flight = total[2];
  r.fetches = fetches;
  r.hedges = hedges;
  for (auto& [node, l] : links) {
    r.unconfirmed += l->unconfirmed.size();
    for (auto& ln : l->lanes) r.queued += ln.waiting.size();
  }
  return r;
}

caf::result<caf::ok_atom> dispersal_state::stop() {
  auto answer = self->make_response_promise<caf::ok_atom>();
  stops.push_back(answer);
  if (!std::exchange(stopping, true)) {
    stop_by = now() + stop_most;
    for (auto& [node, l] : links)
      if (!l->unconfirmed.empty() && !l->syncing) send_barrier(l);
  }
  end_if_idle();
  if (!stops.empty()) arm();
  return answer;
}

void dispersal_state::end_if_idle() {
  if (!stopping || stops.empty()) return;
  auto idle = fetches == 0 && small_jobs == 0 && barriers == 0;
  for (auto n : total) idle = idle && n == 0;
  if (!idle && now() < stop_by) return;
  auto asked = std::exchange(stops, {});
  let_go();
  for (auto& s : asked) s.deliver(caf::ok_atom_v);
  self->quit();
}

/// Answers what still waits. What is with the connections answers when its handler goes
/// (store_job's destructor).
void dispersal_state::let_go() {
  stopping = true;
  while (!links.empty()) detach(links.begin()->first);
  std::vector<fetch_ptr> open;
  for (auto& [at, f] : due) open.push_back(f);
  for (auto& f : open)
    if (!f->finished) finish(f, error{errc::cancelled, "the data path is stopping"});
}

dispersal_self::behavior_type dispersal_state::make_behavior() {
  return {
      [this](attach_atom, model::node_id node, const connection_actor& c) { attach(node, c); },
      [this](detach_atom, model::node_id node) { detach(node); },
      [this](link_atom, const link_report& r) { link_changed(r); },
      [this](store_atom, const store_job_ptr& job) { store(job); },
      [this](fetch_atom, const fetch_job_ptr& job) { start_fetch(job); },
      [this](hurry_atom, std::uint32_t epoch, std::uint64_t counter, std::uint8_t wanted) {
        hurry({epoch, counter}, wanted);
      },
      [this](remove_atom, const remove_job_ptr& job) { remove(job, 0); },
      [this](check_atom, const check_job_ptr& job) { check(job); },
      [this](status_atom) { return report(); },
      [this](stop_atom) { return stop(); },
      [this](alarm_atom, std::uint64_t number) { on_alarm(number); },
      [this](barrier_atom) { on_barriers(); },
  };
}

namespace {
dispersal_self::behavior_type dispersal(dispersal_self::stateful_pointer<dispersal_state> self,
                                        const std::shared_ptr<dispersal_config>& config) {
  self->state.start(self, *config);
  return self->state.make_behavior();
}
} // namespace

dispersal_actor spawn_dispersal(caf::actor_system& system, dispersal_config config) {
  return system.spawn(dispersal, std::make_shared<dispersal_config>(config));
}

} // namespace qs::actors
