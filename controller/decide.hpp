// The pure decisions of the controller: desired + recorded + observed → plan → accept document → next actions.
// Values in, values out: no clock, no I/O, no codec, nothing remembered between calls. Rules: control.md, 2, 3 and 5.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/diagnostic.hpp"
#include "base/result.hpp"
#include "model/observed.hpp"
#include "model/recorded.hpp"
#include "spec/storage_spec.hpp"

namespace qs::controller {

enum class action_kind : std::uint8_t {
  create_volume,  ///< + volume
  create_node,    ///< + node
  update_node,    ///< ~ node: resized in place
  replace_node,   ///< -/+ node
  destroy_node,   ///< - node
  change_groups,  ///< ~ volume: slots move, groups are added
  change_mount,   ///< + or - mount, or its options
  change_setting, ///< ~ something that needs no provider (protect, monitor times, budget)
  destroy_volume, ///< - volume
  unknown_node,   ///< ? node: no answer; left untouched
  adopt_node,     ///< ? a stray reservation tagged as ours
};
std::string_view to_string(action_kind kind) noexcept;

struct action {
  action_kind kind{};
  std::string address; ///< "node.n7", "volume", "mount"
  std::string reason;  ///< for people, one line
  model::node_id node;
  std::string host;
  model::location place;
  byte_count size = 0;
  byte_count bytes_to_move = 0;
  model::money price_per_month;
  std::vector<std::string> depends_on; ///< addresses
  bool destroys_data = false;
};

struct plan_summary {
  int add = 0, change = 0, replace = 0, destroy = 0, unknown = 0;
  byte_count bytes_to_move = 0;
  std::int64_t usable_bytes_gained = 0;
  int worst_redundancy = 0; ///< shards that may still be lost at the worst moment of the way
  model::money price_per_month; ///< of everything, afterwards
};

/// A plan is for reading and consent; what is done follows from `rows` once accepted.
struct plan {
  std::string hash; ///< hex BLAKE2b-256 over everything below
  std::uint64_t serial = 0;
  std::string lineage;
  std::string spec_hash;
  std::string spec_text;
  std::vector<action> actions;
  std::vector<std::string> drift; ///< only drift that causes or explains an action
  plan_summary summary;
  /// What accept() writes: node rows to add or replace, and the counter afterwards.
  std::vector<model::recorded_node> rows;
  std::uint32_t next_node_number = 1;
  bool needs_typed_name = false; ///< lowers durability or destroys data: "yes" is not enough
  [[nodiscard]] bool empty() const noexcept { return actions.empty(); }
};

/// Why no plan could be made. `refused`: a rule says no (exit 3); otherwise the spec cannot be met (exit 1).
struct refusal {
  bool by_rule = false;
  std::string message;
};

struct diff_result {
  std::optional<plan> made;
  std::vector<refusal> refusals;
};

diff_result diff(const spec::storage_spec& desired, const std::string& spec_text, const model::recorded& recorded,
                 const model::observed& observed);
/// The plan of deleting everything (qs destroy).
diff_result diff_destroy(const model::recorded& recorded, const model::observed& observed);

// -- what to do next; a pass needs no memory of the events before it ----------------------------------------------------

enum class step_kind : std::uint8_t {
  make_volume,   ///< create the volume locally, once enough nodes are ready
  reserve,       ///< planned → reserving: write the intent, submit
  resolve,       ///< an intent whose outcome is open
  restart,       ///< stopped with data whole
  mark_lost,     ///< record what is confirmed: node → lost
  mark_unreachable,
  mark_ready,
  replace,       ///< make the row of a replacement (new id) for a lost or long unreachable node
  set_groups,    ///< hand the volume new groups or generations
  resize,        ///< change a node's size at its provider
  drain,         ///< give a node's slots away
  retire,        ///< draining/replaced and no longer needed → cancel
  cancel,        ///< destroy: end the reservation
  open_volume,
  mount,
  unmount,
  close_volume,  ///< destroy: volume closed and local data removed
};
std::string_view to_string(step_kind kind) noexcept;

struct step {
  step_kind kind{};
  model::node_id node;
  std::string reason;
  std::optional<model::recorded_node> row; ///< replace: the new node's row (id from the counter)
  std::vector<model::group> groups;        ///< set_groups: all groups as they shall be
  byte_count size = 0;                     ///< resize
};

/// A condition of `qs status` (types of controllers.md, 5, plus Quorum, ApprovalNeeded).
struct condition {
  std::string type;
  std::string status; ///< True, False, Unknown
  std::string reason; ///< CamelCase
  std::string message;
};

struct decision {
  std::vector<step> steps; ///< all may be started now; order within the list is order of preference
  std::vector<condition> conditions;
  std::string state; ///< Deploying, Ready, Degraded, Rebuilding, ReadOnly, Suspended, Unknown
};

/// The next steps towards the accepted spec. `desired` is the parsed accepted text.
decision next_actions(const spec::storage_spec& desired, const model::recorded& recorded,
                      const model::observed& observed);

// -- arithmetic, also shown in docs/capacity.md ----------------------------------------------------------------------

byte_count node_size(byte_count capacity, int data_shards, int parity_shards, int nodes); ///< bytes, a multiple of 1 GiB
std::uint32_t group_count(int nodes, int shards);

} // namespace qs::controller
