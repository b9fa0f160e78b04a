// What was confirmed and is taken back while somebody is about to build on it (invariant 10): every order of the two.
#include <atomic>
#include <condition_variable>
#include <thread>

#include "file_model.hpp"

using namespace qs;
using namespace qs::test;
using namespace std::chrono_literals;

namespace {

/// A clock that is asked in the middle of things: the volume looks at the wall clock when an operation has its lock.
struct asked_clock final : qs::clock {
  explicit asked_clock(qs::clock& c) : of{c} {}
  [[nodiscard]] boot_time boot() const override { return of.boot(); }
  [[nodiscard]] wall_time wall() const override {
    if (armed.exchange(false)) once();
    return of.wall();
  }
  qs::clock& of;
  std::function<void()> once;
  mutable std::atomic<bool> armed{false};
};

/// One segment on its way: all shards acknowledged, those of node `silent` not confirmed.
void one_segment(volume_fixture& f, unsigned silent) {
  f.ports[silent].confirms = false;
  auto inode = f.make_file("a");
  REQUIRE(f.write(*inode, 0, noise(1, mib)).ok());
  CHECK(!f.drain(5s));
  REQUIRE(f.opened->stats().segments == 1);
  REQUIRE(f.work.size() == 0);
  f.ports[silent].confirms = true;
}

/// Whether somebody would believe that node 2 has its shard.
bool counted(volume_fixture& f) {
  auto s = f.opened->stats();
  return s.bytes_at_risk == 0 && (s.segments_by_missing.size() < 2 || s.segments_by_missing[1] == 0);
}

void ends_well(volume_fixture& f) {
  for (int i = 0; i < 100 && f.ports[2].objects.empty(); ++i) {
    f.opened->repair(8);
    f.pass(1s);
  }
  CHECK(f.ports[2].objects.size() == 1);
  REQUIRE(f.drain());
  REQUIRE(f.repair_all());
  CHECK(f.opened->stats().redundancy_left_min == 2);
  CHECK(f.ports.violation == "");
}

} // namespace

TEST_CASE("a shard is unconfirmed before the row of its segment is written: the log does not let go (invariant 10)") {
  volume_fixture f{4, 2, 6, false};
  f.groups.resize(1);
  f.begin();
  one_segment(f, 5);
  f.ports.confirm_all(); // the last word is there, the row is not written yet
  REQUIRE(f.work.size() == 1);
  f.ports.wipe(2);
  f.opened->unconfirm({2}, wall_time{});
  REQUIRE(f.work.run_newest());
  f.work.run();
  CHECK(f.opened->stats().bytes_at_risk > 0);
  CHECK(!counted(f));
  ends_well(f);
}

TEST_CASE("a shard is unconfirmed while the row of its segment is being written: the row does not keep the old word (invariant 10)") {
  volume_fixture f{4, 2, 6, false};
  f.groups.resize(1);
  REQUIRE(f.create().ok());
  asked_clock clock{f.time};
  auto env = f.env();
  env.time = &clock;
  auto opened = volume::open_volume(f.options, env);
  REQUIRE(opened.ok());
  f.opened = std::move(*opened);
  REQUIRE(f.opened->set_groups(f.groups).ok());
  f.see_nodes();
  one_segment(f, 5);
  f.ports.confirm_all();
  f.ports.wipe(2);
  f.opened->unconfirm({2}, wall_time{});
  REQUIRE(f.work.size() == 2);
  std::thread other;
  clock.once = [&] {
    // It either ends now, or it waits for the operation that is under way here: then no time is enough.
    auto ended = std::make_shared<std::pair<std::mutex, std::condition_variable>>();
    auto done = std::make_shared<std::atomic<bool>>(false);
    other = std::thread{[&f, ended, done] {
      f.work.run_one();
      std::lock_guard lock{ended->first};
      *done = true;
      ended->second.notify_all();
    }};
    std::unique_lock lock{ended->first};
    ended->second.wait_for(lock, 300ms, [&] { return done->load(); });
  };
  clock.armed = true;
  REQUIRE(f.work.run_one());
  REQUIRE(other.joinable());
  other.join();
  f.work.run();
  CHECK(!counted(f));
  ends_well(f);
  f.opened.reset(); // before its clock
}

TEST_CASE("a word that comes after the node was unconfirmed, for what was sent before, counts for nothing") {
  volume_fixture f{4, 2, 6, false};
  f.groups.resize(1);
  f.begin();
  one_segment(f, 2);
  f.ports.wipe(2);
  f.opened->unconfirm({2}, wall_time{});
  f.work.run();
  f.ports.confirm_all(); // it was on its way when the node started again
  f.work.run();
  CHECK(!counted(f));
  ends_well(f);
}

TEST_CASE("a repair that asked before the node was unconfirmed does not confirm after it") {
  volume_fixture f{4, 2, 6, false};
  f.groups.resize(1);
  f.begin();
  f.stored_file("a", noise(1, mib));
  f.opened->unconfirm({2}, wall_time{});
  f.settle();
  REQUIRE(!counted(f));
  f.ports.deferred = true;
  REQUIRE(f.opened->repair(8) == 1); // asks; "it is there" is on its way
  f.ports.wipe(2);
  f.opened->unconfirm({2}, wall_time{});
  f.work.run();
  f.ports.deliver();
  f.work.run();
  f.ports.deferred = false;
  CHECK(!counted(f));
  ends_well(f);
}
