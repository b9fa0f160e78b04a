// The volume in a plan: made, laid over nodes anew, enlarged; and the proof that there is room on
// the way.
#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "controller/planner.hpp"

namespace qs::controller {

void planner::plan_volume() {
  if (recorded_.volume.created) return;
  const auto& s = desired_.storage;
  auto reason = fmt::format("{} usable, any {} of {} shards may be lost", format_bytes(s.capacity),
                            s.parity_shards, w_.n);
  if (previous_ != nullptr) reason = "under way: " + reason;
  // Where hosts are shared, the loss of one is the loss of several shards: said, not hidden.
  std::map<std::string, int> by_host;
  auto shared = 0;
  auto& a = add(action_kind::create_volume, "volume", std::move(reason));
  for (const auto& r : rows_afterwards()) {
    if (!world::member(r)) continue;
    a.depends_on.push_back("node." + to_string(r.id));
    shared = std::max(shared, ++by_host[r.provider + "/" + r.host]);
  }
  shared = std::min(shared, s.spread.host);
  if (shared > 1) a.reason += fmt::format("; one host = {} of {} shards", shared, w_.n);
  a.size = s.capacity;
  if (previous_ == nullptr)
    plan_.summary.usable_bytes_gained = static_cast<std::int64_t>(s.capacity);
}

void planner::prove_space(const next_layout& next, const std::vector<model::recorded_node>& after) {
  // New copies come before old ones go: what a node receives must fit beside what it holds.
  std::map<model::node_id, byte_count> incoming;
  for (const auto& h : next.hands)
    if (h.group < w_.groups.size())
      if (const auto* health = w_.health(w_.groups[h.group].id))
        incoming[h.to] += health->stored_bytes;
  byte_count missing = 0;
  auto short_of_room = 0;
  std::string first;
  for (const auto& r : after) {
    auto gets = incoming.find(r.id);
    if (gets == incoming.end()) continue;
    const auto* o = w_.seen(r.id);
    auto needs = std::max(o != nullptr ? o->used : byte_count{0}, w_.bytes_on(r.id)) + gets->second;
    if (needs <= node_room(r.size)) continue;
    missing += needs - node_room(r.size);
    if (short_of_room++ == 0)
      first = fmt::format("{} on {} would have to hold {} and has room for {}", to_string(r.id),
                          r.host, format_bytes(needs), format_bytes(node_room(r.size)));
  }
  if (short_of_room > 0)
    refuse(false, fmt::format("there is not enough room on the way: {}{}; {} missing in all; keep "
                              "more nodes (storage.nodes) or raise capacity "
                              "first",
                              first,
                              short_of_room > 1
                                  ? fmt::format(", and {} more nodes alike", short_of_room - 1)
                                  : "",
                              format_bytes(missing)));
}

void planner::plan_groups() {
  if (previous_ == nullptr || w_.groups.empty() || !refusals_.empty()) return;
  auto grows = previous_->storage.capacity != desired_.storage.capacity;
  auto after = rows_afterwards();
  auto next = w_.any_held() ? next_layout{w_.groups, {}, 0} : next_groups(w_, after, true);
  std::map<model::node_id, byte_count> sizes_before;
  std::map<model::node_id, byte_count> sizes_after;
  std::vector<layout_node> nodes;
  std::map<model::node_id, bool> stays;
  for (const auto& r : recorded_.nodes)
    if (r.state != model::node_state::gone) sizes_before[r.id] = r.size;
  for (const auto& r : after) {
    if (r.state == model::node_state::gone) continue;
    nodes.push_back(to_layout_node(r));
    stays[r.id] = world::member(r);
    if (world::member(r)) sizes_after[r.id] = r.size;
  }
  for (const auto& g : next.groups)
    for (auto id : g.slots)
      if (!w_.any_held() && stays.contains(id) && !stays[id]) {
        refuse(false, fmt::format("the slots of {} find no place on the other nodes under the "
                                  "spread rules: raise storage.nodes or loosen spread",
                                  to_string(id)));
        return;
      }
  if (previous_->storage.spread != desired_.storage.spread)
    if (auto bad = first_violation(next.groups, nodes, desired_.storage.spread)) {
      refuse(true,
             fmt::format(
                 "this version does not move nodes to meet a tighter spread: group {} breaks it",
                 to_string(next.groups[*bad].id)));
      return;
    }
  prove_space(next, after);

  byte_count moved = 0;
  auto handed = 0;
  for (const auto& h : next.hands) {
    if (!stays[h.from]) continue; // counted with the node that leaves
    ++handed;
    if (h.group < w_.groups.size())
      if (const auto* health = w_.health(w_.groups[h.group].id)) moved += health->stored_bytes;
  }
  auto k = desired_.storage.data_shards;
  auto before = std::min(previous_->storage.capacity, usable_bytes(w_.groups, sizes_before, k));
  auto later = std::min(desired_.storage.capacity, usable_bytes(next.groups, sizes_after, k));
  auto gained = static_cast<std::int64_t>(later) - static_cast<std::int64_t>(before);
  if (!grows && handed == 0 && next.added == 0) return;
  plan_.summary.usable_bytes_gained = gained;
  std::string reason;
  auto say = [&](const std::string& text) { reason += (reason.empty() ? "" : "; ") + text; };
  if (grows)
    say(fmt::format("{} -> {}", format_bytes(previous_->storage.capacity),
                    format_bytes(desired_.storage.capacity)));
  if (next.added > 0) say(fmt::format("{} -> {} groups", w_.groups.size(), next.groups.size()));
  if (handed > 0) say(fmt::format("{} slots handed over", handed));
  if (gained == 0)
    say(grows ? fmt::format("usable stays {}", format_bytes(later))
              : fmt::format("usable stays {}: capacity declares no more", format_bytes(later)));
  else
    say(fmt::format("usable {}{}", gained > 0 ? "+" : "-",
                    format_bytes(static_cast<byte_count>(gained > 0 ? gained : -gained))));
  std::vector<std::string> first;
  for (const auto& other : plan_.actions)
    if (other.kind == action_kind::create_node || other.kind == action_kind::update_node)
      first.push_back(other.address);
  auto& a = add(action_kind::change_groups, "volume", std::move(reason));
  a.bytes_to_move = moved;
  a.depends_on = std::move(first);
}

} // namespace qs::controller
