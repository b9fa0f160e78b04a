// What may leave the log before every shard of it is confirmed, and what may not: nodes that are away, stand still or are lost.
#include "file_model.hpp"

using namespace qs;
using namespace qs::test;

namespace {

/// An empty file in a volume one of whose nodes is away.
volume::inode_number begin_with_one_away(volume_fixture& f, byte_count staging) {
  f.options.staging_bytes = staging;
  f.options.log_file_bytes = mib;
  f.begin();
  f.ports[2].reachable = false;
  f.see_nodes();
  auto inode = f.make_file("a");
  REQUIRE(inode.ok());
  return *inode;
}

} // namespace

TEST_CASE("with one node away writing goes on: the log does not fill, repair owns what is missing (invariant 10)") {
  volume_fixture f;
  auto inode = begin_with_one_away(f, 32 * mib);
  byte_count most = 0;
  for (unsigned i = 0; i < 100; ++i) {
    REQUIRE(f.write(inode, i * mib, noise(i, mib)).ok());
    f.pass();
    most = std::max(most, f.opened->stats().log_bytes);
    CHECK(f.opened->stats().segments_in_flight <= 8); // invariant 14
  }
  CHECK(most < 16 * mib); // never slowed
  CHECK(f.opened->stats().rebuild_pending > 0);
  f.ports[2].reachable = true;
  f.see_nodes();
  REQUIRE(f.repair_all());
  REQUIRE(f.drain());
  CHECK(f.opened->stats().redundancy_left_min == 2);
  REQUIRE(f.opened->drop_caches().ok());
  f.ports.wipe(1);
  f.ports.wipe(3);
  for (unsigned i = 0; i < 100; i += 7) {
    auto got = f.read(inode, i * mib, mib);
    REQUIRE_MESSAGE(got.ok(), describe(got.err()));
    CHECK(*got == noise(i, mib));
  }
}

TEST_CASE("shards on their way to a node that stands still hold neither the log nor the others; nobody deletes or repairs before they are there") {
  volume_fixture f;
  f.options.staging_bytes = 32 * mib;
  f.options.log_file_bytes = mib;
  f.begin();
  auto first = f.make_file("first");
  auto inode = f.make_file("a");
  REQUIRE(first.ok());
  REQUIRE(inode.ok());
  auto& still = f.ports[2];
  still.slow = true; // it has been sent them and says nothing
  for (unsigned i = 0; i < 8; ++i) REQUIRE(f.write(*first, i * mib, noise(1000 + i, mib)).ok());
  f.pass(std::chrono::seconds{5});
  auto under_way = still.objects.size();
  REQUIRE(under_way >= 4);
  still.slow = still.reachable = false; // what it was sent stays on its way
  f.see_nodes();
  byte_count most = 0;
  for (unsigned i = 0; i < 100; ++i) {
    REQUIRE(f.write(*inode, i * mib, noise(i, mib)).ok());
    f.pass();
    most = std::max(most, f.opened->stats().log_bytes);
  }
  CHECK(most < 16 * mib); // never slowed
  auto unanswered = f.opened->stats().rebuild_pending;
  CHECK(unanswered >= 40 + under_way);

  still.reachable = true;
  auto sets = still.sets;
  f.see_nodes();
  for (int i = 0; i < 300; ++i) {
    f.opened->repair(8);
    f.pass();
  }
  CHECK(f.opened->stats().rebuild_pending == under_way); // all but those
  CHECK(still.sets > sets);
  auto names = still.objects.size();
  REQUIRE(f.fs().unlink(volume::root_inode, "first").ok());
  f.pass(std::chrono::seconds{20});
  CHECK(still.objects.size() >= names);
  CHECK(still.removed == 0); // a DEL might come before their SET
  f.ports.answer_slow();
  REQUIRE(f.repair_all());
  REQUIRE(f.drain());
  f.pass(std::chrono::seconds{20});
  CHECK(still.removed == under_way);
  CHECK(f.opened->stats().redundancy_left_min == 2);
  CHECK(f.ports.violation == "");
}

TEST_CASE("as many nodes as may be away stand still at once: segments that all others have are not waited for") {
  volume_fixture f;
  f.options.staging_bytes = gib;
  f.begin();
  auto inode = f.make_file("a");
  REQUIRE(inode.ok());
  for (unsigned n : {2U, 5U}) f.ports[n].slow = true; // they have been sent them and say nothing
  for (unsigned i = 0; i < 40; ++i) {
    REQUIRE(f.write(*inode, i * mib, noise(i, mib)).ok());
    f.pass();
  }
  CHECK(f.ports[1].sets == 8); // invariant 14: eight in flight, and one answer short of safe
  CHECK(f.opened->stats().segments_in_flight == 8);
  for (unsigned n : {2U, 5U}) f.ports[n].reachable = f.ports[n].slow = false;
  f.see_nodes();
  f.pass(std::chrono::seconds{1});
  CHECK(f.ports[1].sets >= 19);
  CHECK(f.opened->stats().segments_in_flight == 0);
  CHECK(f.opened->stats().log_bytes >= 40 * mib); // the only extra copy
  for (unsigned n : {2U, 5U}) f.ports[n].reachable = true;
  f.see_nodes();
  f.ports.answer_slow();
  REQUIRE(f.drain());
  CHECK(f.opened->stats().redundancy_left_min == 2);
  CHECK(f.ports.violation == "");
}

TEST_CASE("what is on nodes that are lost or silent does not let the log go: with as many away as may be lost it has the only extra copy") {
  for (bool lost : {true, false}) {
    CAPTURE(lost);
    volume_fixture f;
    f.options.staging_bytes = 64 * mib;
    f.options.log_file_bytes = mib;
    f.begin();
    auto inode = f.make_file("a");
    REQUIRE(inode.ok());
    f.ports[2].slow = true; // never answers
    for (unsigned i = 0; i < 20; ++i) REQUIRE(f.write(*inode, i * mib, noise(i, mib)).ok()); // over a quarter of the log
    f.pass(std::chrono::seconds{5});
    f.ports[2].reachable = false;
    if (lost) f.lost.insert({5}); // it had confirmed; nobody has its place yet
    else f.ports[5].reachable = false;
    f.see_nodes();
    f.pass(std::chrono::seconds{5});
    CHECK(f.opened->stats().rebuild_pending == 0); // nothing was let go
    CHECK(f.opened->stats().log_bytes >= 20 * mib);
    CHECK(f.opened->stats().bytes_at_risk >= 15 * mib);

    if (lost) {
      for (auto& g : f.groups) {
        ++g.generation;
        for (auto& slot : g.slots)
          if (slot == model::node_id{5}) slot = {7};
      }
      f.ports.nodes[{7}] = {};
      REQUIRE(f.opened->set_groups(f.groups).ok());
      f.ports[2].slow = false;
      f.ports.answer_slow(); // or its time is up
    } else {
      f.ports[5].reachable = true;
    }
    f.see_nodes();
    // The rows are flushed by a thread of RocksDB, in real time.
    auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{20};
    do f.pass(std::chrono::seconds{10});
    while (f.opened->stats().log_bytes >= 20 * mib && std::chrono::steady_clock::now() < deadline);
    CHECK(f.opened->stats().log_bytes < 20 * mib); // five that are there have them
    if (lost) CHECK(f.ports[7].sets > 0);
    f.ports[2].slow = false;
    f.ports[2].reachable = true;
    f.ports.answer_slow();
    f.see_nodes();
    REQUIRE(f.repair_all());
    REQUIRE(f.drain());
    CHECK(f.opened->stats().redundancy_left_min == 2);
    CHECK(f.ports.violation == "");
  }
}

TEST_CASE("with one node away only as much is let go as the log's quarter asks for, the oldest first: the rest is sent when it is back") {
  volume_fixture f;
  auto inode = begin_with_one_away(f, 64 * mib);
  for (unsigned i = 0; i < 22; ++i) REQUIRE(f.write(inode, i * mib, noise(i, mib)).ok());
  f.pass(std::chrono::seconds{20});
  auto repairs = f.opened->stats().rebuild_pending;
  CHECK(repairs >= 2); // of 22 MiB 16 may stay; a segment has 2
  CHECK(repairs <= 6);
  f.ports[2].reachable = true;
  f.see_nodes();
  REQUIRE(f.drain());
  CHECK(f.opened->stats().rebuild_pending == repairs);
  CHECK(f.ports[2].sets > 0);
  REQUIRE(f.repair_all());
  CHECK(f.opened->stats().redundancy_left_min == 2);
}
