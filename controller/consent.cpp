// What a plan may do without a person (control.md, 2): qs run --follow accepts by itself what only adds or enlarges.
#include <algorithm>

#include "controller/decide.hpp"
#include "controller/world.hpp"

namespace qs::controller {

bool only_adds(const plan& p, const spec::storage_spec* previous, const spec::storage_spec& desired,
               const model::recorded& recorded) {
  if (p.needs_typed_name) return false;
  if (previous != nullptr && (desired.storage.capacity < previous->storage.capacity ||
                              desired.storage.nodes < previous->storage.nodes))
    return false;
  auto enlarges = [&](const action& a) {
    auto is = [&](const model::recorded_node& r) { return r.id == a.node; };
    auto before = std::find_if(recorded.nodes.begin(), recorded.nodes.end(), is);
    return before != recorded.nodes.end() && a.size >= before->size;
  };
  // What was accepted before and is not finished is in every plan: it says nothing about this edit.
  auto on_its_way = [&](const action& a) {
    return std::any_of(recorded.nodes.begin(), recorded.nodes.end(), [&](const auto& r) {
      if (a.kind == action_kind::destroy_node) return r.id == a.node && !world::member(r);
      return r.replaces == a.node && world::in_flight(r) && a.host == r.host;
    });
  };
  return std::all_of(p.actions.begin(), p.actions.end(), [&](const action& a) {
    switch (a.kind) {
    case action_kind::create_volume:
    case action_kind::create_node:
    case action_kind::change_groups: // what was added takes its share
    case action_kind::unknown_node:  // left untouched
    case action_kind::adopt_node:
      return !a.destroys_data;
    case action_kind::update_node:
      return enlarges(a);
    case action_kind::change_mount:
      return a.effect == action_effect::add;
    case action_kind::change_setting:
      return a.address == "setting.storage.capacity" || a.address == "setting.storage.nodes";
    case action_kind::replace_node:
    case action_kind::destroy_node:
      return on_its_way(a);
    case action_kind::destroy_volume:
      return false;
    }
    return false;
  });
}

} // namespace qs::controller
