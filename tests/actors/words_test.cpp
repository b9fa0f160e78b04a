// What a person says to the engine and what it may say back, in simulated time: cancel, suspend, a stop asked for twice, a plan
// that cannot be made now, an edit that is followed.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>

#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include "base/posix.hpp"
#include "support/simulation.hpp"

namespace {

using namespace qs;
using namespace qs::test;
using namespace std::chrono_literals;
using model::node_state;
using nlohmann::json;

const auto three = small_spec(2, 1, 3, "1GiB", "  protect: false\n");

struct volume_of_three {
  explicit volume_of_three(std::uint64_t seed = 11) : sim{{.seed = seed, .name = "sim"}} {
    sim.parity = 1;
    sim.start();
    REQUIRE(sim.apply(three) == 0);
    REQUIRE(sim.run_until([&] { return sim.whole(); }, 3min));
  }
  ~volume_of_three() {
    for (const auto& v : sim.violations()) FAIL_CHECK(v);
  }
  void write(const std::string& name) {
    auto made = sim.files()->mknod(volume::root_inode, name, S_IFREG | 0644, 0, {});
    REQUIRE(made.ok());
  }
  std::size_t in_state(node_state s) {
    auto rows = sim.recorded().nodes;
    return static_cast<std::size_t>(std::count_if(rows.begin(), rows.end(), [&](const auto& n) { return n.state == s; }));
  }
  json status() { return json::parse(sim.command("status").body); }
  std::size_t events_of(const std::string& kind) {
    auto all = sim.events();
    return static_cast<std::size_t>(std::count_if(all.begin(), all.end(), [&](const auto& e) { return e.kind == kind; }));
  }
  simulation sim;
};

json plan_of(simulation& sim, const std::string& text) { return json::parse(sim.command("plan", json{{"text", text}}.dump()).body, nullptr, false); }

TEST_CASE("words: a plan that cannot be made because somebody did not answer is exit 5, and nothing is begun") {
  simulation sim{{.seed = 21, .name = "sim"}};
  sim.parity = 1;
  sim.start();
  sim.run_for(2s);
  sim.grid->faults.unknown_query = 100;
  auto refused = plan_of(sim, three);
  CHECK(refused.value("exit", 0) == 5);
  CHECK(refused["errors"].dump().find("try again") != std::string::npos);
  CHECK(!refused.contains("plan_hash"));
  CHECK(sim.recorded().serial == 0);
  CHECK(sim.grid->nodes().empty());
  sim.grid->faults.unknown_query = 0;
  CHECK(sim.apply(three) == 0);
  REQUIRE(sim.run_until([&] { return sim.whole(); }, 3min));
  // More nodes while nobody tells which hosts there are: not now, and not never.
  sim.grid->faults.unknown_query = 100;
  sim.run_for(40s);
  auto more = plan_of(sim, small_spec(2, 1, 5, "1GiB", "  protect: false\n"));
  CHECK(more.value("exit", 0) == 5);
  CHECK(sim.recorded().serial == 1);
}

TEST_CASE("words: a second stop is answered with the first, when the volume is closed") {
  volume_of_three v;
  v.write("a");
  auto closed = v.sim.stop_asked(3);
  CHECK(closed == std::vector<bool>{true, true, true});
  v.sim.start();
  CHECK(v.sim.run_until([&] { return v.sim.whole(); }, 60s));
}

TEST_CASE("words: a durable report puts on the disk what it rests on (invariant 7)") {
  volume_of_three v;
  std::filesystem::path mark;
  for (const auto& e : std::filesystem::recursive_directory_iterator{v.sim.directory})
    if (e.path().filename() == "watermark") mark = e.path();
  REQUIRE(!mark.empty());
  auto before = read_file(mark, kib);
  v.write("a");
  CHECK(*read_file(mark, kib) == *before); // by itself it is not: a power cut may take it back
  CHECK(v.sim.durable_look());
  CHECK(*read_file(mark, kib) != *before);
}

TEST_CASE("words: what is applied while suspended waits; files are there, also after a restart") {
  volume_of_three v;
  CHECK(v.sim.command("suspend").status == 200);
  CHECK(v.sim.apply(small_spec(2, 1, 4, "1GiB", "  protect: false\n")) == 0);
  v.sim.run_for(1min);
  CHECK(v.in_state(node_state::planned) == 1);
  CHECK(v.status()["suspended"] == true);
  v.sim.stop();
  v.sim.start();
  REQUIRE(v.sim.run_until([&] { return v.sim.files() != nullptr; }, 60s));
  v.sim.run_for(30s);
  CHECK(v.in_state(node_state::planned) == 1);
  CHECK(v.sim.state() == "Suspended");
  CHECK(v.sim.command("resume").status == 200);
  CHECK(v.sim.run_until([&] { return v.sim.whole() && v.in_state(node_state::ready) == 4; }, 3min));
}

TEST_CASE("words: cancel stops what is not begun, not repair; resume goes on, a reverted file takes it back") {
  volume_of_three v;
  CHECK(json::parse(v.sim.command("cancel").body)["cancelled"] == false); // nothing is under way
  // Every host refuses, so that a row of the new plan stays as planned.
  v.sim.grid->faults.refuse = 100;
  REQUIRE(v.sim.apply(small_spec(2, 1, 5, "1GiB", "  protect: false\n")) == 0);
  auto cancelled = v.sim.command("cancel");
  CHECK(json::parse(cancelled.body)["cancelled"] == true);
  v.sim.run_for(5s);
  v.sim.grid->faults.refuse = 0;
  v.sim.run_for(1min);
  CHECK(v.in_state(node_state::ready) == 3);
  CHECK(v.in_state(node_state::planned) == 2);
  CHECK(v.status()["under_way"] == 0);
  CHECK(v.status()["cancelled"] == true);
  CHECK(v.sim.condition("Paused") == "True");
  CHECK(v.sim.state() == "Suspended");
  // Repair does not wait for anybody's word.
  v.sim.grid->kill_for_good(*v.sim.grid->find(model::node_id{1}), true);
  CHECK(v.sim.run_until([&] { return v.in_state(node_state::ready) == 3 && v.sim.recorded().nodes.size() == 6; }, 5min));
  // A restart forgets nothing of it.
  v.sim.stop();
  v.sim.start();
  v.sim.run_for(1min);
  CHECK(v.in_state(node_state::planned) == 2);
  SUBCASE("resume") {
    CHECK(v.sim.command("resume").status == 200);
    CHECK(v.sim.run_until([&] { return v.sim.whole() && v.in_state(node_state::ready) == 5; }, 5min));
  }
  SUBCASE("the file as it was before") {
    REQUIRE(v.sim.apply(three) == 0);
    CHECK(v.sim.run_until([&] { return v.sim.whole() && v.in_state(node_state::planned) == 0 && v.in_state(node_state::ready) == 3; }, 5min));
    CHECK(v.status()["cancelled"] == false);
  }
}

TEST_CASE("words: when what was in flight at a cancel was all of it, the same file accepted lifts the cancel") {
  volume_of_three v;
  v.sim.grid->faults.pending = 100; // the replacement takes some seconds
  v.sim.grid->kill_for_good(*v.sim.grid->find(model::node_id{1}), true);
  REQUIRE(v.sim.run_until([&] { return v.in_state(node_state::reserving) == 1; }, 3min));
  v.sim.grid->faults = {};
  CHECK(json::parse(v.sim.command("cancel").body)["cancelled"] == true);
  REQUIRE(v.sim.run_until([&] { return v.sim.whole() && v.sim.state() == "Ready"; }, 5min));
  CHECK(v.status()["cancelled"] == true);
  auto again = plan_of(v.sim, three);
  CHECK(again["empty"] == true);
  CHECK(again["refresh"] == true);
  CHECK(v.sim.command("accept", json{{"plan_hash", again["plan_hash"]}}.dump()).status == 200);
  CHECK(v.status()["cancelled"] == false);
  CHECK(plan_of(v.sim, three)["refresh"] == false);
}

TEST_CASE("words: a new value behind the same text is taken by an accept, and never shown") {
  volume_of_three v;
  auto look = [&](const std::string& value) {
    return v.sim.command("plan", json{{"text", three}, {"references", {{"env:NAS_ADMIN", value}}}}.dump()).body;
  };
  CHECK(plan_of(v.sim, three)["refresh"] == false);
  for (std::string value : {"first-secret", "second-secret"}) {
    auto said = look(value);
    CHECK(said.find("-secret") == std::string::npos);
    auto plan = json::parse(said);
    CHECK(plan["empty"] == true);
    CHECK(plan["refresh"] == true);
    CHECK(plan["warnings"].size() >= 1);
    CHECK(v.sim.command("accept", json{{"plan_hash", plan["plan_hash"]}}.dump()).status == 200);
    CHECK(json::parse(look(value))["refresh"] == false);
    v.sim.stop(); // sealed again: a restart knows it
    v.sim.start();
    REQUIRE(v.sim.run_until([&] { return v.sim.whole(); }, 60s));
    CHECK(json::parse(look(value))["refresh"] == false);
  }
}

TEST_CASE("words: of edits that are followed only those that add are accepted") {
  volume_of_three v;
  auto offer = [&](const std::string& text) {
    auto plan = plan_of(v.sim, text);
    return v.sim.command("accept", json{{"plan_hash", plan.value("plan_hash", "")}, {"only_additions", true}}.dump()).status;
  };
  auto approval = [&] { return v.sim.condition("ApprovalNeeded"); };
  CHECK(offer(small_spec(2, 1, 4, "2GiB", "  protect: false\n")) == 200);
  REQUIRE(v.sim.run_until([&] { return v.sim.whole() && v.in_state(node_state::ready) == 4; }, 5min));
  CHECK(approval() == "False");
  CHECK(offer(three) == 409); // fewer nodes, less room
  CHECK(v.status()["conditions"].dump().find("EditNeedsPerson") != std::string::npos);
  CHECK(offer(small_spec(2, 1, 4, "2GiB", "  protect: true\n")) == 409); // a setting is no addition
  CHECK(v.sim.recorded().serial == 2);
  // The edit is taken back: nothing waits for anybody any more.
  CHECK(plan_of(v.sim, small_spec(2, 1, 4, "2GiB", "  protect: false\n"))["empty"] == true);
  CHECK(v.status()["conditions"].dump().find("EditNeedsPerson") == std::string::npos);
  CHECK(offer(three) == 409);
  CHECK(v.status()["conditions"].dump().find("EditNeedsPerson") != std::string::npos);
  CHECK(offer(small_spec(2, 1, 5, "2GiB", "  protect: false\n")) == 200);
  CHECK(v.status()["conditions"].dump().find("EditNeedsPerson") == std::string::npos);
}

TEST_CASE("words: a file that is followed and was not edited takes no cancel back, also after a restart") {
  volume_of_three v;
  auto four = small_spec(2, 1, 4, "1GiB", "  protect: false\n");
  auto offer = [&](const std::string& text) {
    auto plan = plan_of(v.sim, text);
    CHECK(plan["empty"] == false);
    return v.sim.command("accept", json{{"plan_hash", plan.value("plan_hash", "")}, {"only_additions", true}}.dump());
  };
  v.sim.grid->faults.refuse = 100;
  REQUIRE(v.sim.apply(four) == 0);
  CHECK(json::parse(v.sim.command("cancel").body)["cancelled"] == true);
  v.sim.run_for(5s);
  v.sim.grid->faults.refuse = 0;
  v.sim.stop();
  v.sim.start();
  v.sim.run_for(30s);
  REQUIRE(v.in_state(node_state::planned) == 1);
  auto serial = v.sim.recorded().serial;
  auto answer = offer("# a remark\n" + four); // means the same
  CHECK(answer.status == 200);
  CHECK(json::parse(answer.body)["unchanged"] == true);
  v.sim.run_for(1min);
  CHECK(v.status()["cancelled"] == true);
  CHECK(v.in_state(node_state::planned) == 1);
  CHECK(v.sim.recorded().serial == serial);
  // An edit is a new word.
  CHECK(!json::parse(offer(small_spec(2, 1, 5, "1GiB", "  protect: false\n")).body).contains("unchanged"));
  CHECK(v.status()["cancelled"] == false);
  CHECK(v.sim.run_until([&] { return v.sim.whole() && v.in_state(node_state::ready) == 5; }, 5min));
}

TEST_CASE("words: hosts that refused are remembered by the next engine") {
  simulation sim{{.seed = 31, .name = "sim"}};
  sim.parity = 1;
  sim.start();
  sim.grid->faults.refuse = 100;
  REQUIRE(sim.apply(three) == 0);
  REQUIRE(sim.run_until([&] { return sim.recorded().refused_hosts.size() >= 2; }, 1min));
  auto before = sim.recorded().refused_hosts;
  sim.grid->faults.refuse = 0;
  sim.crash();
  sim.start();
  sim.run_for(1s);
  for (const auto& refused : before) CHECK(sim.observed().failed_hosts.contains(refused.first));
  CHECK(sim.run_until([&] { return sim.whole(); }, 3min));
}

TEST_CASE("words: a new volume's first events warn of nothing, each thing is told once, and the wallet is known when it is Ready") {
  volume_of_three v;
  for (const auto& e : v.sim.events()) {
    CAPTURE(e.message);
    CHECK(e.level == "info");
  }
  CHECK(v.events_of("VolumeMade") == 1);
  v.sim.stop();
  v.sim.start();
  REQUIRE(v.sim.run_until([&] { return v.sim.whole(); }, 60s));
  CHECK(v.events_of("VolumeOpened") == 1);
  simulation fresh{{.seed = 41, .name = "sim"}};
  fresh.parity = 1;
  fresh.start();
  REQUIRE(fresh.apply(three) == 0);
  // The moment it is Ready with nothing under way is when apply answers.
  REQUIRE(fresh.run_until([&] {
    auto s = json::parse(fresh.command("status").body);
    return s["state"] == "Ready" && s["under_way"] == 0;
  }, 3min));
  CHECK(json::parse(fresh.command("status").body)["wallet"]["per_month"] != "0");
}

TEST_CASE("words: what the headline says of redundancy is what the condition says") {
  simulation sim{{.seed = 51, .name = "sim"}};
  sim.start();
  REQUIRE(sim.apply(small_spec(4, 2, 6)) == 0);
  REQUIRE(sim.run_until([&] { return sim.whole(); }, 3min));
  auto made = sim.files()->mknod(volume::root_inode, "a", S_IFREG | 0644, 0, {});
  REQUIRE(made.ok());
  auto written = std::make_shared<bool>(false);
  sim.files()->write(made->inode, 0, buffer(50'000, std::byte{1}), false, false, [written](result<std::size_t> r) { *written = r.ok(); });
  REQUIRE(sim.run_until([&] { return *written; }, 10s));
  REQUIRE(sim.command("cache_drop").status == 200); // every shard is on its node
  REQUIRE(sim.run_until([&] { return sim.whole(); }, 60s));
  CHECK(json::parse(sim.command("status").body)["volume"]["redundancy_left_min"] == 2);
  for (std::uint32_t n = 1; n <= 4; ++n) sim.grid->find(model::node_id{n})->silent = true;
  sim.run_for(20s);
  auto s = json::parse(sim.command("status").body);
  CHECK(s["volume"]["redundancy_left_min"] == 0);
  CHECK(s["conditions"].dump().find("0 of 2 shards may still be lost") != std::string::npos);
}

} // namespace

TEST_CASE("words: nobody waits for the end of a node whose machine is dead for good, and it is still tried") {
  volume_of_three v;
  auto* node = v.sim.grid->find(model::node_id{1});
  REQUIRE(node != nullptr);
  v.sim.grid->dead_hosts.insert(node->host);
  v.sim.grid->kill_for_good(*node, true);
  auto nothing_to_do = [&] {
    auto s = v.status();
    return s["state"] == "Ready" && s["under_way"] == 0 && v.sim.condition("Synced") == "True";
  };
  REQUIRE(v.sim.run_until([&] { return v.in_state(node_state::replaced) == 1 && v.in_state(node_state::ready) == 3 && nothing_to_do(); }, 5min));
  CHECK(v.sim.recorded().nodes.front().state == node_state::replaced);
  CHECK(v.sim.run_until([&] { return v.status()["conditions"].dump().find("1 node that left has still to be ended") != std::string::npos && nothing_to_do(); }, 1min));
  // What is applied while it is dead comes to its end, and stays there.
  REQUIRE(v.sim.apply(small_spec(2, 1, 4, "1GiB", "  protect: false\n")) == 0);
  REQUIRE(v.sim.run_until([&] { return v.in_state(node_state::ready) == 4 && nothing_to_do(); }, 5min));
  auto tried = v.sim.grid->counters["resolve"];
  v.sim.run_for(1min);
  for (int i = 0; i < 60; ++i) {
    v.sim.run_for(1s);
    CHECK(v.sim.condition("Synced") == "True");
    CHECK(v.status()["under_way"] == 0);
  }
  CHECK(json::parse(v.sim.command("cancel").body)["cancelled"] == false);
  v.sim.run_for(3min);
  CHECK(v.sim.grid->counters["resolve"] > tried);
  // It is there again: its reservation ends without anybody's word.
  v.sim.grid->dead_hosts.clear();
  CHECK(v.sim.run_until([&] { return v.sim.whole() && v.in_state(node_state::replaced) == 0; }, 5min));
}
