// The recorded state as one value: what the state database holds and pure decisions read.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/clock.hpp"
#include "model/group.hpp"
#include "model/node.hpp"

namespace qs::model {

/// The spec the engine keeps true: exactly the text that was accepted.
struct accepted_spec {
  std::string text;
  std::string hash;             ///< hex BLAKE2b-256 of text
  std::uint64_t generation = 0; ///< 1 for the first accept
  wall_time accepted_at{};
};

/// What is known of the volume without opening it: the summary row that `diff` reads.
struct volume_summary {
  bool created = false;
  std::uint32_t data_shards = 0;
  std::uint32_t parity_shards = 0;
  byte_count capacity = 0; ///< usable, as accepted when the groups were last laid out
  byte_count used_bytes = 0;
  byte_count bytes_at_risk = 0;
  std::vector<group> groups;
  std::vector<group_health> health;
};

struct recorded {
  std::string lineage;      ///< UUID of this state, made once
  std::uint64_t serial = 0; ///< + 1 with every accept
  std::optional<accepted_spec> accepted;
  std::vector<recorded_node> nodes; ///< by id, gone ones included
  std::uint32_t next_node_number = 1;
  volume_summary volume;
  bool protect = false;   ///< recorded, so that it holds after the key is gone from the file
  bool suspended = false; ///< qs suspend
  bool cancelled = false; ///< qs apply --cancel: of what was accepted nothing more is begun, until the next accept or qs resume
  bool destroying = false; ///< an accepted destroy: everything goes
  bool mount_wanted = true; ///< false after qs umount, until qs mount
  /// When a host last refused a node of ours (another is tried first for 7 days).
  std::map<host_key, wall_time> refused_hosts;
};

/// A request to a provider, written with a full sync before anything leaves this machine (control.md, 4).
struct intent {
  enum class verb : std::uint8_t { reserve, resize, cancel };
  enum class progress : std::uint8_t { written, submitted, unknown, done, refused, absent };
  std::uint64_t number = 0; ///< from the state, never reused
  node_id node;
  std::uint32_t incarnation = 1;
  verb what = verb::reserve;
  progress state = progress::written;
  std::string request; ///< the provider's own document, as prepare() made it; opaque
  std::string detail;  ///< last answer, for people
  wall_time written_at{};
};

struct event {
  std::uint64_t number = 0;
  wall_time at{};
  std::string level;   ///< info, warning, error
  std::string kind;    ///< CamelCase: NodeReady, NodeLost, SegmentRebuilt, …
  std::string subject; ///< "n3", "volume", "wallet"
  std::string message;
};

} // namespace qs::model
