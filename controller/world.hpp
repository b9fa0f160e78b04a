// Recorded and observed side by side, indexed once per pass: what both diff and next_actions ask of
// the world. Internal to controller; holds references to its inputs, which must outlive it.
#pragma once

#include <map>
#include <unordered_map>
#include <vector>

#include "controller/decide.hpp"
#include "controller/layout.hpp"

namespace qs::controller {

class world {
public:
  world(const spec::storage_spec& spec, const model::recorded& recorded,
        const model::observed& observed);

  const spec::storage_spec& spec;
  const model::recorded& recorded;
  const model::observed& observed;
  const std::vector<model::group>& groups; ///< of the open volume, else of the summary
  int k = 0, m = 0, n = 0;

  [[nodiscard]] const model::recorded_node* row(model::node_id id) const;
  [[nodiscard]] const model::observed_node* seen(model::node_id id) const;
  [[nodiscard]] model::reach reach_of(model::node_id id) const;
  [[nodiscard]] const model::group_health* health(model::group_id id) const;

  /// A group whose nodes say too little to act on: nothing in it is changed (control.md, 5).
  [[nodiscard]] bool held(std::size_t group_index) const { return held_[group_index]; }
  [[nodiscard]] bool any_held() const noexcept { return any_held_; }
  /// The node, or one it stands in for, is in a held group.
  [[nodiscard]] bool held(model::node_id id) const;
  /// Present in the current generation of some group.
  [[nodiscard]] bool in_groups(model::node_id id) const { return slots_.contains(id); }
  [[nodiscard]] std::size_t slots_of(model::node_id id) const;

  /// Nodes that count towards `storage.nodes`: neither leaving nor gone.
  static bool member(const model::recorded_node& row) noexcept;
  static bool in_flight(const model::recorded_node& row) noexcept;
  /// Confirmed lost, by the record or by what was seen.
  [[nodiscard]] bool lost(const model::recorded_node& row) const;
  /// Leaves, and nothing needs it any more: everything is whole without it, it has no slot, is no source and none of the
  /// last k. All that is left is that its reservation ends.
  [[nodiscard]] bool spare(const model::recorded_node& row) const;
  /// Silent for so long that it is replaced.
  [[nodiscard]] bool overdue(const model::recorded_node& row) const;
  /// The one that shall have this node's slots: the end of the chain of replacements; the node
  /// itself if none.
  [[nodiscard]] const model::recorded_node* heir(model::node_id id) const;
  /// Stored bytes of the node's slots: what replacing it moves.
  [[nodiscard]] byte_count bytes_on(model::node_id id) const;
  /// Shards that may still be lost in the worst group, by what is known for sure now. m when
  /// nothing is stored.
  [[nodiscard]] int redundancy_left() const;
  /// Nothing on an older generation, by a report of this very generation.
  [[nodiscard]] bool settled(const model::group& g) const;
  /// Settled, and no shard missing.
  [[nodiscard]] bool whole(const model::group& g) const;
  [[nodiscard]] std::vector<layout_node> members_as_layout() const;
  [[nodiscard]] model::money burn() const; ///< of members, per month

private:
  bool group_holds(const model::group& g) const;

  std::unordered_map<model::node_id, const model::recorded_node*> rows_;
  std::unordered_map<model::node_id, const model::observed_node*> seen_;
  std::unordered_map<model::group_id, const model::group_health*> health_;
  std::unordered_map<model::node_id, std::vector<std::size_t>> slots_; ///< groups by node
  std::vector<char> held_;
  bool any_held_ = false;
};

/// max(2, 10 % of the nodes): how many nodes that are only unreachable may be replaced in a day.
int unreachable_allowance(int nodes) noexcept;
/// The seed of a volume's group layout.
std::uint64_t layout_seed(const model::recorded& recorded);

/// The groups as they should be next, from what they are now. Safe to repeat: at the fixpoint it
/// gives what it got.
/// - slots of replaced and draining nodes go to their heir, or to the least loaded node that fits;
/// - groups are added as the number of nodes asks for;
/// - single slots are handed from full nodes to empty ones.
/// Held groups are left alone. `all_ready`: every member can take slots (the end of the way, for a
/// plan); otherwise only ready ones do, and handing waits until a group is whole.
struct next_layout {
  std::vector<model::group> groups;
  std::vector<handing> hands;
  std::uint32_t added = 0;
};
next_layout next_groups(const world& w, const std::vector<model::recorded_node>& rows,
                        bool all_ready);

} // namespace qs::controller
