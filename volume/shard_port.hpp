// The volume's door to the nodes: it emits shards and asks for them here and knows neither sockets nor actors.
// Implemented by actors/ (the dispersal actor) and by tests. Calls come from any thread and never block; callbacks may
// come on any thread, at once or later, exactly once unless said otherwise.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/bytes.hpp"
#include "base/clock.hpp"
#include "base/result.hpp"
#include "model/ids.hpp"

namespace qs::volume {

/// What became of one shard that was handed out. `confirmed` follows `acknowledged`; everything else is final
/// for this attempt. The volume retries under the same name with the same bytes.
enum class shard_outcome : std::uint8_t {
  acknowledged, ///< the node answered the SET
  confirmed,    ///< a sync barrier succeeded on that node after the answer (or the rule for servers without SYNC)
  unconfirmed,  ///< was acknowledged, then the barrier failed or the node restarted: must be checked or sent again
  unreachable,  ///< nothing was sent
  full,         ///< the node refuses for lack of space
  refused,      ///< locked, access denied, data lost: the node does not take it
  unknown,      ///< sent, no answer: may or may not be there
};

struct shard_to_store {
  std::uint8_t index = 0;
  model::node_id node;
  model::object_name name{};
  buffer_ptr value;
};

struct store_request {
  model::segment_ref segment;
  std::vector<shard_to_store> shards; ///< implied (empty) shards are not in it
  bool sync_soon = false;             ///< somebody waits or the segment is short: send the barrier at once
  bool background = false;            ///< rebuild traffic gives way to foreground
};
/// Called once per change of a shard's outcome: acknowledged, later confirmed; or one of the others.
using store_progress = std::function<void(std::uint8_t index, model::node_id node, shard_outcome outcome)>;

struct shard_source {
  std::uint8_t index = 0;
  model::node_id node;
  model::object_name name{};
};

struct fetched_shard {
  std::uint8_t index = 0;
  model::node_id node;
  buffer_ptr value; ///< as the node gave it: not verified yet
};

struct fetch_request {
  model::segment_ref segment;
  /// Every place where a shard of the segment may be, best first; an index may occur twice (two generations).
  std::vector<shard_source> sources;
  /// The one index that answers the request alone, or -1: then any `needed` distinct indices do.
  int wanted = -1;
  std::uint8_t needed = 1; ///< distinct indices that are enough together (k, less the implied ones)
  bool background = false;
  /// When it ends if nothing comes; 0: about 15 s after it began. A request that waits behind others which do get answers is
  /// given more time, at most until `latest` (0: two minutes after it began).
  boot_time until{0};
  boot_time latest{0};
};
/// Either the wanted shard (perhaps with others) or `needed` distinct ones. Errors: unreachable or timed_out when too few
/// answered in time (fetch_request::until), not_found when too few exist on nodes that did answer.
/// The message names the nodes and what they said.
using fetch_done = std::function<void(result<std::vector<fetched_shard>>)>;

class shard_port {
public:
  virtual ~shard_port() = default;
  virtual void store(store_request request, store_progress progress) = 0;
  virtual void fetch(fetch_request request, fetch_done done) = 0;
  /// Somebody waits now for the shard that a background fetch of this segment wants: from here on it is none, and ends within
  /// 15 s if nothing comes. Nothing happens if there is no such fetch (any more).
  virtual void hurry(model::segment_ref segment, std::uint8_t wanted) = 0;
  /// DEL; not_found counts as done.
  virtual void remove(model::node_id node, std::vector<model::object_name> names,
                      std::function<void(status)> done) = 0;
  /// Does the node hold this object intact (CHECK)? true, false, or an error when that is not known.
  virtual void check(model::node_id node, model::object_name name, std::function<void(result<bool>)> done) = 0;
};

} // namespace qs::volume
