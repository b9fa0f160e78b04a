#include "volume/segment_table.hpp"

#include <algorithm>
#include <bit>

namespace qs::volume {

namespace {
constexpr std::uint64_t unlimited = ~std::uint64_t{0};

template <class M, class K>
void change(M& map, const K& key, bool add) {
  auto& n = map[key];
  if (add) ++n;
  else if (--n == 0) map.erase(key);
}
void adjust(std::uint64_t& sum, std::uint64_t by, bool add) { sum = add ? sum + by : sum - by; }
} // namespace

const std::vector<model::node_id>* segment_table::slots_locked(std::uint32_t group, std::uint32_t generation) const {
  auto g = groups_.find(group);
  if (g == groups_.end()) return nullptr;
  auto s = g->second.find(generation);
  return s == g->second.end() ? nullptr : &s->second;
}

const std::pair<const std::uint32_t, std::vector<model::node_id>>* segment_table::newest_locked(
  std::uint32_t group) const {
  auto g = groups_.find(group);
  return g == groups_.end() || g->second.empty() ? nullptr : &*g->second.rbegin();
}

bool segment_table::live_locked(model::node_id node) const {
  auto it = nodes_.find(node);
  return it == nodes_.end() ? nodes_.empty() : it->second.live;
}
bool segment_table::may_return_locked(model::node_id node) const {
  auto it = nodes_.find(node);
  return it == nodes_.end() ? nodes_.empty() : it->second.live || it->second.may_return;
}
bool segment_table::reachable_locked(model::node_id node) const {
  auto it = nodes_.find(node);
  return it == nodes_.end() ? nodes_.empty() : it->second.reachable;
}

segment_table::standing segment_table::stand(const segment_entry& e) const {
  standing s;
  const auto* slots = slots_locked(e.group, e.group_generation);
  const auto* newest = newest_locked(e.group);
  unsigned good = 0;
  if (slots)
    for (unsigned i = 0; i < slots->size(); ++i)
      if (((e.required & e.confirmed) >> i & 1) != 0 && live_locked((*slots)[i])) ++good;
  s.missing = static_cast<unsigned>(std::popcount(e.required)) - good;
  s.redundancy = static_cast<int>(good) - static_cast<int>(e.used_shards);
  s.older = newest && e.group_generation < newest->first;
  s.work = e.state == segment_state::stored && e.live_bytes > 0 && (s.older || s.missing > 0);
  return s;
}

void segment_table::count(model::segment_ref ref, const segment_entry& e, bool add) {
  adjust(used_, e.live_bytes, add);
  if (e.group != no_group) change(on_generation_, std::pair{e.group, e.group_generation}, add);
  if (e.state == segment_state::open) return;
  if (e.live_bytes == 0) {
    if (add) dead_.insert(ref);
    else dead_.erase(ref);
    return;
  }
  if (e.state == segment_state::sealed) {
    adjust(pinned_, e.live_bytes, add);
    change(pinned_since_, e.sealed_ms, add);
    return;
  }
  auto s = stand(e);
  if (by_missing_.size() <= s.missing) by_missing_.resize(s.missing + 1);
  adjust(by_missing_[s.missing], 1, add);
  if (static_cast<unsigned>(std::popcount(e.required & e.confirmed)) < e.used_shards)
    adjust(at_risk_stored_, e.live_bytes, add);
  auto& g = group_sums_[e.group];
  adjust(g.segments, 1, add);
  adjust(g.stored_bytes, e.shard_length, add);
  if (s.older) adjust(g.older, 1, add);
  if (s.missing > 0) adjust(g.missing, 1, add);
  change(g.redundancy, s.redundancy, add);
  if (s.work) {
    if (add) work_.insert({s.redundancy, ref});
    else work_.erase({s.redundancy, ref});
  }
  const auto* slots = slots_locked(e.group, e.group_generation);
  const auto* newest = newest_locked(e.group);
  if (!slots || !newest) return;
  for (unsigned i = 0; i < slots->size(); ++i) {
    if ((e.required >> i & 1) == 0) continue;
    auto node = (*slots)[i];
    auto& sum = node_sums_[node];
    adjust(sum.bytes, e.shard_length, add);
    if ((e.confirmed >> i & 1) == 0) continue;
    // Without it fewer than k would be left; one that does not count is not among those that are.
    if (live_locked(node) ? s.redundancy <= 0 : s.redundancy < 0 && may_return_locked(node)) adjust(sum.indispensable, 1, add);
    if (s.older && i < newest->second.size() && newest->second[i] != node) adjust(sum.source, 1, add);
  }
}

void segment_table::recount() {
  group_sums_.clear();
  node_sums_.clear();
  on_generation_.clear();
  pinned_since_.clear();
  by_missing_.clear();
  work_.clear();
  dead_.clear();
  used_ = pinned_ = at_risk_stored_ = 0;
  for (const auto& [ref, e] : segments_) count(ref, e, true);
}

void segment_table::update(model::segment_ref ref, const segment_row* row) {
  std::lock_guard lock{mutex_};
  auto it = segments_.find(ref);
  if (it != segments_.end()) count(ref, it->second, false);
  if (!row) {
    if (it != segments_.end()) segments_.erase(it);
    return;
  }
  segment_entry e{row->state,     row->data_shards, row->parity_shards,    row->used_shards,
                  row->shard_length, row->group,    row->group_generation, row->confirmed,
                  row->required(),   row->live_bytes, row->sealed_ms,      row->confirmed_ms,
                  row->damaged};
  if (e.confirmed != 0 && (it == segments_.end() || it->second.confirmed_ms != e.confirmed_ms || it->second.confirmed == 0)) {
    constexpr std::size_t recent_max = 100'000;
    recent_.emplace_back(recent_.empty() ? e.confirmed_ms : std::max(e.confirmed_ms, recent_.back().first), ref);
    if (recent_.size() > recent_max) {
      recent_floor_ = recent_.front().first;
      recent_.pop_front();
    }
  }
  segments_[ref] = e;
  count(ref, e, true);
}

std::optional<segment_entry> segment_table::find(model::segment_ref ref) const {
  std::lock_guard lock{mutex_};
  auto it = segments_.find(ref);
  if (it == segments_.end()) return {};
  return it->second;
}

void segment_table::add_groups(const std::vector<model::group>& groups) {
  std::lock_guard lock{mutex_};
  for (const auto& group : groups) groups_[group.id.number][group.generation] = group.slots;
  recount();
}

void segment_table::erase_group(model::group_id id, std::uint32_t generation) {
  std::lock_guard lock{mutex_};
  auto it = groups_.find(id.number);
  if (it == groups_.end()) return;
  it->second.erase(generation);
  if (it->second.empty()) groups_.erase(it);
}

std::vector<model::group> segment_table::groups() const {
  std::lock_guard lock{mutex_};
  std::vector<model::group> out;
  for (const auto& [id, generations] : groups_)
    if (!generations.empty())
      out.push_back({{id}, generations.rbegin()->first, generations.rbegin()->second});
  return out;
}

std::optional<std::vector<model::node_id>> segment_table::slots(std::uint32_t group, std::uint32_t generation) const {
  std::lock_guard lock{mutex_};
  const auto* s = slots_locked(group, generation);
  if (!s) return {};
  return *s;
}

std::optional<model::group> segment_table::newest(std::uint32_t group) const {
  std::lock_guard lock{mutex_};
  const auto* s = newest_locked(group);
  if (!s) return {};
  return model::group{{group}, s->first, s->second};
}

std::vector<std::pair<model::group_id, std::uint32_t>> segment_table::empty_generations() const {
  std::lock_guard lock{mutex_};
  std::vector<std::pair<model::group_id, std::uint32_t>> out;
  for (const auto& [id, generations] : groups_)
    for (const auto& [generation, slots] : generations)
      if (generation != generations.rbegin()->first && !on_generation_.contains({id, generation}))
        out.push_back({{id}, generation});
  return out;
}

bool segment_table::set_nodes(const std::vector<node_view>& nodes) {
  std::lock_guard lock{mutex_};
  bool changed = nodes.size() != nodes_.size();
  bool back = false;
  for (const auto& n : nodes) {
    auto it = nodes_.find(n.id);
    if (it == nodes_.end() || it->second.live != n.live || it->second.may_return != n.may_return) changed = true;
    if (n.reachable && (it == nodes_.end() || !it->second.reachable)) back = true;
    if (it == nodes_.end() || it->second.used != n.used || it->second.limit != n.limit) {
      sent_.erase(n.id);
      if (it != nodes_.end() && (n.used < it->second.used || n.limit > it->second.limit)) full_.erase(n.id);
    }
  }
  nodes_.clear();
  for (const auto& n : nodes) nodes_[n.id] = n;
  if (changed) recount();
  return back;
}

bool segment_table::reachable(model::node_id node) const {
  std::lock_guard lock{mutex_};
  return reachable_locked(node);
}
bool segment_table::some_reachable(const std::vector<model::node_id>& slots, std::uint64_t shards) const {
  std::lock_guard lock{mutex_};
  for (unsigned i = 0; i < slots.size(); ++i)
    if ((shards >> i & 1) != 0 && reachable_locked(slots[i])) return true;
  return false;
}
unsigned segment_table::count_there(const std::vector<model::node_id>& slots, std::uint64_t shards, bool answering) const {
  std::lock_guard lock{mutex_};
  unsigned n = 0;
  for (unsigned i = 0; i < slots.size(); ++i) {
    if ((shards >> i & 1) == 0 || !live_locked(slots[i]) || (answering && !reachable_locked(slots[i]))) continue;
    ++n;
  }
  return n;
}
bool segment_table::live(model::node_id node) const {
  std::lock_guard lock{mutex_};
  return live_locked(node);
}
bool segment_table::may_return(model::node_id node) const {
  std::lock_guard lock{mutex_};
  return may_return_locked(node);
}

std::uint64_t segment_table::node_free(model::node_id node, bool empty) const {
  auto it = nodes_.find(node);
  if (it == nodes_.end() || it->second.limit == 0) return full_.contains(node) ? 0 : unlimited;
  if (!empty && full_.contains(node)) return 0;
  const auto& n = it->second;
  auto keep = std::max<std::uint64_t>(256 * mib, n.limit / 20);
  auto sent = sent_.find(node);
  auto used = empty ? 0 : n.used + (sent == sent_.end() ? 0 : sent->second);
  return n.limit > keep + used ? n.limit - keep - used : 0;
}

std::optional<chosen_group> segment_table::choose(std::uint64_t shard_bytes, unsigned parity, random_source& random) {
  std::lock_guard lock{mutex_};
  struct candidate {
    std::uint32_t id;
    std::uint64_t weight;
  };
  std::vector<candidate> best;
  unsigned least = parity + 1;
  for (const auto& [id, generations] : groups_) {
    const auto& slots = generations.rbegin()->second;
    unsigned away = 0;
    auto free = unlimited;
    for (auto node : slots) {
      if (!reachable_locked(node) || !live_locked(node)) ++away;
      else free = std::min(free, node_free(node, false));
    }
    if (away > parity || away > least || free < shard_bytes) continue;
    if (away < least) {
      best.clear();
      least = away;
    }
    best.push_back({id, free == unlimited ? gib : free / mib + 1});
  }
  if (best.empty()) return {};
  std::uint64_t total = 0;
  for (const auto& c : best) total += c.weight;
  auto at = random.below(total);
  auto it = best.begin();
  while (at >= it->weight) at -= (it++)->weight;
  const auto& newest = *newest_locked(it->id);
  for (auto node : newest.second) sent_[node] += shard_bytes;
  return chosen_group{{it->id}, newest.first, newest.second};
}

void segment_table::mark_full(model::node_id node) {
  std::lock_guard lock{mutex_};
  full_.insert(node);
}

bool segment_table::has_space() const {
  std::lock_guard lock{mutex_};
  if (groups_.empty()) return true;
  return std::any_of(groups_.begin(), groups_.end(), [&](const auto& g) {
    const auto& slots = g.second.rbegin()->second;
    return std::all_of(slots.begin(), slots.end(),
                       [&](model::node_id n) {
                         return !live_locked(n) || node_free(n, false) >= byte_count{codec::frame_stored_max} * 8;
                       });
  });
}

segment_table::totals segment_table::sum(unsigned parity) const {
  std::lock_guard lock{mutex_};
  totals t;
  t.used_bytes = used_;
  t.segments = segments_.size();
  t.pinned_bytes = pinned_;
  t.pinned_since_ms = pinned_since_.empty() ? 0 : pinned_since_.begin()->first;
  t.at_risk_stored = at_risk_stored_;
  t.repairs = work_.size();
  t.by_missing = by_missing_;
  int least = static_cast<int>(parity);
  for (const auto& [id, g] : group_sums_)
    if (!g.redundancy.empty()) least = std::min(least, g.redundancy.begin()->first);
  t.redundancy_left_min = static_cast<std::uint32_t>(std::max(least, 0));
  return t;
}

segment_table::room segment_table::space(std::uint64_t declared, unsigned data_shards) const {
  std::lock_guard lock{mutex_};
  std::unordered_map<model::node_id, std::uint64_t> slots_of;
  for (const auto& [id, generations] : groups_)
    for (auto node : generations.rbegin()->second) ++slots_of[node];
  room r;
  bool known = false;
  for (const auto& [id, generations] : groups_) {
    auto total = unlimited;
    auto free = unlimited;
    for (auto node : generations.rbegin()->second) {
      auto n = slots_of[node];
      if (auto t = node_free(node, true); t != unlimited) total = std::min(total, t / n);
      if (auto f = node_free(node, false); f != unlimited) free = std::min(free, f / n);
    }
    if (total == unlimited) continue;
    known = true;
    r.usable += total * data_shards;
    r.free += free == unlimited ? 0 : free * data_shards;
  }
  if (!known) r = {declared, declared};
  if (declared != 0) r.usable = std::min(r.usable, declared);
  r.free = std::min(r.free, r.usable > used_ ? r.usable - used_ : 0);
  return r;
}

std::vector<model::group_health> segment_table::health(unsigned parity) const {
  std::lock_guard lock{mutex_};
  std::vector<model::group_health> out;
  for (const auto& [id, generations] : groups_) {
    model::group_health h;
    h.id = {id};
    h.generation = generations.rbegin()->first;
    h.redundancy_left_min = parity;
    if (auto it = group_sums_.find(id); it != group_sums_.end()) {
      const auto& g = it->second;
      h.segments = g.segments;
      h.segments_on_older_generation = g.older;
      h.segments_missing_shards = g.missing;
      h.stored_bytes = g.stored_bytes;
      if (!g.redundancy.empty())
        h.redundancy_left_min = static_cast<std::uint32_t>(std::max(g.redundancy.begin()->first, 0));
    }
    out.push_back(h);
  }
  return out;
}

std::vector<model::node_id> segment_table::indispensable() const {
  std::lock_guard lock{mutex_};
  std::vector<model::node_id> out;
  for (const auto& [node, sum] : node_sums_)
    if (sum.indispensable > 0) out.push_back(node);
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<model::node_id> segment_table::sources() const {
  std::lock_guard lock{mutex_};
  std::vector<model::node_id> out;
  for (const auto& [node, sum] : node_sums_)
    if (sum.source > 0) out.push_back(node);
  std::sort(out.begin(), out.end());
  return out;
}

std::uint64_t segment_table::bytes_on(model::node_id node) const {
  std::lock_guard lock{mutex_};
  auto it = node_sums_.find(node);
  return it == node_sums_.end() ? 0 : it->second.bytes;
}

std::vector<std::pair<segment_table::work_key, segment_entry>> segment_table::work(std::optional<work_key> after,
                                                                                   std::size_t most) const {
  std::lock_guard lock{mutex_};
  std::vector<std::pair<work_key, segment_entry>> out;
  for (auto it = after ? work_.upper_bound(*after) : work_.begin(); it != work_.end() && out.size() < most; ++it)
    out.emplace_back(*it, segments_.at(it->second));
  return out;
}

std::vector<model::segment_ref> segment_table::dead(model::segment_ref after, std::size_t most) const {
  std::lock_guard lock{mutex_};
  std::vector<model::segment_ref> out;
  for (auto it = dead_.upper_bound(after); it != dead_.end() && out.size() < most; ++it) out.push_back(*it);
  return out;
}

std::vector<model::segment_ref> segment_table::confirmed_on(model::node_id node, std::uint64_t since_ms) const {
  std::lock_guard lock{mutex_};
  std::vector<model::segment_ref> out;
  auto look = [&](model::segment_ref ref, const segment_entry& e) {
    if (e.confirmed == 0 || e.confirmed_ms < since_ms) return;
    const auto* slots = slots_locked(e.group, e.group_generation);
    if (!slots) return;
    for (unsigned i = 0; i < slots->size(); ++i)
      if ((*slots)[i] == node && (e.confirmed >> i & 1) != 0) {
        out.push_back(ref);
        break;
      }
  };
  if (since_ms <= recent_floor_) {
    for (const auto& [ref, e] : segments_) look(ref, e);
    return out;
  }
  auto first = std::lower_bound(recent_.begin(), recent_.end(), since_ms,
                                [](const auto& r, std::uint64_t ms) { return r.first < ms; });
  for (auto it = first; it != recent_.end(); ++it)
    if (auto e = segments_.find(it->second); e != segments_.end()) look(it->second, e->second);
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

} // namespace qs::volume
