#include "zdb/password_guard.hpp"

#include <algorithm>

namespace qs::zdb {

namespace {
constexpr std::size_t judged_in_a_row = 64;

std::chrono::milliseconds delay_after(unsigned mistakes) {
  if (mistakes < password_guard::free_mistakes) return {};
  auto doubled = std::min(mistakes - password_guard::free_mistakes, 6U);
  return std::min<std::chrono::milliseconds>(password_guard::longest_delay,
                                             password_guard::first_delay * (1U << doubled));
}

std::size_t hash_of(std::string_view peer, std::string_view target) {
  std::string both{peer};
  both += '\0';
  both += target;
  return std::hash<std::string>{}(both);
}
} // namespace

bool password_guard::remembers(std::string_view peer, std::string_view target) const {
  auto h = hash_of(peer, target);
  return right_[0].contains(h) || right_[1].contains(h);
}

void password_guard::forgive(record& r) const {
  auto now = time_.boot();
  auto forgiven = static_cast<std::uint64_t>((now - r.last) / forgive_every);
  r.mistakes -= static_cast<unsigned>(std::min<std::uint64_t>(forgiven, r.mistakes));
  if (forgiven > 0) r.last = now;
}

bool password_guard::at_once(std::string_view peer) {
  auto it = seen_.find(std::string{peer});
  if (it == seen_.end()) return true;
  auto& r = it->second;
  forgive(r);
  if (r.mistakes == 0 && r.waiting == 0) {
    seen_.erase(it);
    return true;
  }
  return r.waiting == 0 && (r.mistakes < free_mistakes || time_.boot() >= r.free_at);
}

password_guard::record& password_guard::record_of(const std::string& peer) {
  auto it = seen_.find(peer);
  if (it != seen_.end()) return it->second;
  if (seen_.size() >= addresses_max) { // the one that was quiet for longest is forgotten
    auto oldest = seen_.end();
    for (auto i = seen_.begin(); i != seen_.end(); ++i)
      if (i->second.waiting == 0 && (oldest == seen_.end() || i->second.last < oldest->second.last))
        oldest = i;
    if (oldest != seen_.end()) seen_.erase(oldest);
  }
  auto& r = seen_[peer];
  r.last = time_.boot();
  return r;
}

void password_guard::judged(std::string_view peer, std::string_view target, bool right) {
  if (right) {
    if (right_[0].size() >= remembered_max) right_[1] = std::exchange(right_[0], {});
    right_[0].insert(hash_of(peer, target));
    return;
  }
  auto& r = record_of(std::string{peer});
  forgive(r);
  r.mistakes = std::min(r.mistakes + 1, free_mistakes + 16);
  r.last = time_.boot();
  r.free_at = r.last + delay_after(r.mistakes);
  r.known_turn = !r.known_turn; // right ones cost nothing: it goes on until one was wrong
}

// -- the line -------------------------------------------------------------------------------------

bool password_guard::has_room(std::string_view peer, std::string_view target) const {
  auto it = seen_.find(std::string{peer});
  if (it == seen_.end()) return true;
  auto l = it->second.lines.find(target);
  return it->second.waiting < lines_max &&
         (l == it->second.lines.end() || l->second.attempts.size() < line_max);
}

std::size_t password_guard::waiting(std::string_view peer) const {
  auto it = seen_.find(std::string{peer});
  return it == seen_.end() ? 0 : it->second.waiting;
}

password_guard::place password_guard::wait(std::string_view peer, std::string_view target,
                                           attempt what) {
  place at{std::string{peer}, std::string{target}, 0};
  if (!has_room(peer, target)) return at;
  at.number = ++last_number_;
  auto& r = record_of(at.peer);
  auto& l = r.lines[at.target];
  if (l.attempts.empty()) {
    l.known = remembers(peer, target);
    r.turns[l.known ? 1 : 0].push_back(at.target);
  }
  l.attempts.emplace_back(at.number, std::move(what));
  ++r.waiting;
  arm(at.peer, r);
  return at;
}

void password_guard::leave(const place& at) {
  auto it = seen_.find(at.peer);
  if (it == seen_.end()) return;
  auto& r = it->second;
  auto l = r.lines.find(at.target);
  if (l == r.lines.end()) return;
  auto gone = std::erase_if(l->second.attempts, [&](auto& a) { return a.first == at.number; });
  r.waiting -= gone;
  if (!l->second.attempts.empty()) return;
  std::erase(r.turns[l->second.known ? 1 : 0], at.target);
  r.lines.erase(l);
}

std::optional<password_guard::attempt> password_guard::next(record& r) {
  if (r.waiting == 0) return std::nullopt;
  auto which = r.turns[r.known_turn ? 1U : 0U].empty() ? !r.known_turn : r.known_turn;
  auto& turns = r.turns[which ? 1 : 0];
  auto target = std::move(turns.front());
  turns.pop_front();
  auto l = r.lines.find(target);
  auto what = std::move(l->second.attempts.front().second);
  l->second.attempts.pop_front();
  --r.waiting;
  if (l->second.attempts.empty())
    r.lines.erase(l);
  else
    turns.push_back(std::move(target));
  return what;
}

void password_guard::arm(const std::string& peer, record& r) {
  if (r.waiting == 0 || std::exchange(r.timer, true)) return;
  timers_.add(std::max(r.free_at, time_.boot()), [this, peer] { pump(peer); });
}

/// Those whose turn it is.
void password_guard::pump(const std::string& peer) {
  auto it = seen_.find(peer);
  if (it == seen_.end()) return;
  auto& r = it->second; // it stays: it has a timer, or attempts that wait
  r.timer = false;
  for (std::size_t i = 0; i < judged_in_a_row && time_.boot() >= r.free_at; ++i) {
    auto what = next(r);
    if (!what) break;
    ++r.waiting; // kept while it is judged
    (*what)();
    --r.waiting;
  }
  arm(peer, r);
}

} // namespace qs::zdb
