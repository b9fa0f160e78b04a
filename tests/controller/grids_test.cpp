// One volume over several grids: a grid or a machine that leaves the file gives its nodes up, one
// that comes changes nothing, and a machine that does not say what it has decides nothing.
#include <algorithm>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "controller/placement.hpp"
#include "controller/trivial_world.hpp"

using namespace qs;
using controller::action_kind;

namespace {

std::string yaml(std::string_view grid, std::string_view capacity = "20GiB") {
  return fmt::format("version: 1\nname: x\ngrid: {}\nstorage: {{capacity: {}, redundancy: {{data: "
                     "2, parity: 2}}}}\n",
                     grid, capacity);
}

std::string machines(int count) {
  std::string out;
  for (int i = 1; i <= count; ++i)
    out += fmt::format("{}{{name: m{}, address: \"192.0.2.{}:9900\"}}", i > 1 ? ", " : "", i, i);
  return fmt::format("{{hosts: [{}]}}", out);
}

struct two_grids : test::trivial_world {
  explicit two_grids(const std::string& text) : test::trivial_world{test::parse(text)} {
    add_hosts(24, 8, 5, 100 * gib, 1'000'000);
    for (int i = 1; i <= 6; ++i) {
      model::host h;
      h.id = fmt::format("m{}", i);
      h.place = {h.id, "Belgium", ""};
      h.capacity = h.free = 500 * gib;
      hosts["hosts"].push_back(h);
    }
  }
  void apply(const std::string& text) {
    auto wanted = test::parse(text);
    auto d = diff(wanted);
    REQUIRE(d.made);
    accept(wanted, *d.made);
    REQUIRE(settle());
  }
  std::size_t on(const std::string& provider) {
    auto ids = members();
    return static_cast<std::size_t>(std::count_if(
        ids.begin(), ids.end(), [&](auto id) { return row(id).provider == provider; }));
  }
};

} // namespace

TEST_CASE("another grid in the list moves nothing; one that leaves it gives its nodes up") {
  two_grids w{yaml("local")};
  w.apply(yaml("local"));
  CHECK(w.on("local") == 4);
  auto both = yaml(fmt::format("[local, {}]", machines(4)));
  auto d = w.diff(test::parse(both));
  REQUIRE(d.made);
  CHECK(d.made->rows.empty());
  w.apply(both);
  CHECK(w.on("local") == 4);

  auto alone = yaml(machines(4));
  d = w.diff(test::parse(alone));
  REQUIRE(d.made);
  auto moved = std::count_if(d.made->actions.begin(), d.made->actions.end(), [](const auto& a) {
    return a.kind == action_kind::replace_node &&
           a.reason.find("grid local is no longer in the file") != std::string::npos;
  });
  CHECK(moved == 4);
  CHECK(d.made->summary.price_per_month.units == 0);
  w.apply(alone);
  CHECK(w.on("local") == 0);
  CHECK(w.on("hosts") == 4);
}

TEST_CASE("a machine that leaves the file gives its node up, and is not chosen again") {
  two_grids w{yaml(machines(5))};
  w.hosts["hosts"].resize(5);
  w.apply(yaml(machines(5)));
  auto ids = w.members();
  auto left = machines(5);
  std::string gone;
  for (int i = 1; i <= 5; ++i) {
    auto name = fmt::format("m{}", i);
    if (std::any_of(ids.begin(), ids.end(), [&](auto id) { return w.row(id).host == name; }))
      gone = name;
  }
  auto entry = left.find("{name: " + gone);
  auto end = left.find('}', entry) + 1;
  left.erase(entry, end - entry);
  auto comma = left.find(", ,");
  if (comma != std::string::npos) left.erase(comma, 2);
  if (auto tail = left.find(", ]"); tail != std::string::npos) left.erase(tail, 2);
  if (auto head = left.find("[, "); head != std::string::npos) left.erase(head + 1, 2);
  std::erase_if(w.hosts["hosts"], [&](const auto& h) { return h.id == gone; });
  auto text = yaml(left);
  auto d = w.diff(test::parse(text));
  REQUIRE(d.made);
  CHECK(std::any_of(d.made->actions.begin(), d.made->actions.end(), [&](const auto& a) {
    return a.reason.find(gone + " is no longer in the file") != std::string::npos;
  }));
  w.apply(text);
  ids = w.members();
  CHECK(ids.size() == 4);
  CHECK(std::none_of(ids.begin(), ids.end(), [&](auto id) { return w.row(id).host == gone; }));
}

TEST_CASE("a machine that does not say what it has: its node is not moved for want of room, and "
          "nobody is sent there") {
  two_grids w{yaml(machines(6))};
  w.apply(yaml(machines(6)));
  auto host = w.row(w.members().front()).host;
  for (auto& h : w.hosts["hosts"])
    if (h.id == host) {
      h.available = false;
      h.free = 0;
      h.trouble = "connect to 192.0.2.1:9900: timed out";
    }
  auto d = w.diff(test::parse(yaml(machines(6), "100GiB")));
  REQUIRE_FALSE(d.made);
  REQUIRE(d.refusals.size() == 1);
  CHECK(d.refusals[0].for_now);
  CHECK(d.refusals[0].message.find(host) != std::string::npos);
  CHECK(w.diff(w.spec).made->rows.empty()); // nothing to do, nothing done

  two_grids fresh{yaml(machines(6))};
  for (auto& h : fresh.hosts["hosts"])
    if (h.id <= "m3") {
      h.available = false;
      h.trouble = "the node says \"Access denied\"";
    }
  d = fresh.diff(fresh.spec);
  REQUIRE_FALSE(d.made);
  CHECK(d.refusals[0].message.find("m1: the node says \"Access denied\"") != std::string::npos);
}

TEST_CASE("two hosts of one name in two grids: the failure of one says nothing of the other") {
  two_grids w{yaml(fmt::format("[local, {}]", machines(1)))};
  w.hosts["local"].resize(1);
  w.hosts["local"][0].id = "m1";
  w.hosts["hosts"].resize(1);
  w.failed_hosts = {{{"local", "m1"}, w.now}};
  auto o = w.observe();
  controller::placement p{w.spec, o, "x", 0, 2};
  auto first = p.choose({1}, gib);
  REQUIRE(first);
  CHECK(first->provider == "hosts");
  CHECK_FALSE(p.choose({2}, gib)); // it failed just now
}

TEST_CASE("exclude.hosts goes by the name, whatever the grid") {
  two_grids w{yaml(fmt::format("[local, {}]", machines(1)))};
  w.hosts["local"].resize(2);
  w.hosts["local"][0].id = "m1";
  w.hosts["hosts"].resize(1);
  w.spec.storage.exclude.hosts = {"M1"};
  auto o = w.observe();
  controller::placement p{w.spec, o, "x", 0, 4};
  auto first = p.choose({1}, gib);
  REQUIRE(first);
  CHECK(first->host != "m1");
  CHECK_FALSE(p.choose({2}, gib));
}
