// One thread for what waits for the disk, so that the I/O thread never does. Jobs run first in,
// first out.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace qs::zdb {

class disk_worker {
public:
  /// `done(then)` hands a finished job's continuation to the I/O thread; it is called on the
  /// worker's thread.
  explicit disk_worker(std::function<void(std::function<void()>)> done);
  /// Runs what is queued, then ends.
  ~disk_worker();
  void post(std::function<void()> work, std::function<void()> then);

private:
  struct job {
    std::function<void()> work;
    std::function<void()> then;
  };
  void loop();

  std::function<void(std::function<void()>)> done_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<job> jobs_;
  bool ending_ = false;
  std::thread thread_; ///< started by the first job
};

} // namespace qs::zdb
