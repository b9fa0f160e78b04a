// The simulated zdb_connection, and the books that the simulation keeps of shards. For simulation.cpp alone.
#pragma once

#include <cstdint>

#include <caf/all.hpp>

#include <functional>
#include <map>
#include <memory>
#include <set>

#include "actors/zdb_connection.hpp"
#include "support/simulation.hpp"
#include "volume/shard_port.hpp"

namespace qs::test {

actors::connection_actor simulated_connection(caf::actor_system& system, actors::connection_config config, simulation& sim);

/// Which shards make up which segment, and which of them were told to be safe: an oracle beside the volume's own rows.
struct shard_book {
  struct segment {
    std::size_t needed = 1;                                    ///< distinct shards that give all others
    std::map<std::uint8_t, model::object_name> names;          ///< by index
    std::set<std::uint8_t> confirmed;
    bool was_safe = false; ///< every shard was confirmed once: its pinned copy may be gone
    bool deleted = false;
    bool dead = false; ///< no row points to it, and none can again: its shards only wait for their deletion
  };
  std::map<model::segment_ref, segment> segments;
  std::map<model::object_name, model::segment_ref> by_name;
  void look(const volume::volume& v) {
    for (auto& [ref, s] : segments) s.dead = s.dead || v.live_bytes(ref) == 0;
  }
  /// Distinct intact shards on nodes, one of them left out.
  static std::size_t intact(const segment& s, simulated_grid& grid, const simulated_node* without);
  /// Whether another node than this one has a copy, or one had it that was lost later than `since`: nobody may know of that yet.
  static bool elsewhere(const model::object_name& object, simulated_grid& grid, model::node_id without, boot_time since);
};

/// Notes what passes, and hands it on.
class recording_port final : public volume::shard_port {
public:
  /// `look`: asks the volume which segments are dead. `unknown_since`: what happened to nodes later than that may not be known.
  recording_port(std::unique_ptr<volume::shard_port> next, shard_book& book, simulated_grid& grid, const std::size_t* parity,
                 std::function<void()> look, std::function<boot_time()> unknown_since)
      : next_{std::move(next)}, book_{book}, grid_{grid}, parity_{parity}, look_{std::move(look)}, unknown_since_{std::move(unknown_since)} {}
  void store(volume::store_request request, volume::store_progress progress) override;
  void fetch(volume::fetch_request request, volume::fetch_done done) override { next_->fetch(std::move(request), std::move(done)); }
  void hurry(model::segment_ref segment, std::uint8_t wanted) override { next_->hurry(segment, wanted); }
  void remove(model::node_id node, std::vector<model::object_name> names, std::function<void(status)> done) override;
  void check(model::node_id node, model::object_name name, std::function<void(result<bool>)> done) override {
    next_->check(node, name, std::move(done));
  }

private:
  std::unique_ptr<volume::shard_port> next_;
  shard_book& book_;
  simulated_grid& grid_;
  const std::size_t* parity_;
  std::function<void()> look_;
  std::function<boot_time()> unknown_since_;
};

} // namespace qs::test
