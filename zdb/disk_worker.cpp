#include "zdb/disk_worker.hpp"

#include <utility>

namespace qs::zdb {

disk_worker::disk_worker(std::function<void(std::function<void()>)> done)
    : done_{std::move(done)} {}

disk_worker::~disk_worker() {
  {
    std::lock_guard lock{mutex_};
    ending_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void disk_worker::post(std::function<void()> work, std::function<void()> then) {
  {
    std::lock_guard lock{mutex_};
    jobs_.push_back({std::move(work), std::move(then)});
  }
  if (!thread_.joinable()) thread_ = std::thread{[this] { loop(); }};
  wake_.notify_one();
}

void disk_worker::loop() {
  std::unique_lock lock{mutex_};
  for (;;) {
    wake_.wait(lock, [this] { return ending_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    auto next = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    next.work();
    done_(std::move(next.then));
    next = {};
    lock.lock();
  }
}

} // namespace qs::zdb
