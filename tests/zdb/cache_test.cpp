// Small records in memory: within the budget, and never other than what was written.
#include "support/zdb_store.hpp"

#include <fcntl.h>
#include <unistd.h>

#include "base/random.hpp"

namespace qs::zdb {
namespace {

value_block filled(std::size_t size, char with) {
  value_block b{size};
  std::fill(b.bytes().begin(), b.bytes().end(), static_cast<std::byte>(with));
  return b;
}

/// One byte of the file at `at` becomes another one.
void damage(const std::filesystem::path& path, std::size_t at) {
  auto fd = open_file(path, O_RDWR);
  REQUIRE(fd.ok());
  char byte = 0;
  REQUIRE(::pread(fd->get(), &byte, 1, static_cast<off_t>(at)) == 1);
  byte = static_cast<char>(byte ^ 1);
  REQUIRE(::pwrite(fd->get(), &byte, 1, static_cast<off_t>(at)) == 1);
}

TEST_CASE("what was put is found, within the budget, however it is mixed") {
  record_cache cache{100'000, 12345};
  CHECK(cache.takes(100));
  CHECK(!cache.takes(101));
  cache.put(1, 1, filled(101, 'x'));
  CHECK(cache.records() == 0);
  std::map<std::pair<std::uint64_t, std::uint32_t>, char> put;
  seeded_random random{7};
  std::size_t found = 0;
  for (int i = 0; i < 20'000; ++i) {
    auto file = 1 + random.below(3);
    auto offset = static_cast<std::uint32_t>(random.below(400));
    auto fill = static_cast<char>('a' + random.below(26));
    switch (random.below(3)) {
    case 0:
      cache.put(file, offset, filled(1 + random.below(100), fill));
      put[{file, offset}] = fill;
      break;
    case 1:
      cache.drop(file, offset);
      put.erase({file, offset});
      break;
    default:
      auto* got = cache.find(file, offset);
      auto it = put.find({file, offset});
      if (got == nullptr) break;
      ++found;
      REQUIRE(it != put.end());
      for (auto b : got->bytes()) REQUIRE(b == static_cast<std::byte>(it->second));
    }
    REQUIRE(cache.bytes() <= cache.budget());
  }
  CHECK(found > 1000);
  CHECK(cache.records() > 300);
  for (std::uint64_t file = 1; file <= 3; ++file)
    for (std::uint32_t offset = 0; offset < 400; ++offset) cache.drop(file, offset);
  CHECK(cache.records() == 0);
  CHECK(cache.bytes() == 0);
}

TEST_CASE("going round over a little more than fits finds most of it") {
  record_cache cache{200 * 300, 3};
  for (int round = 0; round < 50; ++round) {
    if (round == 40) cache.hits = cache.misses = 0;
    for (std::uint32_t i = 0; i < 310; ++i)
      if (cache.find(1, i) == nullptr) cache.put(1, i, filled(60, 'x'));
  }
  CHECK(cache.hits > cache.misses * 5);
  // A serial number that does not fit is nobody else's.
  cache.put(2, 7, filled(60, 'y'));
  CHECK(cache.find((std::uint64_t{1} << 32U) + 2, 7) == nullptr);
  cache.put((std::uint64_t{1} << 32U) + 2, 7, filled(60, 'z'));
  REQUIRE(cache.find(2, 7) != nullptr);
  CHECK(cache.find(2, 7)->bytes().front() == std::byte{'y'});
  record_cache none{0, 1};
  CHECK(!none.takes(1));
  CHECK(none.find(1, 1) == nullptr);
}

TEST_CASE("memory is read, CHECK and what mends look at the disk") {
  quiet no_log;
  storage s;
  s.options.cache_bytes = 1 << 20;
  s.reopen();
  auto& cache = s.all->files().cache;
  auto* ns = &s.space();
  REQUIRE(put(*ns, "k", "the value") == write_answer::stored);
  auto read = s.all->files().bytes_read;
  CHECK(value_of(*ns, "k") == "the value");
  CHECK(s.all->files().bytes_read == read); // it was written a moment ago
  damage(data_file_path(ns->directory(), 1), ns->disk_bytes() - 1);
  CHECK(value_of(*ns, "k") == "the value");
  value_block out;
  CHECK(ns->get(as_bytes("k"), out, name_space::source::disk) == read_answer::damaged);
  // The same value again: what is on the disk is not the same.
  REQUIRE(put(*ns, "k", "the value") == write_answer::stored);
  CHECK(ns->get(as_bytes("k"), out, name_space::source::disk) == read_answer::found);
  CHECK(put(*ns, "k", "the value") == write_answer::identical);
  CHECK(cache.records() == 1); // the one it replaced is not kept
  sync_all(*ns);               // else the next start cuts at the damage
  s.reopen();
  ns = &s.space();
  CHECK(s.all->files().cache.records() == 0);
  CHECK(value_of(*ns, "k") == "the value");
  CHECK(s.all->files().cache.records() == 1);
  // Only what was checked gets there.
  damage(data_file_path(ns->directory(), 1), ns->disk_bytes() - 1);
  REQUIRE(ns->reload().ok());
  CHECK(value_of(*ns, "k") == std::nullopt);
  CHECK(value_of(*ns, "k") == std::nullopt);
}

TEST_CASE("the same value again is compared with the whole record on the disk, in one read where it is small") {
  quiet no_log;
  for (auto length : {std::size_t{9}, std::size_t{20'000}})
    for (auto where : {"header", "key", "value"}) {
      CAPTURE(length);
      CAPTURE(where);
      storage s;
      s.options.cache_bytes = 64 << 20;
      s.reopen();
      auto* ns = &s.space();
      auto value = std::string(length, 'v');
      REQUIRE(put(*ns, "k", value) == write_answer::stored);
      auto read = s.all->files().bytes_read;
      CHECK(put(*ns, "k", value) == write_answer::identical);
      auto whole = record_header_bytes + 1 + length;
      CHECK(s.all->files().bytes_read == read + whole);
      auto back = where == std::string{"header"} ? whole : where == std::string{"key"} ? length + 1 : 1;
      damage(data_file_path(ns->directory(), 1), ns->disk_bytes() - back);
      CHECK(put(*ns, "k", value) == write_answer::stored);
      CHECK(put(*ns, "k", value) == write_answer::identical);
    }
}

TEST_CASE("overwritten, deleted, flushed, reloaded: memory says what the disk says") {
  for (bool sequential : {false, true}) {
    CAPTURE(sequential);
    storage s{512 << 10, sequential};
    s.options.cache_bytes = 256 << 10; // much less than there is
    s.reopen();
    auto& ns = s.space();
    std::map<std::string, std::string> want;
    seeded_random random{11};
    for (int i = 0; i < 20'000; ++i) {
      std::string key = fmt::format("k{}", random.below(500));
      std::uint64_t id = 0;
      if (sequential) {
        id = random.below(500);
        key.assign(reinterpret_cast<const char*>(&id), sizeof(id));
      }
      auto what = random.below(100);
      if (what < 40) {
        auto value = fmt::format("{} {}", i, std::string(random.below(200), 'v'));
        std::string stored;
        auto append = sequential && !want.contains(key);
        auto done = ns.set(append ? byte_span{} : as_bytes(key), as_bytes(value), 1, false, stored);
        REQUIRE(done == write_answer::stored);
        want[stored] = value;
      } else if (what < 45) {
        auto gone = ns.erase(as_bytes(key), 1);
        CHECK(gone == (want.erase(key) > 0 ? write_answer::stored : write_answer::missing));
      } else if (what == 99 && random.below(10) == 0) {
        REQUIRE(ns.reload().ok());
      } else {
        auto it = want.find(key);
        REQUIRE(value_of(ns, key) == (it == want.end() ? std::nullopt : std::optional{it->second}));
        record_header header;
        CHECK(ns.look(as_bytes(key), header) ==
              (it == want.end() ? read_answer::missing : read_answer::found));
        value_block part;
        if (it == want.end()) continue;
        REQUIRE(ns.get_range(as_bytes(key), 2, 5, part) == read_answer::found);
        CHECK(to_string(part.bytes()) == it->second.substr(2, 5));
      }
      REQUIRE(s.all->files().cache.bytes() <= s.options.cache_bytes);
    }
    CHECK(s.all->files().cache.hits > 1000);
    REQUIRE(ns.flush().ok());
    for (auto& [key, value] : want) CHECK(value_of(ns, key) == std::nullopt);
  }
}

} // namespace
} // namespace qs::zdb
