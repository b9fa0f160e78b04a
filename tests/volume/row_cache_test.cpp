#include <doctest/doctest.h>

#include <string>

#include "volume/row_cache.hpp"

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
  cache.put("a", bytes_of("new"));
  cache.fill("a", bytes_of("old"), before.version);
  CHECK(cache.find("a").value == bytes_of("new"));
  auto long_before = cache.find("b");
  cache.put("b", buffer(4096)); // not kept, and yet it changed
  cache.fill("b", bytes_of("old"), long_before.version);
  CHECK_FALSE(cache.find("b").known);
}

TEST_CASE("the cache is bounded") {
  row_cache cache{64};
  for (int i = 0; i < 10'000; ++i) cache.put(std::to_string(i), bytes_of("x"));
  int known = 0;
  for (int i = 0; i < 10'000; ++i) known += cache.find(std::to_string(i)).known ? 1 : 0;
  CHECK(known > 0);
  CHECK(known <= 64 + 16);
}
