#include <doctest/doctest.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include <unistd.h>

#include "volume/row_cache.hpp"
#include "volume/row_store.hpp"

using namespace qs;
using namespace qs::volume;

namespace {
buffer bytes_of(std::string_view text) { return to_buffer(text); }
} // namespace

TEST_CASE("a row of the cache is the last one put; absence is known, too") {
  row_cache cache{100};
  auto none = cache.find("a");
  CHECK_FALSE(none.known);
  cache.fill("a", std::nullopt, none.version);
  CHECK(cache.find("a").known);
  CHECK_FALSE(cache.find("a").value);
  cache.forget("a");
  CHECK_FALSE(cache.find("a").known);
  cache.put("a", bytes_of("1"));
  CHECK(cache.find("a").value == bytes_of("1"));
  cache.put("a", bytes_of("2"));
  CHECK(cache.find("a").value == bytes_of("2"));
  cache.put("a", buffer(4096)); // long rows are not kept, and do not leave older ones behind
  CHECK_FALSE(cache.find("a").known);
}

TEST_CASE("what a reader brings from below is dropped when the row changed meanwhile") {
  row_cache cache{100};
  auto before = cache.find("a"); // then reads "old" below
  cache.forget("a");
  auto during = cache.find("a"); // reads "old" as well: the store has not changed yet
  cache.fill("a", bytes_of("old"), before.version);
  CHECK_FALSE(cache.find("a").known);
  cache.put("a", bytes_of("new"));
  cache.fill("a", bytes_of("old"), before.version);
  cache.fill("a", bytes_of("old"), during.version);
  CHECK(cache.find("a").value == bytes_of("new"));
}

TEST_CASE("the cache is bounded") {
  row_cache cache{64};
  for (int i = 0; i < 10'000; ++i) cache.put(std::to_string(i), bytes_of("x"));
  int known = 0;
  for (int i = 0; i < 10'000; ++i) known += cache.find(std::to_string(i)).known ? 1 : 0;
  CHECK(known > 0);
  CHECK(known <= 64 + 16);
}

TEST_CASE("the store's rows never go backwards for readers beside the writer") {
  auto directory = std::filesystem::temp_directory_path() / ("qs-rows-" + std::to_string(::getpid()));
  auto store = row_store::open(directory, true, {}, {});
  REQUIRE(store.ok());
  std::atomic<bool> over{false};
  std::atomic<int> backwards{0};
  auto read = [&] {
    std::uint64_t last = 0;
    while (!over) {
      auto value = (*store)->get("row");
      if (!value.ok() || !*value) continue;
      auto now = load_le<std::uint64_t>((*value)->data());
      if (now < last) ++backwards;
      last = now;
    }
  };
  std::thread one{read}, two{read};
  for (std::uint64_t i = 1; i <= 3000; ++i) {
    buffer value(8);
    store_le(value.data(), i);
    row_changes changes;
    changes.emplace("row", std::move(value));
    CHECK((*store)->apply(changes, i).ok());
    auto own = (*store)->get("row");
    CHECK((own.ok() && *own && load_le<std::uint64_t>((*own)->data()) == i));
  }
  over = true;
  one.join();
  two.join();
  CHECK(backwards == 0);
  store->reset();
  std::filesystem::remove_all(directory);
}
