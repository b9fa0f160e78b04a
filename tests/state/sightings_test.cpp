// When nodes were seen last, in a file of its own.
#include <doctest/doctest.h>

#include <filesystem>

#include "base/posix.hpp"
#include "state/sightings.hpp"

namespace qs::state {
namespace {

TEST_CASE("sightings: what was written is read; nothing, damage and another format are told apart") {
  auto directory = std::filesystem::temp_directory_path() / "qs-sightings-test";
  std::filesystem::remove_all(directory);
  std::filesystem::create_directories(directory);
  auto none = read_sightings(directory);
  REQUIRE(none.ok());
  CHECK(none->empty());
  sightings seen{{{1}, {"one life", wall_time{std::chrono::milliseconds{1234567890123}}}},
                 {{7}, {"", wall_time{}}}};
  REQUIRE(write_sightings(directory, seen).ok());
  auto back = read_sightings(directory);
  REQUIRE(back.ok());
  CHECK(*back == seen);
  auto file = directory / "sightings.json";
  CHECK((std::filesystem::status(file).permissions() & std::filesystem::perms::others_read) ==
        std::filesystem::perms::none);
  for (const char* text : {"", "{", "[]", "{\"format\": 2, \"nodes\": []}",
                           "{\"format\": 1, \"nodes\": [{\"node\": -1}]}"}) {
    REQUIRE(write_file_atomic(file, as_bytes(text)).ok());
    CHECK(read_sightings(directory).err().code == errc::corrupt);
  }
  remove_sightings(directory);
  CHECK(std::filesystem::is_empty(directory));
  remove_sightings(directory); // nothing there: nothing to do
  std::filesystem::remove_all(directory);
}

} // namespace
} // namespace qs::state
