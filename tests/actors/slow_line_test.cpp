// A connection over a line that is slow, or on whose far side somebody stands still: a real server, real sockets, real time.
#include <doctest/doctest.h>

#include <cstdint>

#include <caf/all.hpp>
#include <caf/io/all.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <fcntl.h>
#include <memory>
#include <mutex>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "actors/caf_error.hpp"
#include "actors/system.hpp"
#include "actors/zdb_connection.hpp"
#include "net/connector.hpp"
#include "object_names.hpp"
#include "support/zdb_server.hpp"

using namespace qs;
using namespace qs::actors;
using namespace qs::test;
using namespace std::chrono_literals;

namespace {

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  a.sin_port = htons(port);
  return a;
}

/// Carries bytes between one client and a server: to the server `piece` bytes at most every `pause`, back at once.
class slow_line {
public:
  explicit slow_line(std::uint16_t server) : server_{server} {
    listener_ = unique_fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    int small = 16 << 10;
    REQUIRE(::setsockopt(listener_.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small) == 0);
    auto a = loopback(0);
    socklen_t size = sizeof a;
    REQUIRE(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&a), size) == 0);
    REQUIRE(::listen(listener_.get(), 4) == 0);
    REQUIRE(::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&a), &size) == 0);
    port = ntohs(a.sin_port);
    REQUIRE(::pipe2(end_.data(), O_CLOEXEC) == 0);
    thread_ = std::thread{[this] { carry(); }};
  }
  ~slow_line() {
    ::close(end_[1]);
    thread_.join();
    ::close(end_[0]);
  }
  slow_line(const slow_line&) = delete;
  slow_line& operator=(const slow_line&) = delete;

  std::uint16_t port = 0;
  std::atomic<std::size_t> piece{1 << 20};
  std::atomic<int> pause_ms{0};
  std::atomic<bool> held{false}; ///< takes nothing for the server

private:
  void carry() {
    for (;;) {
      std::array<pollfd, 2> p{pollfd{end_[0], POLLIN, 0}, {listener_.get(), POLLIN, 0}};
      if (::poll(p.data(), p.size(), -1) < 0 || p[0].revents != 0) return;
      unique_fd client{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)};
      unique_fd server{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
      auto a = loopback(server_);
      if (client.valid() && ::connect(server.get(), reinterpret_cast<sockaddr*>(&a), sizeof a) == 0) carry(client.get(), server.get());
    }
  }
  /// Until one of them ends, or all of it does.
  void carry(int client, int server) {
    auto next = std::chrono::steady_clock::now();
    std::vector<std::byte> bytes(1 << 20);
    auto move = [&](int from, int to, std::size_t most) {
      auto n = ::recv(from, bytes.data(), most, 0);
      return n > 0 && ::send(to, bytes.data(), static_cast<std::size_t>(n), MSG_NOSIGNAL) == n;
    };
    for (;;) {
      auto now = std::chrono::steady_clock::now();
      bool open = !held && now >= next;
      std::array<pollfd, 3> p{pollfd{end_[0], POLLIN, 0}, {server, POLLIN, 0}, {client, static_cast<short>(open ? POLLIN : 0), 0}};
      if (::poll(p.data(), p.size(), 10) < 0 || p[0].revents != 0) return;
      if (p[1].revents != 0 && !move(server, client, bytes.size())) return;
      if ((p[2].revents & POLLIN) == 0) continue;
      if (!move(client, server, std::min<std::size_t>(piece, bytes.size()))) return;
      next = now + std::chrono::milliseconds{pause_ms};
    }
  }

  std::uint16_t server_;
  unique_fd listener_;
  std::array<int, 2> end_{};
  std::thread thread_;
};

/// What a connection told, from any thread.
struct heard {
  std::mutex mutex;
  std::vector<link_report> reports;
  std::size_t stalls() {
    std::lock_guard lock{mutex};
    return static_cast<std::size_t>(std::count_if(reports.begin(), reports.end(), [](auto& r) { return r.stalled; }));
  }
  bool last(bool stalled, link_state state) {
    std::lock_guard lock{mutex};
    return !reports.empty() && reports.back().stalled == stalled && reports.back().state == state;
  }
};

/// Also when a check ends the test: a system waits for its actors.
struct ended_at_last {
  connection_actor& node;
  link_listener_actor& listener;
  ~ended_at_last() {
    caf::anon_send_exit(node, caf::exit_reason::kill);
    caf::anon_send_exit(listener, caf::exit_reason::kill);
    node = nullptr;
    listener = nullptr;
  }
};

TEST_CASE("connection: a line that needs five seconds for one shard is slow and not stalled; one on which nothing moves is") {
  zdb::temporary_directory there;
  zdb::server_thread server{zdb::local_options(there.path)};
  auto address = net::parse_address(server.address());
  REQUIRE(address.ok());
  REQUIRE(server.connect()->nsnew("ns").ok());
  zdb::session_options as_user;
  as_user.name_space = "ns";
  REQUIRE(server.connect(as_user)->set(std::string{as_text(name_of("identity"))}, "I am n1").ok());
  {
    slow_line line{address->port};
    net::connector connector;
    system_config cfg{runtime_options{2}};
    caf::actor_system sys{cfg};
    auto told = std::make_shared<heard>();
    link_listener_actor listener = sys.spawn(
      [told](link_listener_actor::pointer, int) -> link_listener_actor::behavior_type {
        return {[told](link_atom, const link_report& r) {
          std::lock_guard lock{told->mutex};
          told->reports.push_back(r);
        }};
      },
      0);
    connection_config c;
    c.node = {1};
    c.where = {"127.0.0.1", line.port, "ns"};
    c.identity_name = name_of("identity");
    c.identity = bytes_of("I am n1");
    c.listener = listener;
    c.sockets = real_sockets(connector);
    auto node = spawn_connection(sys, std::move(c));
    ended_at_last end{node, listener};
    REQUIRE(zdb::eventually([&] { return told->last(false, link_state::ready); }));

    caf::scoped_actor self{sys};
    auto value = [](char seed) { // no two pieces of it are the same: what comes in the wrong order is seen
      std::string s;
      for (int i = 0; s.size() < 520'000; ++i) s += seed + std::to_string(i);
      return bytes_of(s);
    };
    auto store = [&](const char* name, const buffer_ptr& v) { return self->request(node, 60s, store_atom_v, name_of(name), v); };
    auto stored = [&](auto request) {
      bool good = false;
      request.receive([&](std::uint64_t) { good = true; }, [](caf::error&) {});
      return good;
    };

    line.piece = 8'000;
    line.pause_ms = 80; // 100 KB/s
    auto began = std::chrono::steady_clock::now();
    CHECK(stored(store("a", value('a'))));
    CHECK(std::chrono::steady_clock::now() - began > 4s);
    CHECK(told->stalls() == 0);

    line.held = true;
    auto b = store("b", value('b'));
    auto c2 = store("c", value('c'));
    REQUIRE(zdb::eventually([&] { return told->last(true, link_state::ready); }));
    line.pause_ms = 0;
    line.held = false;
    CHECK(stored(std::move(b)));
    CHECK(stored(std::move(c2)));
    CHECK(zdb::eventually([&] { return told->last(false, link_state::ready); }));
    CHECK(told->stalls() >= 1);

    for (const char* name : {"a", "b", "c"})
      self->request(node, 60s, read_atom_v, name_of(name))
        .receive([&](const buffer_ptr& got) { CHECK(*got == *value(*name)); }, [](caf::error&) { CHECK(false); });
    self->request(node, 60s, stop_atom_v).receive([](caf::ok_atom) {}, [](caf::error&) { CHECK(false); });
  }
}

} // namespace
