// How long a read may take, and what it does to those around it: one deadline, no deep stacks, nobody behind a background fetch.
#include <fstream>

#include "file_model.hpp"

using namespace qs;
using namespace qs::test;
using namespace std::chrono_literals;

namespace {

/// Files of one small segment each, on the nodes alone.
std::vector<volume::inode_number> scattered(volume_fixture& f, unsigned count) {
  std::vector<volume::inode_number> inodes;
  for (unsigned i = 0; i < count; ++i) {
    auto inode = f.make_file("f" + std::to_string(i));
    REQUIRE(inode.ok());
    REQUIRE(f.write(*inode, 0, noise(i, 5000)).ok());
    REQUIRE(f.drain());
    inodes.push_back(*inode);
  }
  REQUIRE(f.opened->drop_caches().ok());
  return inodes;
}

struct answer {
  std::optional<result<buffer>> got;
  boot_time at{0};
  std::uintptr_t stack = 0; ///< where it was answered
};

void ask(volume_fixture& f, volume::inode_number inode, std::uint64_t offset, std::size_t length, answer& into) {
  f.fs().read(inode, offset, length, [&f, &into](result<buffer> r) {
    CHECK_FALSE(into.got.has_value());
    into.stack = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    into.at = f.time.boot();
    into.got = std::move(r);
  });
}

} // namespace

TEST_CASE("reads that wait for their turn are answered one by one, not inside each other") {
  volume_fixture f{2, 1, 3, false};
  f.begin();
  auto inodes = scattered(f, 150);
  f.ports.asked.clear();
  f.ports.hold_fetches = true;
  std::vector<answer> answers(inodes.size());
  for (std::size_t i = 0; i < inodes.size(); ++i) ask(f, inodes[i], 0, 5000, answers[i]);
  CHECK(f.ports.held() < 50); // the rest waits in the volume
  // What the waiting ones want is gone when their turn comes: answered without asking a node.
  for (std::size_t i = 0; i < inodes.size(); ++i) REQUIRE(f.fs().unlink(volume::root_inode, "f" + std::to_string(i)).ok());
  f.pass(5s);
  CHECK(f.opened->stats().segments == 0);
  f.ports.release_fetches();
  f.settle();
  auto low = ~std::uintptr_t{0}, high = std::uintptr_t{0};
  for (auto& a : answers) {
    REQUIRE(a.got.has_value());
    low = std::min(low, a.stack);
    high = std::max(high, a.stack);
  }
  CHECK(high - low < 20'000);
}

TEST_CASE("a read that waits for its turn behind silent nodes fails in time; when nodes answer again, reads do") {
  volume_fixture f{2, 1, 3, false};
  f.begin();
  auto inodes = scattered(f, 100);
  f.pass(6s); // nothing was fetched lately
  f.ports.asked.clear();
  f.ports.hold_fetches = true;
  std::vector<answer> answers(inodes.size());
  auto began = f.time.boot();
  for (std::size_t i = 0; i < inodes.size(); ++i) ask(f, inodes[i], 0, 5000, answers[i]);
  auto begun = f.ports.held();
  REQUIRE(begun < inodes.size());
  for (auto& r : f.ports.asked) CHECK(r.until == began + 15s);
  f.pass(14s);
  for (auto& a : answers) CHECK_FALSE(a.got.has_value());
  f.pass(1500ms);
  std::size_t failed = 0;
  for (auto& a : answers)
    if (a.got) {
      ++failed;
      CHECK(a.got->err().sys == EIO);
      CHECK(a.at - began <= 16s);
    }
  CHECK(failed == inodes.size() - begun); // without anything from a node
  f.ports.release_fetches();
  f.settle();
  for (auto& a : answers) CHECK(a.got.has_value());
  for (std::size_t i = 0; i < inodes.size(); i += 9) {
    auto got = f.read(inodes[i], 0, 5000);
    REQUIRE(got.ok());
    CHECK(*got == noise(i, 5000));
  }
}

TEST_CASE("while nodes answer others, a read waits longer for its turn") {
  volume_fixture f{2, 1, 3, false};
  f.begin();
  auto inodes = scattered(f, 60);
  f.ports.asked.clear();
  f.ports.hold_fetches = true;
  std::vector<answer> answers(inodes.size());
  for (std::size_t i = 0; i < inodes.size(); ++i) ask(f, inodes[i], 0, 5000, answers[i]);
  for (int i = 0; i < 15; ++i) { // one every two seconds
    f.pass(2s);
    f.ports.give_one();
    f.settle();
  }
  std::size_t good = 0;
  for (auto& a : answers) {
    if (a.got) CHECK(a.got->ok());
    good += a.got ? 1 : 0;
  }
  CHECK(good == 15);
  // Whose turn came late has his time from there.
  CHECK(f.ports.asked.back().until > f.time.boot() + 14s);
  while (f.ports.held() > 0) {
    f.ports.give_one();
    f.settle();
  }
  for (auto& a : answers) {
    REQUIRE(a.got.has_value());
    CHECK(a.got->ok());
  }
}

TEST_CASE("who comes to what is being read ahead is no background; what failed before he came is tried again for him") {
  volume_fixture f{4, 2, 6, false};
  f.begin();
  auto data = noise(1, 4 * mib);
  auto inode = f.stored_file("a", data);
  REQUIRE(f.read(inode, 0, 65536).ok());
  f.ports.asked.clear();
  f.ports.hold_fetches = true;
  answer next, later;
  ask(f, inode, 65536, 65536, next); // in order: reads ahead
  f.settle();
  CHECK(next.got.has_value()); // its shard is here
  auto ahead = f.ports.held();
  REQUIRE(ahead > 2);
  CHECK(f.ports.hurried.empty());
  ask(f, inode, 3 * mib, 65536, later);
  f.settle();
  CHECK(f.ports.held() == ahead); // no second request
  CHECK(f.ports.hurried.size() == 1);
  answer too;
  ask(f, inode, 3 * mib, 65536, too);
  CHECK(f.ports.hurried.size() == 1);
  SUBCASE("it comes") {
    while (f.ports.held() > 0) f.ports.give_one();
    f.settle();
    REQUIRE(later.got.has_value());
    CHECK(later.got->ok());
  }
  SUBCASE("the background's time was over just then") {
    f.pass(1s);
    f.ports.release_fetches();
    f.settle();
    REQUIRE(later.got.has_value());
    CHECK(later.got->ok());
    CHECK_FALSE(f.ports.asked.back().background);
    CHECK(f.ports.asked.back().until <= f.time.boot() + 15s);
  }
  REQUIRE(too.got.has_value());
  CHECK(too.got->ok());
}

TEST_CASE("who comes just when a damaged shard that was read ahead is asked for again hurries that") {
  volume_fixture f{4, 2, 6, false};
  f.groups.resize(1);
  f.begin();
  auto data = noise(1, 4 * mib);
  auto inode = f.stored_file("a", data);
  REQUIRE(f.read(inode, 0, 65536).ok());
  f.ports.asked.clear();
  f.ports.hold_fetches = true;
  answer next, later;
  ask(f, inode, 65536, 65536, next); // in order: reads ahead
  f.settle();
  auto ahead = f.ports.held();
  REQUIRE(ahead > 0);
  for (unsigned n = 1; n <= 6; ++n) f.ports.damage(n);
  auto asked = f.ports.asked.size();
  f.ports.before_fetch = [] {}; // of give_one() itself
  f.ports.give_one();
  f.ports.before_fetch = [&] { ask(f, inode, 512 * kib + 65536, 65536, later); };
  f.settle();
  REQUIRE(f.ports.before_fetch == nullptr);
  CHECK(f.ports.asked.size() > asked);
  CHECK(f.ports.hurried.size() == 2); // too early the first time
  CHECK(f.ports.asked_when_hurried == f.ports.asked.size());
  f.ports.release_fetches();
  f.settle();
  CHECK(later.got.has_value());
}

TEST_CASE("one deadline for a read, however many shards turn out damaged") {
  volume_fixture f{4, 3, 7, false};
  f.groups.resize(1);
  f.begin();
  auto data = noise(1, 2 * mib);
  auto inode = f.stored_file("a", data);
  f.pass(6s);
  for (unsigned n : {1U, 2U, 3U}) f.ports.damage(n);
  f.ports.asked.clear();
  f.ports.hold_fetches = true;
  auto began = f.time.boot();
  answer a;
  ask(f, inode, 0, 65536, a);
  for (int i = 0; i < 8 && f.ports.held() > 0; ++i) {
    f.pass(12s);
    f.ports.give_one();
    f.settle();
  }
  REQUIRE(a.got.has_value());
  CHECK(a.got->ok());
  REQUIRE(f.ports.asked.size() >= 2); // again, without the damaged ones
  CHECK(f.ports.asked.front().until == began + 15s);
  for (auto& r : f.ports.asked) CHECK(r.until <= began + 17s); // 12 s were gone: at least five more, once
}

TEST_CASE("ten thousand reads that wait for silent nodes take little memory, and are all answered when one comes back") {
  volume_fixture f{4, 2, 6, false};
  f.options.staging_bytes = 512 * mib;
  f.begin();
  constexpr std::size_t size = 96 * mib;
  auto data = noise(1, size);
  auto inode = f.stored_file("a", data);
  auto resident = [] {
    std::ifstream in{"/proc/self/statm"};
    std::size_t pages = 0, now = 0;
    in >> pages >> now;
    return now * 4096;
  };
  f.ports.hold_fetches = true;
  struct one {
    std::uint64_t at = 0;
    std::optional<bool> good;
  };
  std::vector<one> reads(10'000);
  seeded_random random{2};
  auto before = resident();
  for (auto& r : reads) {
    r.at = random.below(size - 4096);
    f.fs().read(inode, r.at, 4096, [&](result<buffer> got) {
      r.good = got.ok() && std::equal(got->begin(), got->end(), data.begin() + static_cast<std::ptrdiff_t>(r.at));
    });
  }
  f.settle();
  auto most = resident();
  CHECK(f.ports.held() <= 64); // a shard is asked for once, and only so many at a time
  CHECK(most - before < 32 * mib);
  f.ports[1].reachable = false; // one stays away: parity answers for it
  while (f.ports.held() > 0) {
    f.ports.give_one();
    f.settle();
    most = std::max(most, resident());
  }
  for (auto& r : reads) CHECK(r.good == true);
  MESSAGE("at most ", (most - before) / mib, " MiB more");
  CHECK(most - before < 256 * mib); // the caches of frames and shards, as large as they are allowed to be
}
