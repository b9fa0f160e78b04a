#include <doctest/doctest.h>

#include <map>
#include <set>

#include "actors/dispersal.hpp"
#include "support/actor_fixture.hpp"

using namespace qs;
using namespace qs::actors;
using namespace std::chrono_literals;
using volume::shard_outcome;

namespace {

model::object_name name_of(std::string_view text) {
  model::object_name out{};
  std::copy_n(as_bytes(text).begin(), std::min(text.size(), out.size()), out.begin());
  return out;
}
std::string text_of(const model::object_name& name) {
  auto s = std::string{as_text(name)};
  return s.substr(0, s.find('\0'));
}
buffer_ptr bytes_of(std::string_view text) { return share(to_buffer(text)); }

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

struct dispersal_fixture : test::actor_fixture {
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

void dispersal_fixture::add(std::uint32_t number, bool attach) {
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

std::set<int> indices(const dispersal_fixture::fetched& f) {
  REQUIRE(f->has_value());
  REQUIRE((*f)->ok());
  std::set<int> out;
  for (auto& s : ***f) out.insert(s.index);
  return out;
}
errc code(const dispersal_fixture::fetched& f) {
  REQUIRE(f->has_value());
  return (*f)->ok() ? errc::none : (*f)->err().code;
}

} // namespace

TEST_CASE_FIXTURE(dispersal_fixture, "dispersal: acknowledged at once, confirmed behind the barrier of a second") {
  begin();
  for (std::uint32_t n = 1; n <= 3; ++n) add(n);
  store(3);
  CHECK(told == std::vector<std::string>{"n1:acknowledged", "n2:acknowledged", "n3:acknowledged"});
  CHECK(status().unconfirmed == 3);
  advance(900ms);
  CHECK(told.size() == 3);
  advance(200ms);
  CHECK(count("n1:confirmed") == 1);
  CHECK(count("n2:confirmed") == 1);
  CHECK(count("n3:confirmed") == 1);
  CHECK(told.size() == 6);
  CHECK(nodes[1]->barriers == 1);
  advance(5s);
  CHECK(nodes[1]->barriers == 1); // nothing to confirm, nothing sent
  CHECK(status().write_bytes_in_flight == 0);
}

TEST_CASE_FIXTURE(dispersal_fixture, "dispersal: sync_soon sends the barrier at once") {
  begin();
  add(1);
  store(1, true);
  CHECK(told == std::vector<std::string>{"n1:acknowledged", "n1:confirmed"});
}

TEST_CASE_FIXTURE(dispersal_fixture, "dispersal: one barrier at a time, what comes meanwhile waits for the next") {
  begin();
  add(1);
  store(1, false, 10, "a");
  nodes[1]->stuck = true;
  advance(1100ms); // the barrier is out and stuck
  CHECK(nodes[1]->barriers == 1);
  nodes[1]->stuck = false;
  store(1, true, 10, "b"); // acknowledged, but the barrier under way does not cover it
  CHECK(count("n1:acknowledged") == 2);
  CHECK(count("n1:confirmed") == 0);
  CHECK(nodes[1]->barriers == 1);
  free(1);
  CHECK(count("n1:confirmed") == 2);
  CHECK(nodes[1]->barriers == 2);
}

TEST_CASE_FIXTURE(dispersal_fixture, "dispersal: what becomes of a shard that is not simply stored") {
  begin();
  add(1);
  add(2, false);
  SUBCASE("nobody knows the node") {
    store(2);
    CHECK(count("n2:unreachable") == 1);
    CHECK(count("n1:acknowledged") == 1);
  }
  struct row {
    errc code;
    const char* outcome;
  };
  SUBCASE("what the node says") {
    for (auto& r : {row{errc::no_space, "full"}, row{errc::refused, "refused"}, row{errc::access_denied, "refused"},
                    row{errc::data_lost, "refused"}, row{errc::corrupt, "refused"}, row{errc::maybe_delivered, "unknown"},
                    row{errc::unreachable, "unreachable"}, row{errc::busy, "unreachable"}}) {
      told.clear();
      nodes[1]->fails = error{r.code, "as scripted"};
      store(1);
      CHECK(told == std::vector<std::string>{std::string{"n1:"} + r.outcome});
    }
  }
  SUBCASE("the barrier fails") {
    nodes[1]->barrier_fails = error{errc::unreachable, "gone"};
    store(1, true);
    CHECK(told == std::vector<std::string>{"n1:acknowledged", "n1:unconfirmed"});
  }
  SUBCASE("the server was restarted between answer and barrier") {
    store(1);
    nodes[1]->life = 2;
    advance(1100ms);
    CHECK(told == std::vector<std::string>{"n1:acknowledged", "n1:unconfirmed"});
  }
  SUBCASE("the node is taken away before its barrier") {
    store(1);
    leave(1);
    CHECK(told == std::vector<std::string>{"n1:acknowledged", "n1:unconfirmed"});
    advance(2s);
    CHECK(told.size() == 2);
  }
  SUBCASE("the node is taken away before it answers") {
    nodes[1]->stuck = true;
    store(1);
    leave(1);
    CHECK(told.empty());
    free(1);
    CHECK(told == std::vector<std::string>{"n1:acknowledged", "n1:unconfirmed"});
  }
  SUBCASE("the connection dies without a word") {
    nodes[1]->stuck = true;
    store(1);
    advance(61s, 1s);
    CHECK(told == std::vector<std::string>{"n1:unknown"});
    nodes[1]->held.clear();
  }
}

TEST_CASE_FIXTURE(dispersal_fixture, "dispersal: bytes in flight to a node are bounded, the rest waits its turn") {
  dispersal_config c;
  c.node_write_window = 2500;
  begin(c);
  add(1);
  nodes[1]->stuck = true;
  for (int i = 0; i < 5; ++i) store(1, false, 1000, "w" + std::to_string(i));
  CHECK(nodes[1]->stores == 2);
  CHECK(status().write_bytes_in_flight == 2 * (1000 + request_overhead));
  CHECK(status().queued == 3);
  free(1);
  CHECK(nodes[1]->stores == 5);
  CHECK(count("n1:acknowledged") == 5);
  CHECK(nodes[1]->busy_most == 2);
}

TEST_CASE_FIXTURE(dispersal_fixture, "dispersal: all nodes share a window too, and it is handed on fairly") {
  dispersal_config c;
  c.total_write_window = 2500;
  begin(c);
  for (std::uint32_t n = 1; n <= 4; ++n) {
    add(n);
    nodes[n]->stuck = true;
  }
  store(4, false, 1000);
  CHECK(nodes[1]->stores + nodes[2]->stores == 2);
  CHECK(nodes[3]->stores + nodes[4]->stores == 0);
  free(1);
  CHECK(nodes[3]->stores == 1);
  CHECK(nodes[4]->stores == 0);
  free(2);
  CHECK(nodes[4]->stores == 1);
  free(3);
  free(4);
  CHECK(told.size() == 4);
  CHECK(status().write_bytes_in_flight == 0);
}

TEST_CASE_FIXTURE(dispersal_fixture, "dispersal: background work gives way") {
  dispersal_config c;
  c.node_read_window = read_charge;
  c.node_background_window = 4 * read_charge;
  begin(c);
  add(1);
  fill(1);
  nodes[1]->stuck = true;
  auto first = fetch(request(1, 0, 1));
  auto second = fetch(request(1, 0, 1)); // waits for the read window
  std::vector<fetched> behind;
  for (int i = 0; i < 3; ++i) {
    auto r = request(1, 0, 1);
    r.background = true;
    behind.push_back(fetch(std::move(r)));
  }
  CHECK(nodes[1]->reads == 2); // one of the foreground, and only one of the background
  free(1);
  CHECK(indices(first) == std::set{0});
  CHECK(indices(second) == std::set{0});
  for (auto& b : behind) CHECK(indices(b) == std::set{0});
  auto s = status();
  CHECK(s.background_bytes_in_flight == 0);
  CHECK(s.read_bytes_in_flight == 0);
}

TEST_CASE_FIXTURE(dispersal_fixture, "fetch: the wanted shard alone, from its node alone") {
  begin();
  for (std::uint32_t n = 1; n <= 6; ++n) add(n);
  fill(6);
  auto f = fetch(request(6, 2, 4));
  CHECK(indices(f) == std::set{2});
  CHECK(as_text(*(***f)[0].value) == "shard 2");
  CHECK((***f)[0].node == model::node_id{3});
  for (std::uint32_t n : {1U, 2U, 4U, 5U, 6U}) CHECK(nodes[n]->reads == 0);
}

TEST_CASE_FIXTURE(dispersal_fixture, "fetch: a slow node is hedged after 30 ms, its late answer dropped") {
  begin();
  for (std::uint32_t n = 1; n <= 6; ++n) add(n);
  fill(6);
  nodes[3]->delay = 500ms;
  auto f = fetch(request(6, 2, 4));
  advance(20ms, 5ms);
  CHECK_FALSE(f->has_value());
  CHECK(nodes[1]->reads == 0);
  advance(15ms, 5ms);
  CHECK(indices(f).size() == 4); // any four others
  CHECK(indices(f).count(2) == 0);
  CHECK(status().hedges == 1);
  CHECK(nodes[1]->reads + nodes[2]->reads + nodes[4]->reads + nodes[5]->reads + nodes[6]->reads == 4);
  SUBCASE("the next read does not wait to find out again") {
    auto g = fetch(request(6, 2, 4));
    CHECK(indices(g).size() == 4);
  }
  advance(1s);
  CHECK(status().read_bytes_in_flight == 0);
  SUBCASE("once it answers it is asked first again") {
    nodes[3]->delay = 0ms;
    auto before = nodes[1]->reads;
    auto g = fetch(request(6, 2, 4));
    CHECK(indices(g) == std::set{2});
    CHECK(nodes[1]->reads == before);
  }
}

TEST_CASE_FIXTURE(dispersal_fixture, "fetch: when the wanted one comes after the hedge but first, it answers") {
  begin();
  for (std::uint32_t n = 1; n <= 6; ++n) add(n);
  fill(6);
  for (auto& [n, node] : nodes) node->delay = n == 3 ? 60ms : 300ms;
  auto f = fetch(request(6, 2, 4));
  advance(100ms, 5ms);
  CHECK(indices(f).count(2) == 1);
  advance(1s);
}

TEST_CASE_FIXTURE(dispersal_fixture, "fetch: failure goes to the next source at once") {
  begin();
  for (std::uint32_t n = 1; n <= 6; ++n) add(n);
  fill(6);
  SUBCASE("an error") { nodes[3]->fails = error{errc::unreachable, "down"}; }
  SUBCASE("not there") { nodes[3]->objects.clear(); }
  SUBCASE("not attached") { leave(3); }
  auto f = fetch(request(6, 2, 4));
  CHECK(indices(f).size() == 4); // without any time passing
}

TEST_CASE_FIXTURE(dispersal_fixture, "fetch: k of n with two dead") {
  begin();
  for (std::uint32_t n = 1; n <= 6; ++n) add(n);
  fill(6);
  nodes[1]->fails = nodes[3]->fails = error{errc::unreachable, "down"};
  CHECK(indices(fetch(request(6, 2, 4))) == std::set{1, 3, 4, 5});
  CHECK(indices(fetch(request(6, -1, 4))) == std::set{1, 3, 4, 5});
  CHECK(indices(fetch(request(6, 1, 4))) == std::set{1});
}

TEST_CASE_FIXTURE(dispersal_fixture, "fetch: the second place of an index, of an older generation, is tried") {
  begin();
  for (std::uint32_t n = 1; n <= 7; ++n) add(n);
  fill(6);
  nodes[7]->objects["s2"] = bytes_of("shard 2");
  nodes[3]->objects.clear();
  auto r = request(6, 2, 4);
  r.sources.push_back({2, {7}, name_of("s2")});
  auto f = fetch(std::move(r));
  CHECK(indices(f) == std::set{2});
  CHECK((***f)[0].node == model::node_id{7});
  CHECK(nodes[1]->reads == 0);
}

TEST_CASE_FIXTURE(dispersal_fixture, "fetch: any k, and the quick ones are asked") {
  begin();
  for (std::uint32_t n = 1; n <= 6; ++n) add(n);
  fill(6);
  nodes[1]->delay = 20ms;
  nodes[2]->delay = 20ms;
  for (int i = 0; i < 4; ++i) { // learn
    fetch(request(6, 0, 4));
    fetch(request(6, 1, 4));
    advance(25ms, 5ms);
  }
  auto one = nodes[1]->reads, two = nodes[2]->reads;
  auto f = fetch(request(6, -1, 4));
  CHECK(indices(f) == std::set{2, 3, 4, 5});
  CHECK(nodes[1]->reads == one);
  CHECK(nodes[2]->reads == two);
}

TEST_CASE_FIXTURE(dispersal_fixture, "fetch: too few, and what each said") {
  begin();
  for (std::uint32_t n = 1; n <= 6; ++n) add(n);
  fill(6);
  SUBCASE("unreachable") {
    for (std::uint32_t n : {1U, 2U, 3U}) nodes[n]->fails = error{errc::unreachable, "down as scripted"};
    auto f = fetch(request(6, 2, 4));
    CHECK(code(f) == errc::unreachable);
    auto& text = (**f).err().message;
    CHECK(text.find("s1.1") != std::string::npos);
    CHECK(text.find("shard 2 on n3: down as scripted") != std::string::npos);
    CHECK(text.find("3 of 4") != std::string::npos);
  }
  SUBCASE("not there") {
    for (std::uint32_t n : {1U, 2U, 3U}) nodes[n]->objects.clear();
    CHECK(code(fetch(request(6, 2, 4))) == errc::not_found);
  }
  SUBCASE("not there, but the missing ones might be on the silent") {
    for (std::uint32_t n : {1U, 2U}) nodes[n]->objects.clear();
    nodes[3]->fails = error{errc::unreachable, "down"};
    CHECK(code(fetch(request(6, 2, 4))) == errc::unreachable);
  }
  SUBCASE("silence") {
    for (std::uint32_t n : {1U, 2U, 3U, 4U}) nodes[n]->stuck = true;
    auto f = fetch(request(6, 2, 4));
    advance(14s, 100ms);
    CHECK_FALSE(f->has_value());
    advance(2s, 100ms);
    CHECK(code(f) == errc::timed_out);
    CHECK((**f).err().message.find("n3: no answer in time") != std::string::npos);
    for (std::uint32_t n : {1U, 2U, 3U, 4U}) free(n);
    CHECK(status().read_bytes_in_flight == 0);
    CHECK(code(fetch(request(6, 2, 4))) == errc::none); // works again when they return
  }
  SUBCASE("no source at all") { CHECK(code(fetch(request(0, -1, 4))) == errc::not_found); }
}

TEST_CASE_FIXTURE(dispersal_fixture, "fetch: a thousand reads of one node stay in its window, and a stuck node holds up none") {
  begin();
  for (std::uint32_t n = 1; n <= 6; ++n) add(n);
  fill(6);
  nodes[3]->delay = 1ms;
  std::vector<fetched> all;
  SUBCASE("a busy node") {
    for (int i = 0; i < 1000; ++i) all.push_back(fetch(request(6, 2, 4)));
    CHECK(status().read_bytes_in_flight <= 3 << 20);
    advance(1500ms, 1ms);
    for (auto& f : all) CHECK(code(f) == errc::none);
    CHECK(nodes[3]->busy_most <= 5);
  }
  SUBCASE("a stuck node") {
    nodes[3]->stuck = true;
    for (int i = 0; i < 1000; ++i) all.push_back(fetch(request(6, 2, 4)));
    CHECK(status().read_bytes_in_flight <= 48 << 20);
    advance(100ms, 5ms);
    for (auto& f : all) CHECK(code(f) == errc::none);
    CHECK(nodes[3]->busy_most <= 5);
    free(3);
  }
}

TEST_CASE_FIXTURE(dispersal_fixture, "dispersal: remove and check") {
  begin();
  add(1);
  fill(1);
  std::optional<result<bool>> intact;
  auto check = [&](std::uint32_t n, std::string_view name) {
    intact.reset();
    port->check({n}, name_of(name), [&](result<bool> r) { intact.emplace(std::move(r)); });
    run();
    REQUIRE(intact.has_value());
  };
  check(1, "s0");
  CHECK(**intact);
  check(1, "nothing");
  CHECK_FALSE(**intact);
  check(2, "s0");
  CHECK(intact->err().code == errc::unreachable);
  nodes[1]->fails = error{errc::timed_out, "late"};
  check(1, "s0");
  CHECK(intact->err().code == errc::timed_out);
  nodes[1]->fails.reset();

  std::optional<qs::status> removed;
  std::vector<model::object_name> many(5000, name_of("x"));
  many.back() = name_of("s0");
  port->remove({1}, many, [&](qs::status s) { removed.emplace(std::move(s)); });
  run();
  REQUIRE(removed.has_value());
  CHECK(removed->ok());
  CHECK(nodes[1]->deletes == 5000);
  CHECK(nodes[1]->objects.empty());
}

TEST_CASE_FIXTURE(dispersal_fixture, "dispersal: stop during work") {
  begin();
  for (std::uint32_t n = 1; n <= 2; ++n) add(n);
  store(1, false, 10, "a"); // acknowledged, waits for its barrier
  nodes[2]->stuck = true;
  volume::store_request r;
  r.shards.push_back({1, {2}, name_of("b"), bytes_of("b")});
  port->store(std::move(r), progress());
  auto f = fetch([&] {
    auto q = request(2, 1, 2);
    return q;
  }());
  auto stopped = ask<caf::ok_atom>(target, stop_atom_v);
  run();
  CHECK(count("n1:confirmed") == 1); // the last barrier was sent at once
  CHECK_FALSE(stopped->has_value());
  told.clear();
  store(1, false, 10, "late");
  CHECK(told == std::vector<std::string>{"n1:unreachable"});
  told.clear();
  SUBCASE("what was under way ends") {
    free(2);
    CHECK(count("n2:acknowledged") == 1);
    CHECK(count("n2:confirmed") == 1);
    CHECK(f->has_value());
    CHECK(stopped->has_value());
  }
  SUBCASE("it does not: twenty seconds") {
    advance(19s, 100ms);
    CHECK_FALSE(stopped->has_value());
    advance(2s, 100ms);
    CHECK(stopped->has_value());
    CHECK(count("n2:unknown") == 1);
    CHECK(f->has_value());
    nodes[2]->held.clear();
  }
  told.clear();
  store(1, false, 10, "dead"); // nobody is there any more: answered all the same
  CHECK(told == std::vector<std::string>{"n1:unreachable"});
  CHECK(code(fetch(request(2, 0, 1))) == errc::cancelled);
}
