// Shards that are not what they must be, and words for shards that are no longer to be trusted (volume.md 3; invariants 2, 3, 4, 10).
#include "file_model.hpp"
#include "base/posix.hpp"
#include "volume/log_layout.hpp"
#include "volume/segment_table.hpp"

using namespace qs;
using namespace qs::test;

TEST_CASE("a node's CHECK is not believed for a shard that failed verification: it is written anew in place (invariants 3, 4)") {
  for (bool rotten : {false, true})
    for (bool restarted : {false, true}) {
      CAPTURE(rotten);
      CAPTURE(restarted);
      volume_fixture f{4, 2, 6, false};
      f.groups.resize(1);
      f.begin();
      auto data = noise(1, 2 * mib);
      auto inode = f.stored_file("a", data);
      auto sound = f.ports[3].objects;
      f.ports.damage(3, rotten); // the node's own checksum fits: CHECK says "there"
      CHECK(f.holds(inode, 0, data));
      f.settle();
      CHECK(f.told("ShardDamaged") > 0);
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
      CHECK(f.told("ShardMadeAnew") > 0);
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
  f.begin();
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
  f.begin();
  auto data = noise(1, 2 * mib);
  auto inode = f.stored_file("a", data);
  f.ports.damage(3);
  f.groups[0].generation = 2;
  f.groups[0].slots[2] = {7};
  REQUIRE(f.opened->set_groups(f.groups).ok());
  REQUIRE(f.repair_all());
  CHECK(f.opened->stats().redundancy_left_min == 2);
  f.ports.wipe(1);
  f.ports.wipe(2);
  CHECK(f.holds(inode, 0, data));
}

TEST_CASE("after unconfirm() segments in the log are sent again, others are only asked for, and made anew where they are missing") {
  volume_fixture f{4, 2, 6, false};
  f.groups.resize(1);
  f.begin();
  auto inode = f.make_file("a");
  auto data = noise(1, 12 * mib);
  REQUIRE(f.write(*inode, 0, data).ok());
  REQUIRE(f.drain());
  REQUIRE(f.opened->drop_caches().ok()); // the log has none of it
  auto& node = f.ports[2];
  auto sound = node.objects;
  node.objects.erase(node.objects.begin());
  node.objects.erase(std::prev(node.objects.end()));
  auto sets = node.sets;
  auto reads = f.opened->stats().node_read_bytes;
  f.opened->unconfirm({2}, f.time.wall() - std::chrono::minutes{15});
  f.settle();
  CHECK(f.opened->stats().redundancy_left_min == 1);
  CHECK(f.opened->stats().rebuild_pending == sound.size());
  REQUIRE(f.repair_all());
  CHECK(node.sets - sets == 2);
  CHECK(f.opened->stats().node_read_bytes - reads < 2 * 4 * mib); // the sources of two, nothing for the others
  CHECK(node.objects.size() == sound.size());
  for (const auto& [name, value] : sound) CHECK(*node.objects.at(name) == *value);

  // Pinned, because node 5 does not confirm; node 2 had confirmed and loses what it had.
  f.ports[5].confirms = false;
  auto b = f.make_file("b");
  REQUIRE(f.write(*b, 0, noise(2, mib)).ok());
  CHECK(!f.drain(std::chrono::seconds{5}));
  f.ports.wipe(2);
  f.opened->unconfirm({2}, f.time.wall() - std::chrono::minutes{15});
  f.settle();
  f.ports[5].confirms = true;
  f.ports.confirm_all();
  REQUIRE(f.drain());
  CHECK(f.opened->stats().redundancy_left_min <= 2);
  auto kept = node.objects.size();
  CHECK(kept > 0); // it was sent again before the log let go (invariant 10)
  CHECK(f.ports.violation == "");
}

TEST_CASE("what was confirmed lately is found without a walk over all segments") {
  volume::segment_table table;
  table.add_groups({{{0}, 1, {{1}, {2}, {3}, {4}, {5}, {6}}}});
  volume::segment_row row;
  row.state = volume::segment_state::stored;
  row.data_shards = row.used_shards = 4;
  row.parity_shards = 2;
  row.group = 0;
  row.group_generation = 1;
  row.confirmed = 0b111111;
  row.live_bytes = 1;
  constexpr unsigned count = 150'000; // more than it remembers
  for (unsigned i = 1; i <= count; ++i) {
    row.confirmed_ms = i;
    table.update({1, i}, &row);
  }
  auto began = std::chrono::steady_clock::now();
  for (int i = 0; i < 20'000; ++i) CHECK(table.confirmed_on({3}, count - 1).size() == 2);
  CHECK(table.confirmed_on({3}, count + 1).empty());
  CHECK(std::chrono::steady_clock::now() - began < std::chrono::seconds{20});
  CHECK(table.confirmed_on({3}, 0).size() == count);
  CHECK(table.confirmed_on({3}, count - 120'000).size() == 120'001);
  CHECK(table.confirmed_on({7}, 0).empty());
  row.confirmed = 0b111011; // repair's now
  table.update({1, count}, &row);
  CHECK(table.confirmed_on({3}, count - 1).size() == 1);
  row.confirmed = 0b111111; // an old one is confirmed again; the wall clock went back
  row.confirmed_ms = count - 5;
  table.update({1, 7}, &row);
  auto found = table.confirmed_on({3}, count - 5);
  CHECK(std::find(found.begin(), found.end(), model::segment_ref{1, 7}) != found.end());
}

TEST_CASE("the old copy of a moved shard is deleted when its node is back, also after a crash, unless it is the right place again") {
  for (bool back_again : {false, true}) {
    CAPTURE(back_again);
    volume_fixture f{4, 2, 8, false};
    f.groups.resize(1);
    f.begin();
    auto data = noise(1, 6 * mib);
    auto inode = f.stored_file("a", data);
    auto old = f.ports[3].objects.size();
    REQUIRE(old > 0);
    f.ports[3].reachable = false; // live, but away
    f.see_nodes();
    f.groups[0].generation = 2;
    f.groups[0].slots[2] = {7};
    REQUIRE(f.opened->set_groups(f.groups).ok());
    REQUIRE(f.repair_all());
    f.pass(std::chrono::seconds{15});
    CHECK(f.ports[3].objects.size() == old);
    f.crash();
    REQUIRE(f.open().ok());
    if (back_again) {
      f.groups[0].generation = 3;
      f.groups[0].slots[2] = {3};
      REQUIRE(f.opened->set_groups(f.groups).ok());
    }
    f.ports[3].reachable = true;
    f.see_nodes();
    REQUIRE(f.repair_all());
    f.pass(std::chrono::seconds{25});
    CHECK(f.ports[3].objects.size() == (back_again ? old : 0));
    CHECK(f.ports[7].objects.size() == (back_again ? 0 : old));
    CHECK(f.opened->stats().redundancy_left_min == 2);
    f.ports.wipe(1);
    f.ports.wipe(2);
    REQUIRE(f.opened->drop_caches().ok());
    CHECK(f.holds(inode, 0, data));
  }
}

TEST_CASE("no node forgets anything before what made it needless is on this machine's disk (invariant 7)") {
  volume_fixture f{4, 2, 6, false};
  f.groups.resize(1);
  f.begin();
  auto synced = [&] {
    auto text = read_file(f.options.state_directory / "log" / "watermark", kib);
    REQUIRE(text.ok());
    auto mark = volume::log_layout::decode_watermark(as_bytes(*text));
    REQUIRE(mark.has_value());
    return mark->sequence;
  };
  auto inode = f.make_file("a");
  REQUIRE(f.write(*inode, 0, noise(1, 2 * mib)).ok());
  REQUIRE(f.drain());
  REQUIRE(f.fs().fsync().ok());
  auto stored = f.ports[1].objects.size();
  REQUIRE(stored > 0);
  auto before = synced();
  REQUIRE(f.fs().unlink(volume::root_inode, "a").ok());
  CHECK(synced() == before); // by itself it is not: a power cut may take it back
  for (int i = 0; i < 300 && f.ports[1].objects.size() == stored; ++i) f.pass();
  REQUIRE(f.ports[1].objects.size() < stored);
  CHECK(synced() > before);
}

TEST_CASE("a replaced node that does not answer counts for nothing while it is rebuilt; what only it may have is not given up") {
  volume_fixture f{4, 2, 8, false};
  f.groups.resize(1);
  f.begin();
  auto data = noise(1, 12 * mib);
  auto inode = f.stored_file("a", data);
  auto segments = f.opened->stats().segments_by_missing.at(0);
  REQUIRE(segments > 1);
  for (unsigned n : {3U, 4U}) f.ports[n].reachable = false;
  f.replaced = {{3}, {4}};
  f.groups[0].generation = 2;
  f.groups[0].slots[2] = {7};
  f.groups[0].slots[3] = {8};
  REQUIRE(f.opened->set_groups(f.groups).ok());
  f.see_nodes();
  auto s = f.opened->stats();
  CHECK(s.redundancy_left_min == 0);
  REQUIRE(s.segments_by_missing.size() == 3);
  CHECK(s.segments_by_missing[2] == segments);
  CHECK(s.segments_by_missing[0] == 0);
  CHECK(f.opened->indispensable() == std::vector<model::node_id>{{1}, {2}, {5}, {6}});
  CHECK(f.opened->sources() == std::vector<model::node_id>{{3}, {4}});

  // Two more away: nothing can be made, and nothing is forgotten of what the replaced ones have.
  for (unsigned n : {1U, 2U}) f.ports[n].reachable = false;
  f.replaced.insert({{1}, {2}});
  f.see_nodes();
  CHECK(f.opened->stats().redundancy_left_min == 0);
  CHECK(f.opened->indispensable().size() == 6); // those that answer are not enough without any of the others
  for (int i = 0; i < 50; ++i) {
    f.opened->repair(8);
    f.pass();
  }
  for (unsigned n : {3U, 4U}) f.ports[n].reachable = true;
  f.see_nodes();
  REQUIRE(f.opened->drop_caches().ok());
  CHECK(f.holds(inode, 0, data));
  f.replaced = {{3}, {4}};
  for (unsigned n : {1U, 2U}) f.ports[n].reachable = true;
  REQUIRE(f.repair_all());
  CHECK(f.opened->stats().redundancy_left_min == 2);
  CHECK(f.opened->sources().empty());
}

TEST_CASE("deleted data frees the nodes that answer while one does not; that one is told when it is back, also after a crash") {
  for (bool dead : {false, true}) {
    CAPTURE(dead);
    volume_fixture f{4, 2, 6, false};
    f.groups.resize(1);
    f.begin();
    f.stored_file("a", noise(1, 6 * mib));
    auto kept = f.ports[3].objects.size();
    REQUIRE(kept > 0);
    f.ports[3].reachable = false;
    if (dead) f.replaced.insert({3});
    f.see_nodes();
    REQUIRE(f.fs().unlink(volume::root_inode, "a").ok());
    f.pass(std::chrono::seconds{15});
    for (unsigned n : {1U, 2U, 4U, 5U, 6U}) CHECK(f.ports[n].objects.empty());
    CHECK(f.opened->stats().segments == 0);
    CHECK(f.ports[3].objects.size() == kept);
    f.crash();
    REQUIRE(f.open().ok());
    f.ports[3].reachable = true;
    f.see_nodes();
    f.pass(std::chrono::seconds{25});
    CHECK(f.ports[3].objects.size() == (dead ? kept : 0)); // a replaced one is cancelled as a whole
  }
}

TEST_CASE("what a repair put where the segment never came to is deleted: the group moved on, or the segment died meanwhile") {
  for (bool died : {false, true}) {
    CAPTURE(died);
    volume_fixture f{4, 2, 8, false};
    f.groups.resize(1);
    f.begin();
    auto data = noise(1, 2 * mib);
    auto inode = f.stored_file("a", data);
    f.groups[0].generation = 2;
    f.groups[0].slots[2] = {7};
    REQUIRE(f.opened->set_groups(f.groups).ok());
    f.ports[7].confirms = false; // stored, and not yet said to be safe
    REQUIRE(f.opened->repair(8) == 1);
    f.settle();
    REQUIRE(f.ports[7].objects.size() == 1);
    if (died) {
      REQUIRE(f.fs().unlink(volume::root_inode, "a").ok());
      f.pass(std::chrono::seconds{10});
    } else {
      f.groups[0].generation = 3;
      f.groups[0].slots[2] = {8};
      REQUIRE(f.opened->set_groups(f.groups).ok());
    }
    f.ports.confirm_all();
    f.settle();
    f.ports[7].confirms = true;
    REQUIRE(f.repair_all());
    f.pass(std::chrono::seconds{25});
    CHECK(f.ports[7].objects.empty());
    CHECK(f.ports.violation == "");
    if (died) CHECK(f.ports.objects() == 0);
    else CHECK(f.holds(inode, 0, data));
  }
}

TEST_CASE("what half of a move left behind is deleted when the group moves elsewhere") {
  volume_fixture f{4, 2, 8, false};
  f.groups.resize(1);
  f.begin();
  auto data = noise(1, 2 * mib);
  auto inode = f.stored_file("a", data);
  f.groups[0].generation = 2;
  f.groups[0].slots[2] = {7};
  f.groups[0].slots[3] = {8};
  REQUIRE(f.opened->set_groups(f.groups).ok());
  f.ports[8].refuses = true; // one half of it comes about
  for (int i = 0; i < 50; ++i) {
    f.opened->repair(8);
    f.pass();
  }
  REQUIRE(f.ports[7].objects.size() == 1);
  f.pass(std::chrono::seconds{25});
  CHECK(f.ports[7].objects.size() == 1); // it may still be what is needed
  f.ports[8].refuses = false;
  f.groups[0].generation = 3;
  f.groups[0].slots[2] = {3};
  REQUIRE(f.opened->set_groups(f.groups).ok());
  REQUIRE(f.repair_all());
  f.pass(std::chrono::seconds{25});
  CHECK(f.ports[7].objects.empty());
  CHECK(f.ports[8].objects.size() == 1);
  REQUIRE(f.opened->drop_caches().ok());
  CHECK(f.holds(inode, 0, data));
}
