// Groups laid over nodes under the spread rules, balanced by slots per byte of node; and single
// slots handed from the fullest nodes to the emptiest. Pure and deterministic. Not the choice of
// hosts for nodes (placement.hpp).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "model/group.hpp"
#include "model/node.hpp"
#include "spec/storage_spec.hpp"

namespace qs::controller {

/// A node as a layout sees it.
struct layout_node {
  model::node_id id;
  byte_count size = 0;
  std::string host; ///< provider and host, unique
  model::location place;
  bool takes = true; ///< may be given slots; false: leaving, only counted where it stands
};

layout_node to_layout_node(const model::recorded_node& row, bool takes = true);

struct handing {
  std::size_t group = 0; ///< index into the groups
  std::size_t slot = 0;
  model::node_id from;
  model::node_id to;
};

class layout {
public:
  layout(const std::vector<layout_node>& nodes, const spec::spread_rule& spread,
         std::uint64_t seed);
  ~layout();
  layout(const layout&) = delete;
  layout& operator=(const layout&) = delete;

  /// Counts the slots of groups that exist. Nodes that are not among `nodes` are no load and no
  /// neighbour.
  void count(const std::vector<model::group>& groups);
  /// `count` more groups of `shards` slots, numbered from `first`, on the least loaded nodes.
  /// Nothing if the spread rules leave no way.
  std::optional<std::vector<model::group>> add_groups(std::uint32_t first, std::uint32_t count,
                                                      int shards);

  /// May `to` stand in this slot of `g` in place of who is there?
  bool fits(const model::group& g, std::size_t slot, model::node_id to) const;
  /// Gives the slot to `to`: generation + 1, loads follow.
  void hand(model::group& g, std::size_t slot, model::node_id to);
  /// The least loaded node that fits the slot.
  std::optional<model::node_id> best_for(const model::group& g, std::size_t slot) const;

  /// Moves single slots from nodes with most slots per byte to those with fewest, at most one of
  /// each group for which `movable` says yes, until they differ by at most one or nothing more is
  /// allowed.
  std::vector<handing> balance(std::vector<model::group>& groups,
                               const std::function<bool(const model::group&)>& movable);

private:
  struct inside;
  std::unique_ptr<inside> in_;
};

/// Could one group of `shards` slots be formed at all?
bool can_form_group(const std::vector<layout_node>& nodes, const spec::spread_rule& spread,
                    int shards);
/// Does every group keep the rules? The first that does not, by index.
std::optional<std::size_t> first_violation(const std::vector<model::group>& groups,
                                           const std::vector<layout_node>& nodes,
                                           const spec::spread_rule& spread);

} // namespace qs::controller
