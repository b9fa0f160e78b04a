#include "controller/render.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace qs::controller {
namespace {

std::string_view symbol(action_effect e) {
  switch (e) {
  case action_effect::add:
    return "+";
  case action_effect::change:
    return "~";
  case action_effect::replace:
    return "-/+";
  case action_effect::destroy:
    return "-";
  case action_effect::unknown:
    return "?";
  }
  return "?";
}

std::string_view colour(action_effect e) {
  switch (e) {
  case action_effect::add:
    return "\x1b[32m";
  case action_effect::change:
    return "\x1b[33m";
  case action_effect::replace:
    return "\x1b[35m";
  case action_effect::destroy:
    return "\x1b[31m";
  case action_effect::unknown:
    return "\x1b[36m";
  }
  return "";
}

std::size_t columns(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

/// `text` broken at blanks, further lines indented by `indent` columns; the first begins at column
/// `at`.
std::string wrap(std::string_view text, std::size_t at, std::size_t indent, std::size_t width) {
  std::string out;
  auto column = at;
  while (!text.empty()) {
    auto word = text.substr(0, text.find(' '));
    auto gap = column == at && out.empty() ? std::size_t{0} : std::size_t{1};
    if (column > indent && column + gap + columns(word) > width) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
      gap = 0;
    }
    out += std::string(gap, ' ');
    out += word;
    column += gap + columns(word);
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    while (text.starts_with(' ')) text.remove_prefix(1);
  }
  return out;
}

/// "node", "n7": what the action is about, and its name.
std::pair<std::string, std::string> subject(const action& a) {
  auto dot = a.address.find('.');
  if (dot == std::string::npos) return {a.address, ""};
  return {a.address.substr(0, dot), a.address.substr(dot + 1)};
}

std::string details(const action& a) {
  std::string out;
  auto say = [&](const std::string& text) {
    if (!text.empty()) out += (out.empty() ? "" : ", ") + text;
  };
  if (a.kind == action_kind::create_node || a.kind == action_kind::replace_node) {
    if (a.kind == action_kind::create_node)
      say(a.host);
    else
      say(a.reason);
    if (!a.place.farm.empty()) say("farm " + a.place.farm);
    say(a.place.country);
    say(format_bytes(a.size));
    if (a.price_per_month.units != 0) say(model::format_money(a.price_per_month) + "/month");
    if (a.kind == action_kind::create_node) say(a.reason);
  } else if (a.kind == action_kind::adopt_node) {
    say("on " + a.host);
    say(format_bytes(a.size));
    say(a.reason);
  } else if (a.kind == action_kind::change_setting) {
    out = a.reason.substr(std::min(a.reason.size(), a.reason.find(' ') + 1));
  } else {
    say(a.reason);
  }
  if (a.bytes_to_move != 0) say(fmt::format("moves {}", format_bytes(a.bytes_to_move)));
  return out;
}

/// Nothing that came from a provider or a node moves the cursor or changes colours.
std::string plain(std::string text) {
  for (auto& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return text;
}

std::string line(const action& a, std::size_t name_width, const render_options& o) {
  auto [noun, name] = subject(a);
  std::string head = noun == "setting" ? name : fmt::format("{:<6} {:<{}}", noun, name, name_width);
  auto text = plain(fmt::format("  {:<3} {}  ", symbol(a.effect), head));
  auto at = columns(text);
  auto indent = std::min<std::size_t>(6 + 7 + name_width + 2, 30);
  auto body = wrap(plain(details(a)), at, indent, static_cast<std::size_t>(o.width));
  auto out = text + body;
  while (out.ends_with(' ')) out.pop_back();
  if (o.colour) return fmt::format("{}{}\x1b[0m\n", colour(a.effect), out);
  return out + "\n";
}

std::string totals(const plan& p) {
  const auto& s = p.summary;
  std::string counts;
  auto say = [&](int count, std::string_view what) {
    if (count > 0) counts += fmt::format("{}{} {}", counts.empty() ? "" : ", ", count, what);
  };
  say(s.add, "to add");
  say(s.change, "to change");
  say(s.replace, "to replace");
  say(s.destroy, "to destroy");
  say(s.unknown, "unknown");
  auto out = fmt::format("Plan: {}.", counts);
  if (s.bytes_to_move != 0) out += fmt::format(" Moves {}.", format_bytes(s.bytes_to_move));
  if (s.usable_bytes_gained > 0)
    out +=
        fmt::format(" Usable +{}.", format_bytes(static_cast<byte_count>(s.usable_bytes_gained)));
  if (s.usable_bytes_gained < 0)
    out +=
        fmt::format(" Usable -{}.", format_bytes(static_cast<byte_count>(-s.usable_bytes_gained)));
  if (s.price_per_month.units != 0)
    out += fmt::format(" {} a month.", model::format_money(s.price_per_month));
  return out;
}

} // namespace

std::string render(const plan& p, const render_options& options) {
  if (p.empty()) return "No changes. Your infrastructure matches the configuration.\n";
  auto width = static_cast<std::size_t>(options.width);
  std::size_t name_width = 2;
  for (const auto& a : p.actions)
    if (auto [noun, name] = subject(a); noun != "setting")
      name_width = std::max(name_width, std::min<std::size_t>(name.size(), 12));
  std::string out = "qs will perform the following actions:\n";
  for (const auto& a : p.actions) out += line(a, name_width, options);
  for (const auto& d : p.drift) out += wrap(plain("Drift: " + d), 0, 2, width) + "\n";
  out += wrap(totals(p), 0, 2, width) + "\n";
  auto destroys_data = std::any_of(p.actions.begin(), p.actions.end(),
                                   [](const auto& a) { return a.destroys_data; });
  auto moves = p.summary.replace > 0 || p.summary.bytes_to_move > 0 || p.summary.unknown > 0;
  if (moves && !destroys_data)
    out += fmt::format("Worst redundancy during apply: {} more {} may be lost.\n",
                       p.summary.worst_redundancy,
                       p.summary.worst_redundancy == 1 ? "shard" : "shards");
  std::string names;
  for (const auto& a : p.actions) {
    if (a.effect != action_effect::destroy || a.kind == action_kind::change_mount) continue;
    auto [noun, name] = subject(a);
    names += (names.empty() ? "" : ", ") + (name.empty() ? noun : name);
  }
  if (!names.empty()) out += wrap(plain("Destroys: " + names), 0, 2, width) + "\n";
  return out;
}

std::string render(const std::vector<refusal>& refusals, const render_options& options) {
  std::string out;
  for (const auto& r : refusals) {
    std::string head = r.by_rule ? "refused: " : "error: ";
    auto text = wrap(plain(head + r.message), 0, 2, static_cast<std::size_t>(options.width));
    if (options.colour) text.replace(0, head.size(), fmt::format("\x1b[31m{}\x1b[0m", head));
    out += text;
    out += '\n';
  }
  return out;
}

} // namespace qs::controller
