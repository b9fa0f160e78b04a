#include "controller/conditions.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace qs::controller {
namespace {

using model::node_state;
using model::reach;

struct figures {
  int members = 0, answering = 0, silent = 0, lost = 0, unknown = 0, in_flight = 0, repairing = 0,
      draining = 0, leaving = 0;
  std::uint64_t missing = 0, moving = 0;
  std::string bad; ///< names of members that do not answer
};

figures count(const world& w) {
  figures f;
  for (const auto& r : w.recorded.nodes) {
    if (r.state == node_state::gone) continue;
    if (r.state == node_state::draining) ++f.draining;
    if (!world::member(r)) {
      ++f.leaving;
      continue;
    }
    ++f.members;
    if (world::in_flight(r)) {
      ++f.in_flight;
      if (r.replaces) ++f.repairing;
      if (r.state != node_state::deploying) continue;
    }
    auto state = w.reach_of(r.id);
    if (state == reach::answers) {
      ++f.answering;
      continue;
    }
    if (world::in_flight(r)) continue;
    if (w.lost(r))
      ++f.lost;
    else if (state == reach::silent)
      ++f.silent;
    else
      ++f.unknown;
    f.bad += fmt::format("{}{}", f.bad.empty() ? "" : ", ", to_string(r.id));
  }
  for (const auto& g : w.groups)
    if (const auto* h = w.health(g.id)) {
      f.missing += h->segments_missing_shards;
      f.moving += h->generation == g.generation ? h->segments_on_older_generation : h->segments;
    }
  return f;
}

std::string_view truth(bool yes) { return yes ? "True" : "False"; }

} // namespace

void judge(const world& w, decision& out, const std::vector<approval>& waiting) {
  auto f = count(w);
  auto add = [&](std::string type, std::string_view status, std::string reason,
                 std::string message) {
    out.conditions.push_back(
        {std::move(type), std::string{status}, std::move(reason), std::move(message)});
  };
  const auto& v = w.observed.volume;
  auto created = w.recorded.volume.created;
  auto redundancy = w.redundancy_left();
  out.redundancy_left = redundancy;
  auto blind = !w.observed.complete;
  auto quorum = !blind && !w.any_held();
  auto to_do = out.to_do();
  auto busy = to_do > 0;
  auto rebuilding = f.missing > 0 || f.moving > 0 || f.repairing > 0;
  auto mount_wanted = w.spec.mount && w.recorded.mount_wanted;
  auto mounted = !mount_wanted || w.observed.mounted_at == w.spec.mount->path.value;
  auto whole = f.answering == f.members && redundancy >= w.m;
  auto ready = quorum && created && v.open && !v.read_only && whole && !rebuilding &&
               f.members >= w.spec.storage.nodes && mounted && !w.recorded.suspended &&
               !w.recorded.destroying;

  // Of what was accepted and cancelled something is left, and nobody goes on with it.
  auto cut = w.recorded.cancelled && !ready && !busy && f.in_flight > f.repairing;
  if (w.recorded.suspended || (cut && !blind))
    out.state = "Suspended";
  else if (!quorum)
    out.state = "Unknown";
  else if (v.read_only)
    out.state = "ReadOnly";
  else if (!created || !v.open || f.in_flight > f.repairing || f.members < w.spec.storage.nodes)
    out.state = "Deploying";
  else if (rebuilding)
    out.state = "Rebuilding";
  else
    out.state = ready ? "Ready" : "Degraded";

  add("Ready", truth(ready), ready ? "Ready" : out.state,
      ready ? "all nodes answer, every segment has its full redundancy"
            : fmt::format("{} of {} nodes answer{}", f.answering, w.spec.storage.nodes,
                          f.bad.empty() ? "" : "; not: " + f.bad));
  add("ConfigValid", "True", "Accepted", "the accepted spec is valid");
  add("Synced",
      w.recorded.suspended || blind ? "Unknown" : truth(!busy && !rebuilding && f.in_flight == 0),
      busy ? "Reconciling" : "InSync",
      busy                 ? fmt::format("{} steps to do", to_do)
      : out.ending.empty() ? "nothing to do"
                           : fmt::format("{} that left {} still to be ended",
                                         out.ending.size() == 1
                                             ? "1 node"
                                             : fmt::format("{} nodes", out.ending.size()),
                                         out.ending.size() == 1 ? "has" : "have"));
  add("Reachable", blind || f.unknown > 0 ? "Unknown" : truth(f.answering == f.members),
      f.lost > 0     ? "NodesLost"
      : f.silent > 0 ? "NodesSilent"
      : blind        ? "NotLookedYet"
                     : "AllAnswer",
      fmt::format("{} answer, {} silent, {} lost, {} unknown", f.answering, f.silent, f.lost,
                  f.unknown));
  if (!created)
    add("Redundant", "Unknown", "NothingStored", "the volume is not made yet");
  else
    add("Redundant", !quorum ? "Unknown" : truth(redundancy >= w.m),
        redundancy >= w.m ? "Full" : "Reduced",
        fmt::format("{} of {} shards may still be lost in the worst group", redundancy, w.m));
  if (blind)
    add("Quorum", "Unknown", "NotLookedYet", "not every node was asked yet");
  else if (w.any_held())
    add("Quorum", "Unknown", "TooFewAnswer",
        fmt::format("too few nodes answer to tell what is lost (not: {}); nothing is changed until "
                    "they do or are confirmed "
                    "lost: check this machine's network, then the nodes",
                    f.bad));
  else
    add("Quorum", "True", w.groups.empty() ? "NothingStored" : "EnoughAnswer",
        "enough nodes answer to act");
  add("Draining", truth(f.draining > 0), f.draining > 0 ? "Draining" : "None",
      fmt::format("{} nodes are being emptied", f.draining));
  add("Rebuilding", truth(rebuilding),
      f.missing > 0     ? "ShardsMissing"
      : f.moving > 0    ? "Moving"
      : f.repairing > 0 ? "ReplacementUnderWay"
                        : "None",
      fmt::format("{} segments miss shards, {} are to be moved, {} replacements on their way",
                  f.missing, f.moving, f.repairing));
  auto paused = w.recorded.suspended || w.recorded.cancelled;
  add("Paused", truth(paused),
      w.recorded.suspended   ? "Suspended"
      : w.recorded.cancelled ? "Cancelled"
                             : "Running",
      w.recorded.suspended   ? "no node is reserved, started, replaced or given up, shards are "
                               "repaired onto the nodes that are there; 'qs resume' goes on"
      : w.recorded.cancelled ? "of what was applied nothing more is begun, repair goes on; 'qs "
                               "resume' goes on with it, 'qs apply' takes the file as it is now"
                             : "reconciling");
  if (w.spec.mount)
    add("Mounted", truth(!w.observed.mounted_at.empty()),
        !w.observed.mounted_at.empty()     ? "Mounted"
        : !w.recorded.mount_wanted         ? "NotWanted"
        : w.observed.mount_problem.empty() ? "NotYet"
                                           : "Failed",
        !w.observed.mounted_at.empty() ? w.observed.mounted_at : w.observed.mount_problem);
  const auto& wallet = w.observed.wallet;
  if (wallet.known) {
    // balance / (per_month / 30 d) against top_up_below, without dividing.
    auto days =
        std::chrono::duration<double, std::ratio<86400>>{w.spec.payment.top_up_below}.count();
    auto low = static_cast<double>(wallet.balance.units) <
               static_cast<double>(wallet.per_month.units) * days / 30.0;
    add("Funded", truth(!low), low ? "Low" : "Enough",
        fmt::format("{} for {} a month", model::format_money(wallet.balance),
                    model::format_money(wallet.per_month)));
  }
  std::string all;
  for (const auto& a : waiting) all += (all.empty() ? "" : "; ") + a.message;
  add("ApprovalNeeded", truth(!waiting.empty()), waiting.empty() ? "None" : waiting.front().reason,
      all);
}

} // namespace qs::controller
