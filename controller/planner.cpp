// The frame of diff(): the rules that refuse a plan, settings, money, summary. Nodes:
// planner_nodes.cpp; groups: planner_groups.cpp.
#include "controller/planner.hpp"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "controller/render.hpp"
#include "spec/environment.hpp"
#include "spec/load.hpp"

namespace qs::controller {

using model::node_state;

planner::planner(const spec::storage_spec& desired, const std::string& spec_text,
                 const spec::storage_spec* previous, const model::recorded& recorded,
                 const model::observed& observed)
    : desired_{desired}, text_{spec_text}, previous_{previous}, recorded_{recorded},
      observed_{observed}, w_{desired, recorded, observed}, hosts_{desired, observed,
                                                                   recorded.lineage,
                                                                   recorded.serial,
                                                                   desired.storage.nodes},
      next_number_{recorded.next_node_number} {}

diff_result planner::run() {
  if (previous_ == nullptr)
    check_first_time();
  else
    check_rules();
  if (!refusals_.empty()) return {std::nullopt, refusals_};
  list_nodes();
  choose_surplus();
  keep_or_move();
  place_new();
  plan_volume();
  plan_groups();
  plan_settings();
  plan_strays();
  check_budget();
  if (!refusals_.empty()) return {std::nullopt, refusals_};
  finish();
  return {std::move(plan_), {}};
}

action& planner::add(action_kind kind, std::string address, std::string reason) {
  action a;
  a.kind = kind;
  a.address = std::move(address);
  a.reason = std::move(reason);
  switch (kind) {
  case action_kind::create_volume:
  case action_kind::create_node:
    a.effect = action_effect::add;
    break;
  case action_kind::update_node:
  case action_kind::change_groups:
  case action_kind::change_mount:
  case action_kind::change_setting:
    a.effect = action_effect::change;
    break;
  case action_kind::replace_node:
    a.effect = action_effect::replace;
    break;
  case action_kind::destroy_node:
  case action_kind::destroy_volume:
    a.effect = action_effect::destroy;
    break;
  case action_kind::unknown_node:
  case action_kind::adopt_node:
    a.effect = action_effect::unknown;
    break;
  }
  plan_.actions.push_back(std::move(a));
  return plan_.actions.back();
}

action& planner::add_node(action_kind kind, const model::recorded_node& row, std::string reason) {
  auto& a = add(kind, "node." + to_string(row.id), std::move(reason));
  a.node = row.id;
  a.host = row.host;
  a.place = row.place;
  a.size = row.size;
  a.price_per_month = row.price;
  return a;
}

model::recorded_node& planner::change(const model::recorded_node& row) {
  for (auto& r : rows_)
    if (r.id == row.id) return r;
  return rows_.emplace_back(row);
}

std::vector<model::recorded_node> planner::rows_afterwards() const {
  auto out = recorded_.nodes;
  for (const auto& r : rows_) {
    auto at = std::find_if(out.begin(), out.end(), [&](const auto& x) { return x.id == r.id; });
    if (at == out.end())
      out.push_back(r);
    else
      *at = r;
  }
  return out;
}

void planner::check_first_time() {
  if (!observed_.strays_known)
    refuse_for_now("the grid did not say whether this volume exists already, so it is not made: try "
                   "again when it answers");
  else if (!observed_.strays.empty())
    refuse(true, fmt::format("this volume exists: {} of its nodes are on the grid, but its "
                             "recorded state is missing on this machine: put back a copy of it",
                             observed_.strays.size()));
}

void planner::check_rules() {
  const auto& before = *previous_;
  if (recorded_.destroying)
    return refuse(true, "this volume is being destroyed; 'qs destroy' goes on with it");
  if (before.name != desired_.name)
    return refuse(true, fmt::format("name cannot be changed: this is {}, the file says {}",
                                    before.name, desired_.name));
  const auto& old = before.storage;
  const auto& now = desired_.storage;
  if (old.data_shards != now.data_shards || old.parity_shards != now.parity_shards)
    refuse(true,
           fmt::format("this version cannot change redundancy ({}+{} to {}+{}): everything would "
                       "have to be coded again; make another "
                       "volume and copy",
                       old.data_shards, old.parity_shards, now.data_shards, now.parity_shards));
  if (now.capacity < old.capacity) {
    auto used = observed_.volume.open ? observed_.volume.used_bytes : recorded_.volume.used_bytes;
    if (used > now.capacity)
      refuse(true, fmt::format("capacity {} is less than what is stored, {}: {} too little",
                               format_bytes(now.capacity), format_bytes(used),
                               format_bytes(used - now.capacity)));
  }
  auto staging = [](const spec::storage_spec& s) {
    return s.mount && s.mount->staging.path ? s.mount->staging.path->value : std::string{};
  };
  // The log is the only copy of what is not on nodes yet: it does not move by an edit.
  if (recorded_.volume.created && staging(before) != staging(desired_)) {
    auto shown = [](const std::string& path) { return path.empty() ? "the state directory" : path; };
    refuse(true, fmt::format("mount.staging.path cannot be changed: the log of this volume is in {}, the "
                             "file says {}",
                             shown(staging(before)), shown(staging(desired_))));
  }
  if (recorded_.protect && !now.protect) {
    auto alone = before;
    alone.storage.protect = false;
    if (spec::to_canonical(alone) != spec::to_canonical(desired_))
      refuse(true, "lifting protect is an apply of its own: put the other changes back, apply, "
                   "then make them");
  }
}

// -- settings
// ----------------------------------------------------------------------------------------------------------

namespace {

/// "monitor.interval" → "10s", from the canonical text: two blanks a level, "- " begins an entry.
std::map<std::string, std::string> flatten(const std::string& canonical) {
  std::map<std::string, std::string> out;
  std::vector<std::string> path;
  std::vector<int> entries;
  for (std::size_t at = 0; at < canonical.size();) {
    auto end = std::min(canonical.find('\n', at), canonical.size());
    auto line = canonical.substr(at, end - at);
    at = end + 1;
    auto indent = std::min(line.find_first_not_of(' '), line.size());
    auto level = indent / 2;
    line.erase(0, indent);
    path.resize(std::min(path.size(), level));
    entries.resize(level + 2, 0);
    if (line.starts_with("- ")) {
      path.resize(level, "");
      path.push_back(fmt::format("[{}]", entries[level]++));
      std::fill(entries.begin() + static_cast<std::ptrdiff_t>(level) + 1, entries.end(), 0);
      line.erase(0, 2);
      ++level;
    } else {
      std::fill(entries.begin() + static_cast<std::ptrdiff_t>(level) + 1, entries.end(), 0);
      entries[level] = 0;
    }
    auto colon = line.find(": ");
    auto key = colon == std::string::npos ? line.substr(0, line.find(':')) : line.substr(0, colon);
    auto value = colon == std::string::npos ? std::string{} : line.substr(colon + 2);
    std::string name;
    for (const auto& p : path) name += p.starts_with("[") || name.empty() ? p : "." + p;
    name += name.empty() ? key : "." + key;
    path.resize(level, "");
    path.push_back(key);
    if (!value.empty() || colon != std::string::npos || line.find(':') == std::string::npos)
      out[name] = value;
  }
  return out;
}

} // namespace

std::vector<std::string> changed_settings(const spec::storage_spec& before,
                                          const spec::storage_spec& after,
                                          std::vector<std::string>& mount) {
  auto old = flatten(spec::to_canonical(before));
  auto now = flatten(spec::to_canonical(after));
  std::vector<std::string> out;
  auto note = [&](const std::string& key, const std::string& text) {
    if (key == "storage.capacity" || key == "storage.nodes") return; // have actions of their own
    if (auto list = key.find('['); list != std::string::npos) {
      auto line = key.substr(0, list) + " changed"; // once, however many entries
      if (std::find(out.begin(), out.end(), line) == out.end()) out.push_back(std::move(line));
      return;
    }
    if (key.starts_with("mount."))
      mount.push_back(key.substr(6) + " " + text);
    else
      out.push_back(key + " " + text);
  };
  for (const auto& [key, value] : old) {
    auto at = now.find(key);
    if (at == now.end())
      note(key, value + " -> (none)");
    else if (at->second != value)
      note(key, value + " -> " + at->second);
  }
  for (const auto& [key, value] : now)
    if (!old.contains(key)) note(key, "(none) -> " + value);
  return out;
}

void planner::plan_settings() {
  auto mount_address = std::string{"mount"};
  if (previous_ == nullptr) {
    if (desired_.mount) {
      auto& a = add(action_kind::change_mount, mount_address,
                    fmt::format("at {}", desired_.mount->path.written));
      a.effect = action_effect::add;
      a.depends_on.push_back("volume");
    }
    return;
  }
  std::vector<std::string> mount;
  auto settings = changed_settings(*previous_, desired_, mount);
  if (!previous_->mount && desired_.mount)
    add(action_kind::change_mount, mount_address,
        fmt::format("at {}", desired_.mount->path.written))
        .effect = action_effect::add;
  else if (previous_->mount && !desired_.mount)
    add(action_kind::change_mount, mount_address,
        fmt::format("at {}: unmounted, no data is touched", previous_->mount->path.written))
        .effect = action_effect::destroy;
  else
    for (const auto& text : mount) add(action_kind::change_mount, mount_address, text);
  for (const auto& text : settings)
    add(action_kind::change_setting, "setting." + text.substr(0, text.find(' ')), text);
  if (recorded_.protect && !desired_.storage.protect)
    for (auto& a : plan_.actions)
      if (a.address == "setting.storage.protect")
        a.reason += ": afterwards 'qs destroy' may delete everything";
  if (previous_->storage.nodes != desired_.storage.nodes) {
    auto text =
        fmt::format("storage.nodes {} -> {}", previous_->storage.nodes, desired_.storage.nodes);
    add(action_kind::change_setting, "setting.storage.nodes", text);
  }
}

void planner::plan_strays() {
  if (!observed_.strays_known || previous_ == nullptr) return;
  for (const auto& s : observed_.strays) {
    auto& a = add(action_kind::adopt_node, "reservation." + s.reservation,
                  fmt::format("tagged as ours, not recorded; left untouched"));
    a.host = s.host;
    a.size = s.size;
  }
}

void planner::check_budget() {
  model::money sum;
  for (const auto& r : rows_afterwards())
    if (world::member(r)) sum += r.price;
  plan_.summary.price_per_month = sum;
  const auto& most = desired_.payment.max_per_month;
  if (!most || sum <= *most) return;
  // What is over already, and is not made dearer, does not keep other changes from being applied.
  if (previous_ != nullptr && previous_->payment.max_per_month == most && sum <= w_.burn()) return;
  refuse(true, fmt::format("this would cost {} a month, and max_per_month is {}",
                           model::format_money(sum), model::format_money(*most)));
}

// -- the end
// -----------------------------------------------------------------------------------------------------------

void planner::finish() {
  // Like with like; what destroys stands last but for what is left untouched.
  auto rank = [](const action& a) {
    if (a.effect == action_effect::destroy) return 8;
    switch (a.kind) {
    case action_kind::create_node:
      return 0;
    case action_kind::create_volume:
      return 1;
    case action_kind::update_node:
      return 2;
    case action_kind::replace_node:
      return 3;
    case action_kind::change_groups:
      return 4;
    case action_kind::change_mount:
      return 5;
    case action_kind::change_setting:
      return 6;
    default:
      return 9;
    }
  };
  std::stable_sort(plan_.actions.begin(), plan_.actions.end(),
                   [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
  auto& s = plan_.summary;
  for (const auto& a : plan_.actions) {
    s.bytes_to_move += a.bytes_to_move;
    switch (a.effect) {
    case action_effect::add:
      ++s.add;
      break;
    case action_effect::change:
      ++s.change;
      break;
    case action_effect::replace:
      ++s.replace;
      break;
    case action_effect::destroy:
      ++s.destroy;
      break;
    case action_effect::unknown:
      ++s.unknown;
      break;
    }
  }
  s.worst_redundancy = w_.redundancy_left();
  plan_.serial = recorded_.serial;
  plan_.lineage = recorded_.lineage;
  plan_.spec_text = text_;
  plan_.spec_hash = spec::canonical_hash(desired_);
  std::sort(rows_.begin(), rows_.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  plan_.rows = std::move(rows_);
  plan_.next_node_number = next_number_;
  plan_.hash = hash_of(plan_);
}

diff_result diff(const spec::storage_spec& desired, const std::string& spec_text,
                 const spec::storage_spec* previous, const model::recorded& recorded,
                 const model::observed& observed) {
  return planner{desired, spec_text, previous, recorded, observed}.run();
}

diff_result diff(const spec::storage_spec& desired, const std::string& spec_text,
                 const model::recorded& recorded, const model::observed& observed) {
  if (!recorded.accepted) return diff(desired, spec_text, nullptr, recorded, observed);
  auto before =
      spec::load(recorded.accepted->text, spec::fixed_environment{}, spec::reference_mode::keep);
  if (!before.spec)
    return {std::nullopt,
            {{false, "the spec that was accepted last cannot be read by this version; 'qs version' "
                     "and the state's events tell which "
                     "wrote it"}}};
  return diff(desired, spec_text, &*before.spec, recorded, observed);
}

bool only_unknown(const plan& p) noexcept {
  return !p.actions.empty() && std::all_of(p.actions.begin(), p.actions.end(), [](const auto& a) {
    return a.effect == action_effect::unknown;
  });
}

diff_result diff_destroy(const model::recorded& recorded, const model::observed& observed) {
  if (recorded.protect)
    return {std::nullopt,
            {{true, "protect is recorded for this volume: set 'protect: false' in storage.yaml, "
                    "apply that alone, then destroy"}}};
  plan out;
  out.serial = recorded.serial;
  out.lineage = recorded.lineage;
  if (recorded.accepted) {
    out.spec_text = recorded.accepted->text;
    out.spec_hash = recorded.accepted->hash;
  }
  out.next_node_number = recorded.next_node_number;
  out.needs_typed_name = true;
  std::vector<std::string> before;
  auto add = [&](action_kind kind, std::string address, std::string reason) -> action& {
    action a;
    a.kind = kind;
    a.effect = action_effect::destroy;
    a.address = std::move(address);
    a.reason = std::move(reason);
    a.depends_on = before;
    out.actions.push_back(std::move(a));
    return out.actions.back();
  };
  if (!observed.mounted_at.empty()) {
    add(action_kind::change_mount, "mount", fmt::format("at {}", observed.mounted_at));
    before = {"mount"};
  }
  // There even before the volume is made: it is what tells this plan from one that only takes nodes
  // away.
  auto made = recorded.volume.created || observed.volume.open;
  auto left = std::any_of(recorded.nodes.begin(), recorded.nodes.end(),
                          [](const auto& r) { return r.state != node_state::gone; });
  if (made || left) {
    auto used = observed.volume.open ? observed.volume.used_bytes : recorded.volume.used_bytes;
    auto& a = add(action_kind::destroy_volume, "volume",
                  made ? fmt::format("{} of data are lost for ever", format_bytes(used))
                       : std::string{"nothing was stored yet"});
    a.destroys_data = made;
    before = {"volume"};
  }
  for (const auto& r : recorded.nodes) {
    if (r.state == node_state::gone) continue;
    auto& a =
        add(action_kind::destroy_node, "node." + to_string(r.id), "reservation and data deleted");
    a.node = r.id;
    a.host = r.host;
    a.place = r.place;
    a.size = r.size;
    a.destroys_data = true;
  }
  out.summary.destroy = static_cast<int>(out.actions.size());
  out.hash = hash_of(out);
  return {std::move(out), {}};
}

std::string_view to_string(action_kind kind) noexcept {
  switch (kind) {
  case action_kind::create_volume:
    return "create_volume";
  case action_kind::create_node:
    return "create_node";
  case action_kind::update_node:
    return "update_node";
  case action_kind::replace_node:
    return "replace_node";
  case action_kind::destroy_node:
    return "destroy_node";
  case action_kind::change_groups:
    return "change_groups";
  case action_kind::change_mount:
    return "change_mount";
  case action_kind::change_setting:
    return "change_setting";
  case action_kind::destroy_volume:
    return "destroy_volume";
  case action_kind::unknown_node:
    return "unknown_node";
  case action_kind::adopt_node:
    return "adopt_node";
  }
  return "?";
}

} // namespace qs::controller
