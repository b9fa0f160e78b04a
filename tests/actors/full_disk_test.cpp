// What a full disk of this machine, or an engine that died at a bad moment, may not end: rows that nothing depends on, and a volume
// whose making was not recorded.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <dlfcn.h>
#include <sys/stat.h>

#include "state/store.hpp"
#include "support/simulation.hpp"

namespace {
std::atomic<bool> no_space_for_sessions{false};
}

/// In front of the C library's: a disk that is full whenever the volume begins a session.
extern "C" int mkostemp(char* name, int flags) {
  if (no_space_for_sessions && std::strstr(name, "volume.json") != nullptr) {
    errno = ENOSPC;
    return -1;
  }
  auto* real = reinterpret_cast<int (*)(char*, int)>(::dlsym(RTLD_NEXT, "mkostemp"));
  return real(name, flags);
}

namespace {

using namespace qs;
using namespace qs::test;
using namespace std::chrono_literals;
using model::node_state;

const auto three = small_spec(2, 1, 3, "1GiB", "  protect: false\n");

struct small_volume {
  explicit small_volume(std::uint64_t seed) : sim{{.seed = seed, .name = "sim"}} {
    sim.parity = 1;
    sim.start();
  }
  ~small_volume() {
    for (const auto& v : sim.violations()) FAIL_CHECK(v);
  }
  std::size_t recorded_events(const std::string& kind) {
    auto all = state::read_events(sim.directory / "state.db", 0, 100'000);
    REQUIRE(all.ok());
    return static_cast<std::size_t>(std::count_if(all->begin(), all->end(), [&](const auto& e) { return e.kind == kind; }));
  }
  simulation sim;
};

TEST_CASE("full disk: summary, refusals and events that cannot be written end nothing, and are written when they can be") {
  small_volume v{61};
  REQUIRE(v.sim.apply(three) == 0);
  REQUIRE(v.sim.run_until([&] { return v.sim.whole(); }, 3min));
  v.sim.disk_full_for = {"summary", "event", "refusal"};
  auto made = v.sim.files()->mknod(volume::root_inode, "a", S_IFREG | 0644, 0, {});
  REQUIRE(made.ok());
  auto written = std::make_shared<bool>(false);
  v.sim.files()->write(made->inode, 0, buffer(200'000, std::byte{1}), false, false, [written](result<std::size_t> r) { *written = r.ok(); });
  v.sim.grid->faults.refuse = 60;
  v.sim.grid->kill_for_good(*v.sim.grid->find(model::node_id{1}), true);
  REQUIRE(v.sim.run_until([&] { return v.sim.whole() && v.sim.recorded().nodes.front().state == node_state::gone; }, 5min));
  v.sim.run_for(30s);
  CHECK(*written);
  CHECK(v.sim.lives() == 1);
  CHECK(v.sim.files() != nullptr);
  CHECK(v.recorded_events("NodeReplaced") == 0);
  auto rows = v.sim.recorded();
  CHECK(rows.refused_hosts.empty());
  auto refused = std::any_of(rows.nodes.begin(), rows.nodes.end(), [](const auto& n) { return n.incarnation > 1; });
  v.sim.disk_full_for.clear();
  CHECK(v.sim.run_until([&] { return v.recorded_events("NodeReplaced") == 1 && v.recorded_events("NodeGone") == 1; }, 30s));
  CHECK(v.sim.run_until([&] { return v.sim.stats().used_bytes > 0 && v.sim.recorded().volume.used_bytes == v.sim.stats().used_bytes; }, 30s));
  CHECK(v.sim.recorded().refused_hosts.empty() == !refused);
  CHECK(v.sim.lives() == 1);
}

TEST_CASE("a volume whose making was not recorded is taken as it is, whatever became of its nodes meanwhile") {
  small_volume v{62};
  v.sim.disk_full_for = {"summary"}; // the groups are in the volume's log, its summary is not in the state
  REQUIRE(v.sim.apply(three) == 0);
  REQUIRE(v.sim.run_until([&] { return v.sim.lives() >= 2; }, 3min));
  v.sim.disk_full_for.clear();
  SUBCASE("a node was lost") {
    v.sim.grid->kill_for_good(*v.sim.grid->find(model::node_id{1}), true);
    CHECK(v.sim.run_until([&] { return v.sim.whole() && v.sim.recorded().nodes.front().state == node_state::gone; }, 5min));
    for (const auto& g : v.sim.recorded().volume.groups) CHECK(std::find(g.slots.begin(), g.slots.end(), model::node_id{1}) == g.slots.end());
  }
  SUBCASE("the file was edited") {
    v.sim.grid->find(model::node_id{2})->silent = true; // it is not opened before the edit is accepted
    REQUIRE(v.sim.apply(small_spec(2, 1, 5, "1GiB", "  protect: false\n")) == 0);
    v.sim.grid->find(model::node_id{2})->silent = false;
    CHECK(v.sim.run_until([&] { return v.sim.whole() && v.sim.recorded().nodes.size() == 5; }, 5min));
  }
  CHECK(v.sim.recorded().volume.created);
}

TEST_CASE("full disk: a volume that cannot be opened for it says what to do, once, and is opened when there is space again") {
  small_volume v{63};
  REQUIRE(v.sim.apply(three) == 0);
  REQUIRE(v.sim.run_until([&] { return v.sim.whole(); }, 3min));
  v.sim.stop();
  no_space_for_sessions = true;
  v.sim.start();
  v.sim.run_for(90s);
  CHECK(v.sim.files() == nullptr);
  std::string told;
  for (const auto& e : v.sim.events()) {
    if (e.kind != "VolumeNotOpen") continue;
    CHECK(told.empty());
    told = e.message;
  }
  CHECK(told.find("free some on the disk of " + v.sim.directory.string()) != std::string::npos);
  no_space_for_sessions = false;
  CHECK(v.sim.run_until([&] { return v.sim.whole(); }, 45s));
  CHECK(v.sim.lives() == 2);
}

} // namespace
