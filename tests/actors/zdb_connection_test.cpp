// How a connection comes about, whom it serves, and how it ends. Its work is in zdb_requests_test.cpp.
#include "connection_fixture.hpp"

using namespace qs;
using namespace qs::test;

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

TEST_CASE_FIXTURE(connection_fixture,
                  "connection: a namespace that its server cannot open is unreachable, not lost") {
  server.instead["SELECT"] = "-Namespace cannot be opened, see the server's log\r\n";
  spawn(config());
  network->accept(server);
  CHECK(state() == link_state::disconnected);
  CHECK(status().detail.find("cannot be opened") != std::string::npos);
  advance(2min, 1s);
  CHECK_FALSE(network->dials.empty()); // it is tried again
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
  advance(25s, 1s);
  CHECK(network->dials.empty());
  auto told = reports->size();
  advance(10s, 1s);
  REQUIRE(network->dials.size() == 1); // asked again, and until it says otherwise it is what it was
  CHECK(state() == link_state::data_lost);
  network->accept(server);
  CHECK(state() == link_state::data_lost);
  CHECK(server.count("SET") == 0);
  for (auto i = told; i < reports->size(); ++i) CHECK((*reports)[i].state == link_state::data_lost);

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
  advance(25s, 1s);
  CHECK(network->dials.empty());
  advance(10s, 1s);
  REQUIRE(network->dials.size() == 1);
  CHECK(state() == link_state::access_denied);
  server.password = "secret"; // set back by whoever had changed it
  network->accept(server);
  CHECK(state() == link_state::ready);
  for (auto& r : *reports) CHECK(r.detail.find("secret") == std::string::npos);
  CHECK((**g).err().message.find("secret") == std::string::npos);
}

TEST_CASE_FIXTURE(connection_fixture, "connection: a password goes in clear only where that is declared") {
  server.knows_challenge = false;
  auto c = config();
  bool served = false;
  SUBCASE("loopback: anybody may listen there") {}
  SUBCASE("loopback, declared insecure") {
    c.insecure = true;
    served = true;
  }
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
  SUBCASE("silence, however much is sent: the kernel takes it for the node") {
    auto more = get("identity");
    run();
    advance(2s);
    CHECK(code_of(g) == errc::timed_out);
    CHECK(code_of(more) == errc::timed_out);
    CHECK(state() != link_state::ready);
  }
  SUBCASE("a full socket that drains is a slow node") {
    network->pretend_sent(server, 1000, 500); // full now …
    advance(500ms);
    network->pretend_sent(server, 100, 400); // … and now it takes more
    advance(9s);
    CHECK_FALSE(g->has_value());
    advance(2s);
    CHECK(code_of(g) == errc::timed_out);
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

TEST_CASE_FIXTURE(connection_fixture, "connection: one that owes an answer for three seconds says so, and says when it is over") {
  start();
  advance(1min, 1s);
  CHECK_FALSE(status().stalled); // it owes nothing
  server.silent = true;
  auto told = reports->size();
  auto g = get("identity");
  advance(2900ms, 100ms);
  CHECK(reports->size() == told);
  advance(200ms, 100ms);
  REQUIRE(reports->size() == told + 1);
  CHECK(reports->back().stalled);
  CHECK(reports->back().state == link_state::ready);
  CHECK_FALSE(g->has_value()); // it may still come
  auto more = get("identity"); // and one that is sure to want this node may still ask it
  run();
  CHECK_FALSE(more->has_value());
  advance(2s);
  CHECK(reports->size() == told + 1); // once
  SUBCASE("an answer") {
    network->say(server, "$7\r\nI am n1\r\n");
    CHECK(text_of(g) == "I am n1");
    REQUIRE(reports->size() == told + 2);
    CHECK_FALSE(reports->back().stalled);
    advance(2900ms, 100ms); // what is owed since then has three seconds again
    CHECK_FALSE(status().stalled);
    advance(200ms, 100ms);
    CHECK(status().stalled);
  }
  SUBCASE("it takes what it is sent") {
    network->pretend_sent(server, 1000, 500);
    network->pretend_sent(server, 100, 400);
    CHECK_FALSE(reports->back().stalled);
  }
  SUBCASE("it is given up") {
    advance(6s);
    CHECK(code_of(g) == errc::timed_out);
    CHECK_FALSE(reports->back().stalled);
    CHECK(reports->back().state != link_state::ready);
  }
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
