#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include <fmt/format.h>

#include "spec/rules.hpp"

namespace qs::spec {
namespace {

/// Farms, countries and hosts are compared without case.
std::string folded(std::string_view text) {
  std::string out{text};
  for (auto& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

std::string plural(int n, std::string_view noun) {
  return fmt::format("{} {}{}", n, noun, n == 1 ? "" : "s");
}

class placement_checker {
public:
  placement_checker(const storage_spec& spec, const fields_read& read, diagnostics& problems)
      : spec_{spec}, storage_{spec.storage}, read_{read}, problems_{problems},
        group_{spec.storage.data_shards + spec.storage.parity_shards} {
    for (const auto& host : storage_.exclude.hosts) no_hosts_.insert(folded(host));
    for (const auto& farm : storage_.exclude.farms) no_farms_.insert(folded(farm));
    for (const auto& country : storage_.exclude.countries) no_countries_.insert(folded(country));
  }

  void all() {
    entries();
    counts();
    crowded();
    spread_warnings();
    hosts();
  }

private:
  void report(std::string_view code, const std::string& path, std::string message,
              severity level = severity::error) {
    problems_.push_back({level, std::string{code}, std::move(message), read_.place(path)});
  }
  bool sound(std::initializer_list<const char*> paths) const {
    return std::all_of(paths.begin(), paths.end(), [&](const char* p) { return read_.sound(p); });
  }
  static std::string entry(std::size_t i) { return item_path("storage.locations", i); }

  /// Each entry by itself: says where, and not where nothing may be.
  void entries() {
    if (read_.count("storage.locations") != storage_.locations.size()) return;
    for (std::size_t i = 0; i < storage_.locations.size(); ++i) {
      const auto& l = storage_.locations[i];
      if (!read_.sound(entry(i))) continue;
      if (l.country.empty() && l.farm.empty() && l.region.empty())
        report("QS0111", entry(i), "a location takes country, farm or region");
      if (!read_.sound("storage.exclude")) continue;
      if (!l.farm.empty() && no_farms_.count(folded(l.farm)) != 0)
        report("QS0112", entry(i) + ".farm",
               fmt::format("nodes are wanted in farm {}, which exclude rules out", l.farm));
      if (!l.country.empty() && no_countries_.count(folded(l.country)) != 0)
        report("QS0112", entry(i) + ".country",
               fmt::format("nodes are wanted in {}, which exclude rules out", l.country));
    }
  }

  void counts() {
    if (!sound({"storage.locations", "storage.nodes", "storage.redundancy"}) ||
        storage_.locations.empty())
      return;
    auto wanted = std::accumulate(storage_.locations.begin(), storage_.locations.end(), 0,
                                  [](int sum, const location_rule& l) { return sum + l.nodes; });
    if (wanted > storage_.nodes)
      report("QS0108", "storage.locations",
             fmt::format("the locations ask for {}, but nodes is {}", plural(wanted, "node"),
                         storage_.nodes));
  }

  /// A group of k + m must be picked from nodes of which so many share a farm or country.
  void crowded() {
    if (!sound({"storage.locations", "storage.nodes", "storage.redundancy", "storage.spread"}))
      return;
    if (storage_.nodes < group_) return; // said already
    crowded_by("QS0109", "farm", storage_.spread.farm, &location_rule::farm);
    if (storage_.spread.country)
      crowded_by("QS0110", "country", *storage_.spread.country, &location_rule::country);
  }

  void crowded_by(std::string_view code, std::string_view what, int most,
                  std::string location_rule::*member) {
    std::map<std::string, int> wanted;
    auto sum = 0;
    for (const auto& l : storage_.locations)
      if (const auto& place = l.*member; !place.empty()) {
        wanted[folded(place)] += l.nodes;
        sum += l.nodes;
      }
    if (sum > storage_.nodes) return; // said already
    auto usable = storage_.nodes - sum;
    for (const auto& [place, nodes] : wanted) usable += std::min(nodes, most);
    if (usable >= group_) return;
    for (std::size_t i = 0; i < storage_.locations.size(); ++i) {
      const auto& l = storage_.locations[i];
      auto there = (l.*member).empty() ? 0 : wanted[folded(l.*member)];
      if (there <= most) continue;
      report(code, entry(i) + ".nodes",
             fmt::format("{} in {} {} cannot be spread: a group takes {} and at most {} of one {}, "
                         "so {} of {} nodes "
                         "could be used; lower this, raise spread.{}, or raise nodes to {}",
                         plural(there, "node"), what, l.*member, plural(group_, "node"), most, what,
                         usable, storage_.nodes, what, storage_.nodes + group_ - usable));
      return;
    }
  }

  void spread_warnings() {
    if (!sound({"storage.spread", "storage.redundancy"})) return;
    auto m = storage_.parity_shards;
    if (storage_.spread.host > m && read_.given("storage.spread.host"))
      report("QS0301", "storage.spread.host",
             fmt::format("one host may hold {} of {} shards, but only {} may be lost: losing that "
                         "host loses data",
                         std::min(storage_.spread.host, group_), group_, m),
             severity::warning);
    if (storage_.spread.farm > m && read_.given("storage.spread.farm"))
      report("QS0302", "storage.spread.farm",
             fmt::format("one farm may hold {} of {} shards, but only {} may be lost: losing that "
                         "farm loses data",
                         std::min(storage_.spread.farm, group_), group_, m),
             severity::warning);
  }

  /// Where the file itself lists the machines, it can be seen whether they are enough.
  void hosts() {
    std::vector<const host_entry*> usable;
    std::map<std::string, std::string> names;
    std::map<std::string, std::string> addresses;
    auto only_hosts = true;
    auto any = false;
    auto all_sound = read_.sound("grid");
    for (std::size_t g = 0; g < spec_.grids.size(); ++g) {
      const auto* list = std::get_if<hosts_grid>(&spec_.grids[g]);
      only_hosts = only_hosts && list != nullptr;
      if (list == nullptr) continue;
      any = true;
      auto at = item_path("grid", g) + ".hosts";
      if (list->hosts.empty() && read_.sound(at)) {
        report("QS0027", at, "hosts is empty; name at least one machine");
        all_sound = false;
      }
      for (std::size_t i = 0; i < list->hosts.size(); ++i) {
        unique(list->hosts[i], item_path(at, i), names, addresses);
        if (!excluded(list->hosts[i])) usable.push_back(&list->hosts[i]);
      }
    }
    if (!any || !all_sound) return;
    if (read_.sound("storage.exclude")) unknown_exclusions(names);
    if (!only_hosts || !sound({"storage"})) return;
    enough(usable);
    reachable(usable);
  }

  bool excluded(const host_entry& host) const {
    return no_hosts_.count(folded(host.name)) != 0 || no_farms_.count(folded(host.farm)) != 0 ||
           no_countries_.count(folded(host.country)) != 0;
  }

  void unique(const host_entry& host, const std::string& at,
              std::map<std::string, std::string>& names,
              std::map<std::string, std::string>& addresses) {
    if (read_.sound(at + ".name") && !names.emplace(folded(host.name), host.name).second)
      report("QS0116", at + ".name", fmt::format("two hosts are named {}", host.name));
    const auto& address = host.address.value.empty() ? host.address.written : host.address.value;
    if (!read_.sound(at + ".address") || address.empty()) return;
    auto [other, fresh] = addresses.emplace(address, host.name);
    if (!fresh)
      report("QS0116", at + ".address",
             fmt::format("{} has the address of {}: one machine must be one host", host.name,
                         other->second));
  }

  void unknown_exclusions(const std::map<std::string, std::string>& names) {
    auto only_hosts = std::all_of(spec_.grids.begin(), spec_.grids.end(), [](const grid_source& g) {
      return std::holds_alternative<hosts_grid>(g);
    });
    if (!only_hosts) return;
    for (std::size_t i = 0; i < storage_.exclude.hosts.size(); ++i)
      if (names.count(folded(storage_.exclude.hosts[i])) == 0)
        report("QS0304", item_path("storage.exclude.hosts", i),
               fmt::format("no host is named {}", storage_.exclude.hosts[i]), severity::warning);
  }

  /// How many nodes of one group the hosts can take: most per host, then per farm, then per
  /// country.
  void enough(const std::vector<const host_entry*>& usable) {
    std::map<std::string, int> farms;
    for (const auto* host : usable) farms[folded(host->farm)] += storage_.spread.host;
    auto on_hosts = static_cast<int>(usable.size()) * storage_.spread.host;
    auto in_farms = 0;
    for (const auto& [farm, n] : farms) in_farms += std::min(n, storage_.spread.farm);
    if (on_hosts < group_) {
      auto per_host = usable.empty() ? 0
                                     : (group_ + static_cast<int>(usable.size()) - 1) /
                                           static_cast<int>(usable.size());
      auto way_out = usable.empty()
                         ? std::string{"add hosts"}
                         : fmt::format("add hosts, or write spread: {{host: {}}}", per_host);
      report("QS0113", read_.given("storage.spread.host") ? "storage.spread.host" : "grid",
             fmt::format("{} with at most {} of a group on each are not enough for {} shards; {}",
                         plural(static_cast<int>(usable.size()), "host"), storage_.spread.host,
                         group_, way_out));
    } else if (in_farms < group_) {
      report("QS0114", read_.given("storage.spread.farm") ? "storage.spread.farm" : "grid",
             fmt::format("{} with at most {} of a group in each are not enough for {} shards; add "
                         "hosts in other farms, or raise spread.farm",
                         plural(static_cast<int>(farms.size()), "farm"), storage_.spread.farm,
                         group_));
    }
  }

  void reachable(const std::vector<const host_entry*>& usable) {
    for (std::size_t i = 0; i < storage_.locations.size(); ++i) {
      const auto& l = storage_.locations[i];
      if (l.farm.empty() && l.country.empty()) continue;
      auto fits = [&](const host_entry* h) {
        return (l.farm.empty() || folded(h->farm) == folded(l.farm)) &&
               (l.country.empty() || folded(h->country) == folded(l.country));
      };
      if (std::none_of(usable.begin(), usable.end(), fits))
        report("QS0115", entry(i) + (l.farm.empty() ? ".country" : ".farm"),
               fmt::format("no host of the grid is in {}", l.farm.empty() ? l.country : l.farm));
    }
  }

  const storage_spec& spec_;
  const storage_section& storage_;
  const fields_read& read_;
  diagnostics& problems_;
  int group_;
  std::set<std::string> no_hosts_;
  std::set<std::string> no_farms_;
  std::set<std::string> no_countries_;
};

} // namespace

void check_placement(const storage_spec& spec, const fields_read& read, diagnostics& problems) {
  placement_checker{spec, read, problems}.all();
}

} // namespace qs::spec
