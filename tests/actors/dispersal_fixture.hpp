// The dispersal actor over nodes as their connections show them, with faults on demand.
#pragma once

#include <doctest/doctest.h>

#include <map>
#include <set>

#include "actors/dispersal.hpp"
#include "object_names.hpp"
#include "support/actor_fixture.hpp"

namespace qs::test {

using namespace qs::actors;
using namespace std::chrono_literals;
using volume::shard_outcome;

inline std::string text_of(const model::object_name& name) {
  auto s = std::string{as_text(name)};
  return s.substr(0, s.find('\0'));
}

/// A node as its connection shows it, with faults on demand.
struct fake_node {
  std::map<std::string, buffer_ptr> objects;
  std::uint64_t life = 1;
  std::chrono::milliseconds delay{0}; ///< of every answer
  bool stuck = false;                 ///< never answers (until freed)
  std::optional<error> fails;         ///< every request is answered with it
  std::optional<error> barrier_fails;
  int stores = 0, reads = 0, barriers = 0, deletes = 0;
  std::size_t busy = 0, busy_most = 0; ///< requests under way, now and at most
  std::vector<std::function<void()>> held;
  std::map<std::uint64_t, std::function<void()>> later;
  std::uint64_t alarms = 0;
  std::vector<std::string> order;
};
using fake_self = connection_actor::extend<caf::reacts_to<alarm_atom, std::uint64_t>>;

struct dispersal_fixture : actor_fixture {
  std::map<std::uint32_t, std::shared_ptr<fake_node>> nodes;
  std::map<std::uint32_t, connection_actor> connections;
  dispersal_actor target;
  std::unique_ptr<dispersal_port> port;
  std::vector<std::string> told; ///< "n1:acknowledged" in order

  void begin(dispersal_config c = {}) {
    c.time = &time;
    target = spawn_dispersal(sys, c);
    port = std::make_unique<dispersal_port>(target);
  }
  ~dispersal_fixture() {
    port.reset();
    if (target) caf::anon_send_exit(target, caf::exit_reason::user_shutdown);
    for (auto& [n, c] : connections) caf::anon_send_exit(c, caf::exit_reason::user_shutdown);
    target = nullptr;
    connections.clear();
    run();
  }

  template <class T>
  static caf::result<T> reply(fake_self::pointer p, const std::shared_ptr<fake_node>& n,
                              std::function<result<T>()> work) {
    auto answer = p->make_response_promise<T>();
    n->busy_most = std::max(n->busy_most, ++n->busy);
    auto finish = [n, answer, work]() mutable {
      --n->busy;
      auto r = n->fails ? result<T>{*n->fails} : work();
      if (r.ok())
        answer.deliver(std::move(*r));
      else
        answer.deliver(to_caf(r.err()));
    };
    if (n->stuck) {
      n->held.push_back(finish);
    } else if (n->delay > 0ms) {
      n->later[++n->alarms] = finish;
      caf::delayed_anon_send(caf::actor_cast<caf::actor>(p), n->delay, alarm_atom_v, n->alarms);
    } else {
      finish();
    }
    return answer;
  }

  void add(std::uint32_t number, bool attach = true);
  void join(std::uint32_t number) {
    caf::anon_send(target, attach_atom_v, model::node_id{number}, connections[number]);
    run();
  }
  void leave(std::uint32_t number) {
    caf::anon_send(target, detach_atom_v, model::node_id{number});
    run();
  }
  void tell_stalled(std::uint32_t number, bool stalled) {
    link_report r;
    r.node = {number};
    r.state = link_state::ready;
    r.stalled = stalled;
    caf::anon_send(target, link_atom_v, r);
    run();
  }
  void free(std::uint32_t number) {
    auto& n = *nodes[number];
    n.stuck = false;
    for (auto& h : std::exchange(n.held, {})) { // a promise may be kept from within its actor only
      n.later[++n.alarms] = std::move(h);
      caf::anon_send(caf::actor_cast<caf::actor>(connections[number]), alarm_atom_v, n.alarms);
    }
    run();
  }

  volume::store_progress progress() {
    return [this](std::uint8_t index, model::node_id node, shard_outcome o) {
      static constexpr const char* names[] = {"acknowledged", "confirmed", "unconfirmed", "unreachable",
                                              "full",         "refused",   "unknown"};
      CHECK(index == node.number - 1);
      told.push_back(model::to_string(node) + ":" + names[static_cast<int>(o)]);
    };
  }
  /// Shard i goes to node i + 1.
  void store(std::uint32_t count, bool sync_soon = false, std::size_t size = 10, std::string prefix = "s") {
    volume::store_request r;
    r.segment = {1, 1};
    r.sync_soon = sync_soon;
    for (std::uint32_t i = 0; i < count; ++i)
      r.shards.push_back({static_cast<std::uint8_t>(i), {i + 1}, name_of(prefix + std::to_string(i)),
                          bytes_of(std::string(size, static_cast<char>('a' + i)))});
    port->store(std::move(r), progress());
    run();
  }
  /// n shards of which `needed` are enough, shard i on node i + 1.
  volume::fetch_request request(std::uint32_t count, int wanted, std::uint8_t needed) {
    volume::fetch_request r;
    r.segment = {1, 1};
    r.wanted = wanted;
    r.needed = needed;
    for (std::uint32_t i = 0; i < count; ++i)
      r.sources.push_back({static_cast<std::uint8_t>(i), {i + 1}, name_of("s" + std::to_string(i))});
    return r;
  }
  using fetched = std::shared_ptr<std::optional<result<std::vector<volume::fetched_shard>>>>;
  fetched fetch(volume::fetch_request r) {
    auto out = std::make_shared<std::optional<result<std::vector<volume::fetched_shard>>>>();
    port->fetch(std::move(r), [out](result<std::vector<volume::fetched_shard>> x) {
      CHECK_FALSE(out->has_value()); // exactly once
      out->emplace(std::move(x));
    });
    run();
    return out;
  }
  void fill(std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i)
      nodes[i + 1]->objects["s" + std::to_string(i)] = bytes_of("shard " + std::to_string(i));
  }
  dispersal_report status() {
    auto a = ask<dispersal_report>(target, status_atom_v);
    run();
    REQUIRE(a->has_value());
    return ***a;
  }
  std::size_t count(std::string_view what) const {
    return static_cast<std::size_t>(std::count(told.begin(), told.end(), what));
  }
};

inline void dispersal_fixture::add(std::uint32_t number, bool attach) {
  auto n = std::make_shared<fake_node>();
  nodes[number] = n;
  connections[number] = sys.spawn(
    [n](fake_self::pointer p, int) -> fake_self::behavior_type {
      return {
        [=](store_atom, const model::object_name& name, const buffer_ptr& value) {
          ++n->stores;
          n->order.push_back(text_of(name));
          return reply<std::uint64_t>(p, n, [=]() -> result<std::uint64_t> {
            n->objects[text_of(name)] = value;
            return n->life;
          });
        },
        [=](read_atom, const model::object_name& name) {
          ++n->reads;
          n->order.push_back(text_of(name));
          return reply<buffer_ptr>(p, n, [=]() -> result<buffer_ptr> {
            auto it = n->objects.find(text_of(name));
            if (it == n->objects.end()) return error{errc::not_found, "no such key"};
            return it->second;
          });
        },
        [=](del_atom, const object_names_ptr& names) -> caf::result<caf::ok_atom> {
          n->deletes += static_cast<int>(names->size());
          if (n->fails) return to_caf(*n->fails);
          for (auto& name : *names) n->objects.erase(text_of(name));
          return caf::ok_atom_v;
        },
        [=](check_atom, const model::object_name& name) -> caf::result<bool> {
          if (n->fails) return to_caf(*n->fails);
          if (!n->objects.contains(text_of(name))) return to_caf({errc::not_found, "no such key"});
          return true;
        },
        [=](barrier_atom) {
          ++n->barriers;
          return reply<std::uint64_t>(p, n, [=]() -> result<std::uint64_t> {
            if (n->barrier_fails) return *n->barrier_fails;
            return n->life;
          });
        },
        [](ping_atom) { return caf::ok_atom_v; },
        [](status_atom) { return link_report{}; },
        [](move_to_atom, const model::endpoint&) {},
        [=](stop_atom) -> caf::result<caf::ok_atom> { return caf::ok_atom_v; },
        [=](alarm_atom, std::uint64_t which) {
          auto work = std::move(n->later[which]);
          n->later.erase(which);
          work();
        },
      };
    },
    0);
  if (attach) join(number);
}

inline std::set<int> indices(const dispersal_fixture::fetched& f) {
  REQUIRE(f->has_value());
  REQUIRE((*f)->ok());
  std::set<int> out;
  for (auto& s : ***f) out.insert(s.index);
  return out;
}
inline errc code(const dispersal_fixture::fetched& f) {
  REQUIRE(f->has_value());
  return (*f)->ok() ? errc::none : (*f)->err().code;
}

} // namespace qs::test
