// Single promises of the real server in a thread, over loopback: what is said of damage, of old
// files and of peers that are gone, what SELECT does not mind, IPv6, and whom one sync serves.
#include "support/zdb_server.hpp"

#include <fcntl.h>
#include <fstream>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>

#include "base/log.hpp"
#include "zdb/name_space.hpp"
#include "zdb/session.hpp"

namespace qs::zdb {
namespace {

constexpr auto nil = "$-1\r\n";

TEST_CASE("what is said beyond the name of a namespace without password does not matter") {
  temporary_directory dir;
  server_thread server{local_options(dir.path)};
  raw_socket s{server.address()};
  s.talk(command({"NSNEW", "n"}), "+OK\r\n");
  int stored = 0;
  for (auto select : {command({"SELECT", "n"}), command({"SELECT", "n", "none"}),
                      command({"SELECT", "n", ""}), command({"SELECT", "n", std::string(300, 'p')}),
                      command({"SELECT", "n", "SECURE", "no hash"}),
                      command({"SELECT", "n", "neither", "nor"})}) {
    CAPTURE(select);
    s.talk(command({"SELECT", "default"}), "+OK\r\n");
    s.talk(select, "+OK\r\n");
    auto key = fmt::format("k{}", ++stored);
    s.talk(command({"SET", key, "v"}), "$2\r\n" + key + "\r\n"); // not read-only
    s.talk(command({"DBSIZE"}), fmt::format(":{}\r\n", stored));
  }
  s.talk(command({"SELECT", "n", "a", "b", "c"}), "-Too many arguments\r\n");
}

TEST_CASE("CHECK tells what is damaged, what cannot be read and what is not there") {
  log::configure({log::level::off, false, {}});
  temporary_directory dir;
  server_thread server{local_options(dir.path)};
  raw_socket s{server.address()};
  for (auto* key : {"a", "b", "c"})
    s.talk(command({"SET", key, "value"}), fmt::format("$1\r\n{}\r\n", key));
  for (auto* key : {"a", "b", "c"}) s.talk(command({"CHECK", key}), ":1\r\n");
  auto path = data_file_path(dir.path / "namespaces" / "00000001", 1);
  auto record = (std::filesystem::file_size(path) - file_header_bytes) / 3;
  auto last_byte = file_header_bytes + 2 * record - 1; // of b's payload
  auto text = *read_file(path);
  CHECK(text[last_byte] == 'e');
  {
    std::fstream file{path, std::ios::in | std::ios::out | std::ios::binary};
    file.seekp(static_cast<std::streamoff>(last_byte));
    file.put('f');
    REQUIRE(file.flush().good());
  }
  std::filesystem::resize_file(path, file_header_bytes + 2 * record + 10); // half of c's header
  s.talk(command({"CHECK", "a"}), ":1\r\n");
  s.talk(command({"CHECK", "b"}), ":0\r\n");
  s.talk(command({"CHECK", "c"}), ":-1\r\n");
  s.talk(command({"CHECK", "d"}), nil);
  s.talk(command({"DEL", "a"}) + command({"CHECK", "a"}), std::string{"+OK\r\n"} + nil);
  log::configure({log::level::warning, false, {}});
}

TEST_CASE("a data file that is older than --rotate says takes no more records") {
  for (auto* age : {"1", "3600"}) {
    CAPTURE(age);
    temporary_directory dir;
    auto data = "--data=" + dir.path.string();
    auto o = options_from_args(std::vector<std::string>{data, "--port=0", "--rotate", age});
    REQUIRE(o.ok());
    server_thread server{*o};
    auto c = server.connect();
    auto current = [&] { return c->nsinfo("default")->lines["data_current_id"]; };
    auto start = std::chrono::steady_clock::now();
    auto spent = [&] { return std::chrono::steady_clock::now() - start; };
    REQUIRE(c->set("first", "v").ok());
    auto file = current();
    int writes = 0;
    auto rotated = [&] {
      REQUIRE(c->set(fmt::format("k{}", ++writes), "v").ok());
      return current() != file;
    };
    if (o->rotate < std::chrono::hours{1}) {
      CHECK(eventually(rotated));
      CHECK(spent() >= o->rotate); // not before its time
      CHECK(writes > 1);
    } else {
      for (int i = 0; i < 1000; ++i) CHECK(!rotated());
    }
    CHECK(*c->dbsize() == static_cast<std::uint64_t>(writes) + 1);
    CHECK(text_of(*c->get("first")) == "v");
  }
}

/// The server's end of a connection, where the server is a thread of this process.
int accepted_from(const raw_socket& client) {
  sockaddr_in want{};
  socklen_t size = sizeof want;
  REQUIRE(::getsockname(client.fd(), reinterpret_cast<sockaddr*>(&want), &size) == 0);
  for (auto& entry : std::filesystem::directory_iterator{"/proc/self/fd"}) {
    auto fd = std::stoi(entry.path().filename().string());
    sockaddr_in peer{};
    size = sizeof peer;
    if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) == 0 &&
        peer.sin_family == AF_INET && peer.sin_port == want.sin_port)
      return fd;
  }
  return -1;
}

TEST_CASE("a peer that is gone without a word is found out within two minutes") {
  temporary_directory dir;
  server_thread server{local_options(dir.path)};
  raw_socket s{server.address()};
  s.talk(command({"PING"}), "+PONG\r\n");
  auto fd = accepted_from(s);
  REQUIRE(fd >= 0);
  auto option = [&](int level, int name) {
    int value = 0;
    socklen_t size = sizeof value;
    REQUIRE(::getsockopt(fd, level, name, &value, &size) == 0);
    return value;
  };
  // Nothing is on its way to it: the kernel asks.
  CHECK(option(SOL_SOCKET, SO_KEEPALIVE) == 1);
  CHECK(option(IPPROTO_TCP, TCP_KEEPIDLE) +
            option(IPPROTO_TCP, TCP_KEEPCNT) * option(IPPROTO_TCP, TCP_KEEPINTVL) <=
        120);
  // Something is.
  auto timeout = option(IPPROTO_TCP, TCP_USER_TIMEOUT);
  CHECK(timeout > 0);
  CHECK(timeout <= 120'000);
  CHECK(option(IPPROTO_TCP, TCP_NODELAY) == 1);
}

TEST_CASE("IPv6") {
  {
    unique_fd probe{::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_in6 loopback{};
    loopback.sin6_family = AF_INET6;
    loopback.sin6_addr = in6addr_loopback;
    if (::bind(probe.get(), reinterpret_cast<sockaddr*>(&loopback), sizeof loopback) != 0) {
      MESSAGE("skipped: no IPv6 on this machine");
      return;
    }
  }
  temporary_directory dir;
  for (auto* host : {"::1", "[::1]"}) {
    CAPTURE(host);
    auto data = "--data=" + dir.path.string();
    auto o = options_from_args(std::vector<std::string>{data, "--port=0", "--listen", host});
    REQUIRE(o.ok());
    server_thread server{*o};
    CHECK(server.address().starts_with("[::1]:"));
    CHECK(*read_file(dir.path / "endpoint") == server.address() + "\n");
    auto c = server.connect();
    REQUIRE(c->set(host, "value").ok());
    CHECK(text_of(*c->get(host)) == "value");
  }
}

TEST_CASE("with an interval the server syncs by itself, again and again") {
  for (std::vector<std::string> flags :
       {std::vector<std::string>{"--sync=20ms"}, std::vector<std::string>{"--synctime", "1"}}) {
    CAPTURE(flags[0]);
    temporary_directory dir;
    for (auto& more : {"--port=0", "--metrics=127.0.0.1:0"}) flags.emplace_back(more);
    flags.push_back("--data=" + dir.path.string());
    auto o = options_from_args(flags);
    REQUIRE(o.ok());
    server_thread server{*o};
    auto c = server.connect();
    auto syncs = [&] { return metric(server.metrics_address(), "zdb_syncs_total"); };
    CHECK(syncs() == 0); // nothing was written
    for (std::uint64_t round = 1; round <= 2; ++round) {
      REQUIRE(c->set(fmt::format("k{}", round), "v").ok());
      CHECK(eventually([&] { return syncs() == round; }));
      // All of it: what the namespace's mark says is where its only file ends.
      auto space = dir.path / "namespaces" / "00000001";
      CHECK(read_sync_mark(space).size == std::filesystem::file_size(data_file_path(space, 1)));
    }
  }
}

TEST_CASE("one sync serves all who ask while another is under way") {
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.metrics = "127.0.0.1:0";
  server_thread server{o};
  auto of = [&](const char* name) { return metric(server.metrics_address(), name); };
  // The helper thread stands still where it opens this file, until somebody reads it.
  auto mark = o.data / "namespaces" / "00000001" / "synced";
  std::filesystem::remove(mark);
  REQUIRE(::mkfifo(mark.c_str(), 0600) == 0);
  auto set_and_sync = [&](raw_socket& s, std::string_view key) {
    s.send(command({"SET", key, "v"}) + command({"SYNC"}));
  };
  raw_socket first{server.address()};
  set_and_sync(first, "first");
  REQUIRE(eventually([&] { return of("zdb_sync_waiters") == 1; }));
  CHECK(of("zdb_syncs_total") == 0);
  constexpr unsigned many = 100;
  std::vector<std::unique_ptr<raw_socket>> all;
  for (unsigned i = 0; i < many; ++i) {
    all.push_back(std::make_unique<raw_socket>(server.address()));
    set_and_sync(*all.back(), fmt::format("{:03}", i));
  }
  // Each has written something that the one under way does not bring to the disk.
  REQUIRE(eventually([&] { return of("zdb_sync_waiters") == 1 + many; }));
  unique_fd reader{::open(mark.c_str(), O_RDONLY | O_NONBLOCK)};
  REQUIRE(reader.valid());
  CHECK(first.receive(16) == "$5\r\nfirst\r\n+OK\r\n");
  for (unsigned i = 0; i < many; ++i)
    REQUIRE(all[i]->receive(14) == fmt::format("$3\r\n{:03}\r\n+OK\r\n", i));
  CHECK(of("zdb_syncs_total") == 2);
  first.talk(command({"SYNC"}), "+OK\r\n"); // nothing to do
  CHECK(of("zdb_syncs_total") == 2);
}

} // namespace
} // namespace qs::zdb
