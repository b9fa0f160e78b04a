#include "zdb/poller.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <boost/asio/post.hpp>

namespace qs::zdb {

status poller::open(std::function<void()> due) {
  due_ = std::move(due);
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.valid()) return errno_error("epoll", errno);
  interrupt_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!interrupt_.valid()) return errno_error("eventfd", errno);
  epoll_event e{};
  e.events = EPOLLIN | EPOLLET; // every write is an event: nobody has to read it
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, interrupt_.get(), &e) != 0)
    return errno_error("watch an eventfd", errno);
  wait();
  return {};
}

status poller::add(int fd, watched& who) {
  epoll_event e{};
  e.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  e.data.ptr = &who;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &e) != 0)
    return errno_error("watch a client", errno);
  return {};
}

void poller::remove(int fd) noexcept {
  epoll_event ignored{};
  if (epoll_.valid()) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, &ignored);
}

void poller::release() {
  if (seen_by_io_.is_open()) seen_by_io_.release();
}

void poller::stop() {
  release();
  epoll_.reset();
}

void poller::wait() {
  if (!epoll_.valid() || seen_by_io_.is_open()) return;
  boost::system::error_code failed;
  seen_by_io_.assign(epoll_.get(), failed);
  if (failed) { // no memory in the kernel: looked at again and again until there is
    boost::asio::post(io_, [this] { due_(); });
    return;
  }
  seen_by_io_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                         [this](const boost::system::error_code& ec) {
                           if (ec) return;
                           release();
                           due_();
                         });
}

void poller::post(std::function<void()> what) {
  ++posted_;
  boost::asio::post(io_, [this, what = std::move(what)] {
    --posted_;
    what();
  });
  if (!patient_) return;
  std::uint64_t one = 1;
  [[maybe_unused]] auto n = ::write(interrupt_.get(), &one, sizeof one); // full: it is told already
}

std::size_t poller::look(bool patient) {
  epoll_event events[128];
  // Either post() sees that somebody waits, or what it posted is seen here.
  patient_ = patient;
  auto n = ::epoll_wait(epoll_.get(), events, 128, patient && posted_ == 0 ? 1 : 0);
  patient_ = false;
  std::size_t told = 0;
  for (int i = 0; i < n; ++i) {
    auto* who = static_cast<watched*>(events[i].data.ptr);
    if (who == nullptr) continue;
    auto what = events[i].events;
    auto ended = (what & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    who->changed(ended || (what & EPOLLIN) != 0, ended, ended || (what & EPOLLOUT) != 0);
    ++told;
  }
  return told;
}

} // namespace qs::zdb
