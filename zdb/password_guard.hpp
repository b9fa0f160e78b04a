// Slows down who guesses passwords. After a few wrong ones from an address, every answer to that
// address, right or wrong, waits; so neither a second connection nor hanging up early helps.
// Bounded memory: a fixed number of addresses, the one that was quiet for longest is forgotten. One
// thread.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/clock.hpp"

namespace qs::zdb {

class password_guard {
public:
  static constexpr unsigned free_mistakes = 3;
  static constexpr std::chrono::milliseconds first_delay{100};
  static constexpr std::chrono::milliseconds longest_delay{3200};
  /// One mistake is forgiven after this long.
  static constexpr std::chrono::seconds forgive_every{10};
  static constexpr std::size_t addresses_max = 4096;

  /// An attempt from `peer` has been judged; how long its answer has to wait.
  std::chrono::milliseconds judged(std::string_view peer, bool right, boot_time now);
  [[nodiscard]] std::size_t addresses() const noexcept { return seen_.size(); }

private:
  struct record {
    unsigned mistakes = 0;
    boot_time last{};
  };
  std::unordered_map<std::string, record> seen_;
};

} // namespace qs::zdb
