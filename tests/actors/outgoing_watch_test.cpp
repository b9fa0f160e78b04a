#include <doctest/doctest.h>

#include "actors/outgoing_watch.hpp"

namespace qs::actors {

TEST_CASE("outgoing_watch: what leaves a queue in which it stood was taken by somebody; what is taken at once tells nothing") {
  outgoing_watch w;
  CHECK_FALSE(w.look(0, 0));
  SUBCASE("a node that stands still, with room in its kernel: all is acknowledged at once, again and again") {
    for (std::uint64_t given = 1000; given < 10'000; given += 1000) CHECK_FALSE(w.look(given, 0));
  }
  SUBCASE("one whose kernel has no room any more") {
    CHECK_FALSE(w.look(500'000, 100'000));
    CHECK_FALSE(w.look(500'000, 100'000));
    CHECK_FALSE(w.look(600'000, 200'000)); // more is sent, nothing is taken
  }
  SUBCASE("a node that stands still is asked a little now and then, and its kernel's acknowledgement is on its way when it is looked at") {
    for (std::uint64_t given = 14; given < 1400; given += 14) CHECK_FALSE(w.look(given, 14));
  }
  SUBCASE("a slow line") {
    CHECK_FALSE(w.look(500'000, 480'000));
    CHECK(w.look(500'000, 400'000));
    CHECK(w.look(900'000, 700'000)); // taken while more was given
    CHECK(w.look(900'000, 0));
    CHECK_FALSE(w.look(900'000, 0));
  }
  SUBCASE("a queue that counts more than the bytes in it") {
    CHECK_FALSE(w.look(100'000, 300'000));
    CHECK_FALSE(w.look(100'000, 300'000));
    CHECK(w.look(100'000, 0));
  }
}

} // namespace qs::actors
