// The data path for real: zdb servers, sockets, threads, the volume's door.
#include <doctest/doctest.h>

#include <cstdint>

#include <caf/all.hpp>
#include <caf/io/all.hpp>

#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <unistd.h>

#include "actors/caf_error.hpp"
#include "actors/dispersal.hpp"
#include "actors/system.hpp"
#include "actors/zdb_connection.hpp"
#include "net/connector.hpp"
#include "support/zdb_server.hpp"

using namespace qs;
using namespace qs::actors;
using namespace std::chrono_literals;

namespace {

model::object_name name_of(std::string_view text) {
  model::object_name out{};
  std::copy_n(as_bytes(text).begin(), std::min(text.size(), out.size()), out.begin());
  return out;
}

/// A zdb server on a thread of its own, with a namespace of ours in it.
struct real_node {
  std::filesystem::path data;
  std::unique_ptr<zdb::server_thread> server;
  std::uint32_t number = 0;

  explicit real_node(std::uint32_t n, const std::filesystem::path& root) : data{root / std::to_string(n)}, number{n} {
    start();
    auto admin = server->connect();
    REQUIRE(admin->nsnew("ns").ok());
    REQUIRE(admin->nsset("ns", "password", "secret").ok());
    REQUIRE(admin->nsset("ns", "public", "0").ok());
    zdb::session_options o;
    o.name_space = "ns";
    o.password = "secret";
    auto user = server->connect(o);
    REQUIRE(user->set(std::string{as_text(name_of("identity"))}, identity()).ok());
    REQUIRE(user->sync().ok());
  }
  std::string identity() const { return "I am n" + std::to_string(number); }
  void start() { server = std::make_unique<zdb::server_thread>(zdb::local_options(data)); }
  void stop() { server.reset(); }
  model::endpoint where() const {
    auto a = net::parse_address(server->address());
    REQUIRE(a.ok());
    return {a->host, a->port, "ns"};
  }
};

struct real_world {
  std::filesystem::path root = std::filesystem::temp_directory_path() / ("qs-data-path-" + std::to_string(::getpid()));
  std::map<std::uint32_t, std::unique_ptr<real_node>> nodes;
  net::connector connector;
  system_config cfg{runtime_options{2}};
  caf::actor_system sys{cfg};
  std::map<std::uint32_t, connection_actor> connections;
  dispersal_actor dispersal = spawn_dispersal(sys, {});
  std::unique_ptr<dispersal_port> port = std::make_unique<dispersal_port>(dispersal);

  explicit real_world(std::uint32_t count) {
    std::filesystem::create_directories(root);
    for (std::uint32_t n = 1; n <= count; ++n) {
      nodes[n] = std::make_unique<real_node>(n, root);
      connection_config c;
      c.node = {n};
      c.where = nodes[n]->where();
      c.password = secret_string{"secret"};
      c.identity_name = name_of("identity");
      c.identity = share(to_buffer(nodes[n]->identity()));
      c.sockets = real_sockets(connector);
      connections[n] = spawn_connection(sys, std::move(c));
      caf::anon_send(dispersal, attach_atom_v, model::node_id{n}, connections[n]);
    }
    for (auto& [n, c] : connections) CHECK(wait_for(n, link_state::ready));
  }
  ~real_world() {
    port.reset();
    caf::scoped_actor self{sys};
    self->request(dispersal, 30s, stop_atom_v).receive([](caf::ok_atom) {}, [](caf::error&) { CHECK(false); });
    for (auto& [n, c] : connections)
      self->request(c, 30s, stop_atom_v).receive([](caf::ok_atom) {}, [](caf::error&) { CHECK(false); });
    connections.clear();
    dispersal = nullptr;
    nodes.clear();
    std::filesystem::remove_all(root);
  }
  bool wait_for(std::uint32_t n, link_state state) {
    caf::scoped_actor self{sys};
    auto until = std::chrono::steady_clock::now() + 20s;
    for (bool there = false; std::chrono::steady_clock::now() < until;) {
      self->request(connections[n], 10s, status_atom_v)
        .receive([&](const link_report& r) { there = r.state == state; }, [](caf::error&) {});
      if (there) return true;
      std::this_thread::yield();
    }
    return false;
  }
};

/// Counts outcomes from any thread and waits for them.
struct tally {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<volume::shard_outcome, std::size_t> counts;
  void add(volume::shard_outcome o) {
    std::lock_guard lock{mutex};
    ++counts[o];
    changed.notify_all();
  }
  bool wait(volume::shard_outcome o, std::size_t n) {
    std::unique_lock lock{mutex};
    return changed.wait_for(lock, 30s, [&] { return counts[o] >= n; });
  }
};

buffer_ptr shard(std::uint32_t segment, std::uint32_t index) {
  buffer b(192 + 528'384);
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<std::byte>(i * 31 + segment * 7 + index);
  return share(std::move(b));
}
model::object_name shard_name(std::uint32_t segment, std::uint32_t index) {
  return name_of("shard " + std::to_string(segment) + "." + std::to_string(index));
}

using fetched = result<std::vector<volume::fetched_shard>>;
std::optional<fetched> fetch(real_world& w, std::uint32_t segment, std::uint32_t count, int wanted, std::uint8_t needed) {
  volume::fetch_request r;
  r.segment = {1, segment};
  r.wanted = wanted;
  r.needed = needed;
  for (std::uint32_t i = 0; i < count; ++i)
    r.sources.push_back({static_cast<std::uint8_t>(i), {i + 1}, shard_name(segment, i)});
  std::mutex m;
  std::condition_variable c;
  std::optional<fetched> out;
  w.port->fetch(std::move(r), [&](fetched f) {
    std::lock_guard lock{m};
    out.emplace(std::move(f));
    c.notify_all();
  });
  std::unique_lock lock{m};
  c.wait_for(lock, 30s, [&] { return out.has_value(); });
  return out;
}
void check_bytes(const std::optional<fetched>& f, std::uint32_t segment) {
  REQUIRE(f.has_value());
  REQUIRE_MESSAGE(f->ok(), describe(f->err()));
  for (auto& s : **f) CHECK(*s.value == *shard(segment, s.index));
}

} // namespace

TEST_CASE("data path: segments out to six servers and back, with two of them dead, and again when one returns") {
  constexpr std::uint32_t segments = 12;
  real_world w{6};
  tally t;
  for (std::uint32_t s = 0; s < segments; ++s) {
    volume::store_request r;
    r.segment = {1, s};
    for (std::uint32_t i = 0; i < 6; ++i)
      r.shards.push_back({static_cast<std::uint8_t>(i), {i + 1}, shard_name(s, i), shard(s, i)});
    w.port->store(std::move(r), [&](std::uint8_t, model::node_id, volume::shard_outcome o) { t.add(o); });
  }
  CHECK(t.wait(volume::shard_outcome::acknowledged, 6 * segments));
  CHECK(t.wait(volume::shard_outcome::confirmed, 6 * segments));
  CHECK(t.counts.size() == 2);

  for (std::uint32_t s = 0; s < segments; ++s) check_bytes(fetch(w, s, 6, static_cast<int>(s % 4), 4), s);

  w.nodes[2]->stop();
  w.nodes[5]->stop();
  for (std::uint32_t s = 0; s < segments; ++s) {
    auto f = fetch(w, s, 6, 1, 4); // the wanted one is on a dead node
    check_bytes(f, s);
    if (f && f->ok()) CHECK((*f)->size() >= 4);
  }
  volume::store_request r;
  r.segment = {1, 99};
  r.sync_soon = true;
  r.shards.push_back({0, {1}, shard_name(99, 0), shard(99, 0)});
  r.shards.push_back({1, {2}, shard_name(99, 1), shard(99, 1)});
  tally u;
  w.port->store(std::move(r), [&](std::uint8_t, model::node_id, volume::shard_outcome o) { u.add(o); });
  CHECK(u.wait(volume::shard_outcome::unreachable, 1));
  CHECK(u.wait(volume::shard_outcome::confirmed, 1));

  w.nodes[2]->start(); // same data, another port
  caf::anon_send(w.connections[2], move_to_atom_v, w.nodes[2]->where());
  REQUIRE(w.wait_for(2, link_state::ready));
  caf::scoped_actor self{w.sys};
  self->request(w.connections[2], 10s, status_atom_v)
    .receive([](const link_report& s) { CHECK(s.life == 2); }, [](caf::error&) { CHECK(false); });
  auto back = fetch(w, 3, 6, 1, 4);
  check_bytes(back, 3);
}

TEST_CASE("data path: many threads, many reads, no more memory than the windows") {
  real_world w{4};
  tally t;
  for (std::uint32_t s = 0; s < 8; ++s) {
    volume::store_request r;
    r.segment = {1, s};
    for (std::uint32_t i = 0; i < 4; ++i)
      r.shards.push_back({static_cast<std::uint8_t>(i), {i + 1}, shard_name(s, i), shard(s, i)});
    w.port->store(std::move(r), [&](std::uint8_t, model::node_id, volume::shard_outcome o) { t.add(o); });
  }
  REQUIRE(t.wait(volume::shard_outcome::confirmed, 32));
  std::mutex m;
  std::condition_variable c;
  int good = 0, bad = 0;
  std::vector<std::thread> askers;
  for (std::uint32_t a = 0; a < 4; ++a)
    askers.emplace_back([&, a] {
      for (std::uint32_t n = 0; n < 50; ++n) {
        volume::fetch_request r;
        auto s = (a + n) % 8;
        r.segment = {1, s};
        r.wanted = static_cast<int>(n % 4);
        r.needed = 2;
        for (std::uint32_t i = 0; i < 4; ++i)
          r.sources.push_back({static_cast<std::uint8_t>(i), {i + 1}, shard_name(s, i)});
        w.port->fetch(std::move(r), [&](fetched f) {
          std::lock_guard lock{m};
          ++(f.ok() ? good : bad);
          c.notify_all();
        });
      }
    });
  for (auto& a : askers) a.join();
  std::unique_lock lock{m};
  CHECK(c.wait_for(lock, 30s, [&] { return good + bad == 200; }));
  CHECK(bad == 0);
}
