#include "zdb/blocking_client.hpp"

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <thread>

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <fmt/format.h>

namespace qs::zdb {

namespace {

using steady = std::chrono::steady_clock;

int left_ms(steady::time_point until) {
  auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - steady::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left + 1, 0, 1'000'000));
}

status wait_for(int fd, short events, steady::time_point until) {
  for (;;) {
    auto left = until <= steady::now() ? 0 : left_ms(until);
    pollfd p{fd, events, 0};
    auto n = ::poll(&p, 1, left);
    if (n > 0) return {};
    if (n == 0) return error{errc::timed_out, "no answer in time", ETIMEDOUT};
    if (errno != EINTR) return errno_error("poll", errno);
  }
}

result<unique_fd> connect_to(const sockaddr* address, socklen_t length, steady::time_point until) {
  unique_fd fd{::socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!fd.valid()) return errno_error("socket", errno);
  if (::connect(fd.get(), address, length) != 0) {
    if (errno != EINPROGRESS) return error{errc::unreachable, {}, errno};
    QS_TRY(wait_for(fd.get(), POLLOUT, until));
    int failed = 0;
    socklen_t size = sizeof failed;
    if (::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &failed, &size) != 0) failed = errno;
    if (failed != 0) return error{errc::unreachable, {}, failed};
  }
  if (address->sa_family != AF_UNIX) {
    int on = 1;
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  return fd;
}

error cannot_connect(std::string_view address, error why) {
  auto code = why.code == errc::io ? errc::unreachable : why.code;
  return {code, fmt::format("connect to {}: {}", address, describe(why)), why.sys};
}

using addresses = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

/// getaddrinfo knows no deadline: it runs on a thread of its own, which is left behind when it takes
/// too long.
struct lookup {
  std::mutex mutex;
  std::condition_variable ended;
  bool over = false;
  int code = 0;
  addresses found{nullptr, &::freeaddrinfo};
};

int look_up_now(const std::string& host, const std::string& port, int flags, addresses& out) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | flags;
  addrinfo* found = nullptr;
  auto code = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (code == 0) out.reset(found);
  return code;
}

result<addresses> look_up(const std::string& host, const std::string& port,
                          std::string_view address, steady::time_point until) {
  addresses numeric{nullptr, &::freeaddrinfo};
  auto code = look_up_now(host, port, AI_NUMERICHOST, numeric);
  if (code == 0) return numeric;
  if (code != EAI_SERVICE) {
    auto shared = std::make_shared<lookup>();
    std::thread{[shared, host, port] {
      addresses found{nullptr, &::freeaddrinfo};
      auto how = look_up_now(host, port, 0, found);
      std::lock_guard lock{shared->mutex};
      shared->code = how;
      shared->found = std::move(found);
      shared->over = true;
      shared->ended.notify_all();
    }}.detach();
    std::unique_lock lock{shared->mutex};
    if (!shared->ended.wait_until(lock, until, [&] { return shared->over; }))
      return error{errc::timed_out, fmt::format("look up {}: no answer in time", address),
                   ETIMEDOUT};
    code = shared->code;
    if (code == 0) return std::move(shared->found);
  }
  return error{code == EAI_SERVICE ? errc::invalid_argument : errc::unreachable,
               fmt::format("look up {}: {}", address, ::gai_strerror(code))};
}

result<unique_fd> connect_by(std::string_view address, steady::time_point until) {
  if (address.starts_with("unix:")) {
    auto path = address.substr(5);
    sockaddr_un un{};
    un.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof un.sun_path)
      return error{errc::invalid_argument,
                   fmt::format("\"{}\": a socket path has 1 to 107 bytes", address)};
    path.copy(un.sun_path, path.size());
    auto fd = connect_to(reinterpret_cast<sockaddr*>(&un), sizeof un, until);
    if (!fd.ok()) return cannot_connect(address, std::move(fd).err());
    return fd;
  }
  auto colon = address.rfind(':');
  if (colon == std::string_view::npos || colon + 1 == address.size() || colon == 0)
    return error{errc::invalid_argument,
                 fmt::format("\"{}\" is not HOST:PORT or unix:PATH", address)};
  auto host = std::string{address.substr(0, colon)};
  auto port = std::string{address.substr(colon + 1)};
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  QS_TRY_ASSIGN(auto all, look_up(host, port, address, until));
  error last{errc::unreachable, "no address"};
  for (auto* a = all.get(); a != nullptr; a = a->ai_next) {
    auto fd = connect_to(a->ai_addr, a->ai_addrlen, until);
    if (fd.ok()) return fd;
    last = std::move(fd).err();
  }
  return cannot_connect(address, std::move(last));
}

} // namespace

result<unique_fd> connect_stream(std::string_view address, std::chrono::milliseconds deadline) {
  return connect_by(address, steady::now() + deadline);
}

blocking_client::blocking_client(unique_fd fd, session_options options,
                                 std::chrono::milliseconds deadline, steady::time_point end)
    : fd_{std::move(fd)}, session_{std::move(options)}, deadline_{deadline}, end_{end} {}

blocking_client::~blocking_client() = default;

result<std::unique_ptr<blocking_client>>
blocking_client::connect(std::string_view address, session_options options,
                         std::chrono::milliseconds deadline, steady::time_point end) {
  QS_TRY_ASSIGN(auto fd, connect_by(address, std::min(end, steady::now() + deadline)));
  std::unique_ptr<blocking_client> client{
      new blocking_client{std::move(fd), std::move(options), deadline, end}};
  std::optional<status> greeted;
  client->session_.handshake([&](status s) { greeted = std::move(s); });
  auto driven = client->run_until([&] { return greeted.has_value(); });
  if (greeted && !greeted->ok())
    return std::move(*greeted).err().with(fmt::format("connect to {}", address));
  QS_TRY(std::move(driven));
  return client;
}

status blocking_client::run_until(const std::function<bool()>& done) {
  auto until = std::min(end_, steady::now() + deadline_);
  auto lost = [&](error why) -> status {
    session_.connection_lost(why);
    // What the kernel has not sent yet must not arrive after we have said that nobody knows.
    linger drop{1, 0};
    if (fd_.valid()) ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &drop, sizeof drop);
    fd_.reset();
    sending_.clear();
    return why;
  };
  if (in_.empty()) in_.resize(256 << 10);
  while (!done()) {
    if (session_.closed() || !fd_.valid())
      return error{errc::unreachable, "the connection is closed"};
    if (sending_.empty()) {
      sending_ = session_.take_output();
      first_ = offset_ = 0;
    }
    if (!sending_.empty()) {
      iovec parts[64];
      std::size_t n = 0;
      for (auto i = first_; i < sending_.size() && n < 64; ++i, ++n) {
        auto bytes = sending_[i].bytes().subspan(i == first_ ? offset_ : 0);
        parts[n] = {const_cast<std::byte*>(bytes.data()), bytes.size()};
      }
      msghdr message{};
      message.msg_iov = parts;
      message.msg_iovlen = n;
      auto sent = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno != EAGAIN && errno != EINTR)
        return lost(
            {errc::unreachable, fmt::format("send: {}", describe(posix_error(errno))), errno});
      auto left = static_cast<std::size_t>(std::max<ssize_t>(sent, 0));
      while (left > 0) {
        auto size = sending_[first_].bytes().size() - offset_;
        if (left < size) {
          offset_ += left;
          break;
        }
        left -= size;
        offset_ = 0;
        ++first_;
      }
      if (first_ == sending_.size()) sending_.clear();
    }
    auto got = ::recv(fd_.get(), in_.data(), in_.size(), MSG_DONTWAIT);
    if (got > 0) {
      auto fed = session_.receive(byte_span{in_}.first(static_cast<std::size_t>(got)));
      if (!fed.ok()) {
        fd_.reset();
        return fed;
      }
      if (steady::now() < until || done()) continue;
      return lost({errc::timed_out, "no whole answer in time", ETIMEDOUT});
    }
    if (got == 0)
      return lost({errc::unreachable, "the peer has closed the connection", ECONNRESET});
    if (errno != EAGAIN && errno != EINTR)
      return lost(
          {errc::unreachable, fmt::format("receive: {}", describe(posix_error(errno))), errno});
    auto more = !sending_.empty() || session_.has_output();
    auto ready = wait_for(fd_.get(), static_cast<short>(POLLIN | (more ? POLLOUT : 0)), until);
    if (!ready.ok()) return lost(std::move(ready).err());
  }
  return {};
}

template <class T, class Start>
result<T> blocking_client::call(Start&& start) {
  if (steady::now() >= end_)
    return error{errc::timed_out, "the time for all of it is over", ETIMEDOUT};
  std::optional<result<T>> answer;
  start([&](result<T> r) { answer.emplace(std::move(r)); });
  auto driven = run_until([&] { return answer.has_value(); });
  if (answer) return std::move(*answer);
  // Nothing may call back into this frame any more.
  session_.connection_lost(driven.err());
  return std::move(driven).err();
}

result<set_outcome> blocking_client::set(std::string key, buffer_ptr value) {
  return call<set_outcome>(
      [&](auto done) { session_.set(std::move(key), std::move(value), done); });
}
result<set_outcome> blocking_client::set(std::string key, std::string_view value) {
  return set(std::move(key), share(to_buffer(value)));
}
result<bool> blocking_client::setnx(std::string key, buffer_ptr value) {
  return call<bool>([&](auto done) { session_.setnx(std::move(key), std::move(value), done); });
}
result<buffer_ptr> blocking_client::get(std::string key) {
  return call<buffer_ptr>([&](auto done) { session_.get(std::move(key), done); });
}
status blocking_client::del(std::string key) {
  return call<void>([&](auto done) { session_.del(std::move(key), done); });
}
result<bool> blocking_client::exists(std::string key) {
  return call<bool>([&](auto done) { session_.exists(std::move(key), done); });
}
result<bool> blocking_client::check(std::string key) {
  return call<bool>([&](auto done) { session_.check(std::move(key), done); });
}
status blocking_client::sync() {
  return call<void>([&](auto done) { session_.sync(done); });
}
result<scan_page> blocking_client::scan(std::string cursor) {
  return call<scan_page>([&](auto done) { session_.scan(std::move(cursor), done); });
}
result<namespace_info> blocking_client::nsinfo(std::string name_space) {
  return call<namespace_info>([&](auto done) { session_.nsinfo(std::move(name_space), done); });
}
result<server_info> blocking_client::info() {
  return call<server_info>([&](auto done) { session_.info(done); });
}
status blocking_client::ping() {
  return call<void>([&](auto done) { session_.ping(done); });
}
result<std::uint64_t> blocking_client::dbsize() {
  return call<std::uint64_t>([&](auto done) { session_.dbsize(done); });
}
result<std::string> blocking_client::append(buffer_ptr value) {
  return call<std::string>([&](auto done) { session_.append(std::move(value), done); });
}
status blocking_client::nsnew(std::string name_space) {
  return call<void>([&](auto done) { session_.nsnew(std::move(name_space), done); });
}
status blocking_client::nsset(std::string name_space, std::string property, std::string value) {
  return call<void>([&](auto done) {
    session_.nsset(std::move(name_space), std::move(property), std::move(value), done);
  });
}
status blocking_client::nsdel(std::string name_space) {
  return call<void>([&](auto done) { session_.nsdel(std::move(name_space), done); });
}
result<std::vector<std::string>> blocking_client::nslist() {
  return call<std::vector<std::string>>([&](auto done) { session_.nslist(done); });
}
status blocking_client::flush() {
  return call<void>([&](auto done) { session_.flush(done); });
}
status blocking_client::select(std::string name_space, std::string password) {
  return call<void>(
      [&](auto done) { session_.select(std::move(name_space), std::move(password), done); });
}

} // namespace qs::zdb
