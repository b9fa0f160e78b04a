// Hosts, offers and nodes as values: what a provider offers, what the state records, what the monitor saw.
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/units.hpp"
#include "model/ids.hpp"
#include "model/money.hpp"

namespace qs::model {

/// Where a host stands. Compared without case.
struct location {
  std::string farm;
  std::string country;
  std::string region;
  bool operator==(const location&) const = default;
};

/// A machine that can carry nodes, as its provider describes it now.
struct host {
  std::string id; ///< unique within its provider, e.g. "h7" or "nas"
  location place;
  byte_count capacity = 0;
  byte_count free = 0;
  money price_per_gib_month;
  bool available = true; ///< false: known, but takes no new node now
  std::string trouble;   ///< why not, for people; may be empty
};

/// A host of any grid: two grids may have hosts of one name.
struct host_key {
  std::string provider;
  std::string host;
  auto operator<=>(const host_key&) const = default;
};

/// How to reach a node's namespace. `address` is a host name, an IP or the path of a unix socket.
struct endpoint {
  std::string address;
  std::uint16_t port = 0;
  std::string ns; ///< the namespace on that server
  bool operator==(const endpoint&) const = default;
  [[nodiscard]] bool valid() const noexcept { return !address.empty(); }
};

/// control.md, 5. The recorded state of a node; `unreachable` and `lost` come from the monitor.
enum class node_state : std::uint8_t {
  planned,     ///< a row since accept; nothing asked of the provider yet
  reserving,   ///< an intent is written, the provider is asked or about to be
  deploying,   ///< the provider works on it
  ready,       ///< answers, identity verified
  unreachable, ///< no answer, nobody knows why
  lost,        ///< the provider or the node itself confirms that the data is gone, or it refuses our password
  draining,    ///< being emptied on purpose
  replaced,    ///< another node took its slots; kept as a source until its groups are whole without it
  gone,        ///< cancelled; only its row remains, so that its number is never used again
};
std::string_view to_string(node_state state) noexcept;
std::optional<node_state> parse_node_state(std::string_view text) noexcept;

/// A node's row in the recorded state. One row per node for ever.
struct recorded_node {
  node_id id;
  std::uint32_t incarnation = 1; ///< counts reservation attempts of this id
  std::string provider;          ///< "local"
  std::string host;
  location place;
  byte_count size = 0;
  money price_limit;       ///< per month, what the consent covers
  money price;             ///< per month, what it costs (0 until known)
  node_state state = node_state::planned;
  std::string reason;      ///< CamelCase word for the state, e.g. "AccessDenied", "Tombstone"
  wall_time since{};       ///< when `state` was entered
  endpoint where;          ///< valid from deploying on
  buffer identity;         ///< the identity object's bytes, fixed in the intent
  std::optional<node_id> replaces;
  std::optional<node_id> replaced_by;
};

/// A node whose end nobody confirmed, given up by a person's word: gone as far as this state goes. The word is put behind
/// the reason it left for, which others go by.
inline constexpr std::string_view abandoned_reason = "Abandoned";
inline bool is_abandoned(const recorded_node& row) noexcept {
  return row.state == node_state::gone && row.reason.ends_with(abandoned_reason);
}

/// What one look at one node gave.
enum class reach : std::uint8_t {
  unknown,       ///< not looked at, or the deadline passed before it was known
  answers,       ///< PING answered and the identity is right
  silent,        ///< no answer
  data_lost,     ///< answers, but identity missing or different, or the provider says contract or data gone
  access_denied, ///< answers and refuses our password
};

struct observed_node {
  node_id id;
  reach state = reach::unknown;
  std::string detail;                    ///< for people: what came back
  bool stopped = false;                  ///< silent, and its provider says: not running, data whole (a restart mends it)
  byte_count used = 0;                   ///< bytes the node says it holds (live)
  byte_count limit = 0;                  ///< its quota, 0 = unknown
  std::chrono::milliseconds silent_for{0}; ///< accrued only in rounds where enough others answered
};

} // namespace qs::model
