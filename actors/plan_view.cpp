#include "actors/plan_view.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "actors/assemble.hpp"
#include "controller/render.hpp"

namespace qs::actors {

using nlohmann::json;

namespace {

/// Where they are, of many the first.
std::string some_of(const std::vector<model::stray_node>& strays) {
  constexpr std::size_t shown = 4;
  std::string out;
  for (std::size_t i = 0; i < std::min(shown, strays.size()); ++i)
    out += fmt::format("{}{} on {}", i > 0 ? ", " : "", strays[i].reservation, strays[i].host);
  return strays.size() > shown ? out + ", …" : out;
}

/// On machines of the user's own they may be what a destroy had to give up.
std::string rest_of_a_destroy(const std::vector<model::stray_node>& strays) {
  auto own = std::all_of(strays.begin(), strays.end(), [](const auto& s) { return s.provider == "hosts"; });
  if (!own) return {};
  return fmt::format(". If it was destroyed and this was given up then (--abandon), delete it on its machine: NSDEL {}",
                     strays.front().reservation);
}

} // namespace

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
            {fmt::format("the grid did not say whether this volume exists already{}{}. It is made only when every machine "
                         "has said that it is not there: try again when it answers, or take it out of the file until then",
                         trouble.empty() ? "" : ": ", trouble)},
            {}};
  if (world.strays.empty()) return {};
  return {3,
          {fmt::format("this volume exists: {} of its nodes are reserved ({}), but {}{}", world.strays.size(), some_of(world.strays),
                       state_is_missing(state_directory), rest_of_a_destroy(world.strays))},
          {}};
}

} // namespace qs::actors
