#include <doctest/doctest.h>

#include "support/actor_fixture.hpp"

using namespace qs;
using namespace qs::actors;
using namespace std::chrono_literals;

namespace {

model::object_name name_of(std::string_view text) {
  model::object_name out{};
  std::copy_n(as_bytes(text).begin(), std::min(text.size(), out.size()), out.begin());
  return out;
}
std::string key_of(std::string_view text) { return std::string{as_text(name_of(text))}; }
buffer_ptr bytes_of(std::string_view text) { return share(to_buffer(text)); }

struct connection_fixture : test::actor_fixture {
  test::scripted_zdb server;
  std::shared_ptr<test::simulated_network> network = std::make_shared<test::simulated_network>(*this);
  seeded_random random{7};
  std::shared_ptr<std::vector<link_report>> reports = std::make_shared<std::vector<link_report>>();
  link_listener_actor listener = sys.spawn(
    [r = reports](link_listener_actor::pointer, int) -> link_listener_actor::behavior_type {
      return {[r](link_atom, const link_report& report) { r->push_back(report); }};
    },
    0);
  connection_actor node;

  connection_fixture() { server.objects[key_of("identity")] = "I am n1"; }
  ~connection_fixture() {
    if (node) caf::anon_send_exit(node, caf::exit_reason::user_shutdown);
    caf::anon_send_exit(listener, caf::exit_reason::user_shutdown);
    node = nullptr;
    listener = nullptr;
    run();
  }
  connection_config config() {
    connection_config c;
    c.node = {1};
    c.where = {"127.0.0.1", 9900, "ns"};
    c.password = secret_string{"secret"};
    c.identity_name = name_of("identity");
    c.identity = bytes_of("I am n1");
    c.listener = listener;
    c.sockets = network;
    c.time = &time;
    c.random = &random;
    return c;
  }
  void spawn(connection_config c) {
    node = spawn_connection(sys, std::move(c));
    run();
  }
  void start() {
    spawn(config());
    network->accept(server);
    REQUIRE(state() == link_state::ready);
  }
  link_report status() {
    auto a = ask<link_report>(node, status_atom_v);
    run();
    REQUIRE(a->has_value());
    return ***a;
  }
  link_state state() { return status().state; }

  auto put(std::string_view name, std::string_view value) {
    return ask<std::uint64_t>(node, store_atom_v, name_of(name), bytes_of(value));
  }
  auto get(std::string_view name) { return ask<buffer_ptr>(node, read_atom_v, name_of(name)); }
  auto barrier() { return ask<std::uint64_t>(node, barrier_atom_v); }
};

template <class T>
errc code_of(const test::answer_of<T>& a) {
  REQUIRE(a->has_value());
  return (*a)->ok() ? errc::none : (*a)->err().code;
}
std::string text_of(const test::answer_of<buffer_ptr>& a) {
  REQUIRE(code_of(a) == errc::none);
  return std::string{as_text(**(**a))};
}

} // namespace

TEST_CASE_FIXTURE(connection_fixture, "connection: handshake, identity, then it serves") {
  start();
  CHECK(server.log == std::vector<std::string>{"AUTH", "SELECT", "INFO", "GET", "NSINFO"});
  auto s = status();
  CHECK(s.life == 1);
  CHECK(s.has_sync);
  CHECK(s.used == 4096);
  CHECK(s.limit == 1 << 20);
  CHECK(s.disk_free == 999);
  CHECK_FALSE(s.restarted);

  auto stored = put("a", "one");
  auto read = get("a");
  auto missing = get("b");
  run();
  REQUIRE(code_of(stored) == errc::none);
  CHECK(***stored == 1);
  CHECK(text_of(read) == "one");
  CHECK(code_of(missing) == errc::not_found);

  auto whole = ask<bool>(node, check_atom_v, name_of("a"));
  auto names = std::make_shared<const object_names>(object_names{name_of("a"), name_of("never was")});
  auto gone = ask<caf::ok_atom>(node, del_atom_v, object_names_ptr{names});
  auto pong = ask<caf::ok_atom>(node, ping_atom_v);
  auto synced = barrier();
  run();
  CHECK(***whole);
  CHECK(code_of(gone) == errc::none);
  CHECK(code_of(pong) == errc::none);
  CHECK(***synced == 1);
  CHECK(server.objects.size() == 1);
  CHECK(status().bytes_in_flight == 0);
}

TEST_CASE_FIXTURE(connection_fixture, "connection: replies split anywhere, in order") {
  network->split = 3;
  start();
  server.objects[key_of("x")] = std::string(5000, 'x');
  auto a = get("x");
  auto b = get("nothing");
  auto c = get("identity");
  run();
  CHECK(text_of(a) == std::string(5000, 'x'));
  CHECK(code_of(b) == errc::not_found);
  CHECK(text_of(c) == "I am n1");
}

TEST_CASE_FIXTURE(connection_fixture, "connection: large values pass CAF's buffer in parts and arrive whole") {
  auto c = config();
  c.window_bytes = 64 << 20;
  spawn(std::move(c));
  network->accept(server);
  std::vector<test::answer_of<std::uint64_t>> all;
  for (int i = 0; i < 8; ++i) all.push_back(put(std::string(1, static_cast<char>('a' + i)), std::string(1 << 20, static_cast<char>('a' + i))));
  run();
  for (int i = 0; i < 8; ++i) {
    CHECK(code_of(all[static_cast<std::size_t>(i)]) == errc::none);
    CHECK(server.objects[key_of(std::string(1, static_cast<char>('a' + i)))] == std::string(1 << 20, static_cast<char>('a' + i)));
  }
}

TEST_CASE_FIXTURE(connection_fixture, "connection: the wrong identity is never served") {
  SUBCASE("another's") { server.objects[key_of("identity")] = "I am n2"; }
  SUBCASE("missing") { server.objects.clear(); }
  SUBCASE("the namespace is gone") { server.name_space = "other"; }
  SUBCASE("the files are gone") { server.instead["GET"] = "-Data files are gone\r\n"; }
  spawn(config());
  network->accept(server);
  CHECK(state() == link_state::data_lost);
  auto p = put("a", "one");
  auto g = get("a");
  run();
  CHECK(code_of(p) == errc::data_lost);
  CHECK(code_of(g) == errc::data_lost);
  CHECK(server.count("SET") == 0);
  advance(2min, 1s);
  CHECK(network->dials.empty()); // nothing brings it back but being told
  CHECK(state() == link_state::data_lost);

  test::scripted_zdb mended;
  mended.objects[key_of("identity")] = "I am n1";
  caf::anon_send(node, move_to_atom_v, model::endpoint{"127.0.0.1", 9901, "ns"});
  run();
  REQUIRE(network->dials.size() == 1);
  CHECK(network->dials.front().where.port == 9901);
  network->accept(mended);
  CHECK(state() == link_state::ready);
}

TEST_CASE_FIXTURE(connection_fixture, "connection: a refused password is access_denied, and the password is told nobody") {
  server.password = "changed";
  spawn(config());
  network->accept(server);
  CHECK(state() == link_state::access_denied);
  auto g = get("a");
  run();
  CHECK(code_of(g) == errc::access_denied);
  advance(1min, 1s);
  CHECK(network->dials.empty());
  for (auto& r : *reports) CHECK(r.detail.find("secret") == std::string::npos);
  CHECK((**g).err().message.find("secret") == std::string::npos);
}

TEST_CASE_FIXTURE(connection_fixture, "connection: a password goes in clear on loopback only") {
  server.knows_challenge = false;
  auto c = config();
  bool served = false;
  SUBCASE("loopback") { served = true; }
  SUBCASE("elsewhere") { c.where.address = "192.0.2.7"; }
  SUBCASE("elsewhere, declared insecure") {
    c.where.address = "192.0.2.7";
    c.insecure = true;
    served = true;
  }
  spawn(std::move(c));
  network->accept(server);
  CHECK((state() == link_state::ready) == served);
  CHECK((server.count("SELECT") > 0) == served);
}

TEST_CASE_FIXTURE(connection_fixture, "connection: retries with growing, bounded, jittered pauses") {
  auto c = config();
  c.where.address = "192.0.2.7";
  spawn(std::move(c));
  std::vector<std::chrono::milliseconds> pauses;
  for (int i = 0; i < 14; ++i) {
    REQUIRE(network->dials.size() == 1);
    network->refuse();
    CHECK(state() == link_state::disconnected);
    auto began = time.boot();
    for (int step = 0; network->dials.empty() && step < 2000; ++step) advance(20ms);
    pauses.push_back(time.boot() - began);
  }
  CHECK(pauses.front() <= 150ms);
  CHECK(pauses.back() >= 15s);
  for (auto p : pauses) CHECK(p <= 30'100ms);
  CHECK(status().failures == 14);
  network->accept(server);
  CHECK(state() == link_state::ready);
  auto g = get("identity");
  run();
  CHECK(status().failures == 0);
}

TEST_CASE_FIXTURE(connection_fixture, "connection: not ready means refused at once, nothing sent") {
  spawn(config());
  auto p = put("a", "one");
  run();
  CHECK(code_of(p) == errc::unreachable);
  CHECK((**p).err().message.find("n1") != std::string::npos);
}

TEST_CASE_FIXTURE(connection_fixture, "connection: the node dies with requests under way") {
  start();
  server.silent = true;
  auto p = put("a", "one");
  auto g = get("a");
  auto b = barrier();
  auto d = ask<caf::ok_atom>(node, del_atom_v,
                             object_names_ptr{std::make_shared<const object_names>(object_names{name_of("a")})});
  run();
  CHECK_FALSE(p->has_value());
  network->cut(server);
  CHECK(code_of(p) == errc::maybe_delivered); // it may have arrived: never "failed"
  CHECK(code_of(g) == errc::unreachable);
  CHECK(code_of(b) != errc::none);
  CHECK(code_of(d) == errc::maybe_delivered);
  CHECK(state() == link_state::disconnected);
  CHECK(status().bytes_in_flight == 0);

  server.silent = false;
  advance(200ms);
  network->accept(server);
  CHECK(state() == link_state::ready);
  CHECK(status().life == 1); // the same instance: it was only the connection
}

TEST_CASE_FIXTURE(connection_fixture, "connection: a restarted server is a new life") {
  start();
  reports->clear();
  network->cut(server);
  server.instance = "instance-2";
  advance(200ms);
  network->accept(server);
  CHECK(status().life == 2);
  REQUIRE_FALSE(reports->empty());
  CHECK(reports->back().restarted);
  CHECK(reports->back().state == link_state::ready);

  SUBCASE("a server without an instance is taken for restarted every time") {
    server.instance.clear();
    for (std::uint64_t life = 3; life < 5; ++life) {
      network->cut(server);
      advance(1s);
      network->accept(server);
      CHECK(status().life == life);
    }
  }
}

TEST_CASE_FIXTURE(connection_fixture, "connection: no bytes for the deadline is a dead node, bytes are a slow one") {
  start();
  server.silent = true;
  auto g = get("identity");
  advance(9s);
  CHECK_FALSE(g->has_value());
  SUBCASE("silence") {
    advance(2s);
    CHECK(code_of(g) == errc::timed_out);
    CHECK(state() != link_state::ready);
    CHECK_FALSE(network->is_open(server));
  }
  SUBCASE("a slow answer") {
    network->say(server, "$7\r\nI a");
    advance(8s);
    CHECK_FALSE(g->has_value());
    network->say(server, "m n1\r\n");
    CHECK(text_of(g) == "I am n1");
    advance(1min, 1s); // nothing is asked: no deadline
    CHECK(state() == link_state::ready);
  }
}

TEST_CASE_FIXTURE(connection_fixture, "connection: a full window refuses with busy and opens again") {
  auto c = config();
  c.window_bytes = 10'000;
  spawn(std::move(c));
  network->accept(server);
  server.hold = {"SET"};
  auto first = put("a", std::string(20'000, 'a')); // one is always let through
  auto second = put("b", "b");
  run();
  CHECK_FALSE(first->has_value());
  CHECK(code_of(second) == errc::busy);
  CHECK(server.count("SET") == 1);
  network->release(server);
  CHECK(code_of(first) == errc::none);
  second = put("b", "b");
  run();
  CHECK(code_of(second) == errc::none);
}

TEST_CASE_FIXTURE(connection_fixture, "connection: \"identical\" counts only when the bytes are (invariant 3)") {
  SUBCASE("our server compares bytes itself") {
    start();
    server.objects[key_of("a")] = "one";
    auto p = put("a", "one");
    run();
    CHECK(code_of(p) == errc::none);
    CHECK(server.count("GET") == 1); // the identity only
  }
  SUBCASE("0-db compares checksums: equal bytes") {
    server.extensions.clear();
    start();
    server.objects[key_of("a")] = "one";
    auto p = put("a", "one");
    run();
    CHECK(code_of(p) == errc::none);
    CHECK(server.count("GET") == 2);
  }
  SUBCASE("0-db compares checksums: other bytes") {
    server.extensions.clear();
    start();
    server.objects[key_of("a")] = "other";
    server.instead["SET"] = "$-1\r\n";
    auto p = put("a", "one");
    run();
    CHECK(code_of(p) == errc::corrupt);
  }
}

TEST_CASE_FIXTURE(connection_fixture, "connection: barriers asked for while one is under way share the next") {
  start();
  server.hold = {"SYNC"};
  auto a = barrier();
  run();
  auto b = barrier();
  auto c = barrier();
  run();
  CHECK(server.count("SYNC") == 1);
  network->release(server);
  CHECK(code_of(a) == errc::none);
  CHECK(code_of(b) == errc::none);
  CHECK(code_of(c) == errc::none);
  CHECK(server.count("SYNC") == 2);
  SUBCASE("a refused SYNC confirms nothing") {
    server.instead["SYNC"] = "-Internal Server Error\r\n";
    auto d = barrier();
    run();
    CHECK(code_of(d) == errc::io);
    CHECK(state() == link_state::ready);
  }
}

TEST_CASE_FIXTURE(connection_fixture, "connection: without SYNC a barrier is two minutes in one life") {
  server.extensions.clear();
  start();
  CHECK_FALSE(status().has_sync);
  auto b = barrier();
  advance(119s, 1s);
  CHECK_FALSE(b->has_value());
  SUBCASE("they pass") {
    advance(2s, 1s);
    CHECK(***b == 1);
  }
  SUBCASE("the connection breaks, the server lives on") {
    network->cut(server);
    advance(200ms);
    network->accept(server);
    advance(2s, 1s);
    CHECK(***b == 1);
  }
  SUBCASE("the server was restarted") {
    network->cut(server);
    server.instance = "instance-2";
    advance(200ms);
    network->accept(server);
    CHECK(code_of(b) == errc::unreachable);
  }
}

TEST_CASE_FIXTURE(connection_fixture, "connection: stop waits for what is in flight") {
  start();
  server.hold = {"SET"};
  auto p = put("a", "one");
  run();
  auto s = ask<caf::ok_atom>(node, stop_atom_v);
  auto late = put("b", "two");
  run();
  CHECK_FALSE(s->has_value());
  CHECK(code_of(late) == errc::unreachable);
  SUBCASE("it is answered") {
    network->release(server);
    CHECK(code_of(p) == errc::none);
    CHECK(code_of(s) == errc::none);
  }
  SUBCASE("it never is") {
    advance(11s);
    CHECK(code_of(p) == errc::maybe_delivered);
    CHECK(code_of(s) == errc::none);
  }
  CHECK_FALSE(network->is_open(server));
  CHECK(reports->back().state == link_state::stopped);
}

TEST_CASE_FIXTURE(connection_fixture, "connection: stop while connecting, and an exit answers what is pending") {
  SUBCASE("connecting") {
    spawn(config());
    auto s = ask<caf::ok_atom>(node, stop_atom_v);
    run();
    CHECK(code_of(s) == errc::none);
    network->accept(server); // too late: the descriptor is closed, nothing happens
    CHECK(server.log.empty());
  }
  SUBCASE("exit") {
    start();
    server.silent = true;
    auto p = put("a", "one");
    run();
    caf::anon_send_exit(node, caf::exit_reason::user_shutdown);
    run();
    CHECK(code_of(p) == errc::maybe_delivered);
  }
}

TEST_CASE_FIXTURE(connection_fixture, "connection: figures are asked for with a ping, not more often than every ten seconds") {
  start();
  for (int i = 0; i < 20; ++i) {
    ask<caf::ok_atom>(node, ping_atom_v);
    advance(1s, 1s);
  }
  CHECK(server.count("PING") == 20);
  CHECK(server.count("NSINFO") >= 2);
  CHECK(server.count("NSINFO") <= 4);
}

TEST_CASE_FIXTURE(connection_fixture, "connection: a ping does not queue behind megabytes that are being answered") {
  start();
  server.hold = {"SET"};
  auto big = put("big", std::string(1 << 20, 'b'));
  auto behind = put("behind", "b");
  run();
  network->say(server, "$3"); // the first answer has begun to arrive
  auto p = ask<caf::ok_atom>(node, ping_atom_v);
  run();
  CHECK(code_of(p) == errc::none);
  CHECK(server.count("PING") == 0);
  advance(2s); // nothing came meanwhile: now it is asked
  auto q = ask<caf::ok_atom>(node, ping_atom_v);
  run();
  CHECK_FALSE(q->has_value());
  CHECK(server.count("PING") == 1);
}

TEST_CASE_FIXTURE(connection_fixture, "connection: data files gone under a running server") {
  start();
  SUBCASE("said to a request") {
    server.instead["GET"] = "-Data files are gone\r\n";
    auto g = get("a");
    run();
    CHECK(code_of(g) == errc::data_lost);
  }
  SUBCASE("said unasked") { network->say(server, "-Data files are gone\r\n"); }
  CHECK(state() == link_state::data_lost);
}

TEST_CASE_FIXTURE(connection_fixture, "connection: a peer that does not speak the protocol is dropped") {
  start();
  auto g = get("a");
  server.silent = true;
  network->say(server, "HTTP/1.1 400 Bad Request\r\n");
  CHECK(state() != link_state::ready);
  CHECK_FALSE(network->is_open(server));
}

TEST_CASE_FIXTURE(connection_fixture, "connection: a namespace locked or full is told as what it is, and the node stays") {
  start();
  CHECK(status().detail.empty());
  std::string refusal;
  auto code = errc::none;
  SUBCASE("locked") {
    refusal = "Namespace is temporarily locked (read-only)";
    code = errc::refused;
  }
  SUBCASE("over its quota") {
    refusal = "No space left on this namespace";
    code = errc::no_space;
  }
  server.instead["SET"] = "-" + refusal + "\r\n";
  auto stored = put("a", "one");
  run();
  CHECK(code_of(stored) == code);
  CHECK(state() == link_state::ready);
  CHECK(status().detail.find(refusal) != std::string::npos);
  CHECK(reports->back().detail.find(refusal) != std::string::npos);
  // Its figures say when that is over.
  server.instead.clear();
  auto lives = ask<caf::ok_atom>(node, ping_atom_v);
  run();
  CHECK(code_of(lives) == errc::none);
  CHECK(status().detail.empty());
  CHECK(state() == link_state::ready);
}

TEST_CASE_FIXTURE(connection_fixture, "connection: NSINFO says locked or full before anything is refused") {
  auto info = [](std::string_view lines) {
    auto text = fmt::format("# namespace\nname: ns\n{}", lines);
    return fmt::format("${}\r\n{}\r\n", text.size(), text);
  };
  server.instead["NSINFO"] = info("locked: yes\n");
  start();
  CHECK(status().detail.find("locked or frozen") != std::string::npos);
  advance(11s);
  server.instead["NSINFO"] = info("locked: no\ndata_size_bytes: 1048000\ndata_limits_bytes: 1048576\n");
  auto lives = ask<caf::ok_atom>(node, ping_atom_v);
  run();
  CHECK(status().detail.find("full") != std::string::npos);
}
