#include "actors/event_feed.hpp"

namespace qs::actors {

model::event event_feed::push(model::event e) {
  std::lock_guard lock{mutex_};
  e.number = ++last_;
  events_.push_back(e);
  if (events_.size() > kept) events_.pop_front();
  changed_.notify_all();
  return e;
}

std::vector<model::event> event_feed::after(std::uint64_t after,
                                            std::chrono::milliseconds patience) {
  std::unique_lock lock{mutex_};
  changed_.wait_for(lock, patience, [&] { return closed_ || last_ > after; });
  std::vector<model::event> out;
  for (const auto& e : events_)
    if (e.number > after) out.push_back(e);
  return out;
}

std::uint64_t event_feed::last() const {
  std::lock_guard lock{mutex_};
  return last_;
}

void event_feed::close() {
  std::lock_guard lock{mutex_};
  closed_ = true;
  changed_.notify_all();
}

} // namespace qs::actors
