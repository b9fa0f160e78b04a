#include "zdb/listen.hpp"

#include <arpa/inet.h>
#include <cerrno>
#include <memory>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <fmt/format.h>

namespace qs::zdb {

result<tcp_listener> listen_tcp(std::string_view flag, std::string host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  if (auto rc = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found); rc != 0)
    return error{errc::invalid_argument, fmt::format("--{} {}: not a numeric address ({})", flag,
                                                     host, ::gai_strerror(rc))};
  std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> all{found, &::freeaddrinfo};
  auto where = fmt::format("listen on {} port {}", host, port);
  tcp_listener out;
  out.fd.reset(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!out.fd.valid()) return errno_error(where, errno);
  int on = 1;
  ::setsockopt(out.fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(out.fd.get(), found->ai_addr, found->ai_addrlen) != 0)
    return errno_error(where, errno);
  if (::listen(out.fd.get(), 1024) != 0) return errno_error(where, errno);
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  if (::getsockname(out.fd.get(), reinterpret_cast<sockaddr*>(&bound), &size) != 0)
    return errno_error(where, errno);
  auto v6 = bound.ss_family == AF_INET6;
  auto given = ntohs(v6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                        : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  out.address = v6 ? fmt::format("[{}]:{}", host, given) : fmt::format("{}:{}", host, given);
  return out;
}

result<unique_fd> listen_unix(const std::filesystem::path& path) {
  auto text = path.string();
  sockaddr_un un{};
  un.sun_family = AF_UNIX;
  if (text.empty() || text.size() >= sizeof un.sun_path)
    return error{errc::invalid_argument,
                 fmt::format("--socket {}: a path of 1 to 107 bytes is needed", text)};
  text.copy(un.sun_path, text.size());
  unique_fd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!fd.valid()) return errno_error("socket", errno);
  struct stat st {};
  if (::lstat(text.c_str(), &st) == 0 && S_ISSOCK(st.st_mode)) {
    // Left over, or in use: only the one that nobody answers is taken away.
    // (One that stands still with a full queue says EAGAIN: it is in use as well.)
    unique_fd probe{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (::connect(probe.get(), reinterpret_cast<sockaddr*>(&un), sizeof un) == 0 || errno == EAGAIN)
      return error{errc::busy, fmt::format("--socket {}: a server listens there", text)};
    ::unlink(text.c_str());
  }
  auto old = ::umask(0077);
  auto rc = ::bind(fd.get(), reinterpret_cast<sockaddr*>(&un), sizeof un);
  auto why = errno;
  ::umask(old);
  if (rc != 0) return errno_error(fmt::format("listen on {}", text), why);
  if (::listen(fd.get(), 1024) != 0) return errno_error(fmt::format("listen on {}", text), errno);
  return fd;
}

void tune_client(int fd) {
  // Does nothing on a unix socket.
  auto set = [fd](int level, int name, int value) {
    ::setsockopt(fd, level, name, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 60);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 15);
  set(IPPROTO_TCP, TCP_KEEPCNT, 4);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 120'000);
}

unique_fd accept_client(int listener, std::string& peer) {
  sockaddr_storage from{};
  socklen_t size = sizeof from;
  unique_fd fd{
      ::accept4(listener, reinterpret_cast<sockaddr*>(&from), &size, SOCK_CLOEXEC | SOCK_NONBLOCK)};
  peer.clear();
  if (!fd.valid()) return fd;
  char text[INET6_ADDRSTRLEN] = "";
  if (from.ss_family == AF_INET) {
    auto* v4 = reinterpret_cast<sockaddr_in*>(&from);
    ::inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
    peer = text;
  } else if (from.ss_family == AF_INET6) {
    // One who has a whole /64 is one.
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&from);
    if (!IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) && !IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr))
      for (std::size_t i = 8; i < 16; ++i) v6->sin6_addr.s6_addr[i] = 0;
    ::inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
    peer = text;
  }
  return fd;
}

} // namespace qs::zdb
