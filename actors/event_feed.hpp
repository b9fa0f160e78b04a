// event_feed: the newest events in memory, for whoever follows them (qs events -f, qs apply's
// progress). Filled by the supervisor, read by the threads of the control socket. Thread-safe,
// bounded. The durable list is the state store's.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <vector>

#include "model/recorded.hpp"

namespace qs::actors {

class event_feed {
public:
  /// Numbers go on after `last`, the newest recorded event.
  explicit event_feed(std::uint64_t last = 0) : last_{last} {}

  /// Gives the event its number.
  model::event push(model::event e);
  /// Events with a number over `after`; waits up to `patience` for the first one.
  std::vector<model::event> after(std::uint64_t after, std::chrono::milliseconds patience);
  [[nodiscard]] std::uint64_t last() const;
  /// Wakes everyone who waits, for good.
  void close();

private:
  static constexpr std::size_t kept = 2000;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<model::event> events_;
  std::uint64_t last_ = 0;
  bool closed_ = false;
};

} // namespace qs::actors
