#include "controller/placement.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include <fmt/format.h>

#include "controller/places.hpp"
#include "controller/seed.hpp"

namespace qs::controller {
namespace {

using namespace std::chrono_literals;

inline constexpr auto avoid_for = 24h * 7;
inline constexpr auto refuse_for = 5min;
inline constexpr int unlimited = 1 << 30;

std::string describe(const spec::location_rule& rule) {
  std::string out;
  auto add = [&](std::string_view what, const std::string& value) {
    if (!value.empty()) out += fmt::format("{}{} {}", out.empty() ? "" : ", ", what, value);
  };
  add("country", rule.country);
  add("farm", rule.farm);
  add("region", rule.region);
  return out.empty() ? "anywhere" : out;
}

} // namespace

// -- locations
// ---------------------------------------------------------------------------------------------------------

location_matcher::location_matcher(const std::vector<spec::location_rule>& rules) {
  std::map<std::tuple<std::string, std::string, std::string>, spec::location_rule> merged;
  for (const auto& rule : rules) {
    auto [at, fresh] =
        merged.try_emplace({fold(rule.country), fold(rule.farm), fold(rule.region)}, rule);
    if (!fresh) at->second.nodes += rule.nodes;
    missing_ += rule.nodes;
  }
  for (auto& [key, rule] : merged) rules_.push_back({rule, {}});
  find_open();
}

std::vector<char> location_matcher::fitting(const model::location& place) const {
  std::vector<char> out;
  for (const auto& r : rules_) out.push_back(qs::controller::fits(r.rule, place) ? 1 : 0);
  return out;
}

void location_matcher::find_open() {
  open_.assign(rules_.size(), 0);
  std::vector<std::size_t> todo;
  for (std::size_t r = 0; r < rules_.size(); ++r)
    if (static_cast<int>(rules_[r].nodes.size()) < rules_[r].rule.nodes) {
      open_[r] = 1;
      todo.push_back(r);
    }
  // Backwards: a full rule is open too if one of its nodes could move to an open one.
  while (!todo.empty()) {
    auto to = todo.back();
    todo.pop_back();
    for (std::size_t r = 0; r < rules_.size(); ++r) {
      if (open_[r] != 0) continue;
      const auto& nodes = rules_[r].nodes;
      if (std::none_of(nodes.begin(), nodes.end(), [&](auto x) { return fits_[x][to] != 0; }))
        continue;
      open_[r] = 1;
      todo.push_back(r);
    }
  }
}

bool location_matcher::helps(const model::location& place) const {
  if (missing_ == 0) return false;
  for (std::size_t r = 0; r < rules_.size(); ++r)
    if (open_[r] != 0 && qs::controller::fits(rules_[r].rule, place)) return true;
  return false;
}

bool location_matcher::offer(const model::location& place) {
  if (missing_ == 0) return false;
  struct reached {
    std::size_t rule;
    int from;         ///< index into `path`, -1 = the new node
    std::size_t node; ///< who moves here
  };
  auto self = fits_.size();
  auto mine = fitting(place);
  std::vector<reached> path;
  std::vector<char> seen(rules_.size(), 0);
  for (std::size_t r = 0; r < rules_.size(); ++r)
    if (mine[r] != 0) {
      path.push_back({r, -1, self});
      seen[r] = 1;
    }
  for (std::size_t p = 0; p < path.size(); ++p) {
    auto& here = rules_[path[p].rule];
    if (static_cast<int>(here.nodes.size()) < here.rule.nodes) {
      fits_.push_back(std::move(mine));
      for (auto at = static_cast<int>(p); at >= 0;) {
        auto step = path[static_cast<std::size_t>(at)];
        if (step.from >= 0)
          std::erase(rules_[path[static_cast<std::size_t>(step.from)].rule].nodes, step.node);
        rules_[step.rule].nodes.push_back(step.node);
        at = step.from;
      }
      --missing_;
      find_open();
      return true;
    }
    for (auto node : here.nodes)
      for (std::size_t r = 0; r < rules_.size(); ++r)
        if (seen[r] == 0 && fits_[node][r] != 0) {
          path.push_back({r, static_cast<int>(p), node});
          seen[r] = 1;
        }
  }
  return false;
}

std::string location_matcher::describe_missing() const {
  std::string out;
  for (const auto& r : rules_)
    if (auto lacks = r.rule.nodes - static_cast<int>(r.nodes.size()); lacks > 0)
      out += fmt::format("{}{} ({} more)", out.empty() ? "" : "; ", describe(r.rule), lacks);
  return out;
}

// -- hosts
// -------------------------------------------------------------------------------------------------------------

model::money node_price(const model::host& host, byte_count size) {
  return {host.price_per_gib_month.units * static_cast<std::int64_t>((size + gib - 1) / gib)};
}

std::vector<std::string> provider_names(const spec::storage_spec& desired) {
  std::vector<std::string> out;
  for (const auto& g : desired.grids) {
    std::string name = std::holds_alternative<spec::local_grid>(g)   ? "local"
                       : std::holds_alternative<spec::hosts_grid>(g) ? "hosts"
                                                                     : "threefold";
    if (std::find(out.begin(), out.end(), name) == out.end()) out.push_back(name);
  }
  return out;
}

namespace {

struct candidate {
  std::string provider;
  const model::host* host = nullptr;
  int farm = 0, country = 0;
  byte_count free = 0;
  int used = 0;
  bool excluded = false;
  bool failed_lately = false; ///< 7 days
  bool failed_just_now = false;
};

/// Nodes by number of farm or country.
class tally {
public:
  int& operator[](int number) {
    auto at = static_cast<std::size_t>(number);
    if (at >= counts_.size()) counts_.resize(at + 64, 0);
    return counts_[at];
  }

private:
  std::vector<int> counts_;
};

struct causes {
  int excluded = 0, unavailable = 0, room = 0, taken = 0, spread = 0, price = 0, failed = 0,
      location = 0;
};

} // namespace

struct placement::inside {
  std::string lineage;
  std::uint64_t serial = 0;
  spec::spread_rule spread;
  spec::exclusions exclude;
  int farm_cap = 1, country_cap = unlimited;
  bool may_relax = false;
  location_matcher matcher;
  std::vector<candidate> hosts; ///< by provider and host id, so that the order of input is nothing
  std::map<std::pair<std::string, std::string>, std::size_t> index;
  std::map<std::pair<std::string, std::string>, int> unknown_hosts;
  numbering farms, countries;
  tally on_farm, in_country;
  std::string why;

  explicit inside(const std::vector<spec::location_rule>& rules) : matcher{rules} {}

  candidate* find(const std::string& provider, const std::string& host) {
    auto at = index.find({provider, host});
    return at == index.end() ? nullptr : &hosts[at->second];
  }
  void count(int farm, int country) {
    ++on_farm[farm];
    ++in_country[country];
  }
  int farm_of(const model::location& p, const std::string& provider, const std::string& host) {
    return farms.of(farm_key(p, provider + "/" + host));
  }
  int country_of(const model::location& p, const std::string& provider, const std::string& host) {
    return countries.of(country_key(p, provider + "/" + host));
  }
};

placement::placement(const spec::storage_spec& desired, const model::observed& observed,
                     std::string lineage, std::uint64_t serial, int nodes)
    : in_{std::make_unique<inside>(desired.storage.locations)} {
  auto& in = *in_;
  in.lineage = std::move(lineage);
  in.serial = serial;
  in.spread = desired.storage.spread;
  in.exclude = desired.storage.exclude;
  auto n = desired.storage.data_shards + desired.storage.parity_shards;
  // A farm may give at most `limit` slots of every group; with more nodes than limit · N / n it
  // could not use them evenly.
  in.farm_cap = std::max(in.spread.farm, in.spread.farm * nodes / n);
  if (in.spread.country)
    in.country_cap = std::max(*in.spread.country, *in.spread.country * nodes / n);
  in.may_relax = nodes > n;
  for (const auto& provider : provider_names(desired)) {
    auto list = observed.hosts.find(provider);
    if (list == observed.hosts.end()) continue;
    for (const auto& h : list->second)
      in.hosts.push_back({provider, &h, in.farm_of(h.place, provider, h.id),
                          in.country_of(h.place, provider, h.id), h.free, 0,
                          excluded(h.id, h.place), false, false});
  }
  std::sort(in.hosts.begin(), in.hosts.end(), [](const auto& a, const auto& b) {
    return std::tie(a.provider, a.host->id) < std::tie(b.provider, b.host->id);
  });
  for (std::size_t i = 0; i < in.hosts.size(); ++i) {
    auto& c = in.hosts[i];
    in.index[{c.provider, c.host->id}] = i;
    auto failed = observed.failed_hosts.find({c.provider, c.host->id});
    if (failed == observed.failed_hosts.end()) continue;
    auto ago = observed.at - failed->second;
    c.failed_lately = ago < avoid_for;
    c.failed_just_now = ago < refuse_for && ago > -refuse_for;
  }
}

placement::~placement() = default;

bool placement::keep(const model::recorded_node& row) {
  auto& in = *in_;
  occupy(row.provider, row.host);
  in.count(in.farm_of(row.place, row.provider, row.host),
           in.country_of(row.place, row.provider, row.host));
  // What is not reserved yet is not in the host's own account of its free room.
  if (row.state == model::node_state::planned) take_room(row.provider, row.host, row.size);
  return in.matcher.offer(row.place);
}

void placement::occupy(const std::string& provider, const std::string& host) {
  if (auto* c = in_->find(provider, host)) ++c->used;
}

bool placement::answers(const std::string& provider, const std::string& host) const {
  auto* c = in_->find(provider, host);
  return c == nullptr || c->host->trouble.empty();
}

byte_count placement::room(const std::string& provider, const std::string& host) const {
  auto* c = in_->find(provider, host);
  return c == nullptr ? 0 : c->free;
}

std::optional<model::money> placement::price(const std::string& provider, const std::string& host,
                                             byte_count size) const {
  auto* c = in_->find(provider, host);
  if (c == nullptr) return std::nullopt;
  return node_price(*c->host, size);
}

void placement::take_room(const std::string& provider, const std::string& host, byte_count bytes) {
  if (auto* c = in_->find(provider, host)) c->free -= std::min(c->free, bytes);
}

bool placement::excluded(const std::string& host, const model::location& place) const {
  auto in = [](const std::vector<std::string>& list, const std::string& word) {
    return std::any_of(list.begin(), list.end(),
                       [&](const auto& x) { return fold(x) == fold(word); });
  };
  const auto& e = in_->exclude;
  return in(e.hosts, host) || (!place.farm.empty() && in(e.farms, place.farm)) ||
         (!place.country.empty() && in(e.countries, place.country));
}

int placement::missing_locations() const { return in_->matcher.missing(); }
const std::string& placement::why() const { return in_->why; }

std::optional<chosen_host> placement::choose(model::node_id id, byte_count size,
                                             std::optional<model::money> most) {
  auto& in = *in_;
  auto needs_location = in.matcher.missing() > 0;
  causes no;
  std::vector<candidate*> usable;
  for (auto& c : in.hosts) {
    auto& reason = c.excluded                                           ? no.excluded
                   : !c.host->available                                 ? no.unavailable
                   : needs_location && !in.matcher.helps(c.host->place) ? no.location
                   : c.used >= in.spread.host                           ? no.taken
                   : c.free < size                                      ? no.room
                   : most && node_price(*c.host, size) > *most          ? no.price
                   : c.failed_just_now                                  ? no.failed
                                                                        : no.spread;
    if (&reason == &no.spread)
      usable.push_back(&c);
    else
      ++reason;
  }
  auto pick = [&](bool relaxed, bool failed) -> candidate* {
    std::vector<candidate*> fit;
    for (auto* c : usable)
      if ((failed || !c->failed_lately) &&
          (relaxed ||
           (in.on_farm[c->farm] < in.farm_cap && in.in_country[c->country] < in.country_cap)))
        fit.push_back(c);
    if (fit.empty()) return nullptr;
    auto farm_use = [&](const candidate* c) { return in.on_farm[c->farm]; };
    auto least = farm_use(*std::min_element(
        fit.begin(), fit.end(), [&](auto* a, auto* b) { return farm_use(a) < farm_use(b); }));
    std::erase_if(fit, [&](auto* c) { return farm_use(c) > least; });
    auto cost = [&](const candidate* c) { return c->host->price_per_gib_month.units; };
    auto cheapest = cost(*std::min_element(fit.begin(), fit.end(),
                                           [&](auto* a, auto* b) { return cost(a) < cost(b); }));
    std::erase_if(fit, [&](auto* c) { return cost(c) > cheapest + cheapest / 2; });
    return fit[mix(in.lineage, in.serial, id.number) % fit.size()];
  };
  candidate* best = nullptr;
  for (bool failed : {false, true})
    for (bool relaxed : {false, true})
      if (best == nullptr && (!relaxed || in.may_relax)) best = pick(relaxed, failed);
  if (best == nullptr) {
    no.spread = static_cast<int>(usable.size());
    std::string list;
    auto add = [&](int count, std::string_view what) {
      if (count > 0) list += fmt::format("{}{} {}", list.empty() ? "" : ", ", count, what);
    };
    add(no.excluded, "excluded");
    add(no.unavailable, "not available");
    add(no.location, "elsewhere");
    add(no.taken, "already used");
    add(no.room, fmt::format("without {} free", format_bytes(size)));
    add(no.price, "too dear");
    add(no.failed, "just failed");
    add(no.spread, "ruled out by spread");
    in.why = fmt::format("of {} hosts {}", in.hosts.size(), list.empty() ? "none is left" : list);
    for (const auto& c : in.hosts)
      if (!c.host->trouble.empty()) in.why += fmt::format("; {}: {}", c.host->id, c.host->trouble);
    if (needs_location) in.why += "; locations still want " + in.matcher.describe_missing();
    return std::nullopt;
  }
  ++best->used;
  best->free -= size;
  in.count(best->farm, best->country);
  in.matcher.offer(best->host->place);
  return chosen_host{best->provider, best->host->id, best->host->place,
                     node_price(*best->host, size)};
}

} // namespace qs::controller
