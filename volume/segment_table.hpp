// Every segment in a few words, the groups with all generations that still hold something, and the nodes as they are seen:
// what status, placement, repair and the controller ask, without a scan per question (a scan only when groups or nodes change).
// A mirror of the rows, fed after each commit. Thread-safe.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "base/random.hpp"
#include "model/group.hpp"
#include "volume/segment_row.hpp"
#include "volume/volume.hpp"

namespace qs::volume {

struct segment_entry {
  segment_state state = segment_state::open;
  std::uint8_t data_shards = 0;
  std::uint8_t parity_shards = 0;
  std::uint8_t used_shards = 0;
  std::uint32_t shard_length = 0;
  std::uint32_t group = no_group;
  std::uint32_t group_generation = 0;
  std::uint64_t confirmed = 0;
  std::uint64_t required = 0;
  std::uint64_t live_bytes = 0;
  std::uint64_t sealed_ms = 0;
  std::uint64_t confirmed_ms = 0;
  std::uint64_t damaged = 0;
};

/// What the nodes of a chosen group look like; slots of its newest generation.
struct chosen_group {
  model::group_id id;
  std::uint32_t generation = 0;
  std::vector<model::node_id> slots;
};

class segment_table {
public:
  using node_view = volume::node_view;

  /// The row as it is now; null = erased.
  void update(model::segment_ref ref, const segment_row* row);
  [[nodiscard]] std::optional<segment_entry> find(model::segment_ref ref) const;

  void add_groups(const std::vector<model::group>& groups);
  void erase_group(model::group_id id, std::uint32_t generation);
  [[nodiscard]] std::vector<model::group> groups() const; ///< newest generations
  [[nodiscard]] std::optional<std::vector<model::node_id>> slots(std::uint32_t group, std::uint32_t generation) const;
  [[nodiscard]] std::optional<model::group> newest(std::uint32_t group) const;
  /// Older generations on which no segment is any more.
  [[nodiscard]] std::vector<std::pair<model::group_id, std::uint32_t>> empty_generations() const;

  /// True: a node answers now that did not before.
  bool set_nodes(const std::vector<node_view>& nodes);
  [[nodiscard]] bool reachable(model::node_id node) const; ///< true while nothing is known of it
  [[nodiscard]] bool some_reachable(const std::vector<model::node_id>& slots, std::uint64_t shards) const;
  /// On nodes that are not lost; `answering`: and not silent either.
  [[nodiscard]] unsigned count_there(const std::vector<model::node_id>& slots, std::uint64_t shards, bool answering) const;
  [[nodiscard]] bool live(model::node_id node) const; ///< counts for redundancy
  [[nodiscard]] bool may_return(model::node_id node) const; ///< what it had may still be there, whether it counts or not

  /// A group for a segment whose shards take `shard_bytes` each: fewest nodes away (at most m), then at random by free space.
  /// Counts the bytes until the nodes are seen again.
  std::optional<chosen_group> choose(std::uint64_t shard_bytes, unsigned parity, random_source& random);
  /// A node said it is full: its groups take nothing until it is seen with room.
  void mark_full(model::node_id node);
  /// Whether new data may come: some group has space (whoever is away), or there is none yet.
  [[nodiscard]] bool has_space() const;

  struct totals {
    std::uint64_t used_bytes = 0;
    std::uint64_t segments = 0;
    std::uint64_t pinned_bytes = 0; ///< live bytes of segments that are not stored
    std::uint64_t pinned_since_ms = 0;
    std::uint64_t at_risk_stored = 0; ///< of stored segments with fewer than k shards confirmed
    std::uint64_t repairs = 0;
    std::uint32_t redundancy_left_min = 0;
    std::vector<std::uint64_t> by_missing;
  };
  [[nodiscard]] totals sum(unsigned parity) const;
  /// By control.md 3; declared = the roof.
  struct room {
    std::uint64_t usable = 0;
    std::uint64_t free = 0;
  };
  [[nodiscard]] room space(std::uint64_t declared, unsigned data_shards) const;

  [[nodiscard]] std::vector<model::group_health> health(unsigned parity) const;
  [[nodiscard]] std::vector<model::node_id> indispensable() const;
  [[nodiscard]] std::vector<model::node_id> sources() const;
  [[nodiscard]] std::uint64_t bytes_on(model::node_id node) const;

  /// Stored segments that need a shard made or moved, least redundancy first, from behind `after` on.
  using work_key = std::pair<int, model::segment_ref>; ///< redundancy left, segment
  [[nodiscard]] std::vector<std::pair<work_key, segment_entry>> work(std::optional<work_key> after, std::size_t most) const;
  /// Segments whose frames are all gone, sealed or stored, from behind `after` on.
  [[nodiscard]] std::vector<model::segment_ref> dead(model::segment_ref after, std::size_t most) const;
  /// Segments with a confirmed shard on the node, confirmed not before `since_ms`. Walks over what was confirmed since then;
  /// over everything only when that is more than is remembered.
  [[nodiscard]] std::vector<model::segment_ref> confirmed_on(model::node_id node, std::uint64_t since_ms) const;

private:
  struct group_sum {
    std::uint64_t segments = 0, older = 0, missing = 0, stored_bytes = 0;
    std::map<int, std::uint64_t> redundancy;
  };
  struct node_sum {
    std::uint64_t indispensable = 0, source = 0, bytes = 0;
  };
  struct standing {
    unsigned missing = 0;
    int redundancy = 0;
    bool older = false;
    bool work = false;
  };

  [[nodiscard]] const std::vector<model::node_id>* slots_locked(std::uint32_t group, std::uint32_t generation) const;
  [[nodiscard]] const std::pair<const std::uint32_t, std::vector<model::node_id>>* newest_locked(std::uint32_t group) const;
  [[nodiscard]] bool live_locked(model::node_id node) const;
  [[nodiscard]] bool may_return_locked(model::node_id node) const;
  [[nodiscard]] bool reachable_locked(model::node_id node) const;
  [[nodiscard]] standing stand(const segment_entry& e) const;
  void count(model::segment_ref ref, const segment_entry& e, bool add);
  void recount();
  [[nodiscard]] std::uint64_t node_free(model::node_id node, bool empty) const; ///< max = unknown or unlimited

  mutable std::mutex mutex_;
  std::unordered_map<model::segment_ref, segment_entry> segments_;
  std::map<std::uint32_t, std::map<std::uint32_t, std::vector<model::node_id>>> groups_;
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint64_t> on_generation_;
  std::unordered_map<model::node_id, node_view> nodes_;
  std::unordered_map<model::node_id, std::uint64_t> sent_; ///< bytes chosen since the node was seen last
  std::set<model::node_id> full_;

  // Sums over segments_, kept with each change.
  std::map<std::uint32_t, group_sum> group_sums_;
  std::unordered_map<model::node_id, node_sum> node_sums_;
  std::map<std::uint64_t, std::uint64_t> pinned_since_; ///< sealed_ms -> how many
  std::vector<std::uint64_t> by_missing_;
  std::uint64_t used_ = 0, pinned_ = 0, at_risk_stored_ = 0;
  std::set<work_key> work_;
  std::set<model::segment_ref> dead_;
  /// What was confirmed lately, by time (never going back), and the time up to which something was forgotten.
  std::deque<std::pair<std::uint64_t, model::segment_ref>> recent_;
  std::uint64_t recent_floor_ = 0;
};

} // namespace qs::volume
