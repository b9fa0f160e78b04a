// Placement groups: which node holds which shard index. A group's slots are fixed per generation; replacing a node
// makes generation + 1 with both locations readable until nothing is left on the old one (volume.md, 3).
#pragma once

#include <cstdint>
#include <vector>

#include "base/units.hpp"
#include "model/ids.hpp"

namespace qs::model {

struct group {
  group_id id;
  std::uint32_t generation = 1;
  std::vector<node_id> slots; ///< k + m; slot i holds shard i
  bool operator==(const group&) const = default;
};

/// What the controller needs to know of one group's contents, reported by the volume.
struct group_health {
  group_id id;
  std::uint32_t generation = 1;
  std::uint64_t segments = 0;
  std::uint64_t segments_on_older_generation = 0; ///< still to be moved
  std::uint64_t segments_missing_shards = 0;
  std::uint32_t redundancy_left_min = 0; ///< least confirmed shards on live nodes, minus k; m if empty
  byte_count stored_bytes = 0;           ///< of one shard column, i.e. per slot
};

} // namespace qs::model
