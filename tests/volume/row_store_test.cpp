#include <doctest/doctest.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "support/memory_nodes.hpp"
#include "volume/row_store.hpp"

using namespace qs;
using namespace qs::volume;

namespace {

struct opened_store {
  opened_store() { open(true); }
  void open(bool create) {
    store.reset();
    auto opened = row_store::open(place.path() / "rows", create, {}, {});
    REQUIRE(opened.ok());
    store = std::move(*opened);
  }
  void put(std::string_view key, std::string_view value) {
    row_changes changes;
    changes.emplace(key, to_buffer(value));
    store->apply(std::move(changes), ++sequence);
  }
  void erase(std::string_view key) {
    row_changes changes;
    changes.emplace(key, std::nullopt);
    store->apply(std::move(changes), ++sequence);
  }
  std::string get(std::string_view key) {
    auto value = store->get(key);
    REQUIRE(value.ok());
    return *value ? to_string(**value) : "-";
  }
  std::string scan(std::string_view from, std::string_view end) {
    std::string out;
    REQUIRE(store->scan(from, end, [&](std::string_view key, byte_span value) {
      out.append(key).append("=").append(as_text(value)).append(" ");
      return true;
    }).ok());
    return out;
  }
  test::scratch_directory place;
  std::unique_ptr<row_store> store;
  std::uint64_t sequence = 0;
};

} // namespace

TEST_CASE("rows that wait are read as if they were written") {
  opened_store rows;
  rows.put("a1", "old");
  rows.put("a2", "stays");
  rows.put("a3", "goes");
  REQUIRE(rows.store->drain().ok());
  rows.put("a1", "new");
  rows.erase("a3");
  rows.put("a4", "added");
  rows.put("b", "elsewhere");
  CHECK(rows.get("a1") == "new");
  CHECK(rows.get("a2") == "stays");
  CHECK(rows.get("a3") == "-");
  CHECK(rows.store->applied_sequence().value() == rows.sequence);
  CHECK(rows.scan("a", "b") == "a1=new a2=stays a4=added ");
  CHECK(rows.scan("b", "c") == "b=elsewhere ");
  CHECK(rows.get("a1") == "new"); // out of the cache or out of RocksDB
  CHECK(rows.get("a3") == "-");
}

TEST_CASE("what waits is lost with the process, never a part of it; a flush keeps all of it") {
  opened_store rows;
  rows.put("a", "1");
  rows.put("b", "1");
  CHECK(rows.store->flushed_sequence().value() == 0);
  REQUIRE(rows.store->flush(true).ok());
  CHECK(rows.store->flushed_sequence().value() == 2);
  rows.put("a", "2");
  rows.put("c", "2");
  CHECK(rows.store->flushed_sequence().value() == 2);
  rows.open(false); // as a crash: nothing is flushed by the end of the object
  CHECK(rows.store->applied_sequence().value() == 2);
  CHECK(rows.get("a") == "1");
  CHECK(rows.get("c") == "-");
}

TEST_CASE("much that waits asks to be drained, by count and by bytes") {
  opened_store rows;
  for (int i = 0; i < 20'000; ++i) {
    rows.put("key " + std::to_string(i), "x");
    if (i == 100) CHECK_FALSE(rows.store->wants_drain());
    if (i == 1000) CHECK((rows.store->wants_drain() && !rows.store->must_drain()));
    if (rows.store->must_drain()) REQUIRE(rows.store->drain().ok());
  }
  REQUIRE(rows.store->drain().ok());
  CHECK_FALSE(rows.store->wants_drain());
  for (int i = 0; i < 16; ++i) rows.put("long", std::string(64 << 10, 'x')); // one row, but a MiB of them
  CHECK(rows.store->wants_drain());
  for (int i = 0; i < 20'000; i += 1013) CHECK(rows.get("key " + std::to_string(i)) == "x");
}

TEST_CASE("rows that cannot be written are read as before") {
  opened_store rows;
  rows.put("a1", "old");
  rows.put("a3", "goes");
  rows.put("a5", "stays");
  std::filesystem::remove_all(rows.place.path() / "rows"); // as a disk that takes nothing any more
  REQUIRE_FALSE(rows.store->flush(true).ok());
  rows.put("a0", "first");
  rows.put("a1", "new");
  rows.erase("a3");
  rows.put("a7", "last");
  rows.put("b", "elsewhere");
  REQUIRE_FALSE(rows.store->drain().ok());
  CHECK(rows.get("a1") == "new");
  CHECK(rows.get("a3") == "-");
  CHECK(rows.scan("a", "b") == "a0=first a1=new a5=stays a7=last ");
  rows.put("a1", "newer"); // beside those whose writing failed
  CHECK(rows.get("a1") == "newer");
  CHECK(rows.scan("a", "b") == "a0=first a1=newer a5=stays a7=last ");
  CHECK(rows.scan("a2", "a6") == "a5=stays ");
}

TEST_CASE("a scan beside a writer sees all of an operation or nothing") {
  opened_store rows;
  auto& store = *rows.store;
  auto pair_of = [](std::uint64_t n) {
    row_changes changes;
    for (auto* key : {"p1", "p2"}) {
      buffer value(8);
      store_le(value.data(), n);
      changes.emplace(key, std::move(value));
    }
    return changes;
  };
  store.apply(pair_of(1), 1);
  std::atomic<bool> over{false};
  std::atomic<int> torn{0}, scans{0};
  auto look = [&] {
    while (!over) {
      std::vector<std::uint64_t> seen;
      auto done = store.scan("p", "q", [&](std::string_view, byte_span value) {
        seen.push_back(load_le<std::uint64_t>(value.data()));
        return true;
      });
      if (!done.ok() || seen.size() != 2 || seen[0] != seen[1]) ++torn;
      ++scans;
    }
  };
  std::thread one{look}, two{look};
  for (std::uint64_t i = 2; i <= 3000 || scans < 100; ++i) {
    store.apply(pair_of(i), i);
    if (store.must_drain()) CHECK(store.drain().ok());
  }
  over = true;
  one.join();
  two.join();
  CHECK(torn == 0);
}

TEST_CASE("the store's rows never go backwards for readers beside the writer") {
  opened_store rows;
  auto& store = *rows.store;
  std::atomic<bool> over{false};
  std::atomic<int> backwards{0};
  auto read = [&] {
    std::uint64_t last = 0;
    while (!over) {
      auto value = store.get("row");
      if (!value.ok() || !*value) continue;
      auto now = load_le<std::uint64_t>((*value)->data());
      if (now < last) ++backwards;
      last = now;
    }
  };
  std::thread one{read}, two{read};
  for (std::uint64_t i = 1; i <= 3000; ++i) {
    if (i % 7 == 0) CHECK(store.drain().ok());
    buffer value(8);
    store_le(value.data(), i);
    row_changes changes;
    changes.emplace("row", std::move(value));
    store.apply(std::move(changes), i);
    auto own = store.get("row");
    CHECK((own.ok() && *own && load_le<std::uint64_t>((*own)->data()) == i));
  }
  over = true;
  one.join();
  two.join();
  CHECK(backwards == 0);
}
