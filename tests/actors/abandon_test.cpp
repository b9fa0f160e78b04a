// Nodes on machines that are gone for good: told, given up by a person's word alone, and what the record says then
// (control.md, 4 and 5; decision 0008).
#include <doctest/doctest.h>

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include "support/simulation.hpp"

namespace {

using namespace qs;
using namespace qs::test;
using namespace std::chrono_literals;
using model::node_state;
using nlohmann::json;

const auto three = small_spec(2, 1, 3, "1GiB", "  protect: false\n");

struct volume_of_three {
  explicit volume_of_three(std::uint64_t seed = 31) : sim{{.seed = seed, .name = "sim"}} {
    sim.parity = 1;
    sim.start();
    REQUIRE(sim.apply(three) == 0);
    REQUIRE(sim.run_until([&] { return sim.whole(); }, 3min));
  }
  ~volume_of_three() {
    for (const auto& v : sim.violations()) FAIL_CHECK(v);
  }
  json status() { // empty while an engine was cut before it answered
    auto s = json::parse(sim.command("status").body, nullptr, false);
    return s.is_object() ? s : json::object();
  }
  json node(const std::string& id) {
    for (const auto& n : status().value("nodes", json::array()))
      if (n["id"] == id) return n;
    return {};
  }
  std::uint64_t tries(const std::string& id) {
    auto n = node(id);
    return n.is_object() && n["not_deleted"].is_object() ? n["not_deleted"]["tries"].get<std::uint64_t>() : 0;
  }
  /// Exit code of the answer, 0 for a good one.
  int remove(const std::string& id, bool abandon) {
    auto answer = sim.command("node_delete", json{{"node", id}, {"abandon", abandon}}.dump());
    last = json::parse(answer.body, nullptr, false);
    if (!last.is_object()) return -1; // cut before it answered
    return answer.status == 200 ? 0 : last.value("exit", 1);
  }
  /// The machine of this node never answers again.
  simulated_node& dead(std::uint32_t number) {
    auto* n = sim.grid->find(model::node_id{number});
    REQUIRE(n != nullptr);
    sim.grid->dead_hosts.insert(n->host);
    n->silent = true;
    return *n;
  }
  std::size_t events(const std::string& kind, const std::string& with = "") {
    auto all = sim.events();
    return static_cast<std::size_t>(std::count_if(all.begin(), all.end(), [&](const auto& e) {
      return e.kind == kind && e.message.find(with) != std::string::npos;
    }));
  }
  json last;
  simulation sim;
};

bool destroyed_but(simulation& sim, std::size_t left) {
  auto rows = sim.recorded();
  return sim.ended == 0 && !rows.volume.created && sim.grid->nodes().size() == left &&
         std::all_of(rows.nodes.begin(), rows.nodes.end(), [](const auto& n) { return n.state == node_state::gone; });
}

TEST_CASE("abandon: a destroy tells what it cannot delete, and ends without it only by a person's word") {
  volume_of_three v;
  auto name = v.dead(2).name;
  REQUIRE(v.sim.destroy() == 0);
  // Before it was tried often enough nobody's word makes it gone.
  if (v.tries("n2") < 2) CHECK(v.remove("n2", true) == 5);
  REQUIRE(v.sim.run_until([&] { return v.tries("n2") >= 2; }, 3min));
  CHECK(v.events("NodeNotDeleted", "qs destroy --abandon") == 1);
  v.sim.run_for(10min);
  CHECK_FALSE(v.sim.ended.has_value()); // unknown stays unknown
  CHECK(v.status()["nodes"].size() == 1);
  CHECK(v.status()["abandoned"].empty());
  CHECK(v.remove("n1", true) == 0); // gone in order: there is nothing to give up
  CHECK(v.last["abandoned"] == false);

  CHECK(v.remove("n2", true) == 0);
  CHECK(v.last["abandoned"] == true);
  CHECK(v.last["by_hand"].get<std::string>().find(name) != std::string::npos);
  CHECK(v.events("NodeAbandoned", name) == 1);
  REQUIRE(v.sim.run_until([&] { return v.sim.ended.has_value(); }, 1min));
  CHECK(destroyed_but(v.sim, 1));
  CHECK(v.sim.grid->find(name) != nullptr);
}

TEST_CASE("abandon: cut after every record of a destroy with a dead machine, it goes to the end and asks nobody twice") {
  for (std::uint64_t after = 1; after <= 25; ++after) {
    CAPTURE(after);
    volume_of_three v{6};
    v.dead(3);
    v.sim.cut_at_commit = v.sim.commits() + after;
    CHECK(v.sim.destroy() == 0);
    // As the command does: the word is said again until it is recorded.
    REQUIRE(v.sim.run_until(
        [&] {
          if (v.sim.ended.has_value()) return true;
          if (v.sim.up() && v.tries("n3") >= 2) (void)v.remove("n3", true);
          return v.sim.ended == 0;
        },
        10min));
    CHECK(destroyed_but(v.sim, 1));
    auto rows = v.sim.recorded().nodes;
    CHECK(std::count_if(rows.begin(), rows.end(), [](const auto& n) { return model::is_abandoned(n); }) == 1);
  }
}

TEST_CASE("abandon: a node in use, or one that is still needed, is never given up") {
  volume_of_three v;
  CHECK(v.remove("n9", true) == 1);
  CHECK(v.remove("n1", true) == 3);
  CHECK(v.remove("n1", false) == 3);
  CHECK(v.last["error"].get<std::string>().find("qs nodes drain n1") != std::string::npos);
  // Replaced, and its shards not rebuilt yet: asked at every moment of the way, it is refused until nothing needs it.
  v.dead(1);
  auto refused = 0;
  REQUIRE(v.sim.run_until(
      [&] {
        auto n = v.node("n1");
        if (!n.is_object() || n["state"] != "replaced") return false;
        if (v.remove("n1", true) == 0) return true;
        ++refused;
        return false;
      },
      10min));
  CHECK(refused > 0);
  CHECK(v.sim.run_until([&] { return v.sim.whole(); }, 1min));
  CHECK(v.status()["nodes"].size() == 3);
}

TEST_CASE("abandon: a replaced node whose machine is dead is forgotten, its number and the day's bound are not") {
  volume_of_three v;
  auto name = v.dead(1).name;
  REQUIRE(v.sim.run_until([&] { return v.sim.state() == "Ready" && v.tries("n1") >= 2; }, 10min));
  CHECK(v.events("NodeNotDeleted", "qs nodes delete n1 --abandon") == 1);
  auto bound = v.sim.observed().unreachable_replaced_today;
  CHECK(bound == 1);
  // Asked to delete it now, it is tried at once, however long the next try was away.
  auto tried = v.tries("n1");
  v.sim.run_for(2min);
  CHECK(v.remove("n1", false) == 0);
  CHECK(v.sim.run_until([&] { return v.tries("n1") > tried; }, 5s));

  CHECK(v.remove("n1", true) == 0);
  CHECK(v.status()["nodes"].size() == 3);
  REQUIRE(v.status()["abandoned"].size() == 1);
  CHECK(v.status()["abandoned"][0]["namespace"] == name);
  CHECK(v.sim.observed().unreachable_replaced_today == bound);
  auto asked = v.sim.grid->counters["resolve"] + v.sim.grid->counters["cancel"];
  v.sim.run_for(5min);
  CHECK(v.sim.grid->counters["resolve"] + v.sim.grid->counters["cancel"] == asked);
  CHECK(v.status()["conditions"].dump().find("still to be ended") == std::string::npos);
  CHECK(v.remove("n1", true) == 0); // said again it changes nothing
  CHECK(v.events("NodeAbandoned") == 1);

  // After a restart it is as before; the machine that comes back after all shows what is left as a stray.
  v.sim.crash();
  v.sim.grid->dead_hosts.clear();
  v.sim.start();
  REQUIRE(v.sim.run_until([&] { return v.sim.whole(); }, 3min));
  CHECK(v.status()["abandoned"].size() == 1);
  CHECK(v.sim.run_until([&] { return v.sim.observed().strays.size() == 1; }, 2min));
  CHECK(v.sim.grid->find(name) != nullptr);
  REQUIRE(v.sim.apply(small_spec(2, 1, 4, "1GiB", "  protect: false\n")) == 0);
  REQUIRE(v.sim.run_until([&] { return v.sim.whole() && v.status()["nodes"].size() == 4; }, 5min));
  CHECK(v.node("n5").is_object()); // n4 took n1's place
}

} // namespace
