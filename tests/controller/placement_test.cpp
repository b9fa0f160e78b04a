// Sizes, groups, the choice of hosts, and locations as a matching. control.md, 3; docs/capacity.md.
#include <algorithm>
#include <chrono>
#include <ctime>
#include <map>
#include <numeric>
#include <set>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "base/random.hpp"
#include "controller/layout.hpp"
#include "controller/placement.hpp"
#include "controller/trivial_world.hpp"

using namespace qs;
using controller::group_count;
using controller::node_size;

namespace {

std::vector<controller::layout_node> some_nodes(int count, int farms, byte_count size,
                                                int countries = 4) {
  std::vector<controller::layout_node> out;
  for (int i = 0; i < count; ++i)
    out.push_back({{static_cast<std::uint32_t>(i + 1)},
                   size,
                   fmt::format("h{}", i),
                   {fmt::format("f{}", i % farms), fmt::format("c{}", i % farms % countries), ""},
                   true});
  return out;
}

std::map<model::node_id, int> loads(const std::vector<model::group>& groups) {
  std::map<model::node_id, int> out;
  for (const auto& g : groups)
    for (auto id : g.slots) ++out[id];
  return out;
}

} // namespace

TEST_CASE("node_size: the table of docs/capacity.md") {
  struct row {
    byte_count capacity;
    int k, m, nodes;
    byte_count size;
  };
  for (const auto& r : {row{1 * gib, 4, 2, 6, 1 * gib}, row{20 * gib, 4, 2, 6, 7 * gib},
                        row{20 * gib, 4, 2, 8, 5 * gib}, row{100 * gib, 4, 2, 6, 30 * gib},
                        row{1 * tib, 4, 2, 6, 299 * gib}, row{1 * tib, 16, 4, 20, 78 * gib},
                        row{10 * tib, 16, 4, 40, 373 * gib}, row{1 * tib, 1, 1, 2, 1182 * gib}})
    CHECK_MESSAGE(node_size(r.capacity, r.k, r.m, r.nodes) == r.size,
                  fmt::format("{} {}+{} on {}: {}", format_bytes(r.capacity), r.k, r.m, r.nodes,
                              format_bytes(node_size(r.capacity, r.k, r.m, r.nodes))));
  CHECK(node_size(8192 * 1024 * tib, 32, 16, 48) % gib == 0); // no overflow on the way
  CHECK(group_count(6, 6) == 16);
  CHECK(group_count(8, 6) == 22);
  CHECK(group_count(1000, 6) == 2667);
  CHECK(group_count(2, 6) == 16);
}

TEST_CASE(
    "nodes of the size the formula gives hold the capacity that was declared, at every k, m, N") {
  seeded_random random{3};
  for (int i = 0; i < 300; ++i) {
    auto k = static_cast<int>(random.below(16)) + 1;
    auto m = static_cast<int>(random.below(8)) + 1;
    auto n = k + m;
    auto nodes = n + static_cast<int>(random.below(40));
    auto capacity = (random.below(5000) + 1) * gib;
    auto size = node_size(capacity, k, m, nodes);
    auto all = some_nodes(nodes, nodes, size, nodes);
    controller::layout plan{all, {1, m, std::nullopt}, static_cast<std::uint64_t>(i)};
    auto groups = plan.add_groups(0, group_count(nodes, n), n);
    REQUIRE(groups);
    std::map<model::node_id, byte_count> sizes;
    for (const auto& node : all) sizes[node.id] = size;
    CAPTURE(fmt::format("{}+{} on {}, {} GiB", k, m, nodes, capacity / gib));
    CHECK(controller::usable_bytes(*groups, sizes, k) >= capacity);
  }
}

TEST_CASE("N = n: every group on all nodes, rotated, so that parity falls on every node alike") {
  controller::layout plan{some_nodes(6, 6, gib), {1, 2, std::nullopt}, 42};
  auto groups = *plan.add_groups(0, 16, 6);
  std::map<model::node_id, std::set<std::size_t>> places;
  for (const auto& g : groups) {
    CHECK(g.generation == 1);
    CHECK(std::set<model::node_id>{g.slots.begin(), g.slots.end()}.size() == 6);
    for (std::size_t s = 0; s < 6; ++s) places[g.slots[s]].insert(s);
  }
  for (const auto& [id, slots] : places) CHECK(slots.size() == 6);
}

TEST_CASE(
    "layouts keep the spread rules and differ by at most one slot; the same seed gives the same") {
  for (auto [nodes, farms] : {std::pair{8, 8}, {24, 8}, {100, 10}, {37, 9}}) {
    spec::spread_rule spread{1, 2, 4};
    auto all = some_nodes(nodes, farms, 10 * gib, 5);
    controller::layout a{all, spread, 7};
    controller::layout b{all, spread, 7};
    auto groups = a.add_groups(0, group_count(nodes, 6), 6);
    REQUIRE(groups);
    CHECK(*groups == *b.add_groups(0, group_count(nodes, 6), 6));
    CHECK(!controller::first_violation(*groups, all, spread));
    auto count = loads(*groups);
    auto [least, most] = std::minmax_element(count.begin(), count.end(),
                                             [](auto& x, auto& y) { return x.second < y.second; });
    if (nodes % farms == 0) CHECK(most->second - least->second <= 1);
  }
  CHECK(!controller::can_form_group(some_nodes(10, 2, gib), {1, 2, std::nullopt}, 6));
  CHECK(controller::can_form_group(some_nodes(10, 3, gib), {1, 2, std::nullopt}, 6));
}

TEST_CASE("balance hands single slots, keeps the rules, ends, and bigger nodes carry more") {
  auto all = some_nodes(6, 6, 10 * gib);
  spec::spread_rule spread{1, 2, std::nullopt};
  controller::layout first{all, spread, 1};
  auto groups = *first.add_groups(0, 16, 6);
  auto more = some_nodes(12, 6, 10 * gib);
  more[11].size = 20 * gib;
  controller::layout next{more, spread, 1};
  next.count(groups);
  auto before = groups;
  int rounds = 0;
  for (;; ++rounds) {
    auto moves = next.balance(groups, [](const auto&) { return true; });
    if (moves.empty()) break;
    std::set<std::size_t> touched;
    for (const auto& h : moves)
      CHECK(touched.insert(h.group).second); // one slot of a group at a time
    REQUIRE(rounds < 100);
  }
  CHECK(!controller::first_violation(groups, more, spread));
  for (std::size_t g = 0; g < groups.size(); ++g) {
    auto changed = 0U;
    for (std::size_t s = 0; s < 6; ++s) changed += groups[g].slots[s] != before[g].slots[s] ? 1 : 0;
    CHECK(groups[g].generation >= before[g].generation + changed);
  }
  auto count = loads(groups);
  CHECK(count[{12}] > count[{11}]);
  CHECK(count[{1}] <= 9);
}

TEST_CASE("locations: reordering, splitting and merging entries changes nothing") {
  seeded_random random{11};
  for (int round = 0; round < 300; ++round) {
    std::vector<spec::location_rule> rules;
    for (auto i = random.below(4) + 1; i > 0; --i) {
      spec::location_rule r;
      if (random.below(2) == 0) r.country = fmt::format("c{}", random.below(3));
      if (random.below(2) == 0) r.farm = fmt::format("f{}", random.below(4));
      if (random.below(4) == 0) r.region = "Europe";
      r.nodes = static_cast<int>(random.below(3)) + 1;
      rules.push_back(r);
    }
    std::vector<spec::location_rule> other;
    for (const auto& r : rules)
      for (int i = 0; i < r.nodes; ++i) {
        other.push_back(r);
        other.back().nodes = 1;
        if (random.below(3) == 0 && !other.back().country.empty())
          other.back().country[0] = 'C'; // case is nothing
      }
    for (std::size_t i = other.size(); i > 1; --i) std::swap(other[i - 1], other[random.below(i)]);
    controller::location_matcher a{rules};
    controller::location_matcher b{other};
    for (int i = 0; i < 12; ++i) {
      model::location place{fmt::format("f{}", random.below(4)),
                            fmt::format("c{}", random.below(3)),
                            random.below(2) == 0 ? "Europe" : "Asia"};
      CHECK(a.helps(place) == b.helps(place));
      auto helps = a.helps(place);
      CHECK(a.offer(place) == helps); // says what it does
      CHECK(b.offer(place) == helps);
      CHECK(a.missing() == b.missing());
    }
  }
}

TEST_CASE("locations: a node moves to another rule when that lets one more fit; the size is that "
          "of a maximum matching") {
  controller::location_matcher m{{{"Belgium", "", "", 1}, {"", "", "Europe", 1}}};
  CHECK(m.offer({"x", "Belgium", "Europe"}));
  CHECK(m.missing() == 1);
  CHECK(m.helps({"y", "France", "Europe"}));
  CHECK(m.offer({"z", "Belgium", "Europe"}));
  CHECK(m.missing() == 0);
  CHECK(!m.helps({"y", "France", "Europe"}));

  // Against every assignment, for small cases.
  seeded_random random{5};
  for (int round = 0; round < 100; ++round) {
    std::vector<spec::location_rule> rules;
    for (int i = 0; i < 3; ++i)
      rules.push_back({random.below(2) == 0 ? "" : fmt::format("c{}", random.below(2)),
                       fmt::format("f{}", random.below(2)), "", 1});
    std::vector<model::location> nodes;
    for (int i = 0; i < 4; ++i)
      nodes.push_back(
          {fmt::format("f{}", random.below(2)), fmt::format("c{}", random.below(2)), ""});
    controller::location_matcher greedy{rules};
    auto matched = 0;
    for (const auto& n : nodes) matched += greedy.offer(n) ? 1 : 0;
    std::vector<std::size_t> order{0, 1, 2, 3};
    auto best = 0;
    do {
      auto fit = 0;
      for (std::size_t r = 0; r < 3; ++r) {
        const auto& n = nodes[order[r]];
        if ((rules[r].country.empty() || rules[r].country == n.country) && rules[r].farm == n.farm)
          ++fit;
      }
      best = std::max(best, fit);
    } while (std::next_permutation(order.begin(), order.end()));
    CHECK(matched == best);
  }
}

TEST_CASE("a plan is the same whatever order the grid lists its hosts in, and another for another "
          "lineage") {
  auto yaml = "version: 1\nname: x\nstorage: {capacity: 20GiB, redundancy: {data: 4, parity: 2}, "
              "nodes: 9, locations: [{country: c1, nodes: 2}]}\n";
  test::trivial_world w{test::parse(yaml)};
  w.add_hosts(40, 10, 5, 100 * gib, 1'000'000);
  auto first = w.diff(w.spec).made.value();
  std::reverse(w.hosts["local"].begin(), w.hosts["local"].end());
  CHECK(w.diff(w.spec).made->hash == first.hash);
  w.recorded.lineage = "other";
  CHECK(w.diff(w.spec).made->hash != first.hash);
  std::set<std::string> hosts;
  std::map<std::string, int> farms;
  for (const auto& r : first.rows) {
    CHECK(hosts.insert(r.host).second);
    ++farms[r.place.farm];
  }
  CHECK(std::count_if(first.rows.begin(), first.rows.end(),
                      [](const auto& r) { return r.place.country == "c1"; }) >= 2);
}

TEST_CASE("reordering or splitting locations in the file plans nothing but the setting itself") {
  auto yaml = [](std::string_view locations) {
    return fmt::format("version: 1\nname: x\nstorage: {{capacity: 20GiB, redundancy: {{data: 4, "
                       "parity: 2}}, nodes: 6, locations: [{}]}}\n",
                       locations);
  };
  test::trivial_world w{test::parse(yaml("{country: c1, nodes: 2}, {farm: f7, nodes: 1}"))};
  w.add_hosts(24, 8, 5, 100 * gib, 1'000'000);
  w.accept(w.spec, *w.diff(w.spec).made);
  REQUIRE(w.settle());
  for (auto other : {"{farm: f7, nodes: 1}, {country: c1, nodes: 2}",
                     "{country: c1, nodes: 1}, {farm: F7, nodes: 1}, {country: C1, nodes: 1}"}) {
    auto d = w.diff(test::parse(yaml(other)));
    REQUIRE(d.made);
    CHECK(d.made->rows.empty());
    for (const auto& a : d.made->actions) CHECK(a.kind == controller::action_kind::change_setting);
  }
}

TEST_CASE("hosts that failed are avoided for 7 days unless there is no other; just failed ones are "
          "not taken at all") {
  test::trivial_world w{test::parse("version: 1\nname: x\nstorage: {capacity: 1GiB, redundancy: "
                                    "{data: 1, parity: 1}, nodes: 2}\n")};
  w.add_hosts(2, 2, 2, 100 * gib, 0);
  auto choose = [&](std::chrono::milliseconds ago) {
    w.failed_hosts = {{{"local", "h1"}, w.now - ago}};
    auto o = w.observe();
    controller::placement p{w.spec, o, "x", 0, 2};
    std::vector<std::string> out;
    for (std::uint32_t i = 1; i <= 2; ++i)
      if (auto host = p.choose({i}, gib)) out.push_back(host->host);
    return out;
  };
  using namespace std::chrono_literals;
  CHECK(choose(1min) == std::vector<std::string>{"h2"});
  CHECK(choose(24h) == std::vector<std::string>{"h2", "h1"});
  CHECK(choose(24h * 8).size() == 2);
}

TEST_CASE("1,000 nodes: a plan and a pass stay quick") {
  test::trivial_world w{test::parse("version: 1\nname: x\nstorage: {capacity: 100TiB, redundancy: "
                                    "{data: 16, parity: 4}, nodes: 1000, protect: false}\n")};
  w.add_hosts(2000, 200, 40, 2000 * gib, 1'000'000);
  auto timed = [](const std::string& what, auto&& f) {
    auto from = std::clock(); // of the processor: other work on the machine does not count
    f();
    auto ms = (std::clock() - from) * 1000 / CLOCKS_PER_SEC;
    MESSAGE(what << ": " << ms << " ms");
    CHECK(
        ms <
        10'000); // in an unoptimised, sanitized build; what is meant is: no O(n²) of anything slow
  };
  controller::plan p;
  timed("diff of a new volume", [&] { p = w.diff(w.spec).made.value(); });
  w.accept(w.spec, p);
  while (w.pass() > 0) {
  }
  CHECK(w.last.state == "Ready");
  w.store_segments(10, mib);
  auto o = w.observe();
  timed("a pass with nothing to do",
        [&] { CHECK(controller::next_actions(w.spec, w.recorded, o).steps.empty()); });
  timed("diff with nothing to do",
        [&] { CHECK(controller::diff(w.spec, "", &w.spec, w.recorded, o).made->empty()); });
  auto more = w.spec;
  more.storage.nodes = 1100;
  timed("diff of 100 more nodes", [&] {
    CHECK(controller::diff(more, "", &w.spec, w.recorded, o).made->summary.add == 100);
  });
}
