// Which host carries a new node: locations as a matching, exclude, spread, free room, price; random
// but seeded by (lineage, serial, node id), so that what was shown is what is done. Pure; the same
// input in another order gives the same answer. Not the groups (layout.hpp).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/observed.hpp"
#include "spec/storage_spec.hpp"

namespace qs::controller {

/// `locations` as requirements without identity, each node counting for one: a maximum matching
/// that grows by augmenting paths. Nodes offered first are matched first, so offering them by
/// preference keeps the preferred ones: the sets of nodes that can be matched together form a
/// matroid, for which this greedy order is the min-cost matching. Equal rules are merged and all
/// are sorted, so that reordering, splitting or merging entries changes nothing.
class location_matcher {
public:
  explicit location_matcher(const std::vector<spec::location_rule>& rules);

  /// True if the node is matched, perhaps by moving others to another rule.
  bool offer(const model::location& place);
  /// Would offer() match it?
  bool helps(const model::location& place) const;
  /// Nodes still wanted.
  [[nodiscard]] int missing() const noexcept { return missing_; }
  /// "country Belgium (2)": rules that are not full.
  [[nodiscard]] std::string describe_missing() const;

private:
  struct entry {
    spec::location_rule rule;
    std::vector<std::size_t> nodes;
  };
  std::vector<char> fitting(const model::location& place) const;
  void find_open();

  std::vector<entry> rules_;
  std::vector<std::vector<char>> fits_; ///< of every matched node: which rules it fits
  std::vector<char> open_;              ///< a node that fits this rule can be matched
  int missing_ = 0;
};

struct chosen_host {
  std::string provider;
  std::string host;
  model::location place;
  model::money price; ///< per month for the size asked for
};

/// Monthly price of a node: by whole GiB.
model::money node_price(const model::host& host, byte_count size);

class placement {
public:
  /// `nodes` = how many the volume will have in all.
  placement(const spec::storage_spec& desired, const model::observed& observed, std::string lineage,
            std::uint64_t serial, int nodes);
  ~placement();
  placement(const placement&) = delete;
  placement& operator=(const placement&) = delete;

  /// A node that stays: counts for locations, spread and its host. True if `locations` need it.
  bool keep(const model::recorded_node& row);
  /// A node that leaves, or another claim on a host: its host is not chosen again, beyond what
  /// spread.host allows.
  void occupy(const std::string& provider, const std::string& host);
  /// False: a host that is listed and did not say what it has.
  [[nodiscard]] bool answers(const std::string& provider, const std::string& host) const;
  /// Room on a host; 0 when it is not known or takes nothing now.
  [[nodiscard]] byte_count room(const std::string& provider, const std::string& host) const;
  /// Price of so many bytes more; nothing when the host is not known.
  [[nodiscard]] std::optional<model::money> price(const std::string& provider,
                                                  const std::string& host, byte_count size) const;
  void take_room(const std::string& provider, const std::string& host, byte_count bytes);
  [[nodiscard]] bool excluded(const std::string& host, const model::location& place) const;
  [[nodiscard]] int missing_locations() const;

  /// A host for node `id`, and counts it as kept. `most`: its price must not be over this. Hosts
  /// where a node failed in the last five minutes are not taken at all (so a refusing grid is not
  /// hammered), in the last 7 days only when there is no other.
  std::optional<chosen_host> choose(model::node_id id, byte_count size,
                                    std::optional<model::money> most = std::nullopt);
  /// Why the last choose() found none, for people.
  [[nodiscard]] const std::string& why() const;

private:
  struct inside;
  std::unique_ptr<inside> in_;
};

/// The provider names a spec may place on: "local", "hosts", "threefold".
std::vector<std::string> provider_names(const spec::storage_spec& desired);

} // namespace qs::controller
