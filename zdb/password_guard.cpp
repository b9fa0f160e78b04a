#include "zdb/password_guard.hpp"

#include <algorithm>

namespace qs::zdb {

std::chrono::milliseconds password_guard::judged(std::string_view peer, bool right, boot_time now) {
  auto it = seen_.find(std::string{peer});
  if (it == seen_.end()) {
    if (right) return {};
    if (seen_.size() >= addresses_max)
      seen_.erase(std::min_element(seen_.begin(), seen_.end(),
                                   [](auto& a, auto& b) { return a.second.last < b.second.last; }));
    it = seen_.emplace(std::string{peer}, record{0, now}).first;
  }
  auto& r = it->second;
  auto forgiven = static_cast<std::uint64_t>((now - r.last) / forgive_every);
  r.mistakes -= static_cast<unsigned>(std::min<std::uint64_t>(forgiven, r.mistakes));
  if (forgiven > 0) r.last = now;
  if (!right) {
    r.mistakes = std::min(r.mistakes + 1, free_mistakes + 16);
    r.last = now;
  }
  if (r.mistakes == 0) {
    seen_.erase(it);
    return {};
  }
  if (r.mistakes <= free_mistakes) return right ? std::chrono::milliseconds{} : first_delay;
  return std::min<std::chrono::milliseconds>(
      longest_delay, first_delay * (1U << std::min(r.mistakes - free_mistakes, 6U)));
}

} // namespace qs::zdb
