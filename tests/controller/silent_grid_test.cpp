// A grid that does not say which hosts it has: others stand in for it, and what waits for it is told.
#include <algorithm>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "controller/trivial_world.hpp"

using namespace qs;
using controller::step_kind;
using model::node_state;

namespace {

/// Four nodes on two grids; the second is a list of machines.
struct two_grids : test::trivial_world {
  two_grids() : test::trivial_world{test::parse(text())} {
    add_hosts(24, 8, 5, 100 * gib, 1'000'000);
    auto d = diff(spec);
    REQUIRE(d.made);
    accept(spec, *d.made);
    REQUIRE(settle());
    store_segments(10, 64 * mib);
  }
  static std::string text() {
    return "version: 1\nname: x\ngrid: [local, {hosts: [{name: m1, address: \"192.0.2.1:9900\"}]}]\n"
           "storage: {capacity: 20GiB, redundancy: {data: 2, parity: 2}}\n";
  }
  void lose_first() {
    auto& t = nodes.at(members().front());
    t.running = t.data = false;
    t.tombstone = true;
  }
  controller::condition approval() {
    for (const auto& c : last.conditions)
      if (c.type == "ApprovalNeeded") return c;
    return {};
  }
};

} // namespace

TEST_CASE("a grid that does not list its hosts keeps no node from a host of another grid") {
  two_grids w;
  auto first = w.members().front();
  w.hosts_known = false; // grid hosts did not answer, local did
  w.grid_trouble = "grid hosts: no answer";
  REQUIRE_FALSE(w.hosts.contains("hosts"));
  w.lose_first();
  w.advance(std::chrono::seconds{10});
  CHECK(w.settle());
  CHECK(w.row(first).state == node_state::gone);
  CHECK(w.last.state == "Ready");
  CHECK(w.approval().status == "False");
  CHECK(w.broken.empty());
}

TEST_CASE("where no grid lists its hosts, or those that do have none, what waits is told with the reason") {
  two_grids w;
  auto first = w.members().front();
  auto there = std::move(w.hosts);
  w.hosts.clear();
  w.hosts_known = false;
  w.lose_first();
  for (int i = 0; i < 3; ++i) w.pass();
  CHECK(w.row(first).state == node_state::lost);
  CHECK(w.approval().status == "False"); // not one was asked yet: nothing to tell
  w.grid_trouble = "grid local: its lock is held by another process";
  w.pass();
  CHECK(w.approval().status == "True");
  CHECK(w.approval().reason == "GridUnknown");
  CHECK(w.approval().message.find("its lock is held") != std::string::npos);
  CHECK(w.approval().message.find(to_string(first)) != std::string::npos);
  w.hosts["local"] = {}; // one has answered, and has nothing; the other may
  w.pass();
  CHECK(w.approval().reason == "GridUnknown");
  w.hosts = std::move(there);
  w.grid_trouble.clear();
  w.hosts_known = true;
  w.advance(std::chrono::seconds{10});
  CHECK(w.settle());
  CHECK(w.row(first).state == node_state::gone);
  CHECK(w.approval().status == "False");
}
