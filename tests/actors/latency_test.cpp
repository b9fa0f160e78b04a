#include <doctest/doctest.h>

#include "actors/latency.hpp"
#include "base/random.hpp"

using namespace qs::actors;
using namespace std::chrono_literals;

TEST_CASE("latency: mean and p90 settle near the truth and follow a change") {
  latency_estimate e;
  CHECK_FALSE(e.known());
  CHECK(e.p90() == 0us);
  e.add(10ms);
  CHECK(e.known());
  CHECK(e.mean() == 10ms);
  CHECK(e.p90() == 10ms);

  qs::seeded_random r{1};
  auto feed = [&](std::uint64_t most_us, int times) {
    for (int i = 0; i < times; ++i) e.add(std::chrono::microseconds{r.below(most_us)});
  };
  feed(10'000, 2000); // uniform: mean 5 ms, p90 9 ms
  CHECK(e.mean() > 3ms);
  CHECK(e.mean() < 8ms);
  CHECK(e.p90() > 7500us);
  CHECK(e.p90() < 10'500us);
  feed(100'000, 300); // ten times slower
  CHECK(e.p90() > 70ms);
  feed(1'000, 2000); // and quick again
  CHECK(e.p90() < 3ms);
}

TEST_CASE("latency: a rare straggler does not move p90 far") {
  latency_estimate e;
  for (int i = 0; i < 200; ++i) e.add(2ms);
  e.add(5s);
  CHECK(e.p90() < 600ms);
  for (int i = 0; i < 300; ++i) e.add(2ms);
  CHECK(e.p90() < 10ms);
}
