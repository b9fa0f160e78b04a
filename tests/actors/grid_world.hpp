// A world with a store and a simulated grid, under the deterministic scheduler: what reservation, monitor and payment live in.
#pragma once

#include <doctest/doctest.h>

#include "support/actor_fixture.hpp"

#include <filesystem>
#include <memory>
#include <unistd.h>

#include "actors/blocking.hpp"
#include "actors/world.hpp"
#include "support/simulated_grid.hpp"

namespace qs::test {

using namespace qs::actors;

struct with_grid : actor_fixture {
  std::filesystem::path directory = [] {
    auto name = (std::filesystem::temp_directory_path() / "qs-actors-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    return std::filesystem::path{name};
  }();
  codec::volume_keys keys = codec::volume_keys::derive(root_secret{byte_span{buffer(32, std::byte{9})}}, "sim");
  seeded_random random{7};
  simulated_grid grid{keys, random, time};
  std::shared_ptr<bool> alive = std::make_shared<bool>(true);
  world_ptr shared = [this] {
    engine_options o;
    o.volume = "sim";
    o.state_directory = directory;
    auto w = std::make_shared<world>(o, keys);
    w->time = &time;
    w->random = &random;
    w->detached = false;
    auto s = state::open_store(directory / "state.db", random, time);
    REQUIRE(s.ok());
    w->store = std::move(*s);
    w->providers.put("local", grid.door(alive));
    w->write_identity = [this](const model::recorded_node& row) { return grid.write_identity(row); };
    return w;
  }();
  blocking_actor blocking = make_blocking(sys, {.detached = false});

  ~with_grid() {
    caf::anon_send_exit(blocking, caf::exit_reason::kill);
    blocking = blocking_actor{};
    sched.clock().cancel_all();
    run();
    shared->store.reset();
    std::filesystem::remove_all(directory);
    for (const auto& v : grid.violations) FAIL_CHECK(v);
  }
};

} // namespace qs::test
