// The world as it was seen in one look: the input of a reconcile pass beside the recorded state.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "model/group.hpp"
#include "model/node.hpp"
#include "model/recorded.hpp"

namespace qs::model {

/// A reservation tagged as ours that the state does not know.
struct stray_node {
  std::string provider;
  std::string reservation; ///< the provider's name for it
  std::string host;
  byte_count size = 0;
};

struct wallet_view {
  bool known = false;
  money balance;
  money per_month; ///< burn of everything this wallet pays for, all volumes
};

/// What the open volume says of itself; absent while it is not open (then the summary row stands in).
struct volume_view {
  bool open = false;
  bool read_only = false; ///< corruption was found, or a later claim
  byte_count usable_bytes = 0;
  byte_count used_bytes = 0;
  byte_count bytes_at_risk = 0;
  std::vector<group> groups;
  std::vector<group_health> health;
  /// Nodes that hold a shard of a segment with fewer than k other live shards: never to be cancelled by anyone.
  std::vector<node_id> indispensable;
  /// Nodes that still hold shards nobody else has at the current generation (sources of a move or rebuild).
  std::vector<node_id> sources;
};

struct observed {
  wall_time at{};
  bool complete = false; ///< every provider and node was asked and answered or timed out; false: a partial view
  std::vector<observed_node> nodes;
  std::map<std::string, std::vector<host>> hosts; ///< by provider
  bool hosts_known = false; ///< every grid listed its hosts; false: `hosts` has those that did
  std::string grid_trouble; ///< why a grid did not say what it has, for people; empty = none, or not asked yet
  std::vector<stray_node> strays;
  bool strays_known = false;
  wallet_view wallet;
  volume_view volume;
  std::string mounted_at;    ///< where the declared mount is up; empty = not mounted
  std::string mount_problem; ///< why the last attempt to mount failed, for people; empty = none
  std::vector<intent> open_intents; ///< not done, refused or absent
  /// Unreachable (not lost) nodes replaced in the last 24 h, for the daily bound of control.md, 5.
  std::uint32_t unreachable_replaced_today = 0;
  /// When a node of ours last failed on a host (avoided for 7 days unless there is no other).
  std::map<host_key, wall_time> failed_hosts;
};

} // namespace qs::model
