#include "controller/layout.hpp"

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>

#include "controller/places.hpp"
#include "controller/seed.hpp"

namespace qs::controller {

layout_node to_layout_node(const model::recorded_node& row, bool takes) {
  return {row.id, row.size, row.provider + "/" + row.host, row.place, takes};
}

namespace {

inline constexpr int unlimited = 1 << 30;

struct member {
  model::node_id id;
  double size = 1;
  int host = 0, farm = 0, country = 0;
  bool takes = true;
  std::uint64_t slots = 0;
};

struct limits {
  int host = 1, farm = 1, country = unlimited;
};

/// Counts of one group while it is looked at; groups are small, so a flat list beats a map.
class tally {
public:
  int& operator[](int key) {
    for (auto& [k, count] : counts_)
      if (k == key) return count;
    return counts_.emplace_back(key, 0).second;
  }

private:
  std::vector<std::pair<int, int>> counts_;
};

struct group_tally {
  tally host, farm, country;
  bool fits(const member& m, const limits& most) {
    return host[m.host] < most.host && farm[m.farm] < most.farm &&
           country[m.country] < most.country;
  }
  void add(const member& m) { ++host[m.host], ++farm[m.farm], ++country[m.country]; }
};

} // namespace

struct layout::inside {
  std::vector<member> members;
  std::unordered_map<model::node_id, std::size_t> index;
  limits most;
  std::uint64_t seed = 0;

  using rank = std::tuple<double, std::uint64_t, std::size_t>;
  std::set<rank> by_load; ///< of those that take: slots per GiB as they would be with one more

  rank rank_of(std::size_t i) const {
    const auto& m = members[i];
    return {static_cast<double>(m.slots + 1) / m.size, stir(stir(seed, m.id.number), m.slots), i};
  }
  void change(std::size_t i, int by) {
    if (members[i].takes) by_load.erase(rank_of(i));
    members[i].slots = by < 0 ? members[i].slots - static_cast<std::uint64_t>(-by)
                              : members[i].slots + static_cast<std::uint64_t>(by);
    if (members[i].takes) by_load.insert(rank_of(i));
  }
  std::optional<std::size_t> find(model::node_id id) const {
    auto at = index.find(id);
    if (at == index.end()) return std::nullopt;
    return at->second;
  }
  group_tally without(const model::group& g, std::size_t slot) const {
    group_tally t;
    for (std::size_t s = 0; s < g.slots.size(); ++s)
      if (s != slot)
        if (auto i = find(g.slots[s])) t.add(members[*i]);
    return t;
  }
  static bool holds(const model::group& g, model::node_id id) {
    return std::find(g.slots.begin(), g.slots.end(), id) != g.slots.end();
  }
};

layout::layout(const std::vector<layout_node>& nodes, const spec::spread_rule& spread,
               std::uint64_t seed)
    : in_{std::make_unique<inside>()} {
  in_->most = {spread.host, spread.farm, spread.country.value_or(unlimited)};
  in_->seed = seed;
  numbering hosts, farms, countries;
  for (const auto& n : nodes) {
    auto size = static_cast<double>(std::max<byte_count>(n.size, 1)) / static_cast<double>(gib);
    in_->index[n.id] = in_->members.size();
    in_->members.push_back({n.id, size, hosts.of(n.host), farms.of(farm_key(n.place, n.host)),
                            countries.of(country_key(n.place, n.host)), n.takes, 0});
  }
  for (std::size_t i = 0; i < in_->members.size(); ++i)
    if (in_->members[i].takes) in_->by_load.insert(in_->rank_of(i));
}

layout::~layout() = default;

void layout::count(const std::vector<model::group>& groups) {
  in_->by_load.clear();
  for (const auto& g : groups)
    for (auto id : g.slots)
      if (auto i = in_->find(id)) ++in_->members[*i].slots;
  for (std::size_t i = 0; i < in_->members.size(); ++i)
    if (in_->members[i].takes) in_->by_load.insert(in_->rank_of(i));
}

std::optional<std::vector<model::group>> layout::add_groups(std::uint32_t first,
                                                            std::uint32_t count, int shards) {
  std::vector<model::group> out;
  auto n = static_cast<std::size_t>(shards);
  for (std::uint32_t g = 0; g < count; ++g) {
    group_tally counts;
    std::vector<std::size_t> chosen;
    for (const auto& [load, tie, i] : in_->by_load) {
      if (chosen.size() == n) break;
      if (!counts.fits(in_->members[i], in_->most)) continue;
      counts.add(in_->members[i]);
      chosen.push_back(i);
    }
    if (chosen.size() < n) return std::nullopt;
    // The same order everywhere, turned by one from group to group: parity falls on every node
    // alike.
    std::sort(chosen.begin(), chosen.end());
    std::rotate(chosen.begin(), chosen.begin() + static_cast<std::ptrdiff_t>((first + g) % n),
                chosen.end());
    model::group made{{first + g}, 1, {}};
    for (auto i : chosen) {
      made.slots.push_back(in_->members[i].id);
      in_->change(i, 1);
    }
    out.push_back(std::move(made));
  }
  return out;
}

bool layout::fits(const model::group& g, std::size_t slot, model::node_id to) const {
  auto i = in_->find(to);
  if (!i || !in_->members[*i].takes || inside::holds(g, to)) return false;
  return in_->without(g, slot).fits(in_->members[*i], in_->most);
}

void layout::hand(model::group& g, std::size_t slot, model::node_id to) {
  if (auto from = in_->find(g.slots[slot])) in_->change(*from, -1);
  if (auto i = in_->find(to)) in_->change(*i, 1);
  g.slots[slot] = to;
  ++g.generation;
}

std::optional<model::node_id> layout::best_for(const model::group& g, std::size_t slot) const {
  auto rest = in_->without(g, slot);
  for (const auto& [load, tie, i] : in_->by_load) {
    const auto& m = in_->members[i];
    if (!inside::holds(g, m.id) && rest.fits(m, in_->most)) return m.id;
  }
  return std::nullopt;
}

std::vector<handing> layout::balance(std::vector<model::group>& groups,
                                     const std::function<bool(const model::group&)>& movable) {
  std::vector<handing> done;
  std::vector<bool> open(groups.size());
  std::unordered_map<model::node_id, std::vector<std::size_t>> groups_of;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    open[g] = movable(groups[g]);
    if (open[g])
      for (auto id : groups[g].slots) groups_of[id].push_back(g);
  }
  std::set<std::size_t> stuck;
  auto give = [&](std::size_t a) {
    auto& giver = in_->members[a];
    auto full = static_cast<double>(giver.slots) / giver.size;
    if (full <= std::get<0>(*in_->by_load.begin())) return false;
    for (auto g : groups_of[giver.id]) {
      auto& group = groups[g];
      auto slot_at = std::find(group.slots.begin(), group.slots.end(), giver.id);
      if (!open[g] || slot_at == group.slots.end()) continue;
      auto slot = static_cast<std::size_t>(slot_at - group.slots.begin());
      auto rest = in_->without(group, slot);
      for (const auto& [load, tie, b] : in_->by_load) {
        const auto& taker = in_->members[b];
        // Worth it only while the giver stays at least as full as the taker becomes: so this ends,
        // and at a difference of one.
        if (full <= load) break;
        if (inside::holds(group, taker.id) || !rest.fits(taker, in_->most)) continue;
        done.push_back({g, slot, giver.id, taker.id});
        open[g] = false;
        hand(group, slot, taker.id);
        return true;
      }
    }
    return false;
  };
  for (;;) {
    auto fullest = in_->members.size();
    for (auto at = in_->by_load.rbegin(); at != in_->by_load.rend(); ++at)
      if (!stuck.contains(std::get<2>(*at))) {
        fullest = std::get<2>(*at);
        break;
      }
    if (fullest == in_->members.size()) return done;
    if (!give(fullest)) stuck.insert(fullest);
  }
}

bool can_form_group(const std::vector<layout_node>& nodes, const spec::spread_rule& spread,
                    int shards) {
  layout one{nodes, spread, 0};
  return one.add_groups(0, 1, shards).has_value();
}

std::optional<std::size_t> first_violation(const std::vector<model::group>& groups,
                                           const std::vector<layout_node>& nodes,
                                           const spec::spread_rule& spread) {
  numbering hosts, farms, countries;
  std::unordered_map<model::node_id, member> members;
  for (const auto& n : nodes)
    members[n.id] = {n.id,
                     1,
                     hosts.of(n.host),
                     farms.of(farm_key(n.place, n.host)),
                     countries.of(country_key(n.place, n.host)),
                     true,
                     0};
  limits most{spread.host, spread.farm, spread.country.value_or(unlimited)};
  for (std::size_t g = 0; g < groups.size(); ++g) {
    group_tally counts;
    for (auto id : groups[g].slots) {
      auto m = members.find(id);
      if (m == members.end()) continue;
      if (!counts.fits(m->second, most)) return g;
      counts.add(m->second);
    }
  }
  return std::nullopt;
}

} // namespace qs::controller
