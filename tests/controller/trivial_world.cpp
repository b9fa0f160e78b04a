#include "controller/trivial_world.hpp"

#include <algorithm>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "spec/load.hpp"

namespace qs::test {

using namespace std::chrono_literals;
using controller::step_kind;
using model::node_state;
using model::reach;

spec::storage_spec parse(const std::string& yaml) {
  auto loaded = spec::load(yaml, spec::fixed_environment{});
  REQUIRE_MESSAGE(loaded.spec.has_value(), render(loaded.problems, "storage.yaml", yaml));
  return *loaded.spec;
}

trivial_world::trivial_world(spec::storage_spec s) : spec{std::move(s)} {
  recorded.lineage = "11111111-2222-4333-8444-555555555555";
}

void trivial_world::add_hosts(int count, int farms, int countries, byte_count free,
                              std::int64_t price) {
  auto& list = hosts["local"];
  for (int i = 0; i < count; ++i) {
    model::host h;
    h.id = fmt::format("h{}", list.size() + 1);
    auto farm = i % farms;
    h.place = {fmt::format("f{}", farm + 1), fmt::format("c{}", farm % countries + 1),
               farm % 2 == 0 ? "Europe" : "Asia"};
    h.capacity = h.free = free;
    h.price_per_gib_month = {price};
    list.push_back(h);
  }
}

bool trivial_world::alive(model::node_id id) const {
  auto at = nodes.find(id);
  return at != nodes.end() && at->second.running && !at->second.frozen && at->second.data &&
         !at->second.denied;
}

model::observed trivial_world::observe() const {
  model::observed o;
  o.at = now;
  o.complete = complete;
  o.hosts = hosts;
  o.hosts_known = hosts_known;
  o.grid_trouble = grid_trouble;
  o.strays = strays;
  o.strays_known = strays_known;
  o.mounted_at = mounted_at;
  o.failed_hosts = failed_hosts;
  for (auto t : replaced_at)
    if (now - t < 24h) ++o.unreachable_replaced_today;
  for (auto& [provider, list] : o.hosts)
    for (auto& h : list)
      for (const auto& r : recorded.nodes)
        if (auto at = nodes.find(r.id); at != nodes.end() && at->second.reserved && r.host == h.id)
          h.free -= std::min(h.free, at->second.limit);
  for (const auto& [id, t] : nodes) {
    if (!t.reserved && !t.tombstone) continue;
    model::observed_node n;
    n.id = id;
    n.limit = t.limit;
    n.silent_for = t.silent_for;
    if (t.tombstone || (!t.data && !t.frozen)) {
      n.state = reach::data_lost;
      n.detail = "Tombstone";
    } else if (t.denied && t.running) {
      n.state = reach::access_denied;
    } else if (!t.running || t.frozen) {
      n.state = reach::silent;
      n.stopped = !t.running;
    } else {
      n.state = reach::answers;
      for (const auto& [g, slots] : shards)
        for (const auto& holders : slots)
          if (holders.contains(id)) n.used += slot_bytes;
    }
    o.nodes.push_back(n);
  }
  auto& v = o.volume;
  v.open = volume_open;
  if (!volume_open) return o;
  v.groups = groups;
  auto k = spec.storage.data_shards;
  std::set<model::node_id> sources;
  std::set<model::node_id> indispensable;
  for (const auto& g : groups) {
    model::group_health h;
    h.id = g.id;
    h.generation = g.generation;
    h.segments = segments;
    h.stored_bytes = slot_bytes;
    const auto& held = shards.at(g.id.number);
    auto live = 0;
    bool moving = false;
    bool missing = false;
    for (std::size_t s = 0; s < g.slots.size(); ++s) {
      auto there = std::count_if(held[s].begin(), held[s].end(),
                                 [&](auto id) { return nodes.contains(id) && nodes.at(id).data; });
      if (there > 0) ++live;
      if (there == 0) missing = true;
      if (!held[s].contains(g.slots[s])) {
        moving = true;
        for (auto id : held[s]) sources.insert(id);
      }
    }
    if (live <= k)
      for (const auto& holders : held)
        if (holders.size() == 1) indispensable.insert(*holders.begin());
    h.segments_on_older_generation = moving ? segments : 0;
    h.segments_missing_shards = missing ? segments : 0;
    h.redundancy_left_min = static_cast<std::uint32_t>(std::max(0, live - k));
    v.health.push_back(h);
  }
  v.sources.assign(sources.begin(), sources.end());
  v.indispensable.assign(indispensable.begin(), indispensable.end());
  v.used_bytes = slot_bytes * groups.size() * static_cast<byte_count>(k);
  return o;
}

controller::diff_result trivial_world::diff(const spec::storage_spec& desired) const {
  return controller::diff(desired, "", recorded.accepted ? &spec : nullptr, recorded, observe());
}

void trivial_world::accept(const spec::storage_spec& desired, const controller::plan& p) {
  REQUIRE(p.serial == recorded.serial);
  ++recorded.serial;
  if (!recorded.accepted) recorded.accepted.emplace();
  ++recorded.accepted->generation;
  recorded.protect = desired.storage.protect;
  for (const auto& r : p.rows) {
    auto at = std::find_if(recorded.nodes.begin(), recorded.nodes.end(),
                           [&](const auto& x) { return x.id == r.id; });
    if (at == recorded.nodes.end()) {
      recorded.nodes.push_back(r);
      recorded.nodes.back().since = now;
    } else {
      *at = r;
    }
  }
  recorded.next_node_number = p.next_node_number;
  spec = desired;
}

model::recorded_node& trivial_world::row(model::node_id id) {
  auto at = std::find_if(recorded.nodes.begin(), recorded.nodes.end(),
                         [&](const auto& x) { return x.id == id; });
  REQUIRE(at != recorded.nodes.end());
  return *at;
}

std::vector<model::node_id> trivial_world::members() const {
  std::vector<model::node_id> out;
  for (const auto& r : recorded.nodes)
    if (r.state != node_state::draining && r.state != node_state::replaced &&
        r.state != node_state::gone)
      out.push_back(r.id);
  return out;
}

std::size_t trivial_world::count(node_state state) const {
  return static_cast<std::size_t>(std::count_if(recorded.nodes.begin(), recorded.nodes.end(),
                                                [&](const auto& r) { return r.state == state; }));
}

void trivial_world::store_segments(std::uint64_t per_group, byte_count bytes_per_slot) {
  segments = per_group;
  slot_bytes = bytes_per_slot;
}

int trivial_world::redundancy(const model::group& g, model::node_id without) const {
  auto live = 0;
  for (const auto& holders : shards.at(g.id.number))
    if (std::any_of(holders.begin(), holders.end(), [&](auto id) {
          return id != without && nodes.contains(id) && nodes.at(id).data;
        }))
      ++live;
  return live - spec.storage.data_shards;
}

void trivial_world::repair() {
  for (const auto& g : groups) {
    auto& held = shards.at(g.id.number);
    for (auto& holders : held)
      std::erase_if(holders, [&](auto id) { return !nodes.contains(id) || !nodes.at(id).data; });
    auto readable = std::count_if(held.begin(), held.end(), [&](const auto& h) {
      return std::any_of(h.begin(), h.end(), [&](auto id) { return alive(id); });
    });
    for (std::size_t s = 0; s < g.slots.size(); ++s) {
      auto to = g.slots[s];
      auto source = std::any_of(held[s].begin(), held[s].end(), [&](auto id) { return alive(id); });
      if (!alive(to) || (!source && readable < spec.storage.data_shards && segments > 0)) continue;
      held[s] = {to}; // the old copy is deleted once the new one is confirmed
    }
  }
}

void trivial_world::advance(std::chrono::milliseconds by) {
  now += by;
  auto answering =
      std::count_if(nodes.begin(), nodes.end(), [&](const auto& n) { return alive(n.first); });
  for (auto& [id, t] : nodes) {
    if (alive(id) || !t.reserved)
      t.silent_for = 0ms;
    else if (answering >= spec.storage.data_shards)
      t.silent_for += by;
  }
}

void trivial_world::judge(const controller::step& s, const model::observed& seen) {
  auto bad = [&](std::string what) {
    broken.push_back(fmt::format("{} {}: {}", to_string(s.kind),
                                 s.node.valid() ? to_string(s.node) : "-", what));
  };
  // Worked out here anew, from what is seen alone.
  std::map<model::node_id, const model::observed_node*> look;
  for (const auto& n : seen.nodes) look[n.id] = &n;
  auto holds = [&](const model::group& g) {
    auto answered = 0;
    auto unexplained = 0;
    for (auto id : g.slots) {
      auto* o = look.contains(id) ? look[id] : nullptr;
      if (o != nullptr && o->state == reach::answers)
        ++answered;
      else if (o == nullptr || o->state == reach::unknown ||
               (o->state == reach::silent && !o->stopped))
        unexplained += o == nullptr && row(id).state == node_state::lost ? 0 : 1;
    }
    return answered < spec.storage.data_shards || unexplained > spec.storage.parity_shards;
  };
  auto harmless = s.kind == step_kind::resolve || s.kind == step_kind::restart ||
                  s.kind == step_kind::open_volume || s.kind == step_kind::mount ||
                  s.kind == step_kind::unmount;
  if (!harmless && s.node.valid())
    for (const auto& g : groups)
      if (std::find(g.slots.begin(), g.slots.end(), s.node) != g.slots.end() && holds(g))
        bad("in a group that holds");
  if (!harmless && s.node.valid() && s.kind != step_kind::reserve && s.kind != step_kind::cancel &&
      s.kind != step_kind::retire) {
    auto* o = look.contains(s.node) ? look[s.node] : nullptr;
    if (o == nullptr || o->state == reach::unknown) bad("acts on unknown");
  }
  if (s.kind == step_kind::replace) {
    const auto& old = row(s.node);
    const auto& t = nodes.at(s.node);
    auto late = t.silent_for >= spec.monitor.failed_after + spec.monitor.replace_after;
    auto asked = old.state == model::node_state::draining && old.reason.ends_with("Asked");
    if (t.data && !t.denied && !late && !asked) bad("is neither lost nor overdue");
    if (old.replaced_by) bad("has a replacement already");
    if (!s.row || s.row->host == old.host) bad("on the same host");
    if (t.data && !t.denied &&
        seen.unreachable_replaced_today >=
            static_cast<unsigned>(std::max(2, spec.storage.nodes / 10)))
      bad("more unreachable ones than may be in a day");
  }
  if (s.row)
    if (auto there = std::count_if(recorded.nodes.begin(), recorded.nodes.end(),
                                   [&](const auto& r) {
                                     return r.id != s.node && r.state != node_state::gone &&
                                            r.provider == s.row->provider && r.host == s.row->host;
                                   });
        there >= spec.storage.spread.host)
      bad(fmt::format("{} others are on {} already", there, s.row->host).c_str());
  if (s.kind == step_kind::set_groups)
    for (const auto& g : groups) {
      const auto& next = s.groups.at(g.id.number);
      if (holds(g) && !(next == g)) bad("changes a group that holds");
      if (!(next == g) && next.generation <= g.generation)
        bad("changes slots without a new generation");
      if (std::set<model::node_id>{next.slots.begin(), next.slots.end()}.size() !=
          next.slots.size())
        bad("a node twice in a group");
    }
  if (s.kind == step_kind::retire)
    for (const auto& g : groups)
      if (redundancy(g, s.node) < std::min(redundancy(g, {}), spec.storage.parity_shards))
        bad("lowers redundancy");
}

void trivial_world::carry_out(const controller::step& s, const model::observed& seen) {
  judge(s, seen);
  auto set = [&](node_state state, std::string reason) {
    auto& r = row(s.node);
    r.state = state;
    r.reason = std::move(reason);
    r.since = now;
  };
  auto begin = [&](const std::vector<model::group>& fresh) {
    groups = fresh;
    recorded.volume.groups = fresh;
    for (const auto& g : groups)
      if (auto [at, made] = shards.try_emplace(g.id.number); made)
        for (auto id : g.slots) at->second.push_back({id});
  };
  switch (s.kind) {
  case step_kind::reserve: {
    if (s.row) row(s.node) = *s.row;
    auto& r = row(s.node);
    if (refusing.contains(r.host)) {
      set(node_state::planned, "Refused");
      failed_hosts[{r.provider, r.host}] = now;
      return;
    }
    auto& t = nodes[s.node];
    if (t.reserved) broken.push_back("reserved twice: " + to_string(s.node));
    t = {true, true, false, true, false, false, r.size, 0ms};
    set(node_state::ready, "");
    return;
  }
  case step_kind::resolve:
    return set(node_state::planned, "");
  case step_kind::restart:
    nodes.at(s.node).running = true;
    return;
  case step_kind::mark_lost:
    failed_hosts[{row(s.node).provider, row(s.node).host}] = now;
    return set(node_state::lost, s.reason);
  case step_kind::mark_unreachable:
    return set(node_state::unreachable, "Silent");
  case step_kind::mark_ready:
    return set(node_state::ready, "");
  case step_kind::drain:
    return set(node_state::draining, s.reason);
  case step_kind::replace: {
    auto& old = row(s.node);
    if (old.state == node_state::unreachable) replaced_at.push_back(now);
    failed_hosts[{old.provider, old.host}] = now;
    old.replaced_by = s.row->id;
    old.state = node_state::replaced;
    if (s.row->id.number != recorded.next_node_number) broken.push_back("a number out of order");
    recorded.next_node_number = s.row->id.number + 1;
    recorded.nodes.push_back(*s.row);
    return;
  }
  case step_kind::make_volume:
    recorded.volume.created = true;
    volume_open = true;
    return begin(s.groups);
  case step_kind::set_groups:
    return begin(s.groups);
  case step_kind::resize:
    nodes.at(s.node).limit = s.size;
    return;
  case step_kind::retire:
  case step_kind::cancel:
    nodes.erase(s.node);
    return set(node_state::gone, "");
  case step_kind::open_volume:
    volume_open = true;
    return;
  case step_kind::mount:
    mounted_at = spec.mount->path.value;
    return;
  case step_kind::unmount:
    mounted_at.clear();
    return;
  case step_kind::close_volume:
    volume_open = false;
    recorded.volume.created = false;
    recorded.volume.groups.clear();
    groups.clear();
    return;
  }
}

std::size_t trivial_world::pass() {
  auto seen = observe();
  last = controller::next_actions(spec, recorded, seen);
  auto again = controller::next_actions(spec, recorded, seen);
  CHECK(again.steps.size() == last.steps.size()); // the same world, the same steps
  for (const auto& s : last.steps) carry_out(s, seen);
  return last.steps.size();
}

bool trivial_world::settle(int most) {
  for (int i = 0; i < most; ++i) {
    repair();
    if (pass() == 0) {
      auto before = observe();
      repair();
      if (pass() == 0) return true;
    }
  }
  return false;
}

} // namespace qs::test
