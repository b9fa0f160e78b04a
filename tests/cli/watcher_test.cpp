// When an engine that ended is started again.
#include <doctest/doctest.h>

#include "cli/exit_codes.hpp"
#include "cli/watcher.hpp"

using namespace qs::cli;

TEST_CASE("cli watcher: only another engine's lock makes an end with 5 final, once there was an engine") {
  CHECK(worth_another_start(exit_again, true, false));
  CHECK_FALSE(worth_another_start(exit_again, true, true));
  CHECK_FALSE(worth_another_start(exit_again, false, false)); // the first start is somebody's to answer
  CHECK(worth_another_start(exit_failed, true, false));
  CHECK_FALSE(worth_another_start(exit_done, true, false));
  CHECK_FALSE(worth_another_start(exit_refused, true, false));
  CHECK_FALSE(worth_another_start(exit_usage, true, false));
}
