// The nodes of a plan: which stay, which leave, which are made, and where.
#include <algorithm>

#include <fmt/format.h>

#include "controller/planner.hpp"

namespace qs::controller {

using model::node_state;
using model::reach;

void planner::list_nodes() {
  auto looked = observed_.complete || !observed_.nodes.empty();
  for (const auto& r : recorded_.nodes) {
    if (r.state == node_state::gone) continue;
    if (!world::member(r)) {
      auto& a = add_node(action_kind::destroy_node, r,
                         r.replaced_by
                             ? fmt::format("under way: {} takes over, then its reservation ends",
                                           to_string(*r.replaced_by))
                             : "under way: emptied, then its reservation ends");
      a.bytes_to_move = w_.bytes_on(r.id);
      hosts_.occupy(r.provider, r.host);
      continue;
    }
    fate f;
    f.row = &r;
    f.size = r.size;
    auto held = w_.held(r.id);
    if (!held && w_.lost(r)) {
      f.failed = true;
      const auto* o = w_.seen(r.id);
      auto word = !r.reason.empty() && r.state == node_state::lost   ? r.reason
                  : o != nullptr && o->state == reach::access_denied ? std::string{"AccessDenied"}
                  : o != nullptr && !o->detail.empty()               ? o->detail
                                                                     : std::string{"DataLost"};
      f.why = fmt::format("lost ({})", word);
    } else if (!held && w_.overdue(r) && !world::in_flight(r)) {
      f.failed = true;
      f.why = fmt::format("unreachable for {}", format_duration(w_.seen(r.id)->silent_for));
    } else if (looked && !world::in_flight(r) && w_.reach_of(r.id) != reach::answers) {
      const auto* o = w_.seen(r.id);
      add_node(action_kind::unknown_node, r,
               o != nullptr && o->stopped ? "stopped, its data is whole; the engine starts it again"
               : held                     ? "no answer, as too many others; left untouched"
                                          : "no answer; left untouched");
    }
    fates_.push_back(std::move(f));
  }
}

void planner::choose_surplus() {
  auto wanted = static_cast<std::size_t>(desired_.storage.nodes);
  if (fates_.size() <= wanted) return;
  if (w_.any_held())
    return refuse(true, "too few nodes answer to take any away: nothing is changed until they do");
  // Kept: those that locations need, chosen by preference, then by preference: sound, answering,
  // oldest.
  std::vector<fate*> order;
  for (auto& f : fates_) order.push_back(&f);
  auto badness = [&](const fate* f) {
    return f->failed                                   ? 3
           : w_.reach_of(f->row->id) == reach::answers ? 0
           : world::in_flight(*f->row)                 ? 1
                                                       : 2;
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](auto* a, auto* b) { return badness(a) < badness(b); });
  location_matcher locations{desired_.storage.locations};
  for (auto* f : order) f->needed = locations.offer(f->row->place);
  std::stable_sort(order.begin(), order.end(),
                   [](auto* a, auto* b) { return a->needed > b->needed; });
  for (auto i = wanted; i < order.size(); ++i) order[i]->surplus = true;
  for (auto& f : fates_) {
    if (!f.surplus) continue;
    auto& row = change(*f.row);
    row.state = node_state::draining;
    row.reason = "Surplus";
    auto& a =
        add_node(action_kind::destroy_node, *f.row,
                 f.failed                   ? f.why + "; not replaced, there are enough"
                 : world::in_flight(*f.row) ? "surplus: its reservation ends"
                                            : "surplus: emptied first, then its reservation ends");
    a.bytes_to_move = w_.bytes_on(f.row->id);
    hosts_.occupy(f.row->provider, f.row->host);
  }
}

void planner::resize_or_move(fate& f, byte_count target, bool lowered) {
  const auto& row = *f.row;
  const auto* o = w_.seen(row.id);
  auto given = o != nullptr && o->state == reach::answers && o->limit != 0 ? o->limit : row.size;
  if (row.size < target) {
    auto more = target - row.size;
    if (!hosts_.answers(row.provider, row.host)) {
      refuse_for_now(fmt::format("{} did not say what it has free for {}: try again when it answers",
                                 row.host, to_string(row.id)));
      return;
    }
    if (hosts_.room(row.provider, row.host) < more) {
      f.moves = true;
      f.why = fmt::format("{} has no room for {} more", row.host, format_bytes(more));
      return;
    }
    hosts_.take_room(row.provider, row.host, more);
  } else if (row.size > target && lowered) {
    auto used = std::max(o != nullptr ? o->used : byte_count{0}, w_.bytes_on(row.id));
    if (node_room(target) < used) {
      refuse(true, fmt::format("{} holds {}, which does not fit {}: {} too little",
                               to_string(row.id), format_bytes(used), format_bytes(target),
                               format_bytes(used - node_room(target))));
      return;
    }
  } else {
    if (given != row.size && !(row.size < given && o != nullptr && node_room(row.size) < o->used)) {
      plan_.drift.push_back(fmt::format("{} has {}, recorded {} (explains the change above)",
                                        to_string(row.id), format_bytes(given),
                                        format_bytes(row.size)));
      add_node(action_kind::update_node, row,
               fmt::format("{} -> {}", format_bytes(given), format_bytes(row.size)));
    }
    return;
  }
  auto& changed = change(row);
  changed.size = target;
  if (auto price = hosts_.price(row.provider, row.host, target)) {
    changed.price = *price;
    changed.price_limit = {price->units + price->units / 10};
  }
  f.size = target;
  add_node(action_kind::update_node, changed,
           fmt::format("{} -> {}", format_bytes(row.size), format_bytes(target)));
}

/// Why a node cannot stay where it is by what the file says; empty: it can.
std::string planner::left_out(const model::recorded_node& row) const {
  auto grids = provider_names(desired_);
  if (std::find(grids.begin(), grids.end(), row.provider) == grids.end())
    return fmt::format("grid {} is no longer in the file", row.provider);
  if (row.provider != "hosts") return {};
  for (const auto& source : desired_.grids)
    if (const auto* list = std::get_if<spec::hosts_grid>(&source))
      for (const auto& h : list->hosts)
        if (h.name == row.host) return {};
  return fmt::format("{} is no longer in the file", row.host);
}

void planner::keep_or_move() {
  const auto& s = desired_.storage;
  auto target = node_size(s.capacity, s.data_shards, s.parity_shards, s.nodes);
  auto lowered = previous_ != nullptr && s.capacity < previous_->storage.capacity;
  std::vector<fate*> kept;
  for (auto& f : fates_) {
    if (f.surplus || f.failed) continue;
    if (hosts_.excluded(f.row->host, f.row->place)) {
      f.moves = true;
      f.why = fmt::format("{} is excluded", f.row->host);
    } else if (auto why = left_out(*f.row); !why.empty()) {
      f.moves = true;
      f.why = why;
    } else {
      kept.push_back(&f);
    }
  }
  // Locations: as many of the nodes that no rule needs are moved as new nodes alone cannot provide.
  location_matcher locations{s.locations};
  for (auto* f : kept) f->needed = locations.offer(f->row->place);
  auto fresh = s.nodes - static_cast<int>(kept.size());
  auto too_many = locations.missing() - fresh;
  for (auto at = kept.rbegin(); at != kept.rend() && too_many > 0; ++at)
    if (!(*at)->needed) {
      (*at)->moves = true;
      (*at)->why = "locations ask for " + locations.describe_missing();
      --too_many;
    }
  for (auto* f : kept)
    if (!f->moves) resize_or_move(*f, target, lowered);
  for (auto& f : fates_) {
    if (f.surplus) continue;
    if (f.failed || f.moves)
      hosts_.occupy(f.row->provider, f.row->host);
    else
      hosts_.keep(*f.row);
    if (f.failed || f.moves || !world::in_flight(*f.row)) continue;
    auto& a = add_node(
        f.row->replaces ? action_kind::replace_node : action_kind::create_node, *f.row,
        f.row->replaces ? fmt::format("under way: {} on {}", to_string(f.row->id), f.row->host)
                        : "under way");
    if (f.row->replaces) {
      a.node = *f.row->replaces;
      a.address = "node." + to_string(a.node);
    }
  }
}

void planner::place_new() {
  const auto& s = desired_.storage;
  auto lowered = previous_ != nullptr && s.capacity < previous_->storage.capacity;
  auto target = node_size(s.capacity, s.data_shards, s.parity_shards, s.nodes);
  std::vector<fate*> leaving;
  auto staying = 0;
  for (auto& f : fates_)
    if (!f.surplus && (f.failed || f.moves))
      leaving.push_back(&f);
    else if (!f.surplus)
      ++staying;
  auto count = s.nodes - staying;
  if (count <= 0) return;
  if (w_.any_held())
    return refuse(true, "too few nodes answer to tell what is lost: nodes are neither added nor "
                        "moved until they do ('qs status')");
  if (!observed_.hosts_known)
    return refuse_for_now("the grid did not say which hosts it has: try again when it answers");
  for (int i = 0; i < count; ++i) {
    auto* old = static_cast<std::size_t>(i) < leaving.size() ? leaving[static_cast<std::size_t>(i)]
                                                             : nullptr;
    model::node_id id{next_number_};
    auto size = old != nullptr && !lowered ? std::max(target, old->row->size) : target;
    auto host = hosts_.choose(id, size);
    if (!host) {
      auto what = old != nullptr
                      ? fmt::format("{} ({}) cannot be replaced", to_string(old->row->id), old->why)
                      : fmt::format("no host for node {} of {}", staying + i + 1, s.nodes);
      refuse(false, fmt::format("{}: {}{}", what, hosts_.why(), enough_nodes(size)));
      return;
    }
    ++next_number_;
    model::recorded_node row;
    row.id = id;
    row.provider = host->provider;
    row.host = host->host;
    row.place = host->place;
    row.size = size;
    row.price = host->price;
    row.price_limit = {host->price.units + host->price.units / 10};
    if (old == nullptr) {
      add_node(action_kind::create_node, row, "");
      rows_.push_back(std::move(row));
      continue;
    }
    row.replaces = old->row->id;
    auto& a = add_node(action_kind::replace_node, row,
                       fmt::format("{}; {} on {}", old->why, to_string(id), host->host));
    a.node = old->row->id;
    a.address = "node." + to_string(old->row->id);
    a.bytes_to_move = w_.bytes_on(old->row->id);
    rows_.push_back(std::move(row));
    auto& leaves = change(*old->row);
    leaves.replaced_by = id;
    leaves.state = old->failed ? node_state::replaced : node_state::draining;
    if (old->failed && leaves.reason.empty())
      leaves.reason = old->row->state == node_state::lost ? "DataLost" : "Unreachable";
    if (!old->failed) leaves.reason = "Moved";
  }
  std::vector<layout_node> nodes;
  for (const auto& r : rows_afterwards())
    if (world::member(r)) nodes.push_back(to_layout_node(r));
  auto n = s.data_shards + s.parity_shards;
  if (!can_form_group(nodes, s.spread, n))
    refuse(false,
           fmt::format("the hosts cannot carry {}+{} under spread {{host: {}, farm: {}{}}}: not "
                       "enough different farms or countries "
                       "have room",
                       s.data_shards, s.parity_shards, s.spread.host, s.spread.farm,
                       s.spread.country ? fmt::format(", country: {}", *s.spread.country) : ""));
}

/// More and smaller nodes may find room where these did not: the first number that does.
std::string planner::enough_nodes(byte_count size_now) const {
  const auto& s = desired_.storage;
  auto hosts = 0;
  for (const auto& [name, list] : observed_.hosts) hosts += static_cast<int>(list.size());
  auto most = std::min(hosts * std::max(1, s.spread.host), s.nodes + 512);
  for (auto nodes = s.nodes + 1; nodes <= most; ++nodes) {
    auto smaller = desired_;
    smaller.storage.nodes = nodes;
    auto size = node_size(s.capacity, s.data_shards, s.parity_shards, nodes);
    if (size >= size_now) continue;
    placement trial{smaller, observed_, recorded_.lineage, recorded_.serial, nodes};
    auto stay = 0;
    std::vector<layout_node> made;
    auto all = true;
    for (const auto& f : fates_) {
      const auto& row = *f.row;
      auto fits = row.size >= size || trial.room(row.provider, row.host) >= size - row.size;
      if (f.failed || trial.excluded(row.host, row.place) || !fits) {
        trial.occupy(row.provider, row.host);
        continue;
      }
      trial.keep(row);
      made.push_back(to_layout_node(row));
      ++stay;
    }
    for (auto i = stay; all && i < nodes; ++i) {
      model::node_id id{recorded_.next_node_number + static_cast<std::uint32_t>(i)};
      auto host = trial.choose(id, size);
      all = host.has_value();
      if (all) made.push_back({id, size, host->provider + "/" + host->host, host->place, true});
    }
    all = all && can_form_group(made, s.spread, s.data_shards + s.parity_shards);
    if (all)
      return fmt::format("; {} nodes of {} would do (storage.nodes)", nodes, format_bytes(size));
  }
  return "";
}

} // namespace qs::controller
