// The ledger of the local grid: who was credited and charged what. An append-only file of JSON
// lines, <grid>/ledger.jsonl, shared by all wallets, synced after every line; a torn last line is
// cut. Its user holds the grid's lock around every call that may read or write, since other
// programs append to the same file. Not thread-safe.
//
// Charging is by time: a node at a rate (per 30 days) since a moment costs floor(rate · elapsed /
// 30 d) in all, so that many small charges add up to exactly one big one. What the balance cannot
// cover is owed, and taken from the next credit. A line for every look would grow without end:
// charge() writes once an hour, settle() always; balance() counts what is not written.
#pragma once

#include <chrono>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "grid/provider.hpp"
#include "model/money.hpp"

namespace qs::grid {

inline constexpr std::chrono::hours charge_month{24 * 30};
inline constexpr std::chrono::minutes charge_every{60};
inline constexpr model::money welcome_credit{1000 * model::units_per_tft};

/// What one node costs: `rate` per 30 days since `since`, charged until `until` at most (it died)
/// if that is set.
struct charged_node {
  std::string name;
  model::money rate;
  wall_time since{};
  wall_time until{}; ///< zero: it lives
};

class ledger {
public:
  explicit ledger(std::filesystem::path file) : file_{std::move(file)} {}

  /// Reads what was appended since the last call, cuts a torn last line, makes a missing file, and
  /// credits a wallet that the ledger does not know yet. Errors: io, corrupt (a whole line that
  /// cannot be read; said with its number).
  status refresh(const std::string& wallet, wall_time now);

  /// For a look that may change nothing: wants no lock, writes nothing, passes over a torn or
  /// half-appended last line, and counts an unknown wallet as it would be credited. Errors: io,
  /// corrupt.
  status peek(const std::string& wallet);

  // All of these after refresh() under the same lock; of those that write nothing also after
  // peek().
  /// Writes what the wallet's nodes cost until now, if the last charge of one is an hour old.
  status charge(const std::string& wallet, const std::vector<charged_node>& nodes, wall_time now);
  /// The same at once, however little: before a node goes or its rate changes.
  status settle(const std::string& wallet, const std::vector<charged_node>& nodes, wall_time now);
  /// What is left with everything counted until now; never below zero.
  [[nodiscard]] model::money balance(const std::string& wallet,
                                     const std::vector<charged_node>& nodes, wall_time now) const;
  /// Credits at once; what is owed is taken from it. Errors: invalid_argument (not positive, or too
  /// much), io.
  status credit(const std::string& wallet, model::money amount, const std::string& subject,
                wall_time now);
  /// The newest entries of a wallet, oldest of them first.
  [[nodiscard]] result<std::vector<ledger_entry>> newest(const std::string& wallet,
                                                         std::size_t most) const;

private:
  struct account {
    model::money balance;
    model::money owed;
    std::map<std::string, wall_time>
        charged_until; ///< by node, gone ones too: none is charged twice
  };
  struct line;

  [[nodiscard]] model::money due(const account& a, const charged_node& node, wall_time now) const;
  /// Reads on to the last whole line. Gives where that ends.
  result<std::uint64_t> read_lines(int fd, std::uint64_t size);
  status append(const line& l);
  status apply(const line& l);
  status pay(const std::string& wallet, const std::vector<charged_node>& nodes, wall_time now);

  std::filesystem::path file_;
  std::uint64_t offset_ = 0; ///< read so far
  std::uint64_t lines_ = 0;
  std::map<std::string, account> accounts_;
};

} // namespace qs::grid
