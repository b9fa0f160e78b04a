// The pure decisions of the controller: desired + recorded + observed → plan → accept document → next actions.
// Values in, values out: no clock, no I/O, no codec, nothing remembered between calls. Rules: control.md, 2, 3 and 5.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
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

/// What an action counts as in the summary, and its symbol: + ~ -/+ - ?
enum class action_effect : std::uint8_t { add, change, replace, destroy, unknown };

struct action {
  action_kind kind{};
  action_effect effect{};
  std::string address; ///< "node.n7", "volume", "mount", "setting.monitor.interval"
  std::string reason;  ///< for people, one line
  model::node_id node; ///< of a replacement the old one; host, place and size are then the new one's
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

/// A plan is for reading and consent; what is done follows from `rows` once accepted. Of a row whose node exists already
/// only size, price_limit, replaced_by and the way into draining or replaced are new (state::store::accept).
struct plan {
  std::string hash; ///< hex BLAKE2b-256 over everything below
  std::uint64_t serial = 0;
  std::string lineage;
  std::string spec_hash; ///< spec::canonical_hash: two files that mean the same have the same
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

/// Why no plan could be made. `by_rule`: a rule says no (exit 3); `for_now`: who must say something did not answer, the same plan may
/// be made later (exit 5); otherwise the spec cannot be met (exit 1).
struct refusal {
  bool by_rule = false;
  std::string message;
  bool for_now = false;
};

struct diff_result {
  std::optional<plan> made;
  std::vector<refusal> refusals;
};

/// What lies between the file and the world. An empty plan = nothing to do; refusals = no plan. Reads the accepted text itself;
/// `spec_text` is the text of `desired`. Rows that were accepted and are not finished appear as actions "under way".
diff_result diff(const spec::storage_spec& desired, const std::string& spec_text, const model::recorded& recorded,
                 const model::observed& observed);
/// The same with the accepted spec parsed already; `previous` is null when nothing was accepted.
diff_result diff(const spec::storage_spec& desired, const std::string& spec_text, const spec::storage_spec* previous,
                 const model::recorded& recorded, const model::observed& observed);
/// There are actions, and all of them are `?`: nothing to accept, exit 4.
bool only_unknown(const plan& p) noexcept;
/// Does it only add or enlarge (nodes, capacity, a first mount), so that qs run --follow may accept it without a person?
/// `previous` as for diff().
bool only_adds(const plan& p, const spec::storage_spec* previous, const spec::storage_spec& desired,
               const model::recorded& recorded);
/// The plan of deleting everything (qs destroy): accept it with acceptance.destroying = true and no rows. Refused while
/// protect is recorded; empty when nothing is recorded.
diff_result diff_destroy(const model::recorded& recorded, const model::observed& observed);

// -- what to do next; a pass needs no memory of the events before it ----------------------------------------------------

enum class step_kind : std::uint8_t {
  make_volume,   ///< create the volume locally with `groups`; every node of the first layout is ready
  reserve,       ///< planned → reserving: write the intent, submit. With `row`: put that row first (another host, next incarnation)
  resolve,       ///< an intent whose outcome is open, or a row left in reserving, or in deploying and not watched yet: find out,
                 ///< carry the row forward, never submit.
                 ///< refused or absent → put the row back to planned with reason "Refused" or "Absent": another host is chosen
  restart,       ///< stopped with data whole
  mark_lost,     ///< record what is confirmed: node → lost, `reason` (one CamelCase word) becomes the row's
  mark_unreachable,
  mark_ready,
  replace,       ///< put_nodes({row, old with state replaced and replaced_by}, row.id + 1) for a lost or long unreachable node
  set_groups,    ///< hand the volume new groups or generations
  resize,        ///< change a node's size at its provider to `size`, which is the row's
  drain,         ///< lost, and enough others are there: row → draining, its slots go to them
  retire,        ///< draining/replaced and no longer needed → cancel → gone. Look again (indispensable, sources) right before
  cancel,        ///< destroy: end the reservation → gone; a row never reserved just goes to gone
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
  std::vector<model::group> groups;        ///< set_groups, make_volume: all groups as they shall be
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
  int redundancy_left = 0; ///< shards that may still be lost in the worst group, nodes that do not answer counted as lost
  /// Nodes that left and are needed by nothing: their reservations have still to end, which may take for ever when the machine is
  /// dead. Empty during a destroy, which waits for all of them.
  std::set<model::node_id> ending;
  /// Steps that Synced waits for: all but those that only end what `ending` names.
  [[nodiscard]] std::size_t to_do() const;
};

/// The next steps towards the accepted spec. `desired` is the parsed accepted text. Safe to repeat: the same world gives the same
/// steps, and a step that was carried out shows in `recorded` or `observed` and does not come again. The caller starts no step
/// for a node (or for the volume) that still has one running. Of a partial view (observed.complete == false) only
/// resolve, open_volume, mount and destroy's unmount follow.
decision next_actions(const spec::storage_spec& desired, const model::recorded& recorded,
                      const model::observed& observed);

// -- arithmetic, also shown in docs/capacity.md ----------------------------------------------------------------------

/// Bytes, a multiple of 1 GiB: 1.15 · C · n / (k · N) + min(1 % of C, 4 GiB) + 256 MiB, rounded up.
byte_count node_size(byte_count capacity, int data_shards, int parity_shards, int nodes);
/// max(16, ⌈16 · nodes / shards⌉).
std::uint32_t group_count(int nodes, int shards);
/// What a node of this size may hold of shards: its size less max(256 MiB, 5 %), which stays for journal and repack.
byte_count node_room(byte_count size);
/// Usable bytes of `groups` when empty: each counts by its least roomy member, a node's room divided among its slots.
/// `sizes` by node; a slot whose node is not in it counts as no room.
byte_count usable_bytes(const std::vector<model::group>& groups, const std::map<model::node_id, byte_count>& sizes,
                        int data_shards);

} // namespace qs::controller
