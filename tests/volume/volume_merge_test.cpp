// Partial writes over a base that no node gives: they wait in the log and hold up nobody else (volume.md 3, 4; invariant 14).
#include "file_model.hpp"

using namespace qs;
using namespace qs::test;

namespace {
constexpr unsigned extents = 200;

/// File "a" on nodes 1 to 6; a second group on 7 to 12 takes what comes later.
struct two_halves : volume_fixture {
  two_halves() : volume_fixture{4, 2, 12} {
    groups = {{{0}, 1, {{1}, {2}, {3}, {4}, {5}, {6}}}};
    REQUIRE(create().ok());
    REQUIRE(open().ok());
    a = *make_file("a");
    data = noise(1, extents * 65536);
    REQUIRE(write(a, 0, data).ok());
    REQUIRE(drain());
    REQUIRE(opened->drop_caches().ok());
    groups.push_back({{1}, 1, {{7}, {8}, {9}, {10}, {11}, {12}}});
  }
  void overwrite(byte_span with) {
    for (unsigned i = 0; i < extents; ++i) {
      auto at = i * 65536ULL + 100 + i;
      REQUIRE(write(a, at, with).ok());
      std::copy(with.begin(), with.end(), data.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }
  void other_file_is_stored() {
    auto b = *make_file("b");
    auto before = ports[7].sets;
    REQUIRE(write(b, 0, noise(2, 65536)).ok());
    pass(std::chrono::seconds{12}); // one short seal each 5 s, and what a round may take
    CHECK(ports[7].sets > before);
    // Ranges without a base are merged too.
    REQUIRE(write(b, 65536, noise(3, 1000)).ok());
    before = ports[7].sets;
    pass(std::chrono::seconds{12});
    CHECK(ports[7].sets > before);
  }
  void drain_reports() {
    std::optional<status> outcome;
    auto began = time.boot();
    opened->drain(std::chrono::seconds{5}, [&](status s) { outcome = std::move(s); });
    for (int i = 0; i < 100 && !outcome; ++i) pass();
    REQUIRE(outcome.has_value());
    CHECK(!outcome->ok());
    CHECK(outcome->err().code == errc::timed_out);
    CHECK(time.boot() - began <= std::chrono::seconds{6});
    CHECK(opened->stats().bytes_at_risk > 0);
  }
  void all_is_there() {
    REQUIRE(drain(std::chrono::seconds{60}));
    CHECK(opened->stats().bytes_at_risk == 0);
    REQUIRE(opened->drop_caches().ok());
    auto got = read(a, 0, data.size());
    REQUIRE(got.ok());
    CHECK(*got == data);
    CHECK(ports.violation == "");
  }
  volume::inode_number a = 0;
  buffer data;
};
} // namespace

TEST_CASE("ranges whose base is on nodes that are away hold up neither short seals nor a drain's report; all goes on when they return") {
  two_halves f;
  for (unsigned n : {1U, 2U, 3U}) f.ports[n].reachable = false;
  REQUIRE(f.opened->set_groups(f.groups).ok());
  f.see_nodes();
  f.overwrite(noise(9, 50));
  f.other_file_is_stored();
  f.drain_reports();
  // How long they are at risk is told from the beginning, not from the last try.
  CHECK(f.time.wall() - f.opened->stats().at_risk_since > std::chrono::seconds{25});
  for (unsigned n : {1U, 2U, 3U}) f.ports[n].reachable = true;
  f.see_nodes();
  f.all_is_there();
}

TEST_CASE("ranges whose base does not come, while its nodes seem to be there, hold up nobody; bounded (invariant 14)") {
  two_halves f;
  REQUIRE(f.opened->set_groups(f.groups).ok());
  for (unsigned n : {1U, 2U, 3U, 4U, 5U, 6U}) f.ports[n].full = true; // new data goes to the others
  f.see_nodes();
  f.ports.hold_fetches = true;
  f.overwrite(noise(9, 50));
  f.other_file_is_stored();
  CHECK(f.ports.held() > 0);
  CHECK(f.ports.held() <= 64);
  f.drain_reports();
  for (unsigned n : {1U, 2U, 3U, 4U, 5U, 6U}) f.ports[n].full = false;
  f.ports.release_fetches();
  f.all_is_there();
}
