// What a plan may do without a person (control.md, 2): qs run --follow accepts by itself what only adds or enlarges.
#include <algorithm>

#include "controller/decide.hpp"

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
    case action_kind::destroy_volume:
      return false;
    }
    return false;
  });
}

} // namespace qs::controller
