// The one configuration of CAF (style.md, 4.2): no files, no command line, no logging of its own.
// The engine makes one system_config and one caf::actor_system and destroys them last.
#pragma once

#include <cstdint>

#include <caf/actor_system_config.hpp>

#include <cstddef>

namespace qs::actors {

struct runtime_options {
  std::size_t worker_count = 4; ///< pooled workers; brokers have a thread of their own
};

struct system_config : caf::actor_system_config {
  /// For the engine: real threads, real sockets.
  explicit system_config(const runtime_options& options);
};

} // namespace qs::actors
