// Full logs and full nodes, nodes away, damaged shards: what goes on, what is refused, what is repaired (invariants 4, 10, 14, 15).
#include <atomic>
#include <fcntl.h>
#include <future>
#include <thread>

#include "file_model.hpp"

using namespace qs;
using namespace qs::test;

TEST_CASE("with more than m nodes away the log holds what is not safe; slowed at half, ENOSPC at the end, unlink works (invariant 15)") {
  volume_fixture f;
  f.options.staging_bytes = 16 * mib;
  f.options.log_file_bytes = mib;
  f.begin();
  for (unsigned n : {1U, 2U, 3U}) f.ports[n].reachable = false; // more than m: nothing can be stored
  f.see_nodes();
  auto data = noise(1, mib);
  auto inode = f.make_file("a");
  REQUIRE(inode.ok());
  bool slowed = false;
  std::optional<error> refused;
  std::uint64_t written = 0;
  for (unsigned i = 0; i < 40 && !refused; ++i) {
    bool answered = false;
    f.fs().write(*inode, written, data, false, false, [&](result<std::size_t> r) {
      answered = true;
      if (r.ok()) written += *r;
      else refused = std::move(r).err();
    });
    if (!answered) slowed = true;
    for (int n = 0; n < 20 && !answered; ++n) f.pass();
    REQUIRE(answered);
  }
  CHECK(slowed);
  REQUIRE(refused.has_value());
  CHECK(refused->sys == ENOSPC);
  CHECK(f.opened->stats().log_full);
  CHECK(f.opened->stats().log_bytes <= 16 * mib);
  CHECK(f.make_file("b").err().sys == ENOSPC);
  // A second file to cut before the first goes.
  volume::attribute_changes cut;
  cut.size = mib;
  CHECK(f.fs().setattr(*inode, cut).ok());
  CHECK(f.fs().fallocate(*inode, 3, 0, 4096).ok()); // punch
  CHECK(f.fs().unlink(volume::root_inode, "a").ok());
  f.pass(std::chrono::seconds{3});
  f.crash();
  REQUIRE(f.open().ok());
  for (unsigned n : {1U, 2U, 3U}) f.ports[n].reachable = true;
  f.see_nodes();
  f.pass(std::chrono::seconds{40});
  REQUIRE(f.drain());
  // The rows are flushed by a thread of RocksDB, in real time.
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{20};
  while (f.opened->stats().log_bytes >= 4 * mib && std::chrono::steady_clock::now() < deadline) f.pass();
  CHECK(f.opened->stats().log_bytes < 4 * mib);
  auto again = f.make_file("c");
  REQUIRE(again.ok());
  CHECK(f.write(*again, 0, data).ok());
}

TEST_CASE("with m nodes away the log holds what is not safe and slows writers, until the replacements are ready") {
  volume_fixture f{4, 2, 8, false};
  f.options.staging_bytes = 16 * mib;
  f.options.log_file_bytes = mib;
  f.groups.resize(1);
  f.begin();
  for (unsigned n : {2U, 3U}) f.ports[n].reachable = false;
  f.see_nodes();
  auto inode = f.make_file("a");
  REQUIRE(inode.ok());
  unsigned written = 0;
  auto write_one = [&] { // whether it was answered at once
    bool answered = false;
    bool at_once = false;
    f.fs().write(*inode, written * mib, noise(written, mib), false, false, [&](result<std::size_t> r) {
      answered = true;
      CHECK(r.ok());
    });
    at_once = answered;
    for (int n = 0; n < 20 && !answered; ++n) f.pass();
    REQUIRE(answered);
    ++written;
    return at_once;
  };
  while (written < 15 && write_one()) f.pass();
  CHECK(written >= 6);
  CHECK(written < 15); // slowed, not refused
  CHECK(f.opened->stats().log_bytes > 7 * mib);
  CHECK(f.opened->stats().bytes_at_risk >= 4 * mib);
  f.groups[0].generation = 2;
  f.groups[0].slots[1] = {7};
  f.groups[0].slots[2] = {8};
  REQUIRE(f.opened->set_groups(f.groups).ok());
  REQUIRE(f.repair_all());
  REQUIRE(f.drain());
  CHECK(f.opened->stats().redundancy_left_min == 2);
  // The rows are flushed by a thread of RocksDB, in real time.
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{20};
  while (f.opened->stats().log_bytes >= 4 * mib && std::chrono::steady_clock::now() < deadline) f.pass();
  CHECK(f.opened->stats().log_bytes < 4 * mib);
  CHECK(write_one());
  REQUIRE(f.drain());
  REQUIRE(f.opened->drop_caches().ok());
  f.ports.wipe(1);
  f.ports.wipe(4);
  for (unsigned i = 0; i < written; ++i) {
    auto got = f.read(*inode, i * mib, mib);
    REQUIRE_MESSAGE(got.ok(), describe(got.err()));
    CHECK(*got == noise(i, mib));
  }
}

TEST_CASE("what a node acknowledged and did not confirm stays at risk") {
  volume_fixture f;
  f.begin();
  f.ports[4].confirms = false;
  auto inode = f.make_file("a");
  REQUIRE(f.write(*inode, 0, noise(1, 2 * mib)).ok());
  CHECK(!f.drain(std::chrono::seconds{10}));
  CHECK(f.opened->stats().bytes_at_risk >= 500'000);
  CHECK(f.opened->stats().at_risk_since != wall_time{});
  CHECK(f.opened->drop_caches().err().code == errc::busy);
  f.ports.confirm_all();
  f.ports[4].confirms = true;
  f.settle();
  REQUIRE(f.drain());
  CHECK(f.opened->stats().bytes_at_risk == 0);
}

TEST_CASE("a full node's group is closed and its segment placed whole elsewhere; all full is ENOSPC at the entry") {
  volume_fixture f{2, 1, 6};
  f.begin();
  f.ports[1].full = true;
  auto data = noise(1, 4 * mib);
  auto inode = f.stored_file("a", data);
  CHECK(f.holds(inode, 0, data));
  CHECK(f.ports.violation == "");
  for (auto& [id, n] : f.ports.nodes) n.full = true;
  std::optional<error> refused;
  for (int i = 0; i < 50 && !refused; ++i) {
    auto done = f.write(inode, 0, data);
    if (!done.ok()) refused = std::move(done).err();
    f.pass(std::chrono::seconds{1});
  }
  REQUIRE(refused.has_value());
  CHECK(refused->sys == ENOSPC);
  CHECK(f.fs().unlink(volume::root_inode, "a").ok());
}

TEST_CASE("a damaged shard is an erasure: read around, made anew (invariant 4)") {
  for (bool cached : {false, true}) {
    volume_fixture f{4, 2, 6, cached};
    f.groups.resize(1); // node 3 holds a data shard of everything
    f.begin();
    auto data = noise(1, 2 * mib);
    auto inode = f.stored_file("a", data);
    for (auto& [name, value] : f.ports[3].objects) {
      auto bad = *value;
      bad[bad.size() / 2] ^= std::byte{1};
      value = share(std::move(bad));
    }
    auto sound = f.ports[1].objects;
    CHECK(f.holds(inode, 0, data));
    f.settle();
    CHECK(f.opened->stats().rebuild_pending > 0);
    // The same bytes again, by repair: a check says "there", which for a damaged one a real node's checksum denies.
    f.ports.wipe(3);
    REQUIRE(f.repair_all());
    CHECK(!f.ports[3].objects.empty());
    CHECK(f.ports.violation == ""); // byte-identical to what was written first (invariant 2)
  }
}

TEST_CASE("unconfirmed shards are asked for, not sent again, if the node has them") {
  volume_fixture f;
  f.begin();
  auto inode = f.make_file("a");
  REQUIRE(f.write(*inode, 0, noise(1, 4 * mib)).ok());
  REQUIRE(f.drain());
  auto sets = f.ports[2].sets;
  f.opened->unconfirm({2}, wall_time{});
  f.settle();
  CHECK(f.opened->stats().redundancy_left_min == 1);
  REQUIRE(f.repair_all());
  CHECK(f.opened->stats().redundancy_left_min == 2);
  CHECK(f.ports[2].sets == sets);
  f.opened->unconfirm({2}, f.time.wall() + std::chrono::hours{1}); // nothing is that new
  f.settle();
  CHECK(f.opened->stats().rebuild_pending == 0);
}

TEST_CASE("large files are dropped by a reaper, also over a crash; bytes beyond the end stay zero (invariant 12)") {
  volume_fixture f;
  f.options.staging_bytes = gib;
  f.begin();
  auto inode = f.make_file("a");
  constexpr unsigned extents = 5000;
  buffer one(65536, std::byte{5});
  for (unsigned i = 0; i < extents; ++i) REQUIRE(f.write(*inode, std::uint64_t{i} * 65536, one).ok());
  volume::attribute_changes cut;
  cut.size = 100;
  REQUIRE(f.fs().setattr(*inode, cut).ok());
  cut.size = std::uint64_t{extents} * 65536;
  REQUIRE(f.fs().setattr(*inode, cut).ok());
  auto zeros = [&](std::uint64_t at) {
    auto got = f.read(*inode, at, 65536);
    REQUIRE(got.ok());
    CHECK(*got == buffer(65536));
  };
  zeros(65536 * 10);
  zeros(65536 * 4999);
  f.crash(); // before the reaper came far
  REQUIRE(f.open().ok());
  zeros(65536 * 4500);
  REQUIRE(f.write(*inode, 65536 * 20, one).ok()); // waits for the reaper, and is not reaped
  f.settle();
  auto got = f.read(*inode, 65536 * 20, 65536);
  REQUIRE(got.ok());
  CHECK(*got == one);
  zeros(65536 * 21);
  CHECK(f.opened->stats().used_bytes < mib);
  REQUIRE(f.fs().unlink(volume::root_inode, "a").ok());
  f.settle();
  f.pass(std::chrono::seconds{10});
  CHECK(f.opened->stats().used_bytes == 0);
}

TEST_CASE("statfs follows the groups: the least-free member, divided among its slots") {
  volume_fixture f;
  f.begin();
  f.node_limit = 2 * gib;
  f.see_nodes();
  f.opened->set_capacity(100 * gib);
  auto s = f.fs().statfs();
  // Each node has 4 slots and keeps 256 MiB: four groups of four data shards hold 4 · 4 · (1.75 GiB / 4).
  CHECK(s.total_bytes == 7 * gib);
  CHECK(s.free_bytes == 7 * gib);
  f.opened->set_capacity(3 * gib);
  CHECK(f.fs().statfs().total_bytes == 3 * gib);
  auto inode = f.make_file("a");
  REQUIRE(f.write(*inode, 0, noise(1, 8 * mib)).ok());
  CHECK(f.fs().statfs().free_bytes <= 3 * gib - 8 * mib);
}

TEST_CASE("holes and data are found by extents") {
  volume_fixture f;
  f.begin();
  auto inode = f.make_file("a");
  REQUIRE(f.write(*inode, 200'000, noise(1, 10)).ok());
  REQUIRE(f.write(*inode, 65536 * 10, noise(2, 65536)).ok());
  volume::attribute_changes grow;
  grow.size = 65536 * 20;
  REQUIRE(f.fs().setattr(*inode, grow).ok());
  auto at = [&](std::uint64_t from, int whence) {
    auto r = f.fs().seek(*inode, from, whence);
    return r.ok() ? static_cast<std::int64_t>(*r) : -r.err().sys;
  };
  CHECK(at(0, SEEK_HOLE) == 0);
  CHECK(at(0, SEEK_DATA) == 65536 * 3);
  CHECK(at(65536 * 3 + 5, SEEK_DATA) == 65536 * 3 + 5);
  CHECK(at(65536 * 3, SEEK_HOLE) == 65536 * 4);
  CHECK(at(65536 * 4, SEEK_DATA) == 65536 * 10);
  CHECK(at(65536 * 11, SEEK_DATA) == -ENXIO);
  CHECK(at(65536 * 11, SEEK_HOLE) == 65536 * 11);
  CHECK(at(65536 * 20, SEEK_HOLE) == -ENXIO);
}

TEST_CASE("many threads write, read, sync and crash nothing") {
  volume_fixture f;
  f.ports.nodes[{1}].confirms = true;
  f.begin();
  std::atomic<bool> stop{false};
  std::atomic<unsigned> wrong{0};
  std::vector<std::thread> workers;
  std::vector<volume::inode_number> inodes;
  for (unsigned t = 0; t < 4; ++t) inodes.push_back(*f.make_file("t" + std::to_string(t)));
  for (unsigned t = 0; t < 4; ++t)
    workers.emplace_back([&, t] {
      auto& fs = f.fs();
      for (unsigned i = 0; i < 40; ++i) {
        auto data = noise(t * 1000 + i, 50'000 + i * 1000);
        std::uint64_t at = (i % 5) * 70'000;
        fs.write(inodes[t], at, data, false, false, [&](result<std::size_t> r) { wrong += r.ok() ? 0 : 1; });
        // It may be answered by the other thread; and the next round writes over what is read here.
        std::promise<bool> same;
        auto answer = same.get_future();
        fs.read(inodes[t], at, data.size(), [&](result<buffer> r) { same.set_value(r.ok() && *r == data); });
        wrong += answer.get() ? 0 : 1;
        if (i % 10 == 0) wrong += fs.fsync().ok() ? 0 : 1;
      }
    });
  std::thread background{[&] {
    while (!stop) {
      f.opened->tick();
      if (!f.work.run_one()) std::this_thread::yield();
    }
  }};
  for (auto& w : workers) w.join();
  stop = true;
  background.join();
  CHECK(wrong == 0);
  REQUIRE(f.drain());
  CHECK(f.ports.violation == "");
}

TEST_CASE("small writes all over a file, while no node confirms: what becomes of them stays below the log's limit (invariant 14)") {
  volume_fixture f{4, 2, 6, false};
  f.options.staging_bytes = 16 * mib;
  f.options.log_file_bytes = mib;
  f.begin();
  constexpr unsigned extents = 512;
  auto base = noise(1, std::size_t{extents} * 65536);
  auto inode = f.make_file("a");
  REQUIRE(inode.ok());
  for (std::size_t at = 0; at < base.size(); at += 2 * mib) {
    REQUIRE(f.write(*inode, at, byte_span{base}.subspan(at, 2 * mib)).ok());
    REQUIRE(f.drain());
    REQUIRE(f.opened->drop_caches().ok());
  }
  for (auto& [id, n] : f.ports.nodes) n.confirms = false;
  byte_count most = 0;
  auto look = [&] { most = std::max(most, f.opened->stats().log_bytes); };
  auto small = noise(2, 4096);
  std::optional<error> refused;
  unsigned written = 0;
  while (written < extents && !refused) {
    auto done = f.write(*inode, std::uint64_t{written} * 65536, small);
    if (done.ok()) {
      std::copy(small.begin(), small.end(), base.begin() + std::ptrdiff_t{written} * 65536);
      ++written;
    } else {
      refused = std::move(done).err();
    }
    look();
  }
  for (int i = 0; i < 300; ++i) {
    f.pass();
    look();
  }
  CHECK(most <= 16 * mib);
  CHECK(written > 100);
  REQUIRE(refused.has_value());
  CHECK(refused->sys == ENOSPC);
  // The nodes confirm: everything becomes frames, and the log takes data again.
  for (auto& [id, n] : f.ports.nodes) n.confirms = true;
  f.ports.confirm_all();
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{20};
  while (f.opened->stats().log_full && std::chrono::steady_clock::now() < deadline) {
    f.pass();
    f.ports.confirm_all();
    look();
  }
  CHECK(!f.opened->stats().log_full);
  REQUIRE(f.drain());
  CHECK(most <= 16 * mib);
  REQUIRE(f.opened->drop_caches().ok());
  for (std::size_t at = 0; at < base.size(); at += 2 * mib) CHECK(f.holds(*inode, at, byte_span{base}.subspan(at, 2 * mib)));
  CHECK(f.make_file("b").ok());
}

TEST_CASE("what a slow node still owes a word for is bounded in bytes; the others go on until then, and after it (invariant 14)") {
  volume_fixture f{4, 2, 6, false};
  f.groups.resize(1);
  f.options.late_bytes = 8 * mib;
  f.begin();
  f.ports[3].slow = true;
  auto inode = f.make_file("a");
  REQUIRE(inode.ok());
  constexpr unsigned segments = 40; // some 20 MiB for each node
  for (unsigned i = 0; i < 2 * segments; ++i) REQUIRE(f.write(*inode, i * mib, noise(i, mib)).ok());
  f.pass(std::chrono::seconds{10});
  auto sent = f.ports[3].sets;
  CHECK(sent >= 14); // 8 MiB of half a MiB each
  CHECK(sent <= 16 + 8);
  CHECK(f.ports[1].objects.size() == sent);
  for (int i = 0; i < 20; ++i) {
    f.ports.answer_slow();
    f.pass();
  }
  CHECK(f.ports[3].sets > sent);
  f.ports[3].slow = false;
  f.ports.answer_slow();
  REQUIRE(f.drain());
  CHECK(f.opened->stats().redundancy_left_min == 2);
  CHECK(f.ports.violation == "");
}
