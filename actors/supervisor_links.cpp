// The supervisor's links: a connection for every node that may hold something of ours, and what volume and payment are told of nodes.
#include "actors/payment.hpp"
#include "actors/supervisor_state.hpp"

namespace qs::actors {
namespace {

/// A connection is kept for every node that may still hold something of ours.
bool wants_link(const model::recorded_node& row) {
  using model::node_state;
  if (!row.where.valid() || row.identity.empty()) return false;
  switch (row.state) {
  case node_state::planned:
  case node_state::reserving:
  case node_state::deploying:
  case node_state::gone:
    return false;
  default:
    return true;
  }
}

} // namespace

void supervisor_state::update_connections() {
  for (const auto& r : recorded.nodes) {
    auto found = links.find(r.id);
    if (!wants_link(r)) {
      if (found == links.end()) continue;
      self->send(config.dispersal, detach_atom_v, r.id);
      self->send(monitor_, detach_atom_v, r.id);
      caf::anon_send(found->second.actor, stop_atom_v);
      links.erase(found);
      continue;
    }
    auto insecure = config.shared->may_send_plain(r);
    if (found != links.end() && found->second.insecure != insecure) { // one with the new word follows
      self->send(config.dispersal, detach_atom_v, r.id);
      self->send(monitor_, detach_atom_v, r.id);
      caf::anon_send(found->second.actor, stop_atom_v);
      links.erase(found);
      found = links.end();
    }
    if (found != links.end()) {
      if (found->second.where == r.where) continue;
      found->second.where = r.where;
      self->send(found->second.actor, move_to_atom_v, r.where);
      continue;
    }
    connection_config c;
    c.node = r.id;
    c.where = r.where;
    c.insecure = insecure;
    c.password = secret_string{
        config.shared->keys.node_password(config.shared->keys.node_name(r.id, r.incarnation))};
    c.identity_name = config.shared->keys.identity_name(r.id, r.incarnation);
    c.identity = share(r.identity);
    c.listener =
        link_listener_actor{supervisor_actor{self}}; // and on to the monitor that is there then
    c.sockets = config.sockets;
    c.time = config.shared->time;
    c.random = config.shared->random;
    auto actor = config.connect ? config.connect(self->system(), std::move(c))
                                : spawn_connection(self->system(), std::move(c));
    self->send(monitor_, attach_atom_v, r.id, actor);
    self->send(config.dispersal, attach_atom_v, r.id, actor);
    self->monitor(actor);
    links[r.id] = {actor, r.where, insecure};
  }
}

void supervisor_state::tell_budget() {
  if (!desired) return;
  budget b;
  b.max_per_month = desired->payment.max_per_month;
  b.top_up_below = desired->payment.top_up_below;
  // The steady burn: what is accepted, planned nodes included. A node that another one stands in
  // for is overlap, and exempt.
  for (const auto& r : recorded.nodes) {
    using model::node_state;
    if (r.state == node_state::gone || r.state == node_state::replaced ||
        r.state == node_state::draining || r.replaced_by)
      continue;
    b.burn += expected_cost(*config.shared, r);
  }
  self->send(payment_, b);
}

void supervisor_state::tell_nodes() {
  change_nodes change;
  for (const auto& r : recorded.nodes) {
    using model::node_state;
    if (r.state == node_state::gone || r.state == node_state::planned ||
        r.state == node_state::reserving)
      continue;
    volume::volume::node_view v;
    v.id = r.id;
    v.limit = r.size;
    v.live = r.state != node_state::lost;
    for (const auto& n : round.nodes)
      if (n.id == r.id) {
        v.reachable = n.state == model::reach::answers;
        v.used = n.used;
        if (n.limit != 0) v.limit = n.limit;
        if (n.state == model::reach::data_lost || n.state == model::reach::access_denied)
          v.live = false;
      }
    // Replaced and silent: whoever has its slots now does not count as away, so that it must not count as there.
    v.may_return = v.live;
    if (r.state == node_state::replaced && !v.reachable) v.live = false;
    change.nodes.push_back(v);
  }
  self->send(mount_, std::move(change));
}

} // namespace qs::actors
