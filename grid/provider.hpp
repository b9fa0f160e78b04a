// The provider contract (control.md, 4): where storage nodes come from. Nothing is ever reserved twice:
// prepare() is pure and its request is stored with a full sync before submit(); after a crash or an unknown answer only
// resolve() runs, and submitting again follows only upon "absent for sure".
// Calls other than prepare() block (at most limits::provider_call_deadline) and so run on the blocking actor's provider lane;
// one call per request at a time, different requests in parallel. Implementations are thread-safe.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "model/node.hpp"
#include "model/observed.hpp"

namespace qs::grid {

struct node_order {
  model::node_id node;
  std::uint32_t incarnation = 1;
  std::string host;
  byte_count size = 0;
  model::money price_limit; ///< per month
};

/// The provider's own document for one reservation, opaque to everyone else, safe to store and to print (no secret).
using request = std::string;

enum class outcome : std::uint8_t {
  done,    ///< it is so; `where` and `price` are filled for a reservation
  pending, ///< accepted, still being worked on: resolve() again later
  refused, ///< the host will not; nothing was made
  absent,  ///< for sure not there and will not come: submitting again or elsewhere is safe
  unknown, ///< nobody knows: resolve() again, never submit
};

struct answer {
  outcome what = outcome::unknown;
  std::string detail; ///< for people
  model::endpoint where;
  model::money price; ///< per month
};

/// What the provider itself says of a node, beyond what PING tells.
struct inspection {
  enum class state : std::uint8_t {
    running,   ///< as it should be
    stopped,   ///< data whole, process down: restart() mends it
    gone,      ///< contract or data gone for sure (tombstone, directory deleted or foreign)
    unknown,
  } what = state::unknown;
  std::string reason; ///< CamelCase, e.g. "Tombstone", "DataGone"
  std::string detail;
  model::endpoint where; ///< valid when running: it may have moved to another port
};

struct ledger_entry {
  wall_time at{};
  std::string kind; ///< credit, charge
  std::string subject;
  model::money amount;
  model::money balance;
};

class provider {
public:
  virtual ~provider() = default;
  [[nodiscard]] virtual std::string name() const = 0;
  /// False: its nodes cost nothing, and wallet(), top_up() and ledger() are `unsupported`.
  [[nodiscard]] virtual bool charges() const { return true; }
  /// Whether a node's password may go to this host in clear, where the server knows no challenge and is not on this
  /// machine (`insecure: true`).
  [[nodiscard]] virtual bool may_send_plain(const std::string& /*host*/) const { return false; }

  [[nodiscard]] virtual result<request> prepare(const node_order& order) const = 0;
  virtual answer submit(const request& r) = 0;
  virtual answer resolve(const request& r) = 0;

  virtual result<std::vector<model::host>> hosts() = 0;
  virtual inspection inspect(const request& r) = 0;
  /// Starts a stopped node again; data must be whole. Never makes an empty node.
  virtual answer restart(const request& r) = 0;
  virtual answer resize(const request& r, byte_count size) = 0;
  /// Ends the reservation and deletes its data. absent = was already gone.
  virtual answer cancel(const request& r) = 0;
  /// Everything tagged as this volume's, recorded or not.
  virtual result<std::vector<model::stray_node>> list_ours() = 0;
  /// Monthly price of a node of this size on this host.
  virtual result<model::money> price(const std::string& host, byte_count size) = 0;

  // -- the wallet, where the provider keeps one --------------------------------------------------------------------
  virtual result<model::wallet_view> wallet() = 0;
  virtual result<model::money> top_up(model::money amount) = 0; ///< the new balance; local: credited at once
  virtual result<std::vector<ledger_entry>> ledger(std::size_t most) = 0;
};

} // namespace qs::grid
