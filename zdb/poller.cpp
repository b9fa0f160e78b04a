#include "zdb/poller.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>
#include <sys/epoll.h>

namespace qs::zdb {

status poller::open(std::function<void()> due) {
  due_ = std::move(due);
  unique_fd fd{::epoll_create1(EPOLL_CLOEXEC)};
  if (!fd.valid()) return errno_error("epoll", errno);
  epoll_.assign(fd.release());
  wait();
  return {};
}

status poller::add(int fd, watched& who) {
  epoll_event e{};
  e.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  e.data.ptr = &who;
  if (::epoll_ctl(epoll_.native_handle(), EPOLL_CTL_ADD, fd, &e) != 0)
    return errno_error("watch a client", errno);
  return {};
}

void poller::remove(int fd) noexcept {
  epoll_event ignored{};
  if (epoll_.is_open()) ::epoll_ctl(epoll_.native_handle(), EPOLL_CTL_DEL, fd, &ignored);
}

void poller::stop() {
  boost::system::error_code ignored;
  epoll_.close(ignored);
}

void poller::wait() {
  epoll_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                    [this](const boost::system::error_code& ec) {
                      if (ec) return;
                      due_();
                      wait();
                    });
}

std::size_t poller::look() {
  epoll_event events[128];
  auto n = ::epoll_wait(epoll_.native_handle(), events, 128, 0);
  for (int i = 0; i < n; ++i) {
    auto what = events[i].events;
    auto ended = (what & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    static_cast<watched*>(events[i].data.ptr)
        ->changed(ended || (what & EPOLLIN) != 0, ended,
                  ended || (what & EPOLLOUT) != 0);
  }
  return static_cast<std::size_t>(std::max(n, 0));
}

} // namespace qs::zdb
