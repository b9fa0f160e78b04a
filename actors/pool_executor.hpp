// pool_executor: a few threads for the volume's background work (sealing, parity, reaping, repair).
// Owned by the engine, outlives the volume. Jobs start in the order they were posted; what is still
// queued at stop() is dropped: crash-only, the log has everything.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "volume/executor.hpp"

namespace qs::actors {

class pool_executor final : public volume::executor {
public:
  explicit pool_executor(std::size_t threads);
  ~pool_executor() override;
  void post(std::function<void()> job) override;
  /// Waits for the jobs that run; drops the others.
  void stop();

private:
  void loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  std::vector<std::thread> threads_;
  bool stopping_ = false;
};

} // namespace qs::actors
