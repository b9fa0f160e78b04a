#include <doctest/doctest.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <future>
#include <mutex>

#include "net/address.hpp"
#include "net/connector.hpp"

using namespace qs;
using namespace std::chrono_literals;

namespace {

struct listener {
  unique_fd fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  net::address where{"127.0.0.1", 0, false};
  explicit listener(int backlog = 8) {
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::bind(fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof a) == 0);
    REQUIRE(::listen(fd.get(), backlog) == 0);
    socklen_t n = sizeof a;
    REQUIRE(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&a), &n) == 0);
    where.port = ntohs(a.sin_port);
  }
};

std::future<result<unique_fd>> start(net::connector& c, const net::address& where,
                                     std::chrono::milliseconds deadline = 5s) {
  auto p = std::make_shared<std::promise<result<unique_fd>>>();
  auto f = p->get_future();
  c.connect(where, deadline, [p](result<unique_fd> r) { p->set_value(std::move(r)); });
  return f;
}

result<unique_fd> wait(std::future<result<unique_fd>> f) {
  REQUIRE(f.wait_for(20s) == std::future_status::ready);
  return f.get();
}

} // namespace

TEST_CASE("addresses as text and back") {
  struct row {
    const char* text;
    const char* host;
    int port;
    bool is_unix;
  };
  for (auto& r : {row{"127.0.0.1:9900", "127.0.0.1", 9900, false}, row{"nas.home:1", "nas.home", 1, false},
                  row{"[::1]:65535", "::1", 65535, false}, row{"unix:/run/z b", "/run/z b", 0, true}}) {
    CAPTURE(r.text);
    auto a = net::parse_address(r.text);
    REQUIRE(a.ok());
    CHECK(a->host == r.host);
    CHECK(a->port == r.port);
    CHECK(a->is_unix == r.is_unix);
    CHECK(net::to_string(*a) == r.text);
  }
  for (auto* bad : {"", ":1", "host", "host:", "host:0", "host:65536", "host:1x", "::1:9900", "[]:1", "[::1:1",
                    "unix:", "a b:1", "a/b:1"}) {
    CAPTURE(bad);
    auto a = net::parse_address(bad);
    REQUIRE_FALSE(a.ok());
    CHECK(a.err().code == errc::invalid_argument);
  }
}

TEST_CASE("a node's endpoint becomes an address") {
  CHECK(net::to_string(*net::from_endpoint({"10.0.0.1", 9900, "ns"})) == "10.0.0.1:9900");
  CHECK(net::to_string(*net::from_endpoint({"fd00::1", 9900, "ns"})) == "[fd00::1]:9900");
  CHECK(net::to_string(*net::from_endpoint({"/run/zdb.sock", 0, "ns"})) == "unix:/run/zdb.sock");
  CHECK_FALSE(net::from_endpoint({"10.0.0.1", 0, "ns"}).ok());
  CHECK_FALSE(net::from_endpoint({"", 9900, "ns"}).ok());
}

TEST_CASE("what stays on this machine") {
  for (auto* yes : {"127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "localhost:1", "unix:/x"})
    CHECK(net::is_loopback(*net::parse_address(yes)));
  for (auto* no : {"128.0.0.1:1", "[::2]:1", "localhost.example.org:1", "127.0.0.1.example.org:1"})
    CHECK_FALSE(net::is_loopback(*net::parse_address(no)));
}

TEST_CASE("connects by number, by name and through a unix socket") {
  net::connector c;
  listener l;
  auto by_number = wait(start(c, l.where));
  REQUIRE(by_number.ok());
  int on = 0;
  socklen_t n = sizeof on;
  CHECK(::getsockopt(by_number->get(), IPPROTO_TCP, TCP_NODELAY, &on, &n) == 0);
  CHECK(on != 0);
  CHECK((::fcntl(by_number->get(), F_GETFL) & O_NONBLOCK) != 0);
  CHECK((::fcntl(by_number->get(), F_GETFD) & FD_CLOEXEC) != 0);

  auto by_name = wait(start(c, {"localhost", l.where.port, false}));
  CHECK(by_name.ok());

  for (std::size_t length : {std::size_t{20}, std::size_t{180}}) { // the second does not fit sockaddr_un
    auto dir = std::filesystem::temp_directory_path() / ("qs-net-" + std::to_string(::getpid()) + std::string(length, 'x'));
    std::filesystem::create_directory(dir);
    auto fd = unique_fd{::open(dir.c_str(), O_PATH | O_CLOEXEC)};
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    std::snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/s", fd.get());
    unique_fd s{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    REQUIRE(::bind(s.get(), reinterpret_cast<sockaddr*>(&a), sizeof a) == 0);
    REQUIRE(::listen(s.get(), 1) == 0);
    CHECK(wait(start(c, {(dir / "s").string(), 0, true})).ok());
    std::filesystem::remove_all(dir);
  }
}

TEST_CASE("says why it could not connect") {
  net::connector c;
  net::address closed;
  {
    listener l;
    closed = l.where;
  }
  auto refused = wait(start(c, closed));
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.err().code == errc::unreachable);
  CHECK(refused.err().sys == ECONNREFUSED);
  CHECK(refused.err().message.find("127.0.0.1:") != std::string::npos);

  auto no_name = wait(start(c, {"no-such-host.invalid", 1, false}, 10s));
  REQUIRE_FALSE(no_name.ok());
  CHECK((no_name.err().code == errc::unreachable || no_name.err().code == errc::timed_out));

  auto no_socket = wait(start(c, {"/nowhere/at/all", 0, true}));
  REQUIRE_FALSE(no_socket.ok());
  CHECK(no_socket.err().code == errc::unreachable);
}

TEST_CASE("a deadline holds when nobody answers, and does not hold up others") {
  net::connector c;
  listener full{0}; // backlog of one, which we fill: further SYNs are dropped
  std::vector<result<unique_fd>> filling;
  std::vector<std::future<result<unique_fd>>> waiting;
  for (int i = 0; i < 8; ++i) waiting.push_back(start(c, full.where, 300ms));
  listener good;
  CHECK(wait(start(c, good.where)).ok());
  int late = 0;
  for (auto& w : waiting) {
    filling.push_back(wait(std::move(w)));
    if (!filling.back().ok() && filling.back().err().code == errc::timed_out) ++late;
  }
  CHECK(late > 0);
}

TEST_CASE("the end of the connector answers what is outstanding") {
  std::mutex m;
  int answers = 0;
  int cancelled = 0;
  {
    net::connector c;
    listener full{0};
    for (int i = 0; i < 8; ++i)
      c.connect(full.where, 60s, [&](result<unique_fd> r) {
        std::lock_guard lock{m};
        ++answers;
        if (!r.ok() && r.err().code == errc::cancelled) ++cancelled;
      });
  }
  CHECK(answers == 8);
  CHECK(cancelled > 0);
}
