// Shards that are not what they must be, and words for shards that are no longer to be trusted (volume.md 3; invariants 2, 3, 4, 10).
#include "file_model.hpp"

using namespace qs;
using namespace qs::test;

namespace {
bool noted(const volume_fixture& f, std::string_view what) {
  return std::any_of(f.notes.begin(), f.notes.end(), [&](const std::string& n) { return n.find(what) != std::string::npos; });
}
} // namespace

TEST_CASE("a node's CHECK is not believed for a shard that failed verification: it is written anew in place (invariants 3, 4)") {
  for (bool rotten : {false, true})
    for (bool restarted : {false, true}) {
      CAPTURE(rotten);
      CAPTURE(restarted);
      volume_fixture f{4, 2, 6, false};
      f.groups.resize(1);
      REQUIRE(f.create().ok());
      REQUIRE(f.open().ok());
      auto inode = f.make_file("a");
      auto data = noise(1, 2 * mib);
      REQUIRE(f.write(*inode, 0, data).ok());
      REQUIRE(f.drain());
      REQUIRE(f.opened->drop_caches().ok());
      auto sound = f.ports[3].objects;
      f.ports.damage(3, rotten); // the node's own checksum fits: CHECK says "there"
      auto got = f.read(*inode, 0, data.size());
      REQUIRE(got.ok());
      CHECK(*got == data);
      f.settle();
      CHECK(noted(f, "ShardDamaged"));
      auto pending = f.opened->stats().rebuild_pending;
      CHECK(pending > 0);
      CHECK(f.opened->stats().redundancy_left_min < 2); // counted as missing until it is confirmed
      if (restarted) {
        f.crash();
        REQUIRE(f.open().ok());
        CHECK(f.opened->stats().rebuild_pending == pending);
      }
      REQUIRE(f.repair_all());
      CHECK(f.opened->stats().redundancy_left_min == 2);
      CHECK(noted(f, "ShardMadeAnew"));
      CHECK(f.ports[3].rotten.size() < sound.size());
      CHECK(f.ports.violation == "");
      // What was read is sound again: with two others away every byte of it still comes.
      unsigned same = 0;
      for (const auto& [name, value] : f.ports[3].objects) same += *value == *sound.at(name) ? 1 : 0;
      CHECK(same >= pending);
    }
}

TEST_CASE("a shard that CHECK denies is deleted before it is set: the node may hold its name with rotten bytes (invariant 3)") {
  volume_fixture f{4, 2, 6, false};
  REQUIRE(f.create().ok());
  REQUIRE(f.open().ok());
  auto inode = f.make_file("a");
  auto data = noise(1, 2 * mib);
  REQUIRE(f.write(*inode, 0, data).ok());
  REQUIRE(f.drain());
  auto sound = f.ports[3].objects;
  f.ports.damage(3, true);
  f.ports[3].checks_bytes = true; // as a server does that reads what it has
  f.opened->unconfirm({3}, wall_time{});
  f.settle();
  REQUIRE(f.repair_all());
  for (const auto& [name, value] : sound) CHECK(*f.ports[3].objects.at(name) == *value);
  CHECK(f.ports.violation == "");
}

TEST_CASE("a source that turns out damaged while a shard is moved: the move goes on from others, the bad one is forgotten") {
  volume_fixture f{4, 2, 8, false};
  f.groups.resize(1);
  REQUIRE(f.create().ok());
  REQUIRE(f.open().ok());
  auto inode = f.make_file("a");
  auto data = noise(1, 2 * mib);
  REQUIRE(f.write(*inode, 0, data).ok());
  REQUIRE(f.drain());
  REQUIRE(f.opened->drop_caches().ok());
  f.ports.damage(3);
  f.groups[0].generation = 2;
  f.groups[0].slots[2] = {7};
  REQUIRE(f.opened->set_groups(f.groups).ok());
  REQUIRE(f.repair_all());
  CHECK(f.opened->stats().redundancy_left_min == 2);
  f.ports.wipe(1);
  f.ports.wipe(2);
  auto got = f.read(*inode, 0, data.size());
  REQUIRE(got.ok());
  CHECK(*got == data);
}
