// What the volume takes of this machine's disks: the cache of ciphertext has a limit, and the disk under the log a rest that is not
// for the log (volume.md, 4).
#include <cerrno>

#include "file_model.hpp"
#include "volume/caches.hpp"

using namespace qs;
using namespace qs::test;
using namespace std::chrono_literals;

namespace {

/// Bytes of all files below a directory.
byte_count bytes_below(const std::filesystem::path& directory) {
  byte_count n = 0;
  for (const auto& item : std::filesystem::recursive_directory_iterator{directory})
    if (item.is_regular_file()) n += item.file_size();
  return n;
}

volume::shard_key key(unsigned n) { return {{1, n}, static_cast<std::uint8_t>(n % 4)}; }

bool gives(volume::shard_cache& cache, unsigned n, const buffer& value) {
  auto got = cache.value(key(n), 2 * mib);
  return got && *got == value;
}

/// A volume on a disk with as much free space as the test says, of which a GiB is not for it.
struct scarce_disk : volume_fixture {
  scarce_disk() {
    free_disk = [this](const std::filesystem::path&) -> result<byte_count> { return left; };
    options.free_disk_bytes = gib;
    begin();
  }
  byte_count left = 10 * gib;
};

} // namespace

TEST_CASE("the cache of ciphertext stays under its limit: what was used longest ago goes, and its file") {
  scratch_directory there;
  volume::shard_cache cache{there.path(), 4 * mib, 0};
  for (unsigned n = 0; n < 8; ++n) {
    cache.put(key(n), share(noise(n, mib)));
    CHECK(cache.disk_bytes() <= 4 * mib);
    CHECK(bytes_below(there.path()) == cache.disk_bytes());
  }
  CHECK(cache.disk_bytes() == 4 * mib);
  for (unsigned n = 0; n < 8; ++n) CHECK(cache.contains(key(n)) == (n >= 4));
  // Read, the oldest is the newest.
  auto part = cache.read(key(4), 1000, 500);
  REQUIRE(part.has_value());
  auto whole = noise(4, mib);
  CHECK(std::equal(part->begin(), part->end(), whole.begin() + 1000));
  cache.put(key(8), share(noise(8, mib)));
  CHECK(gives(cache, 4, whole));
  CHECK(!cache.contains(key(5)));
  CHECK(gives(cache, 8, noise(8, mib)));
  // What is larger than all of it is not written, and makes nothing go.
  cache.put(key(9), share(noise(9, 5 * mib)));
  CHECK(!cache.contains(key(9)));
  CHECK(cache.disk_bytes() == 4 * mib);
  CHECK(bytes_below(there.path()) == 4 * mib);
}

TEST_CASE("at start the cache of ciphertext is found again, cut to the limit of then; files that are gone or short are forgotten") {
  scratch_directory there;
  {
    volume::shard_cache cache{there.path(), 8 * mib, 0};
    for (unsigned n = 0; n < 8; ++n) cache.put(key(n), share(noise(n, mib)));
    CHECK(cache.disk_bytes() == 8 * mib);
  }
  volume::shard_cache cache{there.path(), 3 * mib, 0};
  CHECK(cache.disk_bytes() == 3 * mib);
  CHECK(bytes_below(there.path()) == 3 * mib);
  std::vector<unsigned> left;
  for (unsigned n = 0; n < 8; ++n)
    if (cache.contains(key(n))) left.push_back(n);
  REQUIRE(left.size() == 3);
  for (auto n : left) CHECK(gives(cache, n, noise(n, mib)));
  bool gone = false; // one is deleted, the others are cut
  for (const auto& item : std::filesystem::recursive_directory_iterator{there.path()}) {
    if (!item.is_regular_file()) continue;
    if (std::exchange(gone, true)) std::filesystem::resize_file(item.path(), 1000);
    else std::filesystem::remove(item.path());
  }
  for (auto n : left) {
    CHECK(!cache.read(key(n), 0, 2000).has_value());
    CHECK(!cache.contains(key(n)));
  }
  CHECK(cache.disk_bytes() == 0);
  cache.put(key(20), share(noise(20, mib)));
  CHECK(gives(cache, 20, noise(20, mib)));
}

TEST_CASE("more is read than the disk cache holds: it stays under its limit, reads stay right, the newest needs no node") {
  volume_fixture f;
  f.options.cache_bytes = 4 * mib;
  f.options.memory_cache_bytes = 128 * kib;
  f.begin();
  auto data = noise(1, 24 * mib);
  auto inode = f.stored_file("a", data);
  auto cached = [&] { return f.opened->stats().cache_disk_bytes; };
  CHECK(cached() == 0);
  byte_count most = 0;
  for (std::size_t at = 0; at < data.size(); at += 256 * kib) {
    REQUIRE(f.holds(inode, at, byte_span{data}.subspan(at, 256 * kib)));
    f.settle();
    most = std::max(most, cached());
    CHECK(bytes_below(f.options.cache_directory) <= 4 * mib);
  }
  CHECK(most <= 4 * mib);
  CHECK(most >= 3 * mib); // it was used
  // After kill -9 nothing is in memory: what was read last comes from the disk, what was read first from the nodes.
  f.crash();
  REQUIRE(f.open().ok());
  CHECK(cached() <= 4 * mib);
  CHECK(cached() >= 3 * mib);
  auto asked = [&] { return f.opened->stats().node_read_bytes; };
  CHECK(f.holds(inode, data.size() - mib, byte_span{data}.last(mib)));
  CHECK(asked() == 0);
  CHECK(f.holds(inode, 0, byte_span{data}.first(mib)));
  CHECK(asked() > 0);
  f.settle();
  CHECK(cached() <= 4 * mib);
  // A smaller limit holds from the next start on.
  f.crash();
  f.options.cache_bytes = mib;
  REQUIRE(f.open().ok());
  CHECK(cached() <= mib);
  CHECK(bytes_below(f.options.cache_directory) <= mib);
  CHECK(f.holds(inode, 0, data));
  f.settle();
  CHECK(cached() <= mib);
  CHECK(f.ports.violation == "");
}

TEST_CASE("too little free disk under the log is a full log: ENOSPC and told; unlink and truncate work; with space again it goes on") {
  scarce_disk f;
  auto data = noise(1, 4 * mib);
  auto inode = f.stored_file("a", data);
  f.stored_file("b", data);
  f.pass(2s);
  CHECK(f.told("LocalDiskFull") == 0);
  auto small = noise(2, 1000);
  REQUIRE(f.write(inode, 70'000, small).ok()); // a range, no frame yet
  std::copy(small.begin(), small.end(), data.begin() + 70'000);

  f.left = 900 * mib;
  f.pass(2s);
  CHECK(f.told("LocalDiskFull") == 1);
  CHECK(f.opened->stats().log_full);
  CHECK(!f.opened->stats().read_only);
  CHECK(f.write(inode, 0, small).err().sys == ENOSPC);
  CHECK(f.make_file("c").err().sys == ENOSPC);
  CHECK(f.holds(inode, 0, data));
  CHECK(f.drain()); // what it has taken is made safe all the same
  CHECK(f.fs().unlink(volume::root_inode, "b").ok());
  volume::attribute_changes cut;
  cut.size = 3 * mib;
  CHECK(f.fs().setattr(inode, cut).ok());
  CHECK(f.fs().fallocate(inode, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, mib, mib).ok());
  data.resize(3 * mib);
  std::fill(data.begin() + mib, data.begin() + 2 * mib, std::byte{0});
  f.pass(10s);
  CHECK(f.told("LocalDiskFull") == 1); // once, not every second
  CHECK(f.told("LocalDiskRoom") == 0);
  CHECK(f.write(inode, 0, small).err().sys == ENOSPC);

  f.left = 10 * gib;
  f.pass(2s);
  CHECK(f.told("LocalDiskRoom") == 1);
  CHECK(!f.opened->stats().log_full);
  REQUIRE(f.write(inode, 5, small).ok());
  std::copy(small.begin(), small.end(), data.begin() + 5);
  CHECK(f.make_file("c").ok());
  REQUIRE(f.drain());
  REQUIRE(f.opened->drop_caches().ok());
  CHECK(f.holds(inode, 0, data));
  CHECK(f.fs().lookup(volume::root_inode, "b").err().sys == ENOENT);
  CHECK(f.ports.violation == "");
}

TEST_CASE("below half of the rest ranges wait as they are, and are there when the disk has space again, also after a crash") {
  scarce_disk f;
  auto data = noise(1, 2 * mib);
  auto inode = f.stored_file("a", data);
  f.left = 100 * mib;
  f.pass(2s);
  CHECK(f.opened->stats().log_full);
  CHECK(f.holds(inode, 0, data));
  f.left = 10 * gib;
  f.pass(2s);
  auto small = noise(2, 1000);
  REQUIRE(f.write(inode, 70'000, small).ok());
  std::copy(small.begin(), small.end(), data.begin() + 70'000);
  f.left = 100 * mib;
  f.pass(1s);
  CHECK(!f.drain(10s));
  CHECK(f.opened->stats().bytes_at_risk > 0);
  CHECK(f.holds(inode, 0, data));
  f.crash();
  REQUIRE(f.open().ok());
  f.pass(2s);
  CHECK(f.write(inode, 0, small).err().sys == ENOSPC);
  CHECK(f.holds(inode, 0, data));
  CHECK(f.fs().unlink(volume::root_inode, "a").ok());
  f.left = 10 * gib;
  f.pass(2s);
  auto again = f.stored_file("b", data);
  CHECK(f.holds(again, 0, data));
}

TEST_CASE("the rest is compared with what the kernel says: more than the disk has is never free") {
  volume_fixture f;
  f.begin();
  auto data = noise(1, 2 * mib);
  f.stored_file("a", data);
  f.crash();
  f.options.free_disk_bytes = byte_count{1} << 60;
  REQUIRE(f.open().ok());
  f.pass(2s);
  CHECK(f.opened->stats().log_full);
  CHECK(f.told("LocalDiskFull") == 1);
  CHECK(f.make_file("b").err().sys == ENOSPC);
  CHECK(f.fs().unlink(volume::root_inode, "a").ok());
  f.crash();
  f.options.free_disk_bytes = 1;
  REQUIRE(f.open().ok());
  f.pass(2s);
  CHECK(!f.opened->stats().log_full);
  auto inode = f.stored_file("b", data);
  CHECK(f.holds(inode, 0, data));
}
