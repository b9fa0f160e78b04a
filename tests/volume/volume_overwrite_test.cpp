// The same bytes written again and again: what they were goes, in the log, in memory, in the counters and on the nodes (volume.md 2, 4;
// invariants 6, 14).
#include <fstream>

#include "file_model.hpp"
#include "support/recount.hpp"

using namespace qs;
using namespace qs::test;

namespace {
std::size_t resident_bytes() {
  std::ifstream in{"/proc/self/statm"};
  std::size_t pages = 0, resident = 0;
  in >> pages >> resident;
  return resident * 4096;
}
} // namespace

TEST_CASE("random 4 KiB writes over one file: the log is freed, dead segments are deleted, live bytes are right (invariants 6, 14)") {
  for (bool crashing : {false, true}) {
    CAPTURE(crashing);
    volume_fixture f{4, 2, 6, false};
    f.options.staging_bytes = 64 * mib;
    f.options.log_file_bytes = mib;
    f.options.memory_cache_bytes = 4 * mib;
    f.begin();
    constexpr std::size_t size = 16 * mib;
    auto inode = f.make_file("a");
    auto data = noise(1, size);
    REQUIRE(f.write(*inode, 0, data).ok());
    REQUIRE(f.drain());
    seeded_random random{5};
    byte_count most_log = 0;
    std::size_t most_memory = 0, memory_before = resident_bytes();
    for (unsigned i = 0; i < 8000; ++i) {
      auto at = random.below(size / 4096) * 4096;
      auto bytes = noise(1000 + i, 4096);
      REQUIRE(f.write(*inode, at, bytes).ok());
      std::copy(bytes.begin(), bytes.end(), data.begin() + static_cast<std::ptrdiff_t>(at));
      if (i % 100 == 99) {
        f.pass(std::chrono::milliseconds{1000});
        most_log = std::max(most_log, f.opened->stats().log_bytes);
        most_memory = std::max(most_memory, resident_bytes());
        CHECK(f.opened->stats().segments_in_flight <= 8);
      }
      if (crashing && i % 2000 == 1999) {
        f.crash();
        REQUIRE(f.open().ok());
      }
    }
    CHECK(most_log < 48 * mib);
    CHECK(most_memory < memory_before + 160 * mib); // the nodes of this test are in it
    REQUIRE(f.drain());
    f.pass(std::chrono::seconds{30}); // the dead ones go
    REQUIRE(f.opened->drop_caches().ok());
    CHECK(f.opened->stats().log_bytes < mib);
    CHECK(f.opened->stats().used_bytes < size + size / 8);
    auto before = f.opened->stats().node_read_bytes;
    auto got = f.read(*inode, 0, size);
    REQUIRE(got.ok());
    CHECK(*got == data);
    CHECK(f.opened->stats().node_read_bytes - before >= size);
    auto used = f.opened->stats().used_bytes;
    auto segments = f.opened->stats().segments;
    REQUIRE(f.opened->close().ok());
    f.crash();
    auto counted = recount(f.options.state_directory);
    CHECK(counted.difference == "");
    CHECK(counted.live_bytes == used);
    CHECK(counted.segments == segments);
    // Nothing on the nodes but what a row knows of (invariant 2 keeps names apart).
    CHECK(f.ports.objects() == counted.shards);
    CHECK(f.ports.violation == "");
    MESSAGE("log at most ", most_log / mib, " MiB, memory +", (most_memory - memory_before) / mib, " MiB, ", counted.segments,
            " segments for ", counted.live_bytes / mib, " MiB");
  }
}
