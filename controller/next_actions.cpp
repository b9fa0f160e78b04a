// next_actions: the reconcile function. Reads everything, decides everything, remembers nothing.
#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "controller/conditions.hpp"
#include "controller/decide.hpp"
#include "controller/placement.hpp"
#include "controller/world.hpp"

namespace qs::controller {
namespace {

using model::node_state;
using model::reach;
using model::recorded_node;

class pass {
public:
  pass(const spec::storage_spec& spec, const model::recorded& recorded,
       const model::observed& observed)
      : w_{spec, recorded, observed} {
    for (const auto& i : observed.open_intents) busy_.insert(i.node);
  }

  decision run() {
    decision out;
    if (w_.recorded.destroying) {
      destroy(); // a person's last word: whoever suspended before did not mean this
    } else if (w_.recorded.suspended) {
      open_and_mount(); // what is stored stays readable and writable; all else is left as it is
    } else {
      resolve_all();
      open_and_mount();
      if (w_.observed.complete) {
        for (const auto& r : w_.recorded.nodes) look_at(r);
        replace_failed();
        retire();
        volume_and_groups();
      }
    }
    out.steps = std::move(steps_);
    if (!w_.recorded.destroying)
      for (const auto& r : w_.recorded.nodes)
        if (w_.spare(r)) out.ending.insert(r.id);
    judge(w_, out, waiting_);
    return out;
  }

private:
  step& add(step_kind kind, model::node_id node, std::string reason) {
    steps_.push_back({kind, node, std::move(reason), std::nullopt, {}, 0});
    return steps_.back();
  }
  [[nodiscard]] bool busy(const recorded_node& r) const { return busy_.contains(r.id); }

  // An open intent is resolved before anything else is done with its node; that never makes
  // anything.
  void resolve_all() {
    for (const auto& r : w_.recorded.nodes) {
      if (r.state == node_state::gone) continue;
      if (busy(r))
        add(step_kind::resolve, r.id, "its last request has no answer yet");
      else if (r.state == node_state::reserving ||
               (r.state == node_state::deploying && w_.reach_of(r.id) == reach::unknown))
        add(step_kind::resolve, r.id, "reservation under way");
    }
  }

  void open_and_mount() {
    if (!w_.recorded.volume.created) return;
    if (!w_.observed.volume.open) {
      add(step_kind::open_volume, {}, "the volume is not open");
      return;
    }
    const auto& mount = w_.spec.mount;
    const auto& at = w_.observed.mounted_at;
    auto wanted = mount && w_.recorded.mount_wanted;
    if (!at.empty() && (!wanted || at != mount->path.value))
      add(step_kind::unmount, {},
          wanted ? fmt::format("it belongs at {}", mount->path.value) : "not wanted any more");
    else if (at.empty() && wanted)
      add(step_kind::mount, {}, fmt::format("mount at {}", mount->path.value));
  }

  // One node: what its record says against what was seen. At most one step for it.
  void look_at(const recorded_node& r) {
    if (r.state == node_state::gone || r.state == node_state::reserving || busy(r)) return;
    const auto* o = w_.seen(r.id);
    if (r.state == node_state::planned) {
      if (!w_.held(r.id) && (!w_.recorded.cancelled || mends(r))) reserve(r);
      return;
    }
    if (o == nullptr || o->state == reach::unknown) return;
    // Known for sure and harmless: not a matter of quorum (after a reboot all of them are stopped).
    if (o->state == reach::silent && o->stopped) {
      add(step_kind::restart, r.id, "stopped, its data is whole");
      return;
    }
    if (w_.held(r.id) || !world::member(r)) return;
    switch (o->state) {
    case reach::answers:
      if (r.state != node_state::ready)
        add(step_kind::mark_ready, r.id, "answers");
      else if (o->limit != 0 && o->limit != r.size)
        resize(r, *o);
      return;
    case reach::data_lost:
    case reach::access_denied:
      if (r.state != node_state::lost)
        add(step_kind::mark_lost, r.id,
            o->state == reach::access_denied ? "AccessDenied" : lost_reason(*o));
      return;
    case reach::silent:
      if ((r.state == node_state::ready || r.state == node_state::deploying) &&
          o->silent_for >= w_.spec.monitor.failed_after)
        add(step_kind::mark_unreachable, r.id,
            fmt::format("no answer for {}", format_duration(o->silent_for)));
      return;
    case reach::unknown:
      return;
    }
  }

  /// Takes the place of one that failed: repair goes on whatever a person has cancelled.
  [[nodiscard]] bool mends(const recorded_node& r) const {
    const auto* old = r.replaces ? w_.row(*r.replaces) : nullptr;
    return old != nullptr && (old->state == node_state::replaced || old->state == node_state::lost ||
                              old->state == node_state::gone);
  }

  // What a host refused goes to another under the same constraints and within the price that was
  // agreed.
  void reserve(const recorded_node& r) {
    if (r.reason != "Refused" && r.reason != "Absent") {
      add(step_kind::reserve, r.id, fmt::format("planned on {}", r.host));
      return;
    }
    if (!some_grid_answered())
      return wait_for_grid(fmt::format("{} was refused by {} and gets no other host", to_string(r.id), r.host));
    placement hosts{w_.spec, w_.observed, w_.recorded.lineage, w_.recorded.serial + r.incarnation,
                    w_.spec.storage.nodes};
    for (const auto& other : w_.recorded.nodes) {
      if (other.id == r.id || other.state == node_state::gone) continue;
      if (world::member(other) && !w_.lost(other))
        hosts.keep(as_chosen(other));
      else
        hosts.occupy(other.provider, other.host);
    }
    if (r.reason == "Refused")
      for (auto i = 0; i < w_.spec.storage.spread.host; ++i) hosts.occupy(r.provider, r.host);
    auto host = hosts.choose(r.id, r.size, r.price_limit);
    if (!host) {
      no_host(fmt::format("{} was refused by {} and no other host is within what was agreed: {}",
                          to_string(r.id), r.host, hosts.why()));
      return;
    }
    auto row = r;
    ++row.incarnation;
    row.provider = host->provider;
    row.host = host->host;
    row.place = host->place;
    row.price = host->price;
    row.reason.clear();
    row.where = {};
    row.identity.clear();
    moved_[r.id] = row;
    add(step_kind::reserve, r.id,
        fmt::format("{} by {}; now on {}", r.reason == "Refused" ? "refused" : "not made", r.host,
                    host->host))
        .row = std::move(row);
  }

  /// What this pass has decided already counts for what it decides next: else two nodes could come
  /// to one host.
  [[nodiscard]] const recorded_node& as_chosen(const recorded_node& r) const {
    auto at = moved_.find(r.id);
    return at == moved_.end() ? r : at->second;
  }

  /// One that says nothing holds nothing up: another may have a host for it.
  [[nodiscard]] bool some_grid_answered() const {
    auto names = provider_names(w_.spec);
    return w_.observed.hosts_known ||
           std::any_of(names.begin(), names.end(),
                       [&](const auto& name) { return w_.observed.hosts.contains(name); });
  }

  /// Never silently (control.md, 6). Before the first answer of all there is nothing to tell yet.
  void wait_for_grid(const std::string& what) {
    if (!w_.observed.grid_trouble.empty())
      waiting_.push_back({"GridUnknown", fmt::format("{}: {}; asked again all the time", what,
                                                     w_.observed.grid_trouble)});
  }

  void no_host(std::string what) {
    if (w_.observed.hosts_known || w_.observed.grid_trouble.empty())
      waiting_.push_back({"NoHost", std::move(what)});
    else
      wait_for_grid(what);
  }

  /// The provider's own word ("Tombstone") where it gave one: it becomes the row's reason.
  static std::string lost_reason(const model::observed_node& o) {
    auto word = !o.detail.empty() && o.detail.find(' ') == std::string::npos;
    return word ? o.detail : "DataLost";
  }

  void resize(const recorded_node& r, const model::observed_node& o) {
    if (w_.recorded.cancelled) return;
    if (r.size < o.limit && node_room(r.size) < o.used) return; // never below what it holds
    auto& s = add(step_kind::resize, r.id,
                  fmt::format("{} -> {}", format_bytes(o.limit), format_bytes(r.size)));
    s.size = r.size;
  }

  void replace_failed() {
    std::vector<const recorded_node*> without_answer;
    auto sound = 0;
    for (const auto& r : w_.recorded.nodes) {
      if (!world::member(r)) continue;
      if (failed(r))
        without_answer.push_back(&r);
      else
        ++sound;
    }
    // Lost ones first: they are certain, and only the others are rationed.
    std::stable_sort(without_answer.begin(), without_answer.end(), [](auto* a, auto* b) {
      return (a->state == node_state::lost) > (b->state == node_state::lost);
    });
    auto wanted = w_.spec.storage.nodes - sound;
    auto left = unreachable_allowance(w_.spec.storage.nodes) -
                static_cast<int>(w_.observed.unreachable_replaced_today);
    auto number = w_.recorded.next_node_number;
    for (const auto* r : without_answer) {
      if (busy(*r) || w_.held(r->id) || r->replaced_by) continue;
      if (wanted <= 0) {
        add(step_kind::drain, r->id, "enough other nodes are there");
        continue;
      }
      --wanted;
      if (r->state != node_state::lost && left-- <= 0) {
        waiting_.push_back(
            {"DailyBound",
             fmt::format("{} is unreachable, and as many nodes as may be in a day were replaced "
                         "without anybody confirming that they are lost; 'qs apply' replaces it",
                         to_string(r->id))});
        continue;
      }
      if (replacement(*r, number)) ++number;
    }
    // Those that a person gave up: another one takes their place where the count asks for it.
    for (const auto& r : w_.recorded.nodes) {
      if (wanted <= 0) return;
      auto asked = r.state == node_state::draining && !r.replaced_by && r.reason.ends_with("Asked");
      if (!asked || busy(r) || w_.held(r.id)) continue;
      --wanted;
      if (replacement(r, number)) ++number;
    }
  }

  /// A member that another one has to take the place of.
  [[nodiscard]] bool failed(const recorded_node& r) const {
    if (r.state == node_state::lost) return w_.reach_of(r.id) != reach::answers;
    return r.state == node_state::unreachable && w_.overdue(r);
  }

  /// For the replacements of a pass.
  placement& hosts() {
    if (hosts_) return *hosts_;
    hosts_.emplace(w_.spec, w_.observed, w_.recorded.lineage, w_.recorded.serial,
                   w_.spec.storage.nodes);
    for (const auto& r : w_.recorded.nodes) {
      if (r.state == node_state::gone) continue;
      if (world::member(r) && !failed(r))
        hosts_->keep(as_chosen(r));
      else
        hosts_->occupy(r.provider, r.host);
    }
    return *hosts_;
  }

  bool replacement(const recorded_node& old, std::uint32_t number) {
    if (!some_grid_answered()) {
      wait_for_grid(fmt::format("{} cannot be replaced", to_string(old.id)));
      return false;
    }
    model::node_id id{number};
    auto host = hosts().choose(id, old.size, old.price_limit);
    if (!host) {
      no_host(fmt::format("{} cannot be replaced within what was agreed: {}", to_string(old.id),
                          hosts().why()));
      return false;
    }
    auto burn = w_.burn() - old.price + host->price + extra_;
    if (w_.spec.payment.max_per_month && burn > *w_.spec.payment.max_per_month) {
      waiting_.push_back(
          {"OverBudget", fmt::format("replacing {} would make it {} a month, over max_per_month {}",
                                     to_string(old.id), model::format_money(burn),
                                     model::format_money(*w_.spec.payment.max_per_month))});
      return false;
    }
    extra_ += host->price - old.price;
    recorded_node fresh;
    fresh.id = id;
    fresh.provider = host->provider;
    fresh.host = host->host;
    fresh.place = host->place;
    fresh.size = old.size;
    fresh.price_limit = old.price_limit;
    fresh.price = host->price;
    fresh.replaces = old.id;
    auto why =
        old.state == node_state::draining ? std::string{"given up on command"}
        : old.state == node_state::lost
            ? fmt::format("lost ({})", old.reason.empty() ? "DataLost" : old.reason)
            : fmt::format("unreachable for {}", format_duration(w_.seen(old.id)->silent_for));
    add(step_kind::replace, old.id,
        fmt::format("{}; {} on {} takes its place", why, to_string(id), host->host))
        .row = std::move(fresh);
    return true;
  }

  // Cancelled only when nothing needs the node: no slot, no source, not one of the last k,
  // everything whole without it.
  void retire() {
    for (const auto& r : w_.recorded.nodes) {
      if (busy(r) || !w_.spare(r)) continue;
      add(step_kind::retire, r.id,
          r.replaced_by ? fmt::format("{} has taken over", to_string(*r.replaced_by)) : "emptied");
    }
  }

  void volume_and_groups() {
    if (!w_.recorded.volume.created) {
      if (w_.recorded.cancelled) return;
      auto ready = 0;
      std::vector<layout_node> nodes;
      for (const auto& r : w_.recorded.nodes) {
        if (!world::member(r)) continue;
        if (r.state != node_state::ready || w_.reach_of(r.id) != reach::answers) return;
        ++ready;
        nodes.push_back(to_layout_node(r));
      }
      if (ready < w_.spec.storage.nodes) return;
      if (auto groups = first_layout(nodes, ready))
        add(step_kind::make_volume, {}, fmt::format("{} nodes are ready", ready)).groups =
            std::move(*groups);
      return;
    }
    if (!w_.observed.volume.open) return;
    if (w_.groups.empty()) {
      // The volume was made and the engine died before it was told its groups.
      if (!w_.recorded.volume.groups.empty())
        add(step_kind::set_groups, {}, "the volume has no groups yet").groups =
            w_.recorded.volume.groups;
      else if (auto groups = first_layout(w_.members_as_layout(),
                                          static_cast<int>(w_.members_as_layout().size())))
        add(step_kind::set_groups, {}, "the volume has no groups yet").groups = std::move(*groups);
      return;
    }
    auto next = next_groups(w_, w_.recorded.nodes, false);
    if (next.hands.empty() && next.added == 0) return;
    auto leaves = std::any_of(next.hands.begin(), next.hands.end(), [&](const auto& h) {
      const auto* from = w_.row(h.from);
      return from != nullptr && !world::member(*from);
    });
    if (w_.recorded.cancelled && !leaves) return; // growing alone is what was cancelled
    auto reason =
        fmt::format("{} slots handed over, {} groups added", next.hands.size(), next.added);
    add(step_kind::set_groups, {}, std::move(reason)).groups = std::move(next.groups);
  }

  std::optional<std::vector<model::group>> first_layout(const std::vector<layout_node>& nodes,
                                                        int count) {
    layout plan{nodes, w_.spec.storage.spread, layout_seed(w_.recorded)};
    auto groups = plan.add_groups(0, group_count(count, w_.n), w_.n);
    if (!groups)
      waiting_.push_back({"Spread", "the nodes cannot form groups under the spread rules"});
    return groups;
  }

  // One thing after the other: nothing is cancelled under a volume that is still open.
  void destroy() {
    if (!w_.observed.mounted_at.empty()) {
      add(step_kind::unmount, {}, "destroy");
      return;
    }
    if (!w_.observed.complete) return;
    if (w_.recorded.volume.created || w_.observed.volume.open) {
      add(step_kind::close_volume, {}, "destroy");
      return;
    }
    for (const auto& r : w_.recorded.nodes) {
      if (r.state == node_state::gone) continue;
      add(busy(r) || r.state == node_state::reserving ? step_kind::resolve : step_kind::cancel,
          r.id, "destroy");
    }
  }

  world w_;
  std::set<model::node_id> busy_;
  std::map<model::node_id, recorded_node> moved_; ///< refused ones that get another host in this pass
  std::optional<placement> hosts_;
  std::vector<step> steps_;
  std::vector<approval> waiting_;
  model::money extra_;
};

} // namespace

std::size_t decision::to_do() const {
  return static_cast<std::size_t>(std::count_if(steps.begin(), steps.end(), [&](const step& s) {
    auto ends = s.kind == step_kind::resolve || s.kind == step_kind::retire ||
                s.kind == step_kind::restart;
    return !ends || !ending.contains(s.node);
  }));
}

std::string_view to_string(step_kind kind) noexcept {
  switch (kind) {
  case step_kind::make_volume:
    return "make_volume";
  case step_kind::reserve:
    return "reserve";
  case step_kind::resolve:
    return "resolve";
  case step_kind::restart:
    return "restart";
  case step_kind::mark_lost:
    return "mark_lost";
  case step_kind::mark_unreachable:
    return "mark_unreachable";
  case step_kind::mark_ready:
    return "mark_ready";
  case step_kind::replace:
    return "replace";
  case step_kind::set_groups:
    return "set_groups";
  case step_kind::resize:
    return "resize";
  case step_kind::drain:
    return "drain";
  case step_kind::retire:
    return "retire";
  case step_kind::cancel:
    return "cancel";
  case step_kind::open_volume:
    return "open_volume";
  case step_kind::mount:
    return "mount";
  case step_kind::unmount:
    return "unmount";
  case step_kind::close_volume:
    return "close_volume";
  }
  return "?";
}

decision next_actions(const spec::storage_spec& desired, const model::recorded& recorded,
                      const model::observed& observed) {
  return pass{desired, recorded, observed}.run();
}

} // namespace qs::controller
