// The ends of nodes: what leaves is ended at its provider, tried again when that is not settled, and given up only by a
// person's word (control.md, 3 and 5; decision 0008).
#include "actors/supervisor_state.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/log.hpp"

namespace qs::actors {
namespace {

using namespace std::chrono_literals;
using model::node_state;
using nlohmann::json;
using verb = node_order_message::verb;

/// After so many tries a person is told, and may give it up: one may fall into a restart of the machine.
constexpr std::uint32_t told_after = 2;
/// The time between two tries doubles so often at most; less where somebody waits for the end.
constexpr std::uint32_t most_doublings = 5;
constexpr std::uint32_t most_doublings_of_destroy = 2;

control_reply reply(int http, json body) {
  body["format_version"] = 1;
  return {http, body.dump(-1, ' ', false, json::error_handler_t::replace)};
}
control_reply failure(int http, int exit, const std::string& text) {
  return reply(http, {{"error", text}, {"exit", exit}});
}

std::string place_of(const model::recorded_node& r) {
  if (!r.where.valid()) return r.host;
  auto port = r.where.port != 0 ? fmt::format(":{}", r.where.port) : std::string{};
  return fmt::format("{} ({}{})", r.host, r.where.address, port);
}

/// What came of giving a node up, on the state lane.
struct given_up {
  status how;
  model::recorded_node row;
  std::optional<loaded_state> state;
};

/// The row as it is recorded now goes, and nothing else: what was sent and not answered stays as unknown as it is.
given_up give_up(state::store& store, model::node_id node, bool destroying, const std::string& ns) {
  given_up out;
  auto known = store.node(node);
  if (!known.ok() || !*known) {
    out.how = known.ok() ? error{errc::not_found, "there is no such node"} : known.err();
    return out;
  }
  auto& r = out.row = std::move(**known);
  auto left = r.state == node_state::draining || r.state == node_state::replaced;
  if (r.state != node_state::gone) {
    if (!destroying && !left) {
      out.how = error{errc::busy, fmt::format("{} is {} by now", model::to_string(node), model::to_string(r.state))};
      return out;
    }
    r.state = node_state::gone;
    r.reason += model::abandoned_reason; // and `since` stays: when it left is what the day's bound goes by
    if (r.where.ns.empty()) r.where.ns = ns; // for those who look for it: it may have been made
    out.how = store.put_node(r);
  }
  if (out.how.ok()) out.state = look_at_state(store);
  return out;
}

} // namespace

bool supervisor_state::leaves(const model::recorded_node& r) const {
  if (r.state == node_state::gone) return false;
  return recorded.destroying || r.state == node_state::replaced || r.state == node_state::draining;
}

/// Decided again, on what is known now, by the same rules: no slot, no source, everything whole without it.
bool supervisor_state::needed(model::node_id node) const {
  auto seen = observe();
  return !desired || !seen.complete || !controller::next_actions(*desired, recorded, seen).ending.contains(node);
}

/// What lowers redundancy looks at the world again first: what was decided on is up to a pass old. And it looks at what a
/// power cut here could not take back: rows that point to the node again when it is gone would be lost data.
void supervisor_state::retire(model::node_id node) {
  if (!recorded.volume.created && !volume.open) return order_node(*row(node), verb::cancel);
  busy_nodes.insert(node);
  self->request(mount_, 30s, get_report{true})
      .then(
          [this, node](volume_report& fresh) {
            busy_nodes.erase(node);
            volume = std::move(fresh);
            auto* again = row(node);
            auto left = again != nullptr && (again->state == node_state::draining ||
                                             again->state == node_state::replaced);
            if (stopping || recorded.suspended || recorded.destroying || !left || needed(node)) return;
            order_node(*again, verb::cancel);
          },
          [this, node](caf::error&) { busy_nodes.erase(node); });
}

/// Notes one more try; how often the time until the next one has doubled.
std::uint32_t supervisor_state::end_not_settled(const model::recorded_node& r, const std::string& detail) {
  auto& open = open_ends[r.id];
  open.detail = detail;
  if (++open.tries == told_after)
    note("warning", "NodeNotDeleted", model::to_string(r.id),
         fmt::format("on {}: {}; it is tried again; if that machine never comes back, '{}' gives it up", place_of(r), detail,
                     recorded.destroying ? std::string{"qs destroy --abandon"}
                                         : fmt::format("qs nodes delete {} --abandon", model::to_string(r.id))));
  return std::min(open.tries - 1, recorded.destroying ? most_doublings_of_destroy : most_doublings);
}

/// qs nodes delete: another try of an end that is due, now; with `abandon` a person's word that there will be no answer.
caf::result<control_reply> supervisor_state::delete_node(const std::string& body) {
  auto request = json::parse(body.empty() ? "{}" : body, nullptr, false);
  if (!request.is_object()) request = json::object();
  auto word = request.contains("node") && request["node"].is_string() ? request["node"].get<std::string>() : "";
  auto given_up = request.contains("abandon") && request["abandon"].is_boolean() && request["abandon"].get<bool>();
  auto id = model::parse_node_id(word);
  auto* r = id ? row(*id) : nullptr;
  if (r == nullptr) return failure(404, 1, "there is no such node; see qs nodes");
  auto label = model::to_string(*id);
  if (r->state == node_state::gone)
    return reply(200, {{"node", label}, {"state", "gone"}, {"abandoned", model::is_abandoned(*r)}});
  if (!leaves(*r))
    return failure(409, 3, fmt::format("{} is in use ({}): 'qs nodes drain {}' empties it onto another, and it is deleted then",
                                       label, model::to_string(r->state), label));
  if (!recorded.destroying && recorded.suspended)
    return failure(409, 5, "the volume is suspended, so nothing of it is given up; 'qs resume' goes on");
  if (recorded.destroying ? recorded.volume.created || volume.open : !ends(*id))
    return failure(409, 5, fmt::format("{} is not due yet: what it holds is moved or closed first; 'qs status' shows how far that "
                                       "is", label));
  if (!given_up) {
    node_retry_at.erase(*id);
    poke();
    return reply(200, {{"node", label}, {"state", "deleting"}});
  }
  auto coming = r->state == node_state::planned || r->state == node_state::reserving;
  auto open = open_ends.find(*id);
  if (open == open_ends.end() || open->second.tries < told_after || (coming && busy_nodes.contains(*id)))
    return failure(409, 5, fmt::format("{} is still being deleted in order; try again", label));
  auto answer = self->make_response_promise<control_reply>();
  if (recorded.destroying || (!recorded.volume.created && !volume.open)) { // nothing is stored (any more)
    abandon(*id, answer);
    return answer;
  }
  self->request(mount_, 30s, get_report{true})
      .then(
          [this, node = *id, answer](volume_report& fresh) mutable {
            volume = std::move(fresh);
            if (stopping || recorded.suspended || needed(node))
              answer.deliver(failure(409, 5, "what it holds may be needed; 'qs status' shows what is going on, then try again"));
            else
              abandon(node, answer);
          },
          [answer](caf::error& e) mutable { answer.deliver(failure(409, 5, describe(from_caf(e)))); });
  return answer;
}

/// The record is the whole of it: from then on nobody asks for the node again.
void supervisor_state::abandon(model::node_id node, caf::typed_response_promise<control_reply> answer) {
  auto* r = row(node);
  if (r == nullptr) {
    answer.deliver(failure(404, 1, "there is no such node; see qs nodes"));
    return;
  }
  auto detail = open_ends[node].detail;
  on_state(
      [store = config.shared->store.get(), node, destroying = recorded.destroying,
       ns = config.shared->keys.node_name(node, r->incarnation)] { return give_up(*store, node, destroying, ns); },
      [this, node, detail, answer](given_up g) mutable {
        if (!g.how.ok()) {
          answer.deliver(failure(409, 5, describe(g.how.err())));
          return;
        }
        open_ends.erase(node);
        if (model::is_abandoned(g.row))
          note("warning", "NodeAbandoned", model::to_string(node),
               fmt::format("on {}: given up on command, whatever is there stays there ({}); to delete it by hand: {}",
                           place_of(g.row), detail, by_hand(g.row)));
        ++node_changes;
        take_state(std::move(*g.state));
        update_connections();
        tell_nodes();
        tell_budget();
        answer.deliver(reply(200, {{"node", model::to_string(node)},
                                   {"state", "gone"},
                                   {"abandoned", model::is_abandoned(g.row)},
                                   {"by_hand", by_hand(g.row)}}));
        poke();
      });
}

} // namespace qs::actors
