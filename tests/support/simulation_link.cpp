#include "support/simulation_link.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "actors/atoms.hpp"
#include "actors/caf_error.hpp"

namespace qs::test {
namespace {

using namespace std::chrono_literals;
using namespace actors;
using milliseconds = std::chrono::milliseconds;

constexpr auto request_deadline = 10s;
constexpr auto stalled_after = 3s;

using link_actor = connection_actor::extend<caf::reacts_to<alarm_atom, std::uint64_t>>;

struct link {
  static inline const char* name = "qs.simulated_link";
  explicit link(link_actor::pointer p) : self{p} {}

  link_actor::behavior_type make_behavior() {
    watch();
    return {
      [this](store_atom, const model::object_name& object, const buffer_ptr& value) -> caf::result<std::uint64_t> {
        return ask<std::uint64_t>(errc::maybe_delivered, [this, object, value](simulated_node& n) -> result<std::uint64_t> {
          auto [at, fresh] = n.objects.try_emplace(object, *value);
          if (!fresh && at->second != *value) sim->violations().push_back(fmt::format("{}: one object name, two contents", n.name));
          if (fresh) n.unsynced.insert(object);
          return life;
        });
      },
      [this](read_atom, const model::object_name& object) -> caf::result<buffer_ptr> {
        return ask<buffer_ptr>(errc::timed_out, [object](simulated_node& n) -> result<buffer_ptr> {
          auto at = n.objects.find(object);
          if (at == n.objects.end()) return error{errc::not_found, "no such object"};
          return share(at->second);
        });
      },
      [this](del_atom, const object_names_ptr& names) -> caf::result<caf::ok_atom> {
        return ask<caf::ok_atom>(errc::maybe_delivered, [names](simulated_node& n) -> result<caf::ok_atom> {
          for (const auto& object : *names) {
            n.objects.erase(object);
            n.unsynced.erase(object);
          }
          return caf::ok_atom_v;
        });
      },
      [this](check_atom, const model::object_name& object) -> caf::result<bool> {
        return ask<bool>(errc::timed_out, [object](simulated_node& n) -> result<bool> {
          if (!n.objects.contains(object)) return error{errc::not_found, "no such object"};
          return true;
        });
      },
      [this](barrier_atom) -> caf::result<std::uint64_t> {
        return ask<std::uint64_t>(errc::maybe_delivered, [this](simulated_node& n) -> result<std::uint64_t> {
          n.unsynced.clear();
          return life;
        });
      },
      [this](ping_atom) -> caf::result<caf::ok_atom> {
        return ask<caf::ok_atom>(errc::timed_out, [this](simulated_node& n) -> result<caf::ok_atom> {
          take_figures(n);
          return caf::ok_atom_v;
        });
      },
      [this](status_atom) -> caf::result<link_report> { return report(false); },
      [this](move_to_atom, const model::endpoint& where) {
        cfg.where = where;
        enter(link_state::disconnected, "moved");
        connect();
      },
      [this](stop_atom) -> caf::result<caf::ok_atom> {
        auto answer = self->make_response_promise<caf::ok_atom>();
        enter(link_state::stopped, "stopped");
        answer.deliver(caf::ok_atom_v);
        self->quit();
        return answer;
      },
      [this](alarm_atom, std::uint64_t number) {
        auto found = alarms.find(number);
        if (found == alarms.end()) return;
        auto what = std::move(found->second);
        alarms.erase(found);
        what();
      },
    };
  }

  void later(milliseconds delay, std::function<void()> what) {
    auto number = next_alarm++;
    alarms.emplace(number, std::move(what));
    caf::delayed_anon_send(link_actor{self}, delay, alarm_atom_v, number);
  }

  milliseconds latency() {
    auto& random = sim->random;
    if (random.below(1000) < sim->links.slow) {
      ++sim->grid->counters["slow request"];
      return milliseconds{500 + random.below(4000)};
    }
    return milliseconds{1 + random.below(20)};
  }

  simulated_node* node() {
    auto* n = sim->grid->find(cfg.where.ns);
    return n != nullptr && n->port == cfg.where.port && n->running && !n->tombstone ? n : nullptr;
  }

  template <class T, class Work>
  caf::result<T> ask(errc lost, Work work) {
    if (state != link_state::ready) return to_caf(why_not());
    auto answer = self->make_response_promise<T>();
    auto number = session;
    auto asked = owed.insert(sim->time.boot());
    watch_stall();
    later(latency(), [this, answer, lost, work, number, asked]() mutable {
      auto* n = node();
      if (number == session && n != nullptr && !n->silent) heard(asked);
      delivered<T>(answer, lost, work, number);
    });
    return answer;
  }

  template <class T, class Work>
  void delivered(caf::typed_response_promise<T> answer, errc lost, Work work, std::uint64_t number) {
    auto fail = [this, answer, lost, number](const char* why) mutable {
      answer.deliver(to_caf({lost, why}));
      if (number == session) enter(link_state::disconnected, why);
    };
    if (number != session) {
      answer.deliver(to_caf({lost, "the connection was lost"}));
      return;
    }
    auto* n = node();
    if (n == nullptr) return fail("connection reset");
    if (n->silent) return later(request_deadline, [fail]() mutable { fail("no answer"); });
    if (n->data_gone) {
      n->running = false;
      return fail("-Data files are gone");
    }
    auto r = work(*n);
    seen = sim->time.wall();
    if (sim->random.below(1000) < sim->links.lost_answer) {
      ++sim->grid->counters["node answer lost"];
      return fail("connection reset before the answer");
    }
    if (r.ok())
      answer.deliver(std::move(*r));
    else
      answer.deliver(to_caf(r.err()));
  }

  /// An answer came.
  void heard(std::multiset<boot_time>::iterator asked) {
    owed.erase(asked);
    alive = sim->time.boot();
    if (std::exchange(stalled, false) && cfg.listener) caf::anon_send(cfg.listener, link_atom_v, report(false));
    watch_stall();
  }

  /// As the real one: ready, an answer owed, and no sign of life for three seconds.
  void watch_stall() {
    if (owed.empty() || stalled || std::exchange(stall_watched, true)) return;
    auto due = std::max(alive, *owed.begin()) + stalled_after;
    later(due - sim->time.boot(), [this] {
      stall_watched = false;
      if (owed.empty() || stalled) return;
      if (sim->time.boot() < std::max(alive, *owed.begin()) + stalled_after) return watch_stall();
      ++sim->grid->counters["link stalled"];
      stalled = true;
      if (cfg.listener) caf::anon_send(cfg.listener, link_atom_v, report(false));
    });
  }

  error why_not() const {
    switch (state) {
    case link_state::data_lost: return {errc::data_lost, detail};
    case link_state::access_denied: return {errc::access_denied, detail};
    default: return {errc::unreachable, detail.empty() ? "not connected" : detail};
    }
  }

  void watch() {
    connect();
    later(milliseconds{200 + sim->random.below(300)}, [this] { watch(); });
  }

  void connect() {
    if (state != link_state::disconnected) return;
    auto* n = node();
    if (n == nullptr || n->silent) return;
    if (n->data_gone) {
      n->running = false; // the server finds out and exits
      return;
    }
    auto identity = n->objects.find(cfg.identity_name);
    if (identity == n->objects.end() || identity->second != *cfg.identity)
      return enter(link_state::data_lost, "identity");
    auto again = seen_life != 0 && seen_life != n->life;
    if (seen_life != n->life) ++life;
    seen_life = n->life;
    take_figures(*n);
    seen = sim->time.wall();
    enter(link_state::ready, {}, again);
  }

  void take_figures(const simulated_node& n) {
    auto before = std::pair{limit, used};
    limit = n.size;
    used = 0;
    for (const auto& [object, value] : n.objects) used += value.size();
    if (state == link_state::ready && before != std::pair{limit, used} && cfg.listener)
      caf::anon_send(cfg.listener, link_atom_v, report(false));
  }

  void enter(link_state next, std::string why, bool restarted = false) {
    if (state == next && !restarted) return;
    ++session;
    owed.clear();
    stalled = false;
    state = next;
    detail = std::move(why);
    if (cfg.listener) caf::anon_send(cfg.listener, link_atom_v, report(restarted));
  }

  link_report report(bool restarted) const {
    link_report r;
    r.node = cfg.node;
    r.state = state;
    r.detail = detail;
    r.life = life;
    r.restarted = restarted;
    r.stalled = stalled;
    r.last_seen = seen;
    r.has_sync = true;
    r.used = used;
    r.limit = limit;
    return r;
  }

  link_actor::pointer self;
  connection_config cfg;
  simulation* sim = nullptr;
  link_state state = link_state::disconnected;
  std::string detail;
  std::uint64_t session = 0; ///< counts changes of state: answers to older ones are lost
  std::uint64_t life = 0;
  std::uint64_t seen_life = 0;
  wall_time seen{};
  std::multiset<boot_time> owed; ///< when what is not answered yet was asked, in this session
  boot_time alive{0};            ///< when an answer last came
  bool stalled = false;
  bool stall_watched = false;
  byte_count used = 0;
  byte_count limit = 0;
  std::map<std::uint64_t, std::function<void()>> alarms;
  std::uint64_t next_alarm = 1;
};

link_actor::behavior_type simulated_link(link_actor::stateful_pointer<link> self, connection_config config, simulation* sim) {
  self->state.cfg = std::move(config);
  self->state.sim = sim;
  return self->state.make_behavior();
}

} // namespace

actors::connection_actor simulated_connection(caf::actor_system& system, actors::connection_config config, simulation& sim) {
  return system.spawn(simulated_link, std::move(config), &sim);
}

// -- the books -------------------------------------------------------------------------------------------------------

std::size_t shard_book::intact(const segment& s, simulated_grid& grid, const simulated_node* without) {
  std::size_t found = 0;
  auto nodes = grid.nodes();
  for (const auto& [index, object] : s.names)
    found += std::any_of(nodes.begin(), nodes.end(), [&, name = object](const simulated_node* n) {
      return n != without && !n->tombstone && !n->data_gone && n->objects.contains(name);
    });
  return found;
}

bool shard_book::elsewhere(const model::object_name& object, simulated_grid& grid, model::node_id without, boot_time since) {
  auto nodes = grid.nodes();
  return std::any_of(nodes.begin(), nodes.end(), [&](const simulated_node* n) {
    if (n->node == without) return false;
    if (n->tombstone || n->data_gone) return n->lost_at > since && (n->objects.contains(object) || n->lost.contains(object));
    return n->objects.contains(object);
  });
}

void recording_port::store(volume::store_request request, volume::store_progress progress) {
  auto ref = request.segment;
  auto& s = book_.segments[ref];
  for (const auto& shard : request.shards) {
    s.names[shard.index] = shard.name;
    book_.by_name[shard.name] = ref;
  }
  s.needed = s.names.size() > *parity_ ? s.names.size() - *parity_ : 1;
  auto& book = book_;
  next_->store(std::move(request), [&book, ref, progress](std::uint8_t index, model::node_id node, volume::shard_outcome outcome) {
    auto& known = book.segments[ref];
    if (outcome == volume::shard_outcome::confirmed) known.confirmed.insert(index);
    if (known.confirmed.size() == known.names.size()) known.was_safe = true;
    progress(index, node, outcome);
  });
}

void recording_port::remove(model::node_id node, std::vector<model::object_name> names, std::function<void(status)> done) {
  // Copies that moved are deleted where they were; the only copy only when its segment is dead.
  look_();
  for (const auto& name : names) {
    auto found = book_.by_name.find(name);
    if (found == book_.by_name.end()) continue;
    auto& s = book_.segments[found->second];
    ++grid_.counters["copies deleted"];
    if (s.dead) s.deleted = true;
    if (s.dead || shard_book::elsewhere(name, grid_, node, unknown_since_())) continue;
    const auto* n = grid_.find(node);
    if (n == nullptr || !n->objects.contains(name)) continue;
    // Its place may be on a node that was lost since, and parity carries it until it is made anew.
    if (s.names.size() <= *parity_ || shard_book::intact(s, grid_, n) >= s.names.size() - *parity_) continue;
    s.deleted = true;
    grid_.violations.push_back(
      fmt::format("the last copy of a shard of {}, which is alive, is deleted from {}", model::to_string(found->second), model::to_string(node)));
  }
  next_->remove(node, std::move(names), std::move(done));
}

} // namespace qs::test
