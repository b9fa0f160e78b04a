// The blocking actor alone, under the deterministic scheduler.
#include <doctest/doctest.h>

#include "support/actor_fixture.hpp"

#include "actors/blocking.hpp"

namespace {

using namespace qs;
using namespace qs::actors;
using namespace qs::test;
using namespace std::chrono_literals;

struct lanes : actor_fixture {
  blocking_actor blocking = make_blocking(sys, {.detached = false, .provider_workers = 2});
  std::vector<std::string> log;

  answer_of<job_done> post(lane where, std::string key, std::function<void()> work) {
    auto j = std::make_shared<job>();
    j->where = where;
    j->key = std::move(key);
    j->work = std::move(work);
    return ask<job_done>(blocking, run_job{j});
  }
  answer_of<job_done> say(lane where, std::string key, std::string what) {
    return post(where, std::move(key), [this, what] { log.push_back(what); });
  }
  ~lanes() {
    caf::anon_send_exit(blocking, caf::exit_reason::kill);
    blocking = blocking_actor{};
    run();
  }
};

TEST_CASE("blocking: the state lane keeps order; provider jobs of one key wait for each other, others pass") {
  lanes f;
  for (auto i = 0; i < 5; ++i) f.say(lane::state, {}, fmt::format("s{}", i));
  f.run();
  CHECK(f.log == std::vector<std::string>{"s0", "s1", "s2", "s3", "s4"});
  f.log.clear();
  // The first two of "a" are posted before any worker runs; "b" may go beside them, the second "a" may not.
  auto running = 0, most = 0;
  for (auto i = 0; i < 3; ++i) f.post(lane::provider, "a", [&] { most = std::max(most, ++running); --running; });
  auto b = f.say(lane::provider, "b", "b");
  f.run();
  CHECK(most == 1);
  CHECK(b->has_value());
}

TEST_CASE("blocking: a job that throws is answered with an error and takes nothing else along") {
  lanes f;
  for (auto where : {lane::state, lane::volume, lane::provider}) {
    auto bad = f.post(where, "k", [] { throw std::runtime_error{"bug"}; });
    f.run();
    REQUIRE(bad->has_value());
    CHECK_FALSE((*bad)->ok());
    auto good = f.say(where, "k", "after");
    f.run();
    REQUIRE(good->has_value());
    CHECK((*good)->ok());
  }
  CHECK(f.log.size() == 3);
}

TEST_CASE("blocking: stop waits for what was taken and takes nothing more") {
  lanes f;
  auto taken = f.say(lane::state, {}, "taken");
  auto second = f.say(lane::state, {}, "second");
  auto stopped = f.ask<done>(f.blocking, stop_all{});
  auto again = f.ask<done>(f.blocking, stop_all{});
  auto late = f.say(lane::state, {}, "late");
  f.run();
  CHECK(f.log == std::vector<std::string>{"taken", "second"});
  REQUIRE(stopped->has_value());
  CHECK((*stopped)->ok());
  CHECK(again->has_value());
  REQUIRE(late->has_value());
  CHECK_FALSE((*late)->ok());
}

} // namespace
