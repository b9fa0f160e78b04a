// What the volumes of one phrase tell each other about money: the burn of each, in
// $XDG_STATE_HOME/qs/wallets/<16 hex>/wallet.db, so that the runway is over their sum. Not the
// wallet itself: balance and payments are the provider's. Every call opens, locks (flock beside
// it), does one transaction and closes: several engines of one user share it. Blocks for the local
// disk: call it on the state lane.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "model/money.hpp"

namespace qs::state {

class wallet_book {
public:
  /// `wallets_root` = $XDG_STATE_HOME/qs/wallets, `public_id` the 16 hex digits. Makes nothing yet.
  wallet_book(const std::filesystem::path& wallets_root, std::string_view public_id);

  /// This volume's steady burn from now on; 0 takes it out (destroyed).
  status put_burn(std::string_view volume, model::money per_month);
  /// By volume name; empty when there is no book yet.
  result<std::map<std::string, model::money>> burns() const;
  /// The sum.
  result<model::money> burn() const;
  [[nodiscard]] const std::filesystem::path& directory() const noexcept { return directory_; }

private:
  std::filesystem::path directory_;
};

} // namespace qs::state
