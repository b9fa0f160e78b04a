// Who may work next. Clients with work stand in line by tenant (their namespace), and tenants take
// turns: one client of each, then the next tenant. So a tenant with a thousand busy connections
// gets as many turns as one with a single connection. Each step costs the same, however many wait.
// One thread.
#pragma once

#include <deque>
#include <memory>
#include <unordered_map>

namespace qs::zdb {

template <class T>
class turn_queue {
public:
  /// At the end of its tenant's line. A client may stand in line once; the caller knows.
  void add(const void* tenant, std::shared_ptr<T> who) {
    auto& line = lines_[tenant];
    if (line.empty()) tenants_.push_back(tenant);
    line.push_back(std::move(who));
    ++size_;
  }
  /// Whose turn it is; null when nobody waits.
  std::shared_ptr<T> next() {
    if (tenants_.empty()) return nullptr;
    auto tenant = tenants_.front();
    tenants_.pop_front();
    auto it = lines_.find(tenant);
    auto who = std::move(it->second.front());
    it->second.pop_front();
    --size_;
    if (it->second.empty())
      lines_.erase(it);
    else
      tenants_.push_back(tenant);
    return who;
  }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  void clear() {
    lines_.clear();
    tenants_.clear();
    size_ = 0;
  }

private:
  std::unordered_map<const void*, std::deque<std::shared_ptr<T>>> lines_;
  std::deque<const void*> tenants_; ///< those with a line
  std::size_t size_ = 0;
};

} // namespace qs::zdb
