// Writes, barriers, windows, removal, stop. Reads are in dispersal_fetch_test.cpp.
#include "dispersal_fixture.hpp"

using namespace qs;
using namespace qs::test;

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

TEST_CASE_FIXTURE(dispersal_fixture, "dispersal: a barrier also when a node has acknowledged so many bytes") {
  begin({.barrier_bytes = 100'000});
  add(1);
  add(2);
  store(1, false, 60'000, "a");
  CHECK(nodes[1]->barriers == 0);
  store(2, false, 60'000, "b");
  CHECK(nodes[1]->barriers == 1);
  CHECK(nodes[2]->barriers == 0);
  CHECK(count("n1:confirmed") == 2);
  store(1, false, 60'000, "c"); // counted anew
  CHECK(nodes[1]->barriers == 1);
  nodes[1]->stuck = true;
  advance(1100ms); // one is under way; what comes meanwhile asks for the next
  nodes[1]->stuck = false;
  CHECK(nodes[1]->barriers == 2);
  store(1, false, 60'000, "d");
  store(1, false, 60'000, "e");
  CHECK(nodes[1]->barriers == 2);
  free(1);
  CHECK(nodes[1]->barriers == 3);
  CHECK(count("n1:confirmed") == 5);
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

TEST_CASE_FIXTURE(dispersal_fixture, "dispersal: nothing waits for a node that stands still, and nothing new is for it until it moves") {
  dispersal_config c;
  c.node_write_window = 2500;
  begin(c);
  add(1);
  add(2);
  nodes[1]->stuck = true;
  for (int i = 0; i < 5; ++i) store(2, false, 1000, "w" + std::to_string(i));
  CHECK(count("n2:acknowledged") == 5);
  CHECK(count("n1:unreachable") == 0);
  tell_stalled(1, true);
  CHECK(count("n1:unreachable") == 3); // two are on their way: nobody knows of them yet
  CHECK(status().queued == 0);
  store(2, false, 1000, "x");
  CHECK(count("n1:unreachable") == 4);
  CHECK(count("n2:acknowledged") == 6);
  CHECK(nodes[1]->stores == 2);
  free(1);
  CHECK(count("n1:acknowledged") == 2);
  CHECK(status().write_bytes_in_flight == 0);
  tell_stalled(1, false);
  store(2, false, 1000, "y");
  CHECK(count("n1:acknowledged") == 3);
  tell_stalled(9, false); // one it does not know
}

TEST_CASE_FIXTURE(dispersal_fixture, "dispersal: reads go on waiting for a node that stands still") {
  dispersal_config c;
  c.node_read_window = 1; // one at a time
  begin(c);
  add(1);
  fill(1);
  nodes[1]->stuck = true;
  auto first = fetch(request(1, 0, 1));
  auto second = fetch(request(1, 0, 1));
  tell_stalled(1, true);
  free(1);
  CHECK(indices(first) == std::set<int>{0});
  CHECK(indices(second) == std::set<int>{0});
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
