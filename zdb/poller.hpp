// The sockets of all clients, in one epoll of their own: registered once for as long as a socket
// lives, and told of when something changes, so who is told goes on until the kernel says that
// there is nothing more. The io_context is what waits for them while nothing is going on; while
// something is, look() waits itself: through the io_context every wait would cost several calls,
// and every event a second epoll. I/O thread only, but post().
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include "base/posix.hpp"

namespace qs::zdb {

class poller {
public:
  struct watched {
    /// There are bytes, or the end (`ended`); what was full may have room. Neither reads nor
    /// closes anything.
    virtual void changed(bool readable, bool ended, bool has_room) = 0;

  protected:
    ~watched() = default;
  };

  explicit poller(boost::asio::io_context& io) : io_{io}, seen_by_io_{io} {}
  ~poller() { stop(); }
  poller(const poller&) = delete;
  poller& operator=(const poller&) = delete;

  /// `due` is called when a look is worth its while, once after each wait().
  status open(std::function<void()> due);
  /// From now on, with what is there already. Errors: io.
  status add(int fd, watched& who);
  /// Before it is closed: a child that was forked may still have it open.
  void remove(int fd) noexcept;
  /// Tells whom something happened to. How many they were. `patient`: if it is nobody, waits for a
  /// millisecond, or until post() is called; what else the io_context has to do, accepting and
  /// timers, waits as well.
  std::size_t look(bool patient);
  /// The io_context waits for the next event.
  void wait();
  [[nodiscard]] bool something_posted() const noexcept { return posted_ > 0; }
  /// Runs it on the I/O thread, after what it does now. Any thread.
  void post(std::function<void()> what);
  void stop();

private:
  void release();

  boost::asio::io_context& io_;
  unique_fd epoll_;
  unique_fd interrupt_; ///< ends the wait in look()
  boost::asio::posix::stream_descriptor seen_by_io_; ///< holds epoll_ while the io_context waits
  std::function<void()> due_;
  std::atomic<unsigned> posted_{0};   ///< and not run yet
  std::atomic<bool> patient_{false};  ///< look() waits, or is about to
};

} // namespace qs::zdb
