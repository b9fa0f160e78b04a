#include "actors/status_view.hpp"

#include <algorithm>

#include <nlohmann/json.hpp>

namespace qs::actors {
namespace {

using nlohmann::json;

// Parentheses, not braces: braces would make an array of one.
json time_json(wall_time t) { return t == wall_time{} ? json{} : json(to_rfc3339(t)); }

/// What a node is now: its recorded state, sharpened by what was just seen.
std::string node_state_now(const model::recorded_node& row, const model::observed_node* seen) {
  if (seen != nullptr && row.state == model::node_state::ready &&
      seen->state == model::reach::silent)
    return "unreachable";
  return std::string{model::to_string(row.state)};
}

const model::observed_node* find(const model::observed& world, model::node_id id) {
  for (const auto& n : world.nodes)
    if (n.id == id) return &n;
  return nullptr;
}

std::string endpoint_text(const model::endpoint& where) {
  if (!where.valid()) return "";
  return where.address + (where.port != 0 ? ":" + std::to_string(where.port) : "");
}

/// Nodes that a person gave up: nobody here knows whether anything of them is left.
json abandoned_nodes(const model::recorded& recorded) {
  auto list = json::array();
  for (const auto& row : recorded.nodes)
    if (model::is_abandoned(row))
      list.push_back({{"id", model::to_string(row.id)},
                      {"provider", row.provider},
                      {"host", row.host},
                      {"endpoint", endpoint_text(row.where)},
                      {"namespace", row.where.ns},
                      {"by_hand", by_hand(row)}});
  return list;
}

json nodes(const status_input& in) {
  auto list = json::array();
  for (const auto& row : in.recorded.nodes) {
    if (row.state == model::node_state::gone) continue;
    const auto* seen = find(in.observed, row.id);
    json n{{"id", model::to_string(row.id)},
           {"host", row.host},
           {"farm", row.place.farm},
           {"country", row.place.country},
           {"region", row.place.region},
           {"provider", row.provider},
           {"state", node_state_now(row, seen)},
           {"reason", row.reason},
           {"detail", seen != nullptr ? seen->detail : ""},
           {"since", time_json(row.since)},
           {"size", row.size},
           {"used_bytes", seen != nullptr ? seen->used : 0},
           {"price_per_month", model::to_decimal(row.price)},
           {"endpoint", endpoint_text(row.where)},
           {"namespace", row.where.ns}};
    auto open = in.open_ends.find(row.id);
    n["not_deleted"] = open == in.open_ends.end()
                           ? json{}
                           : json{{"tries", open->second.tries}, {"detail", open->second.detail}};
    n["replaces"] = row.replaces ? json(model::to_string(*row.replaces)) : json{};
    n["replaced_by"] = row.replaced_by ? json(model::to_string(*row.replaced_by)) : json{};
    list.push_back(std::move(n));
  }
  return list;
}

json wallet(const model::wallet_view& w) {
  json out{{"known", w.known},
           {"balance", model::to_decimal(w.balance)},
           {"per_month", model::to_decimal(w.per_month)}};
  if (w.per_month.units > 0)
    out["runway_days"] =
        static_cast<double>(w.balance.units) * 30.0 / static_cast<double>(w.per_month.units);
  else
    out["runway_days"] = nullptr;
  return out;
}

/// Confirmed shards and answering nodes, whichever leaves less.
int redundancy_left(const status_input& in) {
  auto confirmed = static_cast<int>(in.report.stats.redundancy_left_min);
  return in.redundancy_left ? std::min(confirmed, *in.redundancy_left) : confirmed;
}

json volume(const status_input& in) {
  const auto& s = in.report.stats;
  const auto& summary = in.recorded.volume;
  auto open = in.report.open;
  json out{{"created", summary.created},
           {"open", open},
           {"data_shards", summary.data_shards},
           {"parity_shards", summary.parity_shards},
           {"capacity", summary.capacity},
           {"bytes_at_risk", open ? s.bytes_at_risk : summary.bytes_at_risk},
           {"at_risk_since", open ? time_json(s.at_risk_since) : json(nullptr)},
           {"usable_bytes", open ? s.usable_bytes : summary.capacity},
           {"used_bytes", open ? s.used_bytes : summary.used_bytes},
           {"free_bytes", s.free_bytes},
           {"redundancy_left_min", open ? json(redundancy_left(in)) : json{}},
           {"segments", s.segments},
           {"segments_by_missing", s.segments_by_missing},
           {"segments_in_flight", s.segments_in_flight},
           {"rebuild_pending", s.rebuild_pending},
           {"node_read_bytes", s.node_read_bytes},
           {"decoded_bytes", s.decoded_bytes},
           {"log_bytes", s.log_bytes},
           {"log_limit_bytes", s.log_limit_bytes},
           {"cache_disk_bytes", s.cache_disk_bytes},
           {"read_only", s.read_only},
           {"read_only_reason", s.read_only_reason},
           {"log_full", s.log_full},
           {"problem", in.volume_problem}};
  return out;
}

} // namespace

std::string status_json(const status_input& in) {
  auto conditions = json::array();
  auto generation = in.recorded.accepted ? in.recorded.accepted->generation : 0;
  for (const auto& c : in.conditions)
    conditions.push_back({{"type", c.what.type},
                          {"status", c.what.status},
                          {"reason", c.what.reason},
                          {"message", c.what.message},
                          {"observed_generation", generation},
                          {"since", time_json(c.since)}});
  json out{{"format_version", 1},
           {"name", in.volume},
           {"state", in.state},
           {"conditions", std::move(conditions)},
           {"generation", generation},
           {"serial", in.recorded.serial},
           {"lineage", in.recorded.lineage},
           {"accepted_hash", in.recorded.accepted ? in.recorded.accepted->hash : ""},
           {"unapplied_edits", false},
           {"protect", in.recorded.protect},
           {"suspended", in.recorded.suspended},
           {"cancelled", in.recorded.cancelled},
           {"under_way", in.under_way},
           {"destroying", in.recorded.destroying},
           {"volume", volume(in)},
           {"nodes", nodes(in)},
           {"abandoned", abandoned_nodes(in.recorded)},
           {"wallet", wallet(in.observed.wallet)},
           {"mount",
            {{"path", in.report.mount_path},
             {"mounted", in.report.mounted},
             {"wanted", in.recorded.mount_wanted},
             {"problem", in.mount_problem}}},
           {"time", time_json(in.now)}};
  out["engine"] =
      in.pid != 0
          ? json{{"pid", in.pid}, {"version", QS_VERSION}, {"started", time_json(in.started)}}
          : json{};
  return out.dump();
}

std::string by_hand(const model::recorded_node& row) {
  return row.provider == "hosts" ? "NSDEL " + row.where.ns : "reservation " + row.where.ns;
}

std::string nodes_json(const status_input& in) {
  return json{{"format_version", 1}, {"name", in.volume}, {"nodes", nodes(in)}}.dump();
}

std::string wallet_json(const model::wallet_view& w,
                        const std::vector<grid::ledger_entry>& history) {
  auto out = json{{"format_version", 1}, {"wallet", wallet(w)}};
  auto list = json::array();
  for (const auto& e : history)
    list.push_back({{"at", time_json(e.at)},
                    {"kind", e.kind},
                    {"subject", e.subject},
                    {"amount", model::to_decimal(e.amount)},
                    {"balance", model::to_decimal(e.balance)}});
  out["history"] = std::move(list);
  return out.dump();
}

std::string event_json(const model::event& e) {
  return json{{"number", e.number}, {"at", time_json(e.at)}, {"level", e.level},
              {"kind", e.kind},     {"subject", e.subject},  {"message", e.message}}
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

} // namespace qs::actors
