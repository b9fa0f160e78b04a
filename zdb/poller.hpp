// Which clients' sockets have something new: one epoll of all of them, asked once in a pass of the
// loop for many, and registered once for as long as a socket lives. Events come when something
// changes, so who gets one goes on until the kernel says that there is nothing more. I/O thread
// only.
#pragma once

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

  explicit poller(boost::asio::io_context& io) : epoll_{io} {}
  /// `due` is called when a look is worth its while.
  status open(std::function<void()> due);
  /// From now on, with what is there already. Errors: io.
  status add(int fd, watched& who);
  /// Before it is closed: a child that was forked may still have it open.
  void remove(int fd) noexcept;
  /// Tells whom something happened to. How many they were; does not wait for them.
  std::size_t look();
  void stop();

private:
  void wait();

  boost::asio::posix::stream_descriptor epoll_;
  std::function<void()> due_;
};

} // namespace qs::zdb
