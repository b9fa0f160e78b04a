// The index of user mode: against a map, and how much of it one insertion or deletion moves, which
// is counted and not timed.
#include <map>

#include <doctest/doctest.h>

#include "base/random.hpp"
#include "zdb/index.hpp"

namespace qs::zdb {
namespace {

/// Keys are numbers, and stand at the offset of their number: what the disk would tell.
struct numbered_keys {
  explicit numbered_keys(std::uint64_t seed) : random{seed}, index{random.array<16>()} {}
  static std::string name(std::uint32_t n) { return std::to_string(n); }
  user_index::found find(std::uint32_t n) const {
    return index.find(as_bytes(name(n)), [&](record_place p) { return p.offset == n; });
  }
  void insert(std::uint32_t n) {
    auto before = index.moved();
    index.insert(as_bytes(name(n)), {{1, n}, n});
    count(before);
  }
  bool erase(std::uint32_t n) {
    auto at = find(n);
    if (!at.there()) return false;
    auto before = index.moved();
    index.erase(at.slot);
    count(before);
    return true;
  }
  void count(std::uint64_t before) { most_moved = std::max(most_moved, index.moved() - before); }
  double bytes_a_key() const {
    return static_cast<double>(index.memory_bytes()) / static_cast<double>(index.size());
  }

  seeded_random random;
  user_index index;
  std::uint64_t most_moved = 0;
};

TEST_CASE("the index against a map, with many deletions") {
  seeded_random random{7};
  user_index index{random.array<16>()};
  std::map<std::string, std::uint32_t> want; // key → offset, which stands for the key on disk
  std::map<std::uint32_t, std::string> disk;
  auto find = [&](const std::string& key) {
    return index.find(as_bytes(key), [&](record_place p) { return disk.at(p.offset) == key; });
  };
  std::uint32_t next = 1;
  for (int i = 0; i < 20'000; ++i) {
    auto key = std::to_string(random.below(500));
    auto found = find(key);
    REQUIRE(found.there() == want.contains(key));
    if (found.there()) REQUIRE(found.entry.place.offset == want[key]);
    if (random.below(2) == 0) {
      disk[next] = key;
      if (found.there())
        index.replace(found.slot, {{1, next}, 5});
      else
        index.insert(as_bytes(key), {{1, next}, 5});
      want[key] = next++;
    } else if (found.there()) {
      index.erase(found.slot);
      want.erase(key);
    }
    REQUIRE(index.size() == want.size());
  }
  for (auto& [key, offset] : want) CHECK(find(key).entry.place.offset == offset);
  CHECK(index.memory_bytes() <= 1024 * 16 + 64);
}

TEST_CASE("many come and go in waves: all that are there are found, and no others") {
  numbered_keys keys{11};
  constexpr std::uint32_t all = 60'000;
  std::vector<bool> there(all + 1);
  std::size_t count = 0;
  for (int wave = 0; wave < 6; ++wave) {
    // Even ones mostly add, odd ones mostly take away.
    auto adds_of_ten = wave % 2 == 0 ? 9U : 1U;
    for (int i = 0; i < 100'000; ++i) {
      auto n = static_cast<std::uint32_t>(keys.random.below(all)) + 1;
      if (keys.random.below(10) < adds_of_ten) {
        auto at = keys.find(n);
        REQUIRE(at.there() == there[n]);
        if (at.there()) {
          keys.index.replace(at.slot, {{1, n}, n});
        } else {
          keys.insert(n);
          ++count;
        }
        there[n] = true;
      } else {
        REQUIRE(keys.erase(n) == there[n]);
        count -= there[n] ? 1 : 0;
        there[n] = false;
      }
    }
    REQUIRE(keys.index.size() == count);
    for (std::uint32_t n = 1; n <= all; ++n) {
      auto at = keys.find(n);
      REQUIRE(at.there() == there[n]);
      if (at.there()) REQUIRE(at.entry.length == n);
    }
  }
  CHECK(keys.most_moved <= user_index::segment_slots);
}

TEST_CASE("no insertion and no deletion moves more than one segment, however many keys there are") {
  numbered_keys keys{12};
  constexpr std::uint32_t all = 500'000;
  double worst = 0;
  for (std::uint32_t n = 1; n <= all; ++n) {
    keys.insert(n);
    if (n > 1000) worst = std::max(worst, keys.bytes_a_key());
  }
  CHECK(keys.most_moved <= user_index::segment_slots);
  CHECK(keys.most_moved > user_index::segment_slots / 2); // it did grow
  CHECK(keys.index.moved() < 2 * all);
  CHECK(worst <= 37); // also while it grows
  CHECK(worst > 18);
  auto largest = keys.index.memory_bytes();

  // All but a thousandth, in another order than they came.
  keys.most_moved = 0;
  worst = 0;
  for (std::uint32_t i = 0; i < all; ++i) {
    auto n = static_cast<std::uint32_t>(std::uint64_t{i} * 77'773 % all) + 1;
    if (n % 1000 == 0) continue;
    REQUIRE(keys.erase(n));
    if (keys.index.size() > 1000) worst = std::max(worst, keys.bytes_a_key());
  }
  CHECK(keys.index.size() == all / 1000);
  CHECK(keys.most_moved <= user_index::segment_slots);
  CHECK(worst <= 40); // what is deleted gives its memory back
  CHECK(keys.index.memory_bytes() < largest / 400);
  for (std::uint32_t n = 1000; n <= all; n += 1000) REQUIRE(keys.find(n).there());
  for (std::uint32_t n = 1; n < 1000; ++n) REQUIRE(!keys.find(n).there());

  // And grows again.
  for (std::uint32_t n = 1; n <= all; ++n)
    if (n % 1000 != 0) keys.insert(n);
  for (std::uint32_t n = 1; n <= all; ++n) REQUIRE(keys.find(n).there());
}

TEST_CASE("one key more and one less, where a segment is made two: little is moved for each") {
  numbered_keys keys{13};
  std::uint32_t n = 1;
  while (keys.index.moved() < 20'000) keys.insert(n++);
  auto before = keys.index.moved();
  for (int i = 0; i < 10'000; ++i) {
    REQUIRE(keys.erase(n - 1));
    keys.insert(n - 1);
  }
  CHECK(keys.index.moved() - before <= user_index::segment_slots);
}

TEST_CASE("an index that was moved from a larger one, or emptied, begins anew") {
  numbered_keys keys{14};
  CHECK(keys.index.memory_bytes() == 0);
  CHECK(!keys.find(1).there());
  for (std::uint32_t n = 1; n <= 10'000; ++n) keys.insert(n);
  for (std::uint32_t n = 1; n <= 10'000; ++n) REQUIRE(keys.erase(n));
  CHECK(keys.index.size() == 0);
  CHECK(keys.index.memory_bytes() <= 64 * 16 + 1024);
  for (std::uint32_t n = 1; n <= 10'000; ++n) keys.insert(n);
  keys.index = user_index{{}};
  CHECK(keys.index.memory_bytes() == 0);
  CHECK(!keys.find(1).there());
  keys.insert(1);
  CHECK(keys.find(1).there());
}

TEST_CASE("keys of one hash are told apart") {
  user_index index{{}};
  for (std::uint32_t i = 1; i <= 50'000; ++i) index.insert_hash(i % 5000 * 858'993, {{1, i}, i});
  for (std::uint32_t i = 1; i <= 50'000; ++i) {
    auto at = index.find_hash(i % 5000 * 858'993, [&](record_place p) { return p.offset == i; });
    REQUIRE(at.there());
    REQUIRE(at.entry.length == i);
  }
}

} // namespace
} // namespace qs::zdb
