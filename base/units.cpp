#include "base/units.hpp"

#include <array>
#include <cmath>
#include <limits>
#include <optional>

#include <fmt/format.h>

namespace qs {
namespace {

struct unit {
  std::string_view name;
  std::uint64_t factor;
};

constexpr std::array<unit, 12> byte_units{{{"", 1},
                                           {"B", 1},
                                           {"KiB", kib},
                                           {"MiB", mib},
                                           {"GiB", gib},
                                           {"TiB", tib},
                                           {"PiB", 1024 * tib},
                                           {"kB", 1000},
                                           {"MB", 1000'000},
                                           {"GB", 1000'000'000},
                                           {"TB", 1000'000'000'000},
                                           {"PB", 1000'000'000'000'000}}};
constexpr std::array<unit, 5> time_units{
    {{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}}};

/// A decimal number with at most 9 digits of fraction as (whole, billionths); then the rest of the text.
struct decimal {
  std::uint64_t whole = 0;
  std::uint64_t billionths = 0;
  std::string_view rest;
  bool valid = false;
};

decimal read_decimal(std::string_view text) {
  decimal out;
  std::size_t i = 0;
  for (; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i) {
    auto digit = static_cast<std::uint64_t>(text[i] - '0');
    if (out.whole > (std::numeric_limits<std::uint64_t>::max() - digit) / 10) return out;
    out.whole = out.whole * 10 + digit;
  }
  if (i == 0) return out;
  if (i < text.size() && text[i] == '.') {
    std::uint64_t scale = 100'000'000;
    auto first = ++i;
    for (; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i) {
      if (scale == 0) return out;
      out.billionths += static_cast<std::uint64_t>(text[i] - '0') * scale;
      scale /= 10;
    }
    if (i == first) return out;
  }
  while (i < text.size() && text[i] == ' ') ++i;
  out.rest = text.substr(i);
  out.valid = true;
  return out;
}

template <std::size_t N>
std::optional<std::uint64_t> scaled(const decimal& number, const std::array<unit, N>& units) {
  for (const auto& u : units) {
    if (u.name != number.rest) continue;
    constexpr std::uint64_t billion = 1'000'000'000;
    constexpr std::uint64_t most = std::numeric_limits<std::int64_t>::max() / 2;
    if (number.whole > most / u.factor) return std::nullopt;
    auto product = number.whole * u.factor + u.factor / billion * number.billionths +
                   u.factor % billion * number.billionths / billion;
    return product;
  }
  return std::nullopt;
}

} // namespace

result<byte_count> parse_bytes(std::string_view text) {
  auto number = read_decimal(text);
  if (number.valid)
    if (auto value = scaled(number, byte_units)) return *value;
  return error{errc::invalid_argument,
               fmt::format("'{}' is not a size; write a number and a unit, for example 20GiB or 500MB", text)};
}

std::string format_bytes(byte_count bytes) {
  static constexpr std::array<std::string_view, 6> names{"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  auto value = static_cast<double>(bytes);
  std::size_t i = 0;
  while (value >= 999.5 && i + 1 < names.size()) {
    value /= 1024;
    ++i;
  }
  if (i == 0) return fmt::format("{} B", bytes);
  auto digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  auto text = fmt::format("{:.{}f}", value, digits);
  if (text.find('.') != std::string::npos) {
    while (text.back() == '0') text.pop_back();
    if (text.back() == '.') text.pop_back();
  }
  return fmt::format("{} {}", text, names[i]);
}

std::string exact_bytes(byte_count bytes) {
  static constexpr std::array<unit, 5> binary{
      {{"PiB", 1024 * tib}, {"TiB", tib}, {"GiB", gib}, {"MiB", mib}, {"KiB", kib}}};
  for (const auto& u : binary)
    if (bytes != 0 && bytes % u.factor == 0) return fmt::format("{}{}", bytes / u.factor, u.name);
  return fmt::format("{}", bytes);
}

result<std::chrono::milliseconds> parse_duration(std::string_view text) {
  auto number = read_decimal(text);
  if (number.valid)
    if (auto value = scaled(number, time_units)) {
      return std::chrono::milliseconds{static_cast<std::int64_t>(*value)};
    }
  return error{errc::invalid_argument,
               fmt::format("'{}' is not a duration; write a number and s, m, h or d, for example 10m", text)};
}

std::string format_duration(std::chrono::milliseconds duration) {
  auto ms = duration.count();
  if (ms < 0) return "-" + format_duration(-duration);
  if (ms < 1000) return fmt::format("{} ms", ms);
  auto s = ms / 1000;
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return s % 60 == 0 ? fmt::format("{} m", s / 60) : fmt::format("{} m {} s", s / 60, s % 60);
  if (s < 86400)
    return s / 60 % 60 == 0 ? fmt::format("{} h", s / 3600)
                            : fmt::format("{} h {} m", s / 3600, s / 60 % 60);
  return s / 3600 % 24 == 0 ? fmt::format("{} d", s / 86400)
                            : fmt::format("{} d {} h", s / 86400, s / 3600 % 24);
}

std::string exact_duration(std::chrono::milliseconds duration) {
  auto ms = duration.count();
  for (auto i = time_units.size(); i-- > 1;) {
    auto factor = static_cast<std::int64_t>(time_units[i].factor);
    if (ms != 0 && ms % factor == 0) return fmt::format("{}{}", ms / factor, time_units[i].name);
  }
  return ms == 0 ? "0s" : fmt::format("{}ms", ms);
}

} // namespace qs
