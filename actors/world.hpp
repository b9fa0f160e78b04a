// What every actor of one engine shares: options, keys, the state store, the providers, time and
// chance. Made by start_engine (or a test) before the first actor and outliving the last. The store
// and the providers are used only inside jobs of the blocking actor (lanes state and provider).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "actors/engine.hpp"
#include "actors/grids.hpp"
#include "base/clock.hpp"
#include "base/random.hpp"
#include "codec/keys.hpp"
#include "grid/provider.hpp"
#include "state/store.hpp"
#include "volume/volume.hpp"

namespace qs::actors {

struct world {
  world(engine_options o, codec::volume_keys k) : options{std::move(o)}, keys{std::move(k)} {}

  engine_options options;
  codec::volume_keys keys;
  qs::clock* time = &system_clock();
  random_source* random = &system_random();
  std::unique_ptr<state::store> store;
  provider_set providers;
  /// The one of them that is told about its machines; may be null.
  std::shared_ptr<grid::hosts_provider> hosts;
  /// Writes a node's identity object and reads it back; blocks. Over zdb in the engine, into the
  /// simulated node in tests.
  std::function<status(const model::recorded_node&)> write_identity;
  /// For tests that look at what only the volume knows; called when it was opened.
  std::function<void(const std::shared_ptr<volume::volume>&)> volume_opened;
  byte_count log_file_bytes = volume::volume_options{}.log_file_bytes; ///< tests have small ones
  bool detached =
      true; ///< threads of their own for what may wait; false under the deterministic scheduler

  /// nullptr when a row names a provider this engine does not have.
  [[nodiscard]] grid::provider* provider_of(const model::recorded_node& row) {
    return providers.find(row.provider);
  }
  /// Whether a node's password may go over the network in clear.
  [[nodiscard]] bool may_send_plain(const model::recorded_node& row) {
    auto* p = provider_of(row);
    return p != nullptr && p->may_send_plain(row.host);
  }
};
using world_ptr = std::shared_ptr<world>;

} // namespace qs::actors
