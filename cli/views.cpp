#include "cli/views.hpp"

#include <algorithm>
#include <memory>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <qrencode.h>

#include "base/units.hpp"
#include "cli/ending.hpp"
#include "cli/table.hpp"
#include "model/money.hpp"

namespace qs::cli {
namespace {

using nlohmann::json;

std::string text(const json& from, const char* key) {
  auto found = from.find(key);
  return found != from.end() && found->is_string() ? found->get<std::string>() : std::string{};
}

std::uint64_t number(const json& from, const char* key) {
  auto found = from.find(key);
  return found != from.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

bool flag(const json& from, const char* key) {
  auto found = from.find(key);
  return found != from.end() && found->is_boolean() && found->get<bool>();
}

const json& part(const json& from, const char* key) {
  static const json nothing = json::object();
  auto found = from.find(key);
  return found != from.end() && found->is_object() ? *found : nothing;
}

std::vector<json> list(const json& from, const char* key) {
  auto found = from.find(key);
  return found != from.end() && found->is_array() ? found->get<std::vector<json>>() : std::vector<json>{};
}

/// "2026-01-31T09:30:00Z" → "2026-01-31 09:30:00".
std::string moment(std::string rfc3339) {
  if (rfc3339.size() < 19) return rfc3339;
  rfc3339.resize(19);
  rfc3339[10] = ' ';
  return rfc3339;
}

std::string money_text(const json& from, const char* key) {
  auto amount = model::parse_money(text(from, key));
  return amount.ok() ? model::format_money(*amount) : text(from, key);
}

std::string_view colour_of(std::string_view state) {
  if (state == "Ready" || state == "ready") return "\x1b[32m";
  if (state == "Unknown" || state == "ReadOnly" || state == "lost" || state == "Degraded") return "\x1b[31m";
  if (state == "Stopped" || state == "gone" || state == "replaced") return "\x1b[2m";
  return "\x1b[33m";
}

std::string coloured(const std::string& state, bool colour) {
  return colour ? fmt::format("{}{}\x1b[0m", colour_of(state), state) : state;
}

std::string field(std::string_view name, const std::string& value, std::size_t width = 80) {
  return fmt::format("  {:<11} {}\n", name, wrapped(value, width, 14));
}

std::string nodes_summary(const std::vector<json>& nodes) {
  std::vector<std::pair<std::string, int>> counts;
  for (const auto& n : nodes) {
    auto state = text(n, "state");
    auto found = std::find_if(counts.begin(), counts.end(), [&](const auto& c) { return c.first == state; });
    if (found == counts.end())
      counts.emplace_back(state, 1);
    else
      ++found->second;
  }
  if (counts.empty()) return "none";
  std::string out;
  for (const auto& [state, n] : counts) out += fmt::format("{}{} {}", out.empty() ? "" : ", ", n, state);
  return out;
}

std::string redundancy(const json& volume) {
  auto parity = number(volume, "parity_shards");
  auto out = fmt::format("{}+{}", number(volume, "data_shards"), parity);
  auto left = volume.find("redundancy_left_min");
  if (left != volume.end() && left->is_number_integer())
    out += fmt::format(", {} of {} shards may still be lost", left->get<std::int64_t>(), parity);
  auto missing = list(volume, "segments_by_missing");
  std::uint64_t incomplete = 0;
  for (std::size_t i = 1; i < missing.size(); ++i)
    if (missing[i].is_number_unsigned()) incomplete += missing[i].get<std::uint64_t>();
  if (incomplete > 0) out += fmt::format("; {} of {} segments miss shards", incomplete, number(volume, "segments"));
  return out;
}

std::string risk(const json& volume) {
  auto bytes = number(volume, "bytes_at_risk");
  if (bytes == 0) return "nothing";
  auto since = text(volume, "at_risk_since");
  return format_bytes(bytes) + (since.empty() ? " not yet on enough nodes" : fmt::format(" not yet on enough nodes, since {} UTC", moment(since)));
}

std::string runway(const json& wallet) {
  auto days = wallet.find("runway_days");
  if (days == wallet.end() || !days->is_number()) return "nothing to pay for";
  auto value = days->get<double>();
  if (value > 36500) return "lasts more than 100 years";
  return value >= 2 ? fmt::format("lasts {:.0f} days", value) : fmt::format("lasts {:.0f} hours", value * 24);
}

std::string wallet_line(const json& wallet) {
  if (!flag(wallet, "known")) return "not known while no engine runs";
  return fmt::format("{}, {} a month, {}", money_text(wallet, "balance"), money_text(wallet, "per_month"), runway(wallet));
}

std::string mount_line(const json& mount) {
  auto path = text(mount, "path");
  if (flag(mount, "mounted")) return path;
  if (!flag(mount, "wanted")) return "unmounted on request ('qs mount' mounts it)";
  auto problem = text(mount, "problem");
  return problem.empty() ? "not mounted" : "not mounted: " + problem;
}

std::string used(const json& volume) {
  auto usable = number(volume, "usable_bytes");
  auto taken = number(volume, "used_bytes");
  auto out = fmt::format("{} used of {} usable", format_bytes(taken), format_bytes(usable));
  if (usable > 0) out += fmt::format(" ({:.0f} %)", 100.0 * static_cast<double>(taken) / static_cast<double>(usable));
  return out;
}

/// Conditions worth a line: what is not as it should be.
bool worth_showing(const json& c) {
  static const std::vector<std::string> good_when_true{"Ready", "ConfigValid", "Synced", "Reachable", "Redundant", "Quorum", "Mounted", "Funded", "StatusServed"};
  auto status = text(c, "status");
  auto type = text(c, "type");
  auto good = std::find(good_when_true.begin(), good_when_true.end(), type) != good_when_true.end();
  if (type == "Mounted" && text(c, "reason") == "NotWanted") return false;
  return good ? status != "True" : status == "True";
}

} // namespace

std::string status_view(const std::string& document, const view_options& o) {
  auto s = json::parse(document, nullptr, false);
  if (!s.is_object()) return {};
  const auto& volume = part(s, "volume");
  const auto& engine = part(s, "engine");
  auto state = text(s, "state");
  auto out = fmt::format("{}: {}\n", text(s, "name"), coloured(state, o.colour));
  if (flag(s, "destroying")) out += field("destroying", "everything of this volume is being deleted", o.width);
  if (number(s, "generation") == 0)
    out += field("spec", "nothing was applied yet: 'qs apply'", o.width);
  else
    out += field("spec", fmt::format("generation {}{}", number(s, "generation"),
                                     flag(s, "unapplied_edits") ? "; storage.yaml has unapplied edits ('qs diff' shows them)" : ""), o.width);
  if (flag(volume, "created")) {
    out += field("capacity", used(volume), o.width);
    out += field("redundancy", redundancy(volume), o.width);
    out += field("at risk", risk(volume), o.width);
    if (flag(volume, "read_only")) out += field("read-only", text(volume, "read_only_reason"), o.width);
    if (flag(volume, "log_full")) out += field("log", "full: writes are refused until nodes take what it holds", o.width);
  }
  out += field("nodes", nodes_summary(list(s, "nodes")), o.width);
  if (!engine.empty()) {
    const auto& mount = part(s, "mount");
    if (!text(mount, "path").empty()) out += field("mount", mount_line(mount), o.width);
    out += field("wallet", wallet_line(part(s, "wallet")), o.width);
    out += field("engine", fmt::format("process {}, version {}{}", number(engine, "pid"), text(engine, "version"),
                                       text(engine, "started").empty() ? "" : fmt::format(", since {} UTC", moment(text(engine, "started")))), o.width);
  } else {
    out += field("engine", "not running: this is what was recorded ('qs start' starts it)", o.width);
  }
  std::string conditions;
  for (const auto& c : list(s, "conditions")) {
    if (!worth_showing(c)) continue;
    auto line = fmt::format("{}={} {}", text(c, "type"), text(c, "status"), text(c, "reason"));
    if (auto message = text(c, "message"); !message.empty()) line += ": " + message;
    conditions += "  " + wrapped(line, o.width, 4) + "\n";
  }
  if (!conditions.empty()) out += "\n" + conditions;
  return out;
}

std::string nodes_view(const std::string& document, const view_options& o) {
  auto d = json::parse(document, nullptr, false);
  if (!d.is_object()) return {};
  auto nodes = list(d, "nodes");
  if (nodes.empty()) return "no nodes\n";
  table t{{{"NODE", false, false},
           {"STATE", false, false},
           {"HOST", false, true},
           {"FARM", false, true},
           {"COUNTRY", false, true},
           {"USED", true, false},
           {"SIZE", true, false},
           {"ENDPOINT", false, true}}};
  for (const auto& n : nodes)
    t.row({text(n, "id"), text(n, "state"), text(n, "host"), text(n, "farm"), text(n, "country"), format_bytes(number(n, "used_bytes")),
           format_bytes(number(n, "size")), text(n, "endpoint")});
  auto out = t.render(o.width);
  for (const auto& n : nodes) {
    auto reason = text(n, "reason");
    auto detail = text(n, "detail");
    const auto& open = part(n, "not_deleted");
    auto stuck = number(open, "tries") >= tries_enough;
    if (!stuck && reason.empty() && detail.empty()) continue; // a ready node has something to say when it takes no writes
    if (!stuck && text(n, "state") == "ready" && detail.empty()) continue;
    if (detail == reason) detail.clear();
    auto line = fmt::format("{}: {}{}{}", text(n, "id"), reason, !reason.empty() && !detail.empty() ? ": " : "", detail);
    if (auto by = text(n, "replaced_by"); !by.empty()) line += ", replaced by " + by;
    if (stuck) line += fmt::format("; cannot be deleted: {} ('qs nodes delete {}')", text(open, "detail"), text(n, "id"));
    out += wrapped(line, o.width, 4) + "\n";
  }
  return out;
}

std::string node_view(const std::string& document, const std::string& id) {
  auto d = json::parse(document, nullptr, false);
  if (!d.is_object()) return {};
  for (const auto& n : list(d, "nodes")) {
    if (text(n, "id") != id) continue;
    auto out = fmt::format("{}: {}\n", id, text(n, "state"));
    auto add = [&](const char* name, const std::string& value) {
      if (!value.empty()) out += field(name, value);
    };
    add("reason", text(n, "reason"));
    add("seen", text(n, "detail"));
    add("since", text(n, "since").empty() ? "" : moment(text(n, "since")) + " UTC");
    add("provider", text(n, "provider"));
    add("host", text(n, "host"));
    add("farm", text(n, "farm"));
    add("country", text(n, "country"));
    add("region", text(n, "region"));
    add("endpoint", text(n, "endpoint"));
    add("namespace", text(n, "namespace"));
    add("size", format_bytes(number(n, "size")));
    add("used", format_bytes(number(n, "used_bytes")));
    add("price", money_text(n, "price_per_month") + " a month");
    add("replaces", text(n, "replaces"));
    add("replaced by", text(n, "replaced_by"));
    if (const auto& open = part(n, "not_deleted"); number(open, "tries") > 0)
      add("not deleted", fmt::format("tried {} times: {}", number(open, "tries"), text(open, "detail")));
    return out;
  }
  return {};
}

std::string wallet_view(const std::string& document, bool history) {
  auto d = json::parse(document, nullptr, false);
  if (!d.is_object()) return {};
  const auto& w = part(d, "wallet");
  auto out = fmt::format("wallet: {}\n", money_text(w, "balance"));
  out += field("burn", money_text(w, "per_month") + " a month");
  out += field("runway", runway(w));
  if (!history) return out;
  auto entries = list(d, "history");
  if (entries.empty()) return out + "\nno entries\n";
  table t{{{"TIME (UTC)", false, false}, {"KIND", false, false}, {"FOR", false, true}, {"AMOUNT", true, false}, {"BALANCE", true, false}}};
  for (const auto& e : entries) t.row({moment(text(e, "at")), text(e, "kind"), text(e, "subject"), money_text(e, "amount"), money_text(e, "balance")});
  return out + "\n" + t.render(80);
}

void each_event(const std::string& lines, std::uint64_t& after,
                const std::function<void(const std::string& line, const std::string& kind)>& see) {
  std::size_t at = 0;
  while (at < lines.size()) {
    auto end = std::min(lines.find('\n', at), lines.size());
    auto line = lines.substr(at, end - at);
    at = end + 1;
    auto e = json::parse(line, nullptr, false);
    if (!e.is_object()) continue;
    after = std::max(after, number(e, "number"));
    see(line, text(e, "kind"));
  }
}

std::string event_view(const std::string& document, bool colour) {
  auto e = json::parse(document, nullptr, false);
  if (!e.is_object()) return document;
  auto level = text(e, "level");
  auto line = fmt::format("{}  {:<10} {:<16} {}", moment(text(e, "at")), text(e, "subject"), text(e, "kind"), text(e, "message"));
  if (level == "info") return line;
  if (!colour) return line + (level == "warning" ? " (warning)" : " (error)");
  return fmt::format("{}{}\x1b[0m", level == "warning" ? "\x1b[33m" : "\x1b[31m", line);
}

std::string qr_code(const std::string& content) {
  auto code = std::unique_ptr<QRcode, decltype(&QRcode_free)>{QRcode_encodeData(static_cast<int>(content.size()),
                                                                                reinterpret_cast<const unsigned char*>(content.data()), 0, QR_ECLEVEL_L),
                                                              &QRcode_free};
  if (!code) return {};
  auto dark = [&](int x, int y) {
    if (x < 0 || y < 0 || x >= code->width || y >= code->width) return false;
    return (code->data[y * code->width + x] & 1U) != 0;
  };
  // Light on dark terminals: what the code has light is drawn, so that a scanner sees it the right way round there.
  std::string out;
  constexpr int quiet = 2;
  for (int y = -quiet; y < code->width + quiet; y += 2) {
    for (int x = -quiet; x < code->width + quiet; ++x) {
      auto up = !dark(x, y);
      auto down = !dark(x, y + 1) && y + 1 < code->width + quiet;
      out += up && down ? "█" : up ? "▀" : down ? "▄" : " ";
    }
    out += '\n';
  }
  return out;
}

} // namespace qs::cli
