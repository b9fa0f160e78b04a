#include "actors/plan_view.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "actors/assemble.hpp"
#include "controller/render.hpp"

namespace qs::actors {

using nlohmann::json;

std::string plan_document(const controller::diff_result& made, const plan_remarks& remarks) {
  json out{{"format_version", 1},
           {"exit", remarks.exit},
           {"errors", remarks.errors},
           {"warnings", remarks.warnings}};
  if (made.made) {
    const auto& p = *made.made;
    out["empty"] = p.empty();
    out["refresh"] = remarks.refresh;
    out["only_unknown"] = controller::only_unknown(p);
    out["needs_typed_name"] = p.needs_typed_name;
    out["human"] = controller::render(p);
    out["human_colour"] = controller::render(p, {true, 80});
    out["plan"] = json::parse(controller::to_json(p), nullptr, false);
    out["document"] = controller::to_document(p);
    out["plan_hash"] = p.hash;
    out["serial"] = p.serial;
  } else if (!made.refusals.empty()) {
    auto by_rule = false, for_now = true;
    for (const auto& r : made.refusals) {
      by_rule = by_rule || r.by_rule;
      for_now = for_now && r.for_now;
      out["errors"].push_back(r.message);
    }
    out["exit"] = by_rule ? 3 : for_now ? 5 : 1;
    out["human"] = controller::render(made.refusals);
    out["human_colour"] = controller::render(made.refusals, {true, 80});
  }
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

plan_remarks existing_volume(const model::recorded& recorded, const model::observed& world,
                             const std::filesystem::path& state_directory,
                             const std::string& trouble) {
  if (recorded.accepted) return {};
  if (!world.strays_known)
    return {5,
            {fmt::format("the grid did not say whether this volume exists already{}{}; try again",
                         trouble.empty() ? "" : ": ", trouble)},
            {}};
  if (world.strays.empty()) return {};
  return {3,
          {fmt::format("this volume exists: {} of its nodes are reserved ({} …), but {}",
                       world.strays.size(), world.strays.front().reservation,
                       state_is_missing(state_directory))},
          {}};
}

} // namespace qs::actors
