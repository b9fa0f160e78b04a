// next_actions: what it does, what it never does, and that it comes to an end. control.md, 2, 3, 5.
#include <algorithm>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "base/random.hpp"
#include "controller/trivial_world.hpp"

using namespace qs;
using namespace std::chrono_literals;
using controller::step_kind;
using model::node_state;
using test::trivial_world;

namespace {

const std::string six = R"(version: 1
name: x
storage: {capacity: 20GiB, redundancy: {data: 4, parity: 2}, nodes: 6, protect: false}
mount: {path: /mnt/x}
)";

trivial_world deployed(const std::string& yaml = six, int hosts = 24, int farms = 8) {
  trivial_world w{test::parse(yaml)};
  w.add_hosts(hosts, farms, std::min(farms, 5), 500 * gib, 1'000'000);
  auto d = w.diff(w.spec);
  REQUIRE_MESSAGE(d.made, (d.refusals.empty() ? "" : d.refusals[0].message));
  w.accept(w.spec, *d.made);
  REQUIRE(w.settle());
  w.store_segments(100, 64 * mib);
  REQUIRE(w.broken.empty());
  return w;
}

void lose(trivial_world& w, model::node_id id) {
  auto& t = w.nodes.at(id);
  t.running = t.data = false;
  t.tombstone = true;
}
void freeze(trivial_world& w, model::node_id id) { w.nodes.at(id).frozen = true; }

std::string condition(const trivial_world& w, std::string_view type) {
  for (const auto& c : w.last.conditions)
    if (c.type == type) return c.status;
  return "absent";
}

void check_sound(trivial_world& w) {
  for (const auto& b : w.broken) MESSAGE(b);
  CHECK(w.broken.empty());
}

void check_at_rest(trivial_world& w) {
  check_sound(w);
  w.pass();
  CHECK(w.last.steps.empty());
  CHECK(w.last.state == "Ready");
  CHECK(condition(w, "Ready") == "True");
  auto d = w.diff(w.spec);
  REQUIRE_MESSAGE(d.made, (d.refusals.empty() ? "" : d.refusals[0].message));
  CHECK_MESSAGE(d.made->empty(), render(*d.made));
  CHECK(static_cast<int>(w.members().size()) == w.spec.storage.nodes);
  CHECK(w.count(node_state::replaced) == 0);
  CHECK(w.count(node_state::draining) == 0);
  for (const auto& g : w.groups)
    for (auto id : g.slots) CHECK(w.alive(id));
}

} // namespace

TEST_CASE("from nothing to a mounted volume, and then nothing more") {
  auto w = deployed();
  CHECK(w.mounted_at == "/mnt/x");
  CHECK(w.groups.size() == 16);
  check_at_rest(w);
}

TEST_CASE("the volume is made only when every node of the first layout is ready") {
  trivial_world w{test::parse(six)};
  w.add_hosts(24, 8, 5, 500 * gib, 0);
  w.accept(w.spec, *w.diff(w.spec).made);
  auto o = w.observe();
  auto d = controller::next_actions(w.spec, w.recorded, o);
  CHECK(d.steps.size() == 6);
  CHECK(std::all_of(d.steps.begin(), d.steps.end(),
                    [](const auto& s) { return s.kind == step_kind::reserve; }));
  CHECK(d.state == "Deploying");
  w.pass();
  w.row({3}).state = node_state::deploying;
  freeze(w, {3});
  w.pass();
  CHECK(!w.recorded.volume.created);
  w.nodes.at({3}).frozen = false;
  CHECK(w.settle());
  CHECK(w.recorded.volume.created);
}

TEST_CASE("two of six lost: both replaced, rebuilt, the old ones cancelled; then two others") {
  auto w = deployed();
  for (auto round : {0, 1}) {
    auto m = w.members();
    auto a = m[static_cast<std::size_t>(round)];
    auto b = m[static_cast<std::size_t>(round) + 2];
    lose(w, a);
    lose(w, b);
    w.pass();
    CHECK(condition(w, "Quorum") == "True");
    CHECK(w.last.state != "Ready");
    w.advance(10s);
    CHECK(w.settle());
    CHECK(w.row(a).state == node_state::gone);
    CHECK(w.row(b).state == node_state::gone);
    check_at_rest(w);
  }
}

TEST_CASE(
    "four of six silent: nothing is changed, Quorum=Unknown, and all is well when they are back") {
  auto w = deployed();
  auto before = w.recorded.nodes.size();
  for (auto id : {1U, 2U, 3U, 4U}) freeze(w, {id});
  for (int i = 0; i < 50; ++i) {
    w.advance(1h);
    CHECK(w.pass() == 0);
    CHECK(condition(w, "Quorum") == "Unknown");
    CHECK(w.last.state == "Unknown");
  }
  auto d = w.diff(w.spec);
  REQUIRE(d.made);
  CHECK(controller::only_unknown(*d.made));
  CHECK(d.made->rows.empty());
  for (auto& [id, t] : w.nodes) t.frozen = false;
  w.advance(1s);
  CHECK(w.settle());
  CHECK(w.recorded.nodes.size() == before);
  CHECK(std::all_of(w.recorded.nodes.begin(), w.recorded.nodes.end(),
                    [](const auto& r) { return r.state == node_state::ready; }));
  check_at_rest(w);
}

TEST_CASE("three silent at m = 2 hold too, though k - 1 answer; two silent do not") {
  auto w = deployed();
  for (auto id : {1U, 2U}) freeze(w, {id});
  w.advance(2min);
  w.pass();
  CHECK(w.row({1}).state == node_state::unreachable);
  CHECK(condition(w, "Quorum") == "True");
  CHECK(w.last.state == "Degraded");
  freeze(w, {3});
  w.advance(24h);
  CHECK(w.pass() == 0);
}

TEST_CASE("silent: marked after failed_after, replaced only after replace_after more, kept as a "
          "source until whole") {
  auto w = deployed();
  freeze(w, {2});
  w.advance(59s);
  CHECK(w.pass() == 0);
  w.advance(1s);
  CHECK(w.pass() == 1);
  CHECK(w.row({2}).state == node_state::unreachable);
  w.advance(9min + 59s);
  CHECK(w.pass() == 0);
  w.advance(1s);
  w.pass();
  CHECK(w.row({2}).state == node_state::replaced);
  CHECK(w.row({2}).replaced_by == model::node_id{7});
  for (int i = 0; i < 4; ++i) w.pass(); // no repair: the volume moved nothing yet
  CHECK(w.row({2}).state == node_state::replaced);
  CHECK(w.nodes.contains({2}));
  w.repair();
  CHECK(w.settle());
  CHECK(w.row({2}).state == node_state::gone);
  check_at_rest(w);
}

TEST_CASE("a node that comes back before it is replaced stays") {
  auto w = deployed();
  freeze(w, {2});
  w.advance(5min);
  w.pass();
  CHECK(w.row({2}).state == node_state::unreachable);
  w.nodes.at({2}).frozen = false;
  w.advance(10s);
  CHECK(w.settle());
  CHECK(w.row({2}).state == node_state::ready);
  check_at_rest(w);
}

TEST_CASE("of nodes that are only unreachable two a day are replaced, then a person is asked; lost "
          "ones are not counted") {
  auto w = deployed();
  auto replace_one = [&](std::size_t which) {
    auto id = w.members()[which];
    freeze(w, id);
    w.advance(11min);
    w.pass();
    w.advance(1s);
    auto ok = w.settle();
    w.nodes.erase(id);
    return ok;
  };
  CHECK(replace_one(0));
  CHECK(replace_one(0));
  auto third = w.members()[0];
  freeze(w, third);
  w.advance(11min);
  w.pass();
  w.pass();
  CHECK(w.row(third).state == node_state::unreachable);
  CHECK(condition(w, "ApprovalNeeded") == "True");
  lose(w, w.members()[1]);
  w.advance(1s);
  w.settle();
  CHECK(w.row(third).state == node_state::unreachable);
  CHECK(w.count(node_state::ready) == 5);
  // The word of a person: apply replaces it.
  auto d = w.diff(w.spec);
  REQUIRE(d.made);
  CHECK(d.made->summary.replace == 1);
  w.accept(w.spec, *d.made);
  CHECK(w.settle());
  check_at_rest(w);
}

TEST_CASE("a node given up on command is replaced, emptied and ended") {
  auto w = deployed();
  auto id = w.members()[0];
  w.row(id).state = node_state::draining;
  w.row(id).reason = "DrainAsked";
  CHECK(w.settle());
  CHECK(w.row(id).state == node_state::gone);
  CHECK(w.count(node_state::ready) == 6);
  check_at_rest(w);
}

TEST_CASE("a process that died with its data whole is restarted, even when all of them did") {
  auto w = deployed();
  auto rows = w.recorded.nodes.size();
  for (auto& [id, t] : w.nodes) t.running = false;
  w.advance(1s);
  w.pass();
  CHECK(w.last.steps.size() == 6);
  CHECK(std::all_of(w.last.steps.begin(), w.last.steps.end(),
                    [](const auto& s) { return s.kind == step_kind::restart; }));
  CHECK(w.settle());
  CHECK(w.recorded.nodes.size() == rows);
  check_at_rest(w);
}

TEST_CASE("a refused password is lost, reason AccessDenied") {
  auto w = deployed();
  w.nodes.at({5}).denied = true;
  w.pass();
  CHECK(w.row({5}).state == node_state::lost);
  CHECK(w.row({5}).reason == "AccessDenied");
  w.advance(1s);
  CHECK(w.settle());
  check_at_rest(w);
}

TEST_CASE("an open intent is resolved and nothing else is done with its node") {
  auto w = deployed();
  lose(w, {2});
  w.pass();
  auto o = w.observe();
  model::intent i;
  i.number = 9;
  i.node = {2};
  o.open_intents.push_back(i);
  auto d = controller::next_actions(w.spec, w.recorded, o);
  REQUIRE(d.steps.size() == 1);
  CHECK(d.steps[0].kind == step_kind::resolve);
  CHECK(d.steps[0].node == model::node_id{2});
}

TEST_CASE("a row left in reserving, or in deploying and not watched, is resolved: a killed engine "
          "goes on from there") {
  auto w = deployed();
  for (auto state : {node_state::reserving, node_state::deploying}) {
    auto rows = w.recorded;
    rows.nodes[1].state = state;
    auto o = w.observe();
    std::erase_if(o.nodes, [](const auto& n) { return n.id == model::node_id{2}; });
    auto d = controller::next_actions(w.spec, rows, o);
    REQUIRE(d.steps.size() == 1);
    CHECK(d.steps[0].kind == step_kind::resolve);
    CHECK(d.steps[0].node == model::node_id{2});
  }
}

TEST_CASE("destroy before anything was stored: the volume is in the plan, so that it is told from "
          "other plans") {
  trivial_world w{test::parse(six)};
  w.add_hosts(24, 8, 5, 500 * gib, 0);
  w.accept(w.spec, *w.diff(w.spec).made);
  auto d = controller::diff_destroy(w.recorded, w.observe());
  REQUIRE(d.made);
  CHECK(d.made->actions[0].kind == controller::action_kind::destroy_volume);
  CHECK(!d.made->actions[0].destroys_data);
  CHECK(d.made->needs_typed_name);
  CHECK(d.made->actions.size() == 7);
  auto nothing = controller::diff_destroy({}, {});
  CHECK(nothing.made->empty());
}

TEST_CASE("a refusing host: another one within the price that was agreed, else a person is asked") {
  trivial_world w{test::parse(six)};
  w.add_hosts(24, 8, 5, 500 * gib, 1'000'000);
  auto d = w.diff(w.spec);
  w.refusing.insert(d.made->rows[0].host);
  w.accept(w.spec, *d.made);
  CHECK(w.settle());
  CHECK(w.row({1}).incarnation == 2);
  CHECK(w.row({1}).host != d.made->rows[0].host);
  CHECK(w.recorded.nodes.size() == 6);
  check_at_rest(w);

  trivial_world dear{test::parse(six)};
  dear.add_hosts(6, 6, 5, 500 * gib, 1'000'000);
  auto plan = dear.diff(dear.spec);
  REQUIRE(plan.made);
  dear.refusing.insert("h1");
  dear.add_hosts(2, 2, 2, 500 * gib, 2'000'000);
  dear.accept(dear.spec, *plan.made);
  dear.settle(20);
  CHECK(condition(dear, "ApprovalNeeded") == "True");
  CHECK(!dear.recorded.volume.created);
}

TEST_CASE("what is chosen in one pass knows of each other: no two nodes come to one host") {
  for (auto n = 0; n < 40; ++n) {
    trivial_world w{test::parse(six)};
    w.recorded.lineage += fmt::format("{}", n); // other choices each time
    w.add_hosts(14, 7, 5, 500 * gib, 1'000'000);
    auto d = w.diff(w.spec);
    for (auto i : {0U, 1U, 2U}) w.refusing.insert(d.made->rows[i].host);
    w.accept(w.spec, *d.made);
    CHECK(w.settle());
    w.store_segments(100, 64 * mib);
    check_at_rest(w);
    // One is refused and gets another host in the pass that replaces a second one.
    auto m = w.members();
    lose(w, m[0]);
    w.pass();
    w.pass();
    w.refusing.insert(w.row(w.members().back()).host);
    w.pass();
    lose(w, m[1]);
    w.pass();
    CHECK(w.settle());
    check_at_rest(w);
  }
}

TEST_CASE("a partial view, and suspend") {
  auto w = deployed();
  lose(w, {2});
  w.complete = false;
  CHECK(w.pass() == 0);
  CHECK(condition(w, "Quorum") == "Unknown");
  w.volume_open = false;
  w.mounted_at.clear();
  w.pass();
  CHECK(w.volume_open);
  w.pass();
  CHECK(w.mounted_at == "/mnt/x");
  w.complete = true;
  w.recorded.suspended = true;
  CHECK(w.pass() == 0);
  CHECK(w.last.state == "Suspended");
  for (const auto& c : w.last.conditions) // shards are repaired all the same
    if (c.type == "Paused") CHECK(c.message.find("shards are repaired") != std::string::npos);
  w.recorded.suspended = false;
  w.advance(1s);
  CHECK(w.settle());
  check_at_rest(w);
}

TEST_CASE("umount is remembered; another path is another mount") {
  auto w = deployed();
  w.recorded.mount_wanted = false;
  w.pass();
  CHECK(w.mounted_at.empty());
  CHECK(w.pass() == 0);
  w.recorded.mount_wanted = true;
  w.spec.mount->path = {"/mnt/y", "/mnt/y"};
  CHECK(w.settle());
  CHECK(w.mounted_at == "/mnt/y");
  w.spec.mount->path = {"/mnt/z", "/mnt/z"};
  CHECK(w.settle());
  CHECK(w.mounted_at == "/mnt/z");
}

TEST_CASE("destroy: unmount, close, cancel, in this order, whatever the nodes say") {
  auto w = deployed();
  w.recorded.destroying = true;
  lose(w, {2});
  freeze(w, {3});
  std::vector<step_kind> order;
  for (int i = 0; i < 10 && w.pass() > 0; ++i) order.push_back(w.last.steps[0].kind);
  CHECK(order ==
        std::vector<step_kind>{step_kind::unmount, step_kind::close_volume, step_kind::cancel});
  CHECK(w.count(node_state::gone) == 6);
}

TEST_CASE("destroy goes on although the volume was suspended") {
  auto w = deployed();
  w.recorded.suspended = true;
  w.recorded.destroying = true;
  w.pass();
  CHECK(!w.last.steps.empty());
}

TEST_CASE("growth: more capacity and two more nodes; then fewer; each ends at rest and balanced") {
  auto w = deployed();
  auto grown = w.spec;
  grown.storage.capacity = 60 * gib;
  grown.storage.nodes = 8;
  auto d = w.diff(grown);
  REQUIRE_MESSAGE(d.made, (d.refusals.empty() ? "" : d.refusals[0].message));
  CHECK(d.made->summary.add == 2);
  CHECK(d.made->summary.bytes_to_move > 0);
  CHECK(d.made->summary.usable_bytes_gained == static_cast<std::int64_t>(40 * gib));
  w.accept(grown, *d.made);
  CHECK(w.settle());
  CHECK(w.groups.size() == 22);
  check_at_rest(w);
  std::map<model::node_id, int> slots;
  for (const auto& g : w.groups)
    for (auto id : g.slots) ++slots[id];
  auto [least, most] = std::minmax_element(slots.begin(), slots.end(),
                                           [](auto& a, auto& b) { return a.second < b.second; });
  CHECK(slots.size() == 8);
  CHECK(most->second - least->second <= 1);

  auto fewer = w.spec;
  fewer.storage.nodes = 7;
  d = w.diff(fewer);
  REQUIRE_MESSAGE(d.made, (d.refusals.empty() ? "" : d.refusals[0].message));
  CHECK(d.made->summary.destroy == 1);
  w.accept(fewer, *d.made);
  CHECK(w.settle());
  CHECK(w.row({8}).state == node_state::gone); // the newest
  check_at_rest(w);
}

TEST_CASE(
    "random worlds: no rule is broken on the way, and when the faults stop it comes to rest") {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    seeded_random random{seed};
    auto k = static_cast<int>(random.below(5)) + 1;
    auto m = static_cast<int>(random.below(3)) + 1;
    auto nodes = k + m + static_cast<int>(random.below(5));
    auto yaml = fmt::format("version: 1\nname: x\nstorage: {{capacity: {}GiB, redundancy: {{data: "
                            "{}, parity: {}}}, nodes: {}, protect: false}}\n",
                            random.below(200) + 1, k, m, nodes);
    trivial_world w{test::parse(yaml)};
    w.add_hosts(nodes * 4, k + m + static_cast<int>(random.below(4)), 3, 2000 * gib, 1'000'000);
    auto d = w.diff(w.spec);
    REQUIRE_MESSAGE(d.made, (d.refusals.empty() ? "" : d.refusals[0].message));
    w.accept(w.spec, *d.made);
    w.store_segments(10, 10 * mib);
    for (int round = 0; round < 60; ++round) {
      auto ids = w.members();
      auto victim = ids[random.below(ids.size())];
      if (w.nodes.contains(victim)) {
        auto& t = w.nodes.at(victim);
        auto down = std::count_if(w.nodes.begin(), w.nodes.end(),
                                  [&](const auto& n) { return !w.alive(n.first); });
        switch (random.below(8)) {
        case 0:
          // Data dies only while the volume can bear it: more is a loss that no controller mends.
          if (down < m && w.recorded.volume.created) lose(w, victim);
          break;
        case 1:
          t.frozen = true;
          break;
        case 2:
          t.running = false;
          break;
        case 3:
          t.frozen = false;
          break;
        default:
          break;
        }
      }
      w.complete = random.below(6) != 0;
      if (random.below(2) == 0) w.repair();
      w.pass();
      w.advance(std::chrono::seconds{random.below(600)});
    }
    check_sound(w);
    w.complete = true;
    for (auto& [id, t] : w.nodes) t.frozen = false;
    for (int i = 0; i < 3; ++i) {
      w.advance(24h);
      CHECK(w.settle());
    }
    check_at_rest(w);
    if (!w.broken.empty()) break;
  }
}

TEST_CASE("a node that left and cannot be ended holds up nothing, but only when all is whole without it") {
  for (auto lost : {true, false}) {
    CAPTURE(lost);
    auto w = deployed();
    auto a = w.members()[1];
    if (lost) {
      lose(w, a);
    } else {
      w.row(a).state = node_state::draining;
      w.row(a).reason = "Asked";
    }
    auto before = 0;
    auto after = 0;
    for (int i = 0; i < 400 && w.row(a).state != node_state::gone; ++i) {
      auto o = w.observe();
      model::intent open;
      open.node = a;
      o.open_intents.push_back(open);
      auto d = controller::next_actions(w.spec, w.recorded, o);
      auto synced = [&] {
        for (const auto& c : d.conditions)
          if (c.type == "Synced") return c;
        return controller::condition{};
      }();
      // It is tried in every pass, whatever is waited for.
      CHECK(std::any_of(d.steps.begin(), d.steps.end(), [&](const auto& s) {
        return s.kind == step_kind::resolve && s.node == a;
      }));
      auto& r = w.row(a);
      auto slots = std::any_of(w.groups.begin(), w.groups.end(), [&](const auto& g) {
        return std::find(g.slots.begin(), g.slots.end(), a) != g.slots.end();
      });
      auto rebuilt = std::all_of(o.volume.health.begin(), o.volume.health.end(), [](const auto& h) {
        return h.segments_missing_shards == 0 && h.segments_on_older_generation == 0;
      });
      auto left = r.state == node_state::replaced || r.state == node_state::draining;
      if (left && rebuilt && !slots) {
        ++after;
        CHECK(d.ending.contains(a));
        CHECK(d.to_do() == 0);
        CHECK(synced.status == "True");
        CHECK(synced.message == "1 node that left has still to be ended");
        CHECK(d.state == "Ready");
        auto going = w.recorded;
        going.destroying = true;
        auto all = controller::next_actions(w.spec, going, o);
        CHECK(all.ending.empty());
        CHECK(all.to_do() == all.steps.size());
      } else {
        ++before;
        CHECK(d.ending.empty());
        CHECK(synced.status == "False");
      }
      w.pass();
      w.repair();
      w.advance(10s);
    }
    CHECK(before > 0);
    CHECK(after > 0);
    check_sound(w);
  }
}

TEST_CASE("what is under way already does not keep an edit that only adds from being followed") {
  auto w = deployed();
  auto bigger = six;
  bigger.replace(bigger.find("nodes: 6"), 8, "nodes: 7");
  auto more = test::parse(bigger);
  auto offered = [&](const spec::storage_spec& desired) {
    auto d = controller::diff(desired, bigger, &w.spec, w.recorded, w.observe());
    REQUIRE_MESSAGE(d.made, (d.refusals.empty() ? "" : d.refusals[0].message));
    REQUIRE(!d.made->empty());
    return controller::only_adds(*d.made, &w.spec, desired, w.recorded);
  };
  CHECK(offered(more));
  auto a = w.members()[1];
  lose(w, a);
  CHECK_FALSE(offered(more)); // the plan itself would replace it
  for (int i = 0; i < 5 && w.row(a).state != node_state::replaced; ++i) w.pass();
  REQUIRE(w.row(a).state == node_state::replaced);
  auto d = w.diff(w.spec);
  REQUIRE(d.made);
  CHECK(std::any_of(d.made->actions.begin(), d.made->actions.end(),
                    [](const auto& x) { return x.kind == controller::action_kind::destroy_node; }));
  CHECK(offered(more));
  // What takes its place is on its way, too.
  auto heir = *w.row(a).replaced_by;
  w.row(heir).state = node_state::deploying;
  d = w.diff(w.spec);
  REQUIRE(d.made);
  CHECK(std::any_of(d.made->actions.begin(), d.made->actions.end(),
                    [](const auto& x) { return x.kind == controller::action_kind::replace_node; }));
  CHECK(offered(more));
  // And what takes away still needs a person.
  auto fewer = six;
  fewer.replace(fewer.find("mount: {path: /mnt/x}"), 21, "");
  CHECK_FALSE(offered(test::parse(fewer)));
}
