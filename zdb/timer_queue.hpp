// What is to happen later on the I/O thread: WAIT's end, the answer to a wrong password, the end of
// a hook. No clock and no sockets of its own: the owner asks when the next one is due and runs them
// then. One thread.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "base/clock.hpp"

namespace qs::zdb {

class timer_queue {
public:
  /// Names one entry; a default one names none.
  struct token {
    boot_time when{};
    std::uint64_t number = 0;
    auto operator<=>(const token&) const = default;
  };

  token add(boot_time when, std::function<void()> what) {
    token t{when, ++last_};
    entries_.emplace(t, std::move(what));
    if (changed && entries_.begin()->first == t) changed();
    return t;
  }
  void cancel(const token& t) { entries_.erase(t); }
  [[nodiscard]] std::optional<boot_time> next() const {
    if (entries_.empty()) return std::nullopt;
    return entries_.begin()->first.when;
  }
  /// Those due at `now`, in order; what they add for later is not among them.
  void run(boot_time now) {
    auto newest = last_;
    while (!entries_.empty()) {
      auto it = entries_.begin();
      if (it->first.when > now || it->first.number > newest) return;
      auto what = std::move(it->second);
      entries_.erase(it);
      what();
    }
  }
  void clear() { entries_.clear(); }
  [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }

  std::function<void()> changed; ///< next() is earlier than it was

private:
  std::map<token, std::function<void()>> entries_;
  std::uint64_t last_ = 0;
};

} // namespace qs::zdb
