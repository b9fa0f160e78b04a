// Slows down who guesses passwords. Once an address (or /64) has used up its free mistakes, its
// attempts stand in line, over however many connections they come: after a wrong one the next is
// judged only when the delay has passed, after a right one at once, so that those who know their
// password cost each other nothing. What they ask for (a namespace, the administrator) takes turns,
// and every other turn belongs to those from which this address has had a right password lately:
// honest clients who come back together are not kept behind somebody who guesses elsewhere.
// Bounded: addresses, and attempts in line; an attempt beyond that is not judged at all. One
// thread.
#pragma once

#include <array>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "base/clock.hpp"
#include "zdb/timer_queue.hpp"

namespace qs::zdb {

class password_guard {
public:
  static constexpr unsigned free_mistakes = 3;
  static constexpr std::chrono::milliseconds first_delay{100};
  static constexpr std::chrono::milliseconds longest_delay{3200};
  /// One mistake is forgiven after this long.
  static constexpr std::chrono::seconds forgive_every{10};
  static constexpr std::size_t addresses_max = 4096; ///< and those with attempts in line
  static constexpr std::size_t line_max = 256;       ///< attempts at one target
  static constexpr std::size_t lines_max = 1024;     ///< attempts of one address
  static constexpr std::size_t remembered_max = 8192;

  password_guard(timer_queue& timers, const qs::clock& time) : timers_{timers}, time_{time} {}

  /// Whether an attempt of this address may be judged now; then judged() must follow.
  [[nodiscard]] bool at_once(std::string_view peer);
  void judged(std::string_view peer, std::string_view target, bool right);

  /// Judges an attempt at its turn, calls judged() and answers it; nothing of it if nobody waits
  /// for it any more.
  using attempt = std::function<void()>;
  struct place {
    std::string peer;
    std::string target;
    std::uint64_t number = 0; ///< 0: the line is full
  };
  /// In line.
  place wait(std::string_view peer, std::string_view target, attempt what);
  /// Out of it, unjudged.
  void leave(const place& at);
  [[nodiscard]] bool has_room(std::string_view peer, std::string_view target) const;
  [[nodiscard]] std::size_t addresses() const noexcept { return seen_.size(); }
  [[nodiscard]] std::size_t waiting(std::string_view peer) const;

private:
  struct line {
    bool known = false; ///< this address has had a right password for it lately
    std::deque<std::pair<std::uint64_t, attempt>> attempts;
  };
  struct record {
    unsigned mistakes = 0;
    boot_time last{};    ///< mistake, or forgiven
    boot_time free_at{}; ///< the next attempt is judged then
    std::map<std::string, line, std::less<>> lines;
    std::array<std::deque<std::string>, 2> turns; ///< of targets: others, known ones
    bool known_turn = true;
    std::size_t waiting = 0;
    bool timer = false;
  };
  record& record_of(const std::string& peer);
  void forgive(record& r) const;
  void arm(const std::string& peer, record& r);
  void pump(const std::string& peer);
  std::optional<attempt> next(record& r);
  [[nodiscard]] bool remembers(std::string_view peer, std::string_view target) const;

  timer_queue& timers_;
  const qs::clock& time_;
  std::unordered_map<std::string, record> seen_;
  /// Hashes of who has had a right password for what: these, and those before them.
  std::array<std::unordered_set<std::size_t>, 2> right_;
  std::uint64_t last_number_ = 0;
};

} // namespace qs::zdb
