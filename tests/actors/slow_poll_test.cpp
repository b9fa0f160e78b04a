// How often providers are asked: rarely while all is well, often while something is going on.
#include <doctest/doctest.h>

#include "support/simulation.hpp"

namespace {

using namespace qs;
using namespace qs::test;
using namespace std::chrono_literals;

TEST_CASE("slow poll: every quarter of an hour while all is well, every half minute while it is not, and at once when that begins") {
  simulation sim{{.seed = 71, .name = "sim"}};
  sim.parity = 1;
  sim.start();
  REQUIRE(sim.apply(small_spec(2, 1, 3, "1GiB", "  protect: false\n")) == 0);
  REQUIRE(sim.run_until([&] { return sim.whole(); }, 3min));
  sim.run_for(1min);
  auto& asked = sim.grid->counters["hosts listed"];
  auto before = asked;
  sim.run_for(16min);
  CHECK(asked - before >= 1);
  CHECK(asked - before <= 2);
  sim.run_for(1min);
  before = asked;
  for (std::uint32_t n = 1; n <= 2; ++n) sim.grid->find(model::node_id{n})->silent = true; // too many to act on
  sim.run_for(8s);
  CHECK(asked - before == 1);
  before = asked;
  sim.run_for(3min);
  CHECK(asked - before >= 5);
  CHECK(asked - before <= 7);
  for (const auto& v : sim.violations()) FAIL_CHECK(v);
}

} // namespace
