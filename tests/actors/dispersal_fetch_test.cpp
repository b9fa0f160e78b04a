// Reads: whom they ask, when they hedge, when they end.
#include "dispersal_fixture.hpp"

using namespace qs;
using namespace qs::test;

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

TEST_CASE_FIXTURE(dispersal_fixture, "fetch: its time is the request's, not longer for having waited behind what is never answered") {
  dispersal_config c;
  c.node_read_window = read_charge; // one at a time
  begin(c);
  add(1);
  fill(1);
  nodes[1]->stuck = true;
  advance(6s, 1s); // it has not answered lately
  auto r = request(1, 0, 1);
  SUBCASE("the port's own") {}
  SUBCASE("as asked for") { r.until = time.boot() + 12s; }
  auto first = fetch(r);
  advance(9s, 100ms);
  auto second = fetch(r);
  advance(3s, 100ms);
  if (r.until.count() > 0) {
    CHECK(code(first) == errc::timed_out);
    CHECK(code(second) == errc::timed_out); // one deadline, whenever it was begun
  } else {
    advance(4s, 100ms);
    CHECK(code(first) == errc::timed_out);
    // Whose connection answers nothing gives its place to the next after a while: that is no sign of life.
    for (auto& h : std::exchange(nodes[1]->held, {})) nodes[1]->later[++nodes[1]->alarms] = std::move(h);
    nodes[1]->fails = error{errc::timed_out, "no answer"};
    caf::anon_send(caf::actor_cast<caf::actor>(connections[1]), alarm_atom_v, nodes[1]->alarms);
    run();
    CHECK(nodes[1]->reads == 2);
    nodes[1]->fails.reset();
    CHECK_FALSE(second->has_value());
    advance(8300ms, 100ms); // 15 s after it began, not after its turn came
    CHECK(code(second) == errc::timed_out);
  }
  nodes[1]->held.clear();
}

TEST_CASE_FIXTURE(dispersal_fixture, "fetch: when too many have been silent for long, the next read ends sooner") {
  begin();
  for (std::uint32_t n = 1; n <= 6; ++n) add(n);
  fill(6);
  for (std::uint32_t n : {1U, 2U, 3U}) nodes[n]->stuck = true;
  auto first = fetch(request(6, 2, 4));
  advance(3s, 100ms);
  auto second = fetch(request(6, 1, 4)); // they may only be slow
  advance(6s, 100ms);
  CHECK_FALSE(second->has_value());
  advance(10s, 100ms);
  CHECK(code(first) == errc::timed_out);
  CHECK(code(second) == errc::timed_out);
  auto third = fetch(request(6, 2, 4));
  advance(1900ms, 100ms);
  CHECK_FALSE(third->has_value());
  advance(200ms, 100ms);
  CHECK(code(third) == errc::timed_out);
  auto behind = request(6, 2, 4); // what is read ahead and then wanted is a read like others
  behind.background = true;
  auto fourth = fetch(std::move(behind));
  advance(1s, 100ms);
  port->hurry(request(6, 2, 4).segment, 2);
  run();
  advance(1900ms, 100ms);
  CHECK_FALSE(fourth->has_value());
  advance(200ms, 100ms);
  CHECK(code(fourth) == errc::timed_out);
  CHECK(code(fetch(request(6, 4, 4))) == errc::none); // the others give what they have
  SUBCASE("one of them is enough") {
    free(1);
    CHECK(code(fetch(request(6, 2, 4))) == errc::none);
  }
  for (std::uint32_t n : {1U, 2U, 3U}) free(n);
  CHECK(code(fetch(request(6, 2, 4))) == errc::none);
}

TEST_CASE_FIXTURE(dispersal_fixture, "fetch: behind others that are answered it may take longer, up to a limit") {
  dispersal_config c;
  c.node_read_window = read_charge;
  begin(c);
  add(1);
  fill(1);
  nodes[1]->delay = 4s;
  std::vector<fetched> all;
  for (int i = 0; i < 40; ++i) all.push_back(fetch(request(1, 0, 1)));
  advance(118s, 500ms);
  std::size_t answered = 0;
  for (auto& f : all) answered += f->has_value() ? 1 : 0;
  CHECK(answered >= 28); // one every four seconds, long after fifteen
  CHECK(answered < 35);
  advance(20s, 500ms);
  for (auto& f : all) CHECK(f->has_value());
  CHECK(code(all.back()) == errc::timed_out);
}

TEST_CASE_FIXTURE(dispersal_fixture, "fetch: who needs what is fetched in the background waits like any reader") {
  dispersal_config c;
  c.node_background_window = c.node_read_window = read_charge; // one of each at a time
  begin(c);
  for (std::uint32_t n = 1; n <= 6; ++n) add(n);
  fill(6);
  nodes[3]->stuck = true;
  auto behind = [&](std::uint64_t counter) {
    auto r = request(6, 2, 4);
    r.segment = {1, counter};
    r.background = true;
    return fetch(std::move(r));
  };
  auto asked = behind(1);
  auto queued = behind(2);
  CHECK(nodes[3]->reads == 1); // the second waits for the window
  SUBCASE("queued: moved to the readers' lane, and hedged as they are") {
    port->hurry({1, 2}, 2);
    run();
    CHECK(nodes[3]->reads == 2);
    advance(60ms, 5ms);
    CHECK(indices(queued).size() == 4);
    CHECK_FALSE(asked->has_value()); // in no hurry: hedges after a second
    advance(1s, 100ms);
    CHECK(indices(asked).size() == 4);
  }
  SUBCASE("asked already: the hedge comes at once") {
    advance(100ms, 5ms);
    CHECK_FALSE(asked->has_value());
    port->hurry({1, 1}, 2);
    run();
    advance(5ms, 5ms);
    CHECK(indices(asked).size() == 4);
  }
  SUBCASE("it has its time from there, and no more") {
    for (auto& [n, node] : nodes) node->stuck = true;
    advance(10s, 100ms);
    port->hurry({1, 2}, 2);
    run();
    advance(14s, 100ms);
    CHECK(code(asked) == errc::timed_out);
    CHECK_FALSE(queued->has_value());
    advance(2s, 100ms);
    CHECK(code(queued) == errc::timed_out);
  }
  SUBCASE("nobody knows of it: nothing happens") {
    port->hurry({1, 7}, 2);
    port->hurry({1, 1}, 3);
    run();
    CHECK(nodes[3]->reads == 1);
  }
  SUBCASE("its node goes while it is in both queues: told once") {
    auto reader = fetch(request(6, 2, 4));
    port->hurry({1, 2}, 2);
    run();
    CHECK(nodes[3]->reads == 2);
    CHECK_FALSE(queued->has_value());
    leave(3);
    CHECK(indices(queued).size() == 4);
    advance(60ms, 5ms);
    CHECK(indices(reader).size() == 4);
  }
  for (auto& [n, node] : nodes) {
    node->stuck = false;
    free(n);
  }
  auto s = status();
  CHECK(s.background_bytes_in_flight == 0);
  CHECK(s.read_bytes_in_flight == 0);
  CHECK(s.fetches == 0);
}
