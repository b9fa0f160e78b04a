// The supervisor and everything under it, in simulated time, on a grid that does as it is told: the ways of control.md, 2 to 5.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <optional>

#include <fmt/format.h>
#include <sys/stat.h>

#include "support/simulation.hpp"

namespace {

using namespace qs;
using namespace qs::test;
using namespace std::chrono_literals;
using model::node_state;

const auto six = small_spec(4, 2, 6, "1GiB", "  protect: false\n");

struct ready {
  explicit ready(const std::string& text = six, std::uint64_t seed = 1) : sim{{.seed = seed, .name = "sim"}} {
    sim.start();
    REQUIRE(sim.apply(text) == 0);
    REQUIRE(sim.run_until([&] { return sim.whole(); }, 3min));
  }
  simulated_node& node(std::uint32_t number) {
    auto* n = sim.grid->find(model::node_id{number});
    REQUIRE(n != nullptr);
    return *n;
  }
  node_state state_of(std::uint32_t number) {
    for (const auto& n : sim.recorded().nodes)
      if (n.id.number == number) return n.state;
    return node_state::gone;
  }
  volume::inode_number write(const std::string& name, std::size_t length) {
    auto made = sim.files()->mknod(volume::root_inode, name, S_IFREG | 0644, 0, {});
    REQUIRE(made.ok());
    auto answer = std::make_shared<std::optional<bool>>();
    sim.files()->write(made->inode, 0, buffer(length, std::byte{0x37}), false, false, [answer](result<std::size_t> r) { *answer = r.ok(); });
    REQUIRE(sim.run_until([&] { return answer->has_value(); }, 10s));
    CHECK(**answer);
    return made->inode;
  }
  std::string read(volume::inode_number inode, std::size_t length) {
    auto answer = std::make_shared<std::optional<result<buffer>>>();
    sim.files()->read(inode, 0, length, [answer](result<buffer> r) { answer->emplace(std::move(r)); });
    if (!sim.run_until([&] { return answer->has_value(); }, 60s)) return "no answer";
    if (!(*answer)->ok()) return describe((*answer)->err());
    return ***answer == buffer(length, std::byte{0x37}) ? "right" : "wrong";
  }
  ~ready() {
    for (const auto& v : sim.violations()) FAIL_CHECK(v);
  }
  simulation sim;
};

bool has_event(simulation& sim, const std::string& kind) {
  auto all = sim.events();
  return std::any_of(all.begin(), all.end(), [&](const model::event& e) { return e.kind == kind; });
}

TEST_CASE("from nothing to Ready, and every byte comes back from the nodes") {
  ready r;
  CHECK(r.sim.grid->nodes().size() == 6);
  CHECK(r.sim.condition("Ready") == "True");
  auto inode = r.write("a", 50'000);
  CHECK(r.sim.command("cache_drop").status == 200);
  CHECK(r.read(inode, 50'000) == "right");
  r.sim.run_for(2s); // the next report
  CHECK(r.sim.stats().node_read_bytes > 0);
  auto rows = r.sim.recorded();
  CHECK(rows.serial == 1);
  for (const auto& [key, n] : r.sim.grid->made) CHECK(n == 1);
}

TEST_CASE("two of six taken for good are replaced and what they held is rebuilt") {
  ready r;
  auto inode = r.write("a", 60'000);
  REQUIRE(r.sim.run_until([&] { return r.sim.whole(); }, 60s));
  r.sim.grid->kill_for_good(r.node(2), true);
  r.sim.grid->kill_for_good(r.node(5), true);
  REQUIRE(r.sim.run_until([&] { return r.sim.whole() && r.state_of(2) == node_state::gone && r.state_of(5) == node_state::gone; }, 5min));
  CHECK(r.sim.grid->nodes().size() == 6);
  r.sim.grid->kill_for_good(r.node(1), true);
  r.sim.grid->kill_for_good(r.node(3), true);
  REQUIRE(r.sim.run_until([&] { return r.sim.whole() && r.state_of(1) == node_state::gone && r.state_of(3) == node_state::gone; }, 5min));
  CHECK(r.sim.command("cache_drop").status == 200);
  CHECK(r.read(inode, 60'000) == "right");
}

TEST_CASE("who was taken for good does not count again once it is replaced: redundancy is back when the rebuild is done") {
  ready r;
  volume::inode_number inode = 0;
  for (int i = 0; i < 40; ++i) { // a segment for each: more than are rebuilt at once
    inode = r.write("a" + std::to_string(i), 60'000);
    REQUIRE(r.sim.command("cache_drop").status == 200);
  }
  REQUIRE(r.sim.run_until([&] { return r.sim.whole(); }, 60s));
  r.sim.grid->kill_for_good(r.node(2), true);
  r.sim.grid->kill_for_good(r.node(3), true); // beside it: some segments have both
  REQUIRE(r.sim.run_until([&] { return r.sim.stats().redundancy_left_min == 0; }, 60s));
  bool seen = false; // replaced, the rebuild under way, and what is missing still counted as missing
  REQUIRE(r.sim.run_until(
      [&] {
        auto s = r.sim.stats();
        seen = seen || (r.state_of(2) == node_state::replaced && r.state_of(3) == node_state::replaced && s.rebuild_pending > 0 &&
                        s.redundancy_left_min == 0 && s.segments_by_missing.size() > 2 && s.segments_by_missing[2] > 0);
        return r.sim.whole() && r.state_of(2) == node_state::gone && r.state_of(3) == node_state::gone;
      },
      5min));
  CHECK(seen);
  CHECK(r.read(inode, 60'000) == "right");
}

TEST_CASE("four of six silent: nothing is changed, Quorum is Unknown, and all is well when they are back") {
  ready r;
  auto inode = r.write("a", 10'000);
  REQUIRE(r.sim.run_until([&] { return r.sim.whole(); }, 60s));
  auto before = r.sim.recorded().nodes;
  auto submits = r.sim.grid->counters["submit"];
  for (std::uint32_t n = 1; n <= 4; ++n) r.node(n).silent = true;
  r.sim.nothing_may_change = "four of six are silent";
  r.sim.run_for(5min);
  CHECK(r.sim.condition("Quorum") == "Unknown");
  CHECK(r.sim.grid->counters["submit"] == submits);
  CHECK(r.sim.grid->counters["cancel"] == 0);
  auto after = r.sim.recorded().nodes;
  REQUIRE(after.size() == before.size());
  for (std::size_t i = 0; i < before.size(); ++i) CHECK(after[i].state == before[i].state);
  r.sim.nothing_may_change.clear();
  for (std::uint32_t n = 1; n <= 4; ++n) r.node(n).silent = false;
  CHECK(r.sim.run_until([&] { return r.sim.whole(); }, 2min));
  CHECK(r.read(inode, 10'000) == "right");
}

TEST_CASE("a process that died with its data whole is started again and nothing moves") {
  ready r;
  r.sim.grid->stop_process(r.node(3));
  REQUIRE(r.sim.run_until([&] { return r.node(3).running; }, 30s));
  REQUIRE(r.sim.run_until([&] { return r.sim.whole(); }, 60s));
  CHECK(r.sim.recorded().nodes.size() == 6);
  CHECK(has_event(r.sim, "NodeRestarted"));
}

TEST_CASE("files deleted behind our back are found out by identity and counted as lost") {
  ready r;
  auto inode = r.write("a", 30'000);
  REQUIRE(r.sim.run_until([&] { return r.sim.whole(); }, 60s));
  r.sim.grid->delete_files(r.node(4));
  REQUIRE(r.sim.run_until([&] { return r.state_of(4) == node_state::gone && r.sim.whole(); }, 5min));
  CHECK(has_event(r.sim, "NodeLost"));
  CHECK(r.read(inode, 30'000) == "right");
}

TEST_CASE("one node silent for long is replaced, and the old one is cancelled when nothing needs it") {
  ready r;
  r.node(6).silent = true;
  REQUIRE(r.sim.run_until([&] { return r.sim.whole() && r.state_of(6) == node_state::gone; }, 5min));
  CHECK(r.sim.grid->nodes().size() == 6);
  CHECK(r.state_of(7) == node_state::ready);
}

TEST_CASE("suspended: a dead node stays; resumed: it is replaced") {
  ready r;
  CHECK(r.sim.command("suspend").status == 200);
  r.sim.grid->kill_for_good(r.node(1), true);
  r.sim.run_for(3min);
  CHECK(r.sim.state() == "Suspended");
  CHECK(r.sim.recorded().nodes.size() == 6);
  CHECK(r.sim.command("resume").status == 200);
  CHECK(r.sim.run_until([&] { return r.sim.whole() && r.state_of(1) == node_state::gone; }, 5min));
}

TEST_CASE("destroy goes to the end: nothing mounted, reserved or left") {
  ready r;
  r.write("a", 5'000);
  REQUIRE(r.sim.destroy() == 0);
  REQUIRE(r.sim.run_until([&] { return r.sim.ended.has_value(); }, 2min));
  CHECK(*r.sim.ended == 0);
  CHECK(r.sim.files() == nullptr);
  CHECK(r.sim.grid->nodes().empty());
  auto rows = r.sim.recorded();
  CHECK_FALSE(rows.volume.created);
  for (const auto& n : rows.nodes) CHECK(n.state == node_state::gone);
}

TEST_CASE("a plan is stale once another was accepted, and a wrong text is refused with what is wrong") {
  simulation sim{{.seed = 3, .name = "sim"}};
  sim.start();
  sim.run_for(2s);
  auto plan = [&](const std::string& text) {
    auto escaped = std::string{};
    for (char c : text) c == '\n' ? escaped += "\\n" : escaped += c;
    return sim.command("plan", "{\"text\":\"" + escaped + "\"}");
  };
  auto hash_of = [](const std::string& body) {
    auto at = body.find("\"plan_hash\":\"") + 13;
    return body.substr(at, body.find('"', at) - at);
  };
  auto first = plan(six);
  REQUIRE(first.status == 200);
  auto second = plan(small_spec(4, 2, 7));
  REQUIRE(second.status == 200);
  REQUIRE(sim.command("accept", "{\"plan_hash\":\"" + hash_of(second.body) + "\"}").status == 200);
  auto stale = sim.command("accept", "{\"plan_hash\":\"" + hash_of(first.body) + "\"}");
  CHECK(stale.status == 409);
  CHECK(stale.body.find("\"exit\":3") != std::string::npos);
  auto wrong = plan("version: 1\nname: sim\nstorage: {capacity: many}\n");
  CHECK(wrong.status == 400);
  CHECK(wrong.body.find("storage.yaml:3") != std::string::npos);
  auto other = plan(small_spec(4, 2, 6, "1GiB", "", "another"));
  CHECK(other.status == 409);
  CHECK(sim.command("nonsense").status == 404);
}

TEST_CASE("an orderly stop seals and closes; the next start goes on from there") {
  ready r;
  auto inode = r.write("a", 20'000);
  r.sim.stop();
  CHECK_FALSE(r.sim.up());
  r.sim.start();
  REQUIRE(r.sim.run_until([&] { return r.sim.whole(); }, 60s));
  CHECK(r.read(inode, 20'000) == "right");
}

TEST_CASE("what fails alone is started again alone; what must not fail ends the engine, which comes back") {
  ready r;
  auto inode = r.write("a", 20'000);
  for (const auto* which : {"monitor", "repair", "connection", "reservation"}) {
    CAPTURE(which);
    CHECK(r.sim.kill_actor(which));
    r.sim.run_for(10s);
    CHECK(r.sim.run_until([&] { return r.sim.whole(); }, 60s));
  }
  CHECK(r.sim.grid->counters["engine started"] == 1);
  // A new monitor hears of what happens to links that were there before it.
  r.sim.grid->power_cut(r.node(2));
  CHECK(r.sim.run_until([&] { return r.node(2).running; }, 30s));
  auto started = 1;
  for (const auto* which : {"mount", "payment", "dispersal", "blocking"}) {
    CAPTURE(which);
    CHECK(r.sim.kill_actor(which));
    ++started;
    CHECK(r.sim.run_until([&] { return r.sim.grid->counters["engine started"] == started && r.sim.whole(); }, 2min));
    CHECK(r.read(inode, 20'000) == "right");
  }
}

// issue: `apply` is killed after every record of the state in turn.
TEST_CASE("apply cut after every record of the state ends in the same state, nothing reserved twice") {
  std::uint64_t commits = 0;
  {
    simulation sim{{.seed = 5, .name = "sim"}};
    sim.start();
    REQUIRE(sim.apply(small_spec(2, 1, 3)) == 0);
    sim.parity = 1;
    REQUIRE(sim.run_until([&] { return sim.whole(); }, 3min));
    commits = sim.commits();
  }
  CHECK(commits > 15);
  for (std::uint64_t cut = 1; cut <= commits; ++cut) {
    CAPTURE(cut);
    simulation sim{{.seed = 5, .name = "sim"}};
    sim.parity = 1;
    sim.cut_at_commit = cut;
    sim.start();
    CHECK(sim.apply(small_spec(2, 1, 3)) == 0);
    CHECK(sim.run_until([&] { return sim.whole(); }, 5min));
    CHECK(sim.grid->nodes().size() == 3);
    CHECK(sim.recorded().nodes.size() == 3);
    for (const auto& v : sim.violations()) FAIL_CHECK(v);
  }
}

// The same for destroy: whatever record it is cut after, it goes to the end.
TEST_CASE("destroy cut after every record of the state goes to the end") {
  for (std::uint64_t after = 1; after <= 25; ++after) {
    CAPTURE(after);
    simulation sim{{.seed = 6, .name = "sim"}};
    sim.parity = 1;
    sim.start();
    REQUIRE(sim.apply(small_spec(2, 1, 3, "1GiB", "  protect: false\n")) == 0);
    REQUIRE(sim.run_until([&] { return sim.whole(); }, 3min));
    sim.cut_at_commit = sim.commits() + after;
    CHECK(sim.destroy() == 0);
    CHECK(sim.run_until([&] { return sim.ended == 0; }, 3min));
    CHECK(sim.grid->nodes().empty());
    for (const auto& v : sim.violations()) FAIL_CHECK(v);
  }
}

} // namespace
