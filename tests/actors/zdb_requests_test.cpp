// Requests over a connection that is up: replies, windows, barriers, figures.
#include "connection_fixture.hpp"

using namespace qs;
using namespace qs::test;

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
