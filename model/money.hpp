// money: an amount of TFT in its smallest unit (1e-7). Integer, so that a ledger adds up.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace qs::model {

struct money {
  std::int64_t units = 0; ///< 10,000,000 = 1 TFT
  auto operator<=>(const money&) const = default;
  money operator+(money other) const noexcept { return {units + other.units}; }
  money operator-(money other) const noexcept { return {units - other.units}; }
  money& operator+=(money other) noexcept {
    units += other.units;
    return *this;
  }
};

inline constexpr std::int64_t units_per_tft = 10'000'000;

/// "12.5" or "12.5 TFT", at most 7 decimals, not negative. Errors: invalid_argument.
result<money> parse_money(std::string_view text);
/// "12.5": the shortest exact decimal, as JSON carries it.
std::string to_decimal(money amount);
/// "12.50 TFT" for people: two decimals, more where an amount would print as 0.
std::string format_money(money amount);

} // namespace qs::model
