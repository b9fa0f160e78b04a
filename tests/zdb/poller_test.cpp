// The clients' sockets: who waits for them when, and what other threads post meanwhile.
#include <doctest/doctest.h>

#include <array>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "zdb/poller.hpp"

using namespace qs;
using namespace qs::zdb;

namespace {

struct end final : poller::watched {
  unique_fd here, there;
  unsigned told = 0;
  bool readable = false, ended = false, has_room = false;

  explicit end(poller& p) {
    std::array<int, 2> both{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, both.data()) == 0);
    here.reset(both[0]);
    there.reset(both[1]);
    REQUIRE(p.add(here.get(), *this).ok());
  }
  void changed(bool r, bool e, bool room) override {
    ++told;
    readable = r;
    ended = e;
    has_room = room;
  }
  void say() const { REQUIRE(::write(there.get(), "x", 1) == 1); }
};

} // namespace

TEST_CASE("the io_context waits for a socket when it is asked to, and says so once") {
  boost::asio::io_context io;
  poller sockets{io};
  unsigned due = 0;
  REQUIRE(sockets.open([&] { ++due; }).ok());
  end a{sockets};
  io.run_one(); // it has room
  CHECK(due == 1);
  CHECK(sockets.look(false) == 1);
  CHECK(a.has_room);
  CHECK_FALSE(a.readable);
  a.say();
  io.restart();
  CHECK(io.poll() == 0); // nobody waits
  CHECK(due == 1);
  sockets.wait(); // with what is there already
  sockets.wait();
  io.restart();
  io.run_one();
  CHECK(due == 2);
  CHECK(sockets.look(false) == 1);
  CHECK(a.readable);
  CHECK_FALSE(a.ended);
  CHECK(sockets.look(false) == 0); // told once
  CHECK(sockets.look(true) == 0);  // waits for a moment only
  a.there.reset();
  CHECK(sockets.look(true) == 1);
  CHECK(a.ended);
  sockets.remove(a.here.get());
}

TEST_CASE("whoever looks himself is told without the io_context, and it has nothing to do then") {
  boost::asio::io_context io;
  poller sockets{io};
  unsigned due = 0;
  REQUIRE(sockets.open([&] { ++due; }).ok());
  end a{sockets};
  io.run_one();
  for (unsigned i = 0; i < 100; ++i) {
    a.say();
    while (sockets.look(true) == 0) {}
  }
  CHECK(a.told >= 100);
  io.restart();
  CHECK(io.poll() == 0);
  CHECK(due == 1);
  sockets.wait();
  sockets.stop(); // and nothing keeps the loop
  io.restart();
  io.run();
  CHECK(due == 1);
}

TEST_CASE("what other threads post is run, whoever waits at that moment") {
  boost::asio::io_context io;
  poller sockets{io};
  constexpr unsigned each = 2000;
  unsigned ran = 0; // by this thread alone
  REQUIRE(sockets.open([] {}).ok());
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      for (unsigned i = 0; i < each; ++i) {
        sockets.post([&] { ++ran; });
        if (i % 16 == 0) std::this_thread::yield();
      }
    });
  while (ran < 3 * each) {
    if (!sockets.something_posted()) (void)sockets.look(true);
    io.restart();
    io.poll();
  }
  for (auto& t : threads) t.join();
  CHECK(ran == 3 * each);
  CHECK_FALSE(sockets.something_posted());
  sockets.post([&] { ran = 0; });
  CHECK(sockets.look(true) == 0); // does not wait: there is something to do
  io.restart();
  io.poll();
  CHECK(ran == 0);
}
