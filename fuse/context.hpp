// What every request of one mount shares: the files, the options, and the door that closes when the
// mount ends. Private to fuse/ (it shows libfuse). Owned by the mount and by every request that
// still waits for its answer, so that a late answer never meets a session that is gone.
// Thread-safe.
#pragma once

#define FUSE_USE_VERSION 312
#include <fuse3/fuse_lowlevel.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>

#include "actors/mount_port.hpp"
#include "volume/filesystem.hpp"

namespace qs::fuse {

class context : public std::enable_shared_from_this<context> {
public:
  context(volume::filesystem& served, actors::mount_settings chosen)
      : files{served}, settings{std::move(chosen)} {}
  ~context();
  context(const context&) = delete;
  context& operator=(const context&) = delete;

  /// True: the caller may use `files` until it calls leave(). False: the mount has ended.
  [[nodiscard]] bool enter() noexcept {
    in_flight_.fetch_add(1);
    if (!closed_.load()) return true;
    leave();
    return false;
  }
  void leave() noexcept {
    if (in_flight_.fetch_sub(1) != 1 || !closed_.load()) return;
    std::lock_guard lock{mutex};
    changed.notify_all();
  }
  /// Nothing enters any more; waits for those inside. False if some still are at the deadline.
  bool close(std::chrono::milliseconds deadline);

  volume::filesystem& files;
  const actors::mount_settings settings;
  fuse_session* session = nullptr;
  bool handle_killpriv = false; ///< the kernel leaves suid and sgid to us (FUSE_HANDLE_KILLPRIV_V2)
  bool no_open = false;         ///< the kernel does without open and release
  bool no_opendir = false;

  std::mutex mutex; ///< for the three below
  std::condition_variable changed;
  bool ready = false; ///< the kernel's INIT was answered
  unsigned threads_alive = 0;
  bool stopping = false; ///< by us: nobody needs to be told

  std::atomic<bool> connection_dead{false}; ///< a read of the device said ENODEV

private:
  std::atomic<std::int64_t> in_flight_{0};
  std::atomic<bool> closed_{false};
};

/// The table of operations; its userdata is a context*.
const fuse_lowlevel_ops& operations();

/// Parts of a request that libfuse 3.14 does not hand on; set on the thread that is about to
/// process it.
struct request_flags {
  bool kill_privileges = false;
};
request_flags& current_request_flags() noexcept;

} // namespace qs::fuse
