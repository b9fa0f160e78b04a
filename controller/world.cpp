#include "controller/world.hpp"

#include <algorithm>

#include "controller/seed.hpp"

namespace qs::controller {

using model::node_state;
using model::reach;

world::world(const spec::storage_spec& s, const model::recorded& r, const model::observed& o)
    : spec{s}, recorded{r}, observed{o}, groups{o.volume.open ? o.volume.groups : r.volume.groups},
      k{s.storage.data_shards}, m{s.storage.parity_shards}, n{k + m} {
  for (const auto& row : r.nodes) rows_[row.id] = &row;
  for (const auto& node : o.nodes) seen_[node.id] = &node;
  for (const auto& h : o.volume.open ? o.volume.health : r.volume.health) health_[h.id] = &h;
  for (std::size_t g = 0; g < groups.size(); ++g)
    for (auto id : groups[g].slots) slots_[id].push_back(g);
  held_.resize(groups.size());
  for (std::size_t g = 0; g < groups.size(); ++g) {
    held_[g] = group_holds(groups[g]);
    any_held_ = any_held_ || held_[g];
  }
}

const model::recorded_node* world::row(model::node_id id) const {
  auto at = rows_.find(id);
  return at == rows_.end() ? nullptr : at->second;
}

const model::observed_node* world::seen(model::node_id id) const {
  auto at = seen_.find(id);
  return at == seen_.end() ? nullptr : at->second;
}

reach world::reach_of(model::node_id id) const {
  const auto* o = seen(id);
  return o == nullptr ? reach::unknown : o->state;
}

const model::group_health* world::health(model::group_id id) const {
  auto at = health_.find(id);
  return at == health_.end() ? nullptr : at->second;
}

bool world::group_holds(const model::group& g) const {
  int answered = 0;
  int unconfirmed = 0;
  for (auto id : g.slots) {
    auto state = reach_of(id);
    if (state == reach::answers) {
      ++answered;
      continue;
    }
    const auto* r = row(id);
    const auto* o = seen(id);
    auto explained =
        state == reach::data_lost || state == reach::access_denied ||
        (o != nullptr && o->stopped) ||
        (r != nullptr && (r->state == node_state::lost || r->state == node_state::gone));
    if (!explained) ++unconfirmed;
  }
  return answered < k || unconfirmed > m;
}

bool world::held(model::node_id id) const {
  // A replacement that has no slot yet stands where its predecessors stood. The chain is as long as
  // the tries, and rows never form a circle: a replacement's number is higher.
  for (const auto* r = row(id);;) {
    if (auto at = slots_.find(id); at != slots_.end())
      if (std::any_of(at->second.begin(), at->second.end(), [&](auto g) { return held_[g] != 0; }))
        return true;
    if (r == nullptr || !r->replaces || *r->replaces >= id) return false;
    id = *r->replaces;
    r = row(id);
  }
}

std::size_t world::slots_of(model::node_id id) const {
  auto at = slots_.find(id);
  return at == slots_.end() ? 0 : at->second.size();
}

bool world::member(const model::recorded_node& row) noexcept {
  return row.state != node_state::draining && row.state != node_state::replaced &&
         row.state != node_state::gone;
}

bool world::in_flight(const model::recorded_node& row) noexcept {
  return row.state == node_state::planned || row.state == node_state::reserving ||
         row.state == node_state::deploying;
}

bool world::lost(const model::recorded_node& row) const {
  auto state = reach_of(row.id);
  if (state == reach::answers) return false;
  if (row.state == node_state::planned || row.state == node_state::reserving) return false;
  return row.state == node_state::lost || state == reach::data_lost ||
         state == reach::access_denied;
}

bool world::spare(const model::recorded_node& row) const {
  if ((row.state != node_state::draining && row.state != node_state::replaced) || held(row.id))
    return false;
  if (!recorded.volume.created && groups.empty()) return true; // nothing is stored
  const auto& v = observed.volume;
  auto in = [&](const std::vector<model::node_id>& list) {
    return std::find(list.begin(), list.end(), row.id) != list.end();
  };
  return v.open && !any_held_ && !in_groups(row.id) && !in(v.sources) && !in(v.indispensable) &&
         std::all_of(groups.begin(), groups.end(), [&](const auto& g) { return whole(g); });
}

bool world::overdue(const model::recorded_node& row) const {
  const auto* o = seen(row.id);
  if (o == nullptr || o->state != reach::silent || o->stopped) return false;
  return o->silent_for >= spec.monitor.failed_after + spec.monitor.replace_after;
}

const model::recorded_node* world::heir(model::node_id id) const {
  const auto* r = row(id);
  while (r != nullptr && r->replaced_by && *r->replaced_by > r->id) {
    const auto* next = row(*r->replaced_by);
    if (next == nullptr) break;
    r = next;
  }
  return r;
}

byte_count world::bytes_on(model::node_id id) const {
  byte_count sum = 0;
  if (auto at = slots_.find(id); at != slots_.end())
    for (auto g : at->second)
      if (const auto* h = health(groups[g].id)) sum += h->stored_bytes;
  return sum;
}

int world::redundancy_left() const {
  auto least = m;
  for (const auto& g : groups) {
    const auto* h = health(g.id);
    if (h != nullptr && h->segments == 0) continue;
    if (h != nullptr) least = std::min(least, static_cast<int>(h->redundancy_left_min));
    auto away = std::count_if(g.slots.begin(), g.slots.end(), [&](auto id) {
      auto state = reach_of(id);
      const auto* r = row(id);
      return state == reach::data_lost || state == reach::access_denied || state == reach::silent ||
             (r != nullptr && r->state == node_state::lost && state != reach::answers);
    });
    least = std::min(least, m - static_cast<int>(away));
  }
  return std::max(least, 0);
}

bool world::settled(const model::group& g) const {
  const auto* h = health(g.id);
  return h != nullptr && h->generation == g.generation && h->segments_on_older_generation == 0;
}

bool world::whole(const model::group& g) const {
  const auto* h = health(g.id);
  return settled(g) && h->segments_missing_shards == 0;
}

std::vector<layout_node> world::members_as_layout() const {
  std::vector<layout_node> out;
  for (const auto& r : recorded.nodes)
    if (member(r)) out.push_back(to_layout_node(r));
  return out;
}

model::money world::burn() const {
  model::money sum;
  for (const auto& r : recorded.nodes)
    if (member(r)) sum += r.price;
  return sum;
}

int unreachable_allowance(int nodes) noexcept { return std::max(2, nodes / 10); }

std::uint64_t layout_seed(const model::recorded& recorded) {
  return mix(recorded.lineage, 0x6c61796f7574ULL);
}

// -- the groups as they should be next
// -------------------------------------------------------------------------------

namespace {

/// Gives away the slots of nodes that leave.
void empty_the_leaving(const world& w, layout& plan, std::vector<model::group>& groups,
                       const std::unordered_map<model::node_id, const model::recorded_node*>& rows,
                       bool all_ready, std::vector<handing>& hands) {
  auto heir_of = [&](model::node_id id) -> std::optional<model::node_id> {
    auto at = rows.find(id);
    auto steps = rows.size();
    while (at != rows.end() && at->second->replaced_by && steps-- > 0)
      at = rows.find(*at->second->replaced_by);
    if (at == rows.end() || at->second->id == id || !world::member(*at->second))
      return std::nullopt;
    return at->second->id;
  };
  for (std::size_t g = 0; g < groups.size(); ++g) {
    auto& group = groups[g];
    if (g < w.groups.size() && w.held(g)) continue;
    for (std::size_t slot = 0; slot < group.slots.size(); ++slot) {
      auto from = group.slots[slot];
      auto at = rows.find(from);
      if (at == rows.end() || world::member(*at->second)) continue;
      auto healthy =
          at->second->state == node_state::draining && w.reach_of(from) == reach::answers;
      // A healthy node is emptied one slot of a group at a time, and only from groups that are
      // whole.
      if (!all_ready && healthy &&
          (!w.whole(w.groups[g]) || group.generation != w.groups[g].generation))
        continue;
      auto heir = heir_of(from);
      std::optional<model::node_id> to;
      if (heir) {
        const auto& r = *rows.find(*heir)->second;
        auto here =
            all_ready || (r.state == node_state::ready && w.reach_of(r.id) == reach::answers);
        if (!here) continue; // it is on its way: wait for it
        if (plan.fits(group, slot, *heir)) to = heir;
      }
      if (!to) to = plan.best_for(group, slot);
      if (!to) continue;
      hands.push_back({g, slot, from, *to});
      plan.hand(group, slot, *to);
    }
  }
}

} // namespace

next_layout next_groups(const world& w, const std::vector<model::recorded_node>& rows,
                        bool all_ready) {
  next_layout out{w.groups, {}, 0};
  std::vector<layout_node> nodes;
  std::unordered_map<model::node_id, const model::recorded_node*> by_id;
  auto members = 0;
  auto ready = 0;
  for (const auto& r : rows) {
    by_id[r.id] = &r;
    if (r.state == node_state::gone) continue;
    auto takes =
        world::member(r) &&
        (all_ready || (r.state == node_state::ready && w.reach_of(r.id) == reach::answers));
    if (world::member(r)) ++members;
    if (takes) ++ready;
    nodes.push_back(to_layout_node(r, takes));
  }
  if (w.groups.empty()) return out;
  layout plan{nodes, w.spec.storage.spread, layout_seed(w.recorded)};
  plan.count(out.groups);
  empty_the_leaving(w, plan, out.groups, by_id, all_ready, out.hands);

  // Enlarging and balancing wait until every node is there and nothing is under repair: repair
  // comes first.
  auto all_here = ready == members && ready >= w.n;
  if (!all_ready && (!all_here || w.any_held() || !out.hands.empty())) return out;
  auto have = static_cast<std::uint32_t>(out.groups.size()); // numbered from 0, without gaps
  if (auto wanted = group_count(members, w.n); wanted > have) {
    auto more = plan.add_groups(have, wanted - have, w.n);
    if (more) {
      out.added = static_cast<std::uint32_t>(more->size());
      out.groups.insert(out.groups.end(), more->begin(), more->end());
    }
  }
  if (!all_ready) {
    auto moves = plan.balance(out.groups, [&](const model::group& g) {
      return w.whole(g); // false for the new ones, which have no report yet
    });
    out.hands.insert(out.hands.end(), moves.begin(), moves.end());
    return out;
  }
  for (;;) { // round after round, as the passes will do it
    auto moves = plan.balance(out.groups, [](const model::group&) { return true; });
    if (moves.empty()) return out;
    out.hands.insert(out.hands.end(), moves.begin(), moves.end());
  }
}

} // namespace qs::controller
