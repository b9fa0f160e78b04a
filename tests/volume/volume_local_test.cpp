// What stays on this machine of what the nodes have already: log files as a cache, and what they may cost (volume.md 3, 4).
#include <fcntl.h>

#include "base/posix.hpp"
#include "file_model.hpp"

using namespace qs;
using namespace qs::test;

namespace {
struct small_log : volume_fixture {
  small_log() : volume_fixture{4, 2, 6, false} {
    options.staging_bytes = 64 * mib;
    options.log_file_bytes = mib;
    options.memory_cache_bytes = 128 * kib;
    REQUIRE(create().ok());
    REQUIRE(open().ok());
  }
  std::uint64_t gets() {
    std::uint64_t n = 0;
    for (auto& [id, node] : ports.nodes) n += node.gets;
    return n;
  }
  byte_count log_on_disk() {
    byte_count n = 0;
    for (const auto& item : std::filesystem::directory_iterator{options.state_directory / "log"}) n += item.file_size();
    return n;
  }
  void is_there(volume::inode_number inode, std::uint64_t offset, byte_span data) {
    auto got = read(inode, offset, data.size());
    REQUIRE(got.ok());
    CHECK(std::equal(got->begin(), got->end(), data.begin(), data.end()));
  }
};
} // namespace

TEST_CASE("what was written lately is read back from the log, also when the nodes have it and after a crash; cache drop lets it go") {
  small_log f;
  auto inode = f.make_file("a");
  auto data = noise(1, 8 * mib);
  REQUIRE(f.write(*inode, 0, data).ok());
  REQUIRE(f.write(*inode, 100, noise(2, 1000)).ok()); // merged: a frame beside the first
  auto with = noise(2, 1000);
  std::copy(with.begin(), with.end(), data.begin() + 100);
  REQUIRE(f.drain());
  f.pass(std::chrono::seconds{5});
  f.is_there(*inode, 0, data);
  CHECK(f.gets() == 0);
  f.crash();
  REQUIRE(f.open().ok());
  f.pass(std::chrono::seconds{5});
  f.is_there(*inode, 0, data);
  CHECK(f.gets() == 0);
  // Damaged here: the nodes have it.
  for (const auto& item : std::filesystem::directory_iterator{f.options.state_directory / "log"}) {
    if (item.file_size() < mib / 2) continue;
    auto fd = open_file(item.path(), O_RDWR);
    REQUIRE(fd.ok());
    auto bad = noise(3, 400'000);
    REQUIRE(::pwrite(fd->get(), bad.data(), bad.size(), 300'000) == 400'000);
  }
  f.is_there(*inode, 0, data);
  CHECK(f.gets() > 0);
  CHECK(!f.opened->stats().read_only);
  REQUIRE(f.drain());
  REQUIRE(f.opened->drop_caches().ok());
  CHECK(f.log_on_disk() < 64 * kib);
  auto before = f.opened->stats().node_read_bytes;
  f.is_there(*inode, 0, data);
  CHECK(f.opened->stats().node_read_bytes - before >= data.size());
}

TEST_CASE("log files kept as a cache never make the log full, and go from the oldest on above a quarter of its limit") {
  small_log f;
  auto inode = f.make_file("a");
  auto last = noise(99, 4 * mib);
  for (unsigned i = 0; i < 30; ++i) {
    REQUIRE(f.write(*inode, i * 4 * mib, i == 29 ? last : noise(i, 4 * mib)).ok());
    f.pass(std::chrono::milliseconds{300});
    CHECK(!f.opened->stats().log_full);
    CHECK(f.log_on_disk() < 32 * mib);
  }
  REQUIRE(f.drain());
  // The rows are flushed by a thread of RocksDB, in real time.
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{20};
  while (f.log_on_disk() > 16 * mib && std::chrono::steady_clock::now() < deadline) f.pass();
  CHECK(f.log_on_disk() <= 16 * mib);
  auto s = f.opened->stats();
  CHECK(s.log_bytes + s.log_cache_bytes <= f.log_on_disk());
  CHECK(s.log_bytes + s.log_cache_bytes + 4096 > f.log_on_disk()); // the watermark
  auto before = f.gets();
  f.is_there(*inode, 29 * 4 * mib, last);
  CHECK(f.gets() == before);
  f.is_there(*inode, 0, noise(0, 4 * mib));
  CHECK(f.gets() > before);
  // An orderly end leaves nothing to be read again at the next start.
  REQUIRE(f.opened->close().ok());
  CHECK(f.log_on_disk() < 2 * mib);
}

TEST_CASE("a segment whose last shards lost all their frames is sent out of memory like any other") {
  volume_fixture f;
  f.begin();
  auto data = noise(1, 8 * 64 * kib); // fills the first shard
  auto stays = f.make_file("stays");
  auto goes = f.make_file("goes");
  REQUIRE((stays.ok() && goes.ok()));
  REQUIRE(f.write(*stays, 0, data).ok());
  REQUIRE(f.write(*goes, 0, byte_span{data}.first(64 * kib)).ok());
  REQUIRE(f.fs().unlink(volume::root_inode, "goes").ok());
  f.pass(); // it is reaped, and the segment is open still
  REQUIRE(f.drain());
  for (const auto& n : f.notes) CHECK_MESSAGE(n.find("Segment") == n.npos, n);
  REQUIRE(f.opened->drop_caches().ok());
  CHECK(f.holds(*stays, 0, data));
  CHECK(f.ports.violation == "");
}
