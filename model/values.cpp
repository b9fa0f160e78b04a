#include <charconv>

#include <fmt/format.h>

#include "model/ids.hpp"
#include "model/money.hpp"
#include "model/node.hpp"

namespace qs::model {

std::string to_string(node_id id) { return fmt::format("n{}", id.number); }
std::string to_string(group_id id) { return fmt::format("g{}", id.number); }
std::string to_string(segment_ref ref) { return fmt::format("s{}.{}", ref.epoch, ref.counter); }

std::optional<node_id> parse_node_id(std::string_view text) {
  if (text.size() < 2 || text.front() != 'n' || text[1] == '0') return std::nullopt;
  node_id id;
  auto end = text.data() + text.size();
  auto [at, code] = std::from_chars(text.data() + 1, end, id.number);
  if (code != std::errc{} || at != end) return std::nullopt;
  return id;
}

result<money> parse_money(std::string_view text) {
  auto bad = [&] {
    return error{errc::invalid_argument,
                 fmt::format("'{}' is not an amount; write for example 50 TFT or 0.25", text)};
  };
  auto number = text;
  if (number.ends_with("TFT")) number.remove_suffix(3);
  while (!number.empty() && number.back() == ' ') number.remove_suffix(1);
  auto dot = number.find('.');
  auto whole_text = number.substr(0, dot);
  auto fraction_text = dot == std::string_view::npos ? std::string_view{} : number.substr(dot + 1);
  if (whole_text.empty() || whole_text.size() > 11 || fraction_text.size() > 7 ||
      (dot != std::string_view::npos && fraction_text.empty()))
    return bad();
  std::int64_t units = 0;
  for (char c : whole_text) {
    if (c < '0' || c > '9') return bad();
    units = units * 10 + (c - '0');
  }
  std::int64_t scale = units_per_tft;
  units *= scale;
  for (char c : fraction_text) {
    if (c < '0' || c > '9') return bad();
    scale /= 10;
    units += (c - '0') * scale;
  }
  return money{units};
}

std::string to_decimal(money amount) {
  auto sign = amount.units < 0 ? "-" : "";
  auto units = amount.units < 0 ? -amount.units : amount.units;
  auto text = fmt::format("{}{}.{:07}", sign, units / units_per_tft, units % units_per_tft);
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text;
}

std::string format_money(money amount) {
  auto tft = static_cast<double>(amount.units) / static_cast<double>(units_per_tft);
  auto small = amount.units != 0 && tft < 0.01 && tft > -0.01;
  return small ? to_decimal(amount) + " TFT" : fmt::format("{:.2f} TFT", tft);
}

std::string_view to_string(node_state state) noexcept {
  switch (state) {
  case node_state::planned: return "planned";
  case node_state::reserving: return "reserving";
  case node_state::deploying: return "deploying";
  case node_state::ready: return "ready";
  case node_state::unreachable: return "unreachable";
  case node_state::lost: return "lost";
  case node_state::draining: return "draining";
  case node_state::replaced: return "replaced";
  case node_state::gone: return "gone";
  }
  return "?";
}

std::optional<node_state> parse_node_state(std::string_view text) noexcept {
  for (auto s = 0; s <= static_cast<int>(node_state::gone); ++s)
    if (text == to_string(static_cast<node_state>(s))) return static_cast<node_state>(s);
  return std::nullopt;
}

} // namespace qs::model
