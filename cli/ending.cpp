#include "cli/ending.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace qs::cli {
namespace {

using nlohmann::json;

std::vector<json> objects(const std::string& document, const char* key) {
  std::vector<json> out;
  auto d = json::parse(document, nullptr, false);
  if (!d.is_object()) return out;
  auto list = d.find(key);
  if (list == d.end() || !list->is_array()) return out;
  for (const auto& e : *list)
    if (e.is_object()) out.push_back(e);
  return out;
}

std::string text(const json& from, const char* key) {
  auto found = from.find(key);
  return found != from.end() && found->is_string() ? found->get<std::string>() : std::string{};
}

std::string place(const std::string& host, const std::string& endpoint) {
  return endpoint.empty() ? host : fmt::format("{} ({})", host, endpoint);
}

} // namespace

std::vector<left_node> nodes_left(const std::string& status_json) {
  std::vector<left_node> out;
  for (const auto& n : objects(status_json, "nodes")) {
    left_node l{text(n, "id"), text(n, "provider"), text(n, "host"), text(n, "endpoint"), text(n, "namespace"), 0, {}};
    if (auto open = n.find("not_deleted"); open != n.end() && open->is_object()) {
      if (auto tries = open->find("tries"); tries != open->end() && tries->is_number_unsigned()) l.tries = tries->get<std::uint64_t>();
      l.detail = text(*open, "detail");
    }
    out.push_back(std::move(l));
  }
  return out;
}

bool only_stuck(const std::vector<left_node>& left) {
  return !left.empty() && std::all_of(left.begin(), left.end(), [](const auto& n) { return n.tries >= tries_enough; });
}

std::string left_text(const std::vector<left_node>& left) {
  std::string out;
  for (const auto& n : left)
    out += fmt::format("{}  {} on {}{}{}", out.empty() ? "" : "\n", n.id, place(n.host, n.endpoint), n.detail.empty() ? "" : ": ", n.detail);
  return out;
}

std::vector<abandoned_node> nodes_abandoned(const std::string& status_json) {
  std::vector<abandoned_node> out;
  for (const auto& n : objects(status_json, "abandoned"))
    out.push_back({text(n, "id"), text(n, "provider"), text(n, "host"), text(n, "endpoint"), text(n, "namespace"), text(n, "by_hand")});
  return out;
}

std::string abandoned_text(const std::vector<abandoned_node>& list) {
  std::string out;
  for (const auto& n : list)
    out += fmt::format("{}  {}: namespace {} of {}; to delete it there by hand: {}", out.empty() ? "" : "\n", place(n.host, n.endpoint), n.name_space,
                       n.id, n.by_hand);
  return out;
}

std::string abandoned_json(const std::vector<abandoned_node>& list) {
  auto out = json::array();
  for (const auto& n : list)
    out.push_back({{"id", n.id}, {"provider", n.provider}, {"host", n.host}, {"endpoint", n.endpoint}, {"namespace", n.name_space}, {"by_hand", n.by_hand}});
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

} // namespace qs::cli
