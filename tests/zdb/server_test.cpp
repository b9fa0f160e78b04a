// The real server in a thread, over loopback.
#include "support/zdb_server.hpp"

#include <fstream>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "base/log.hpp"
#include "base/random.hpp"
#include "zdb/name_space.hpp"
#include "zdb/session.hpp"

namespace qs::zdb {
namespace {

constexpr auto nil = "$-1\r\n";

TEST_CASE("commands and their exact replies") {
  temporary_directory dir;
  server_thread server{local_options(dir.path)};
  raw_socket s{server.address()};
  s.talk(command({"PING"}), "+PONG\r\n");
  s.talk(command({"p"}), "+PONG\r\n"); // a prefix, in any case
  s.talk(command({"SET", "k", "v"}), "$1\r\nk\r\n");
  s.talk(command({"SET", "k", "v"}), nil);
  s.talk(command({"SET", "k", "w"}), "$1\r\nk\r\n");
  s.talk(command({"GET", "k"}), "$1\r\nw\r\n");
  s.talk(command({"GET", "none"}), nil);
  s.talk(command({"SET", "empty", ""}), "$5\r\nempty\r\n");
  s.talk(command({"GET", "empty"}), "$0\r\n\r\n");
  s.talk(command({"MGET", "k", "none", ""}), "*3\r\n$1\r\nw\r\n$-1\r\n$-1\r\n");
  s.talk(command({"EXISTS", "k"}), ":1\r\n");
  s.talk(command({"CHECK", "k"}), ":1\r\n");
  s.talk(command({"CHECK", "none"}), nil);
  s.talk(command({"LENGTH", "k"}), ":1\r\n");
  s.talk(command({"SET", "old", "x", "1234567890"}), "$3\r\nold\r\n");
  s.talk(command({"KEYTIME", "old"}), ":1234567890\r\n");
  s.talk(command({"DBSIZE"}), ":3\r\n");
  s.talk(command({"SETNX", "k", "z"}), nil);
  s.talk(command({"SETNX", "n", "z"}), "$1\r\nn\r\n");
  s.talk(command({"SYNC"}), "+OK\r\n");
  s.talk(command({"DEL", "k"}), "+OK\r\n");
  s.talk(command({"DEL", "k"}), "-Key not found\r\n");
  s.talk(command({"EXISTS", "k"}), ":0\r\n");
  // What is wrong, in the words of the protocol.
  s.talk(command({"GET"}), "-Unexpected arguments\r\n");
  s.talk(command({"GET", ""}), "-Invalid argument\r\n");
  s.talk(command({"GET", std::string(256, 'k')}), "-Invalid key\r\n");
  s.talk(command({"SET", "k"}), "-Unexpected arguments\r\n");
  s.talk(command({"SET", "", "v"}), "-Invalid argument, key needed\r\n");
  s.talk(command({"SET", std::string(256, 'k'), "v"}), "-Key too large\r\n");
  s.talk(command({"HELLO", "3"}), "-Command not supported\r\n");
  s.talk(command({"*"}), "-This is not a valid command\r\n");
  s.talk(command({"STOP"}), "-Unauthorized\r\n");
  s.talk(command({"SCAN", "short"}), "-Invalid key format\r\n");
  s.talk(command({"SELECT", "none"}), "-Namespace not found\r\n");
  s.talk(command({"AUTH", "x"}), "-Authentication disabled\r\n");
  s.talk(command({"FLUSH"}), "-Flushing public namespace denied\r\n");
  s.talk(command({"MGET"}), "-Invalid arguments\r\n");
}

TEST_CASE("malformed input is answered, then the connection ends") {
  temporary_directory dir;
  server_thread server{local_options(dir.path)};
  for (auto& [in, out] : std::initializer_list<std::pair<std::string, std::string>>{
           {"PING\r\n", "-Malformed request, array expected\r\n"},
           {"*0\r\n", "-Missing arguments\r\n"},
           {"*1025\r\n", "-Too many arguments\r\n"},
           {"*1\r\nPING\r\n", "-Malformed query string\r\n"},
           {"*2\r\n$3\r\nGET\r\n$8388609\r\n" + std::string(100'000, 'x'), "-Payload too big\r\n"},
           {command({"PING"}) + "x", "+PONG\r\n-Malformed request, array expected\r\n"}}) {
    raw_socket s{server.address()};
    s.send(in);
    CHECK(s.receive_all() == out);
  }
}

TEST_CASE("scan gives every live key once, in the order written, ended by its error") {
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.datasize = 512 * kib;
  server_thread server{o};
  auto c = server.connect();
  std::vector<std::string> want;
  auto value = share(buffer(3000, std::byte{7}));
  for (int i = 0; i < 1000; ++i) REQUIRE(c->set(fmt::format("key{}", i), value).ok());
  for (int i = 0; i < 1000; i += 3) REQUIRE(c->del(fmt::format("key{}", i)).ok());
  for (int i = 0; i < 1000; ++i)
    if (i % 3 != 0 && i != 100) want.push_back(fmt::format("key{}", i));
  REQUIRE(c->set("key100", "written again").ok());
  want.push_back("key100");
  std::vector<std::string> got;
  std::string cursor;
  for (;;) {
    auto page = c->scan(cursor);
    REQUIRE(page.ok());
    if (page->end) break;
    CHECK(page->cursor.size() == 17);
    for (auto& item : page->items) got.push_back(item.key);
    cursor = page->cursor;
  }
  CHECK(got == want);
  std::size_t files = 0;
  for (auto& e : std::filesystem::recursive_directory_iterator{dir.path})
    files += e.path().extension() == ".data" ? 1 : 0;
  CHECK(files > 4); // rotated
  raw_socket s{server.address()};
  s.talk(command({"SCAN", cursor}), "-No more data\r\n");
}

TEST_CASE("sequential mode") {
  temporary_directory dir;
  auto id = [](char n) { return std::string{n, 0, 0, 0, 0, 0, 0, 0}; };
  for (int round = 0; round < 2; ++round) { // the second after a restart
    server_thread server{local_options(dir.path)};
    auto c = server.connect();
    if (round == 0) {
      REQUIRE(c->nsnew("s").ok());
      REQUIRE(c->nsset("s", "mode", "seq").ok());
      REQUIRE(c->select("s", "").ok());
      CHECK(*c->append(share(to_buffer("one"))) == id(0));
      CHECK(*c->append(share(to_buffer("two"))) == id(1));
      CHECK(*c->set(id(0), "ONE!") == set_outcome::stored);
      REQUIRE(c->del(id(1)).ok());
    } else {
      REQUIRE(c->select("s", "").ok());
      CHECK(*c->append(share(to_buffer("three"))) == id(2)); // a deleted id is not given again
      CHECK(text_of(*c->get(id(2))) == "three");
    }
    CHECK(text_of(*c->get(id(0))) == "ONE!");
    CHECK(c->get(id(1)).err().code == errc::not_found);
    CHECK(c->set(id(1), "x").err().code == errc::refused);
    CHECK(c->set("name", "x").err().code == errc::refused);
    CHECK(c->nsinfo("s")->mode == "sequential");
    CHECK(c->nsset("s", "mode", "user").err().code == errc::refused);
  }
}

TEST_CASE("quota counts live payload, exactly") {
  temporary_directory dir;
  server_thread server{local_options(dir.path)};
  auto c = server.connect();
  REQUIRE(c->nsnew("q").ok());
  REQUIRE(c->nsset("q", "maxsize", "100").ok());
  REQUIRE(c->select("q", "").ok());
  CHECK(c->set("a", std::string(60, 'a')).ok());
  CHECK(c->set("b", std::string(40, 'b')).ok());
  CHECK(c->set("c", "x").err().code == errc::no_space);
  CHECK(c->set("b", std::string(41, 'c')).err().code == errc::no_space);
  CHECK(c->set("b", std::string(40, 'd')).ok()); // replacing frees the old
  CHECK(c->set("e", "").ok());
  CHECK(c->nsinfo("q")->data_size_bytes == 100);
  REQUIRE(c->del("a").ok());
  CHECK(c->set("c", std::string(60, 'x')).ok());
  CHECK(c->set("c", std::string(61, 'x')).err().code == errc::no_space);
  REQUIRE(c->nsset("q", "maxsize", "101").ok());
  CHECK(c->set("c", std::string(61, 'x')).ok());
  auto info = *c->nsinfo("q");
  CHECK(info.data_limits_bytes == 101);
  CHECK(info.data_size_bytes == 101);
  CHECK(info.entries == 3);
}

TEST_CASE("quota: exact, also when many write at once") {
  temporary_directory dir;
  server_thread server{local_options(dir.path)};
  auto c = server.connect();
  REQUIRE(c->nsnew("q").ok());
  REQUIRE(c->nsset("q", "maxsize", "50000").ok());
  std::vector<std::unique_ptr<raw_socket>> all;
  for (int n = 0; n < 8; ++n) {
    all.push_back(std::make_unique<raw_socket>(server.address()));
    all.back()->talk(command({"SELECT", "q"}), "+OK\r\n");
  }
  for (int n = 0; n < 8; ++n) { // 8 × 100 values of 100 bytes; 500 have room
    std::string many;
    for (int i = 0; i < 100; ++i)
      many += command({"SET", fmt::format("{}:{:02}", n, i), std::string(100, 'x')});
    all[static_cast<std::size_t>(n)]->send(many);
  }
  int stored = 0;
  for (auto& s : all)
    for (int i = 0; i < 100; ++i) {
      auto line = s->line();
      if (line.starts_with("$")) {
        ++stored;
        (void)s->line();
      } else {
        CHECK(line == "-No space left on this namespace");
      }
    }
  CHECK(stored == 500);
  CHECK(c->nsinfo("q")->data_size_bytes == 50000);
  CHECK(c->nsinfo("q")->entries == 500);
}

TEST_CASE("namespaces: passwords, rights, properties") {
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.admin_password = "boss";
  server_thread server{o};
  session_options as_admin;
  as_admin.admin_password = "boss";
  auto admin = server.connect(as_admin);
  auto nobody = server.connect();
  CHECK(nobody->nsnew("x").err().code == errc::refused);
  session_options wrong;
  wrong.admin_password = "bos";
  CHECK(blocking_client::connect(server.address(), wrong).err().code == errc::access_denied);

  REQUIRE(admin->nsnew("n").ok());
  CHECK(admin->nsnew("n").err().code == errc::already_exists);
  CHECK(!admin->nsnew("a/b").ok());
  CHECK(!admin->nsnew(std::string(129, 'n')).ok());
  REQUIRE(admin->nsset("n", "password", std::string(43, 'p')).ok());
  REQUIRE(admin->nsset("n", "public", "0").ok());
  session_options in_n;
  in_n.name_space = "n";
  CHECK(blocking_client::connect(server.address(), in_n).err().code == errc::access_denied);
  in_n.password = "wrong";
  CHECK(blocking_client::connect(server.address(), in_n).err().code == errc::access_denied);
  in_n.password = std::string(43, 'p');
  auto c = server.connect(in_n);
  CHECK(c->set("k", "v").ok());
  CHECK(c->server().extensions == std::vector<std::string>{"SYNC", "SETNX", "GETRANGE"});

  raw_socket s{server.address()};
  s.talk(command({"SELECT", "n"}), "-Namespace protected and private\r\n");
  s.talk(command({"SELECT", "n", "wrong"}), "-Access denied\r\n");
  s.talk(command({"SELECT", "n", in_n.password}), "+OK\r\n");
  REQUIRE(admin->nsset("n", "public", "1").ok());
  s.talk(command({"SELECT", "n"}), "+OK\r\n");
  s.talk(command({"GET", "k"}), "$1\r\nv\r\n");
  s.talk(command({"SET", "k", "w"}), "-Namespace is in read-only mode\r\n");
  s.talk(command({"DEL", "k"}), "-Namespace is in read-only mode\r\n");
  REQUIRE(admin->nsset("n", "lock", "1").ok());
  CHECK(c->set("l", "v").err().code == errc::refused);
  CHECK(text_of(*c->get("k")) == "v");
  REQUIRE(admin->nsset("n", "lock", "0").ok());
  REQUIRE(admin->nsset("n", "freeze", "1").ok());
  CHECK(c->get("k").err().code == errc::refused);
  CHECK(*c->dbsize() == 1);
  REQUIRE(admin->nsset("n", "freeze", "0").ok());
  REQUIRE(admin->nsset("n", "worm", "1").ok());
  CHECK(c->set("k", "v").err().code == errc::refused);
  CHECK(c->del("k").err().code == errc::refused);
  CHECK(c->set("new", "v").ok());
  CHECK(!admin->nsset("n", "color", "red").ok());
  CHECK(!admin->nsset("none", "maxsize", "1").ok());

  s.talk(command({"NSDEL", "n"}), "-Permission denied\r\n");
  REQUIRE(admin->nsdel("n").ok());
  CHECK(admin->nsdel("n").err().code == errc::not_found);
  CHECK(!admin->nsdel("default").ok());
  CHECK(c->get("k").err().code == errc::not_found);
  CHECK(s.receive(0).empty());
  CHECK(*admin->nslist() == std::vector<std::string>{"default"});
}

TEST_CASE("a challenge can be used once") {
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.admin_password = "boss";
  server_thread server{o};
  session_options as_admin;
  as_admin.admin_password = "boss";
  auto admin = server.connect(as_admin);
  REQUIRE(admin->nsnew("n").ok());
  REQUIRE(admin->nsset("n", "password", "p").ok());
  raw_socket s{server.address()};
  s.talk(command({"SELECT", "n", "SECURE", std::string(40, 'a')}),
         "-No CHALLENGE requested, secure authentication not available\r\n");
  s.send(command({"AUTH", "SECURE", "CHALLENGE"}));
  auto line = s.receive(19);
  REQUIRE(line.size() == 19);
  auto answer = challenge_answer(line.substr(1, 16), "p");
  s.talk(command({"SELECT", "n", "SECURE", "short"}), "-Invalid hash length\r\n");
  s.talk(command({"SELECT", "n", "SECURE", answer}), "+OK\r\n");
  s.talk(command({"SELECT", "n", "SECURE", answer}),
         "-No CHALLENGE requested, secure authentication not available\r\n");
  s.send(command({"AUTH", "SECURE", "CHALLENGE"}));
  line = s.receive(19);
  s.talk(command({"AUTH", "SECURE", std::string(40, '0')}), "-Access denied\r\n");
  s.talk(command({"AUTH", "SECURE", challenge_answer(line.substr(1, 16), "boss")}),
         "-No CHALLENGE requested, secure authentication not available\r\n");
  raw_socket other{server.address()};
  other.talk(command({"AUTH", "SECURE", answer}),
             "-No CHALLENGE requested, secure authentication not available\r\n");
}

TEST_CASE("protected mode: default is read-only without the admin password") {
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.protect = true;
  CHECK(!server::open(o).ok());
  o.admin_password = "boss";
  server_thread server{o};
  raw_socket s{server.address()};
  s.talk(command({"SET", "k", "v"}), "-Namespace is in read-only mode\r\n");
  s.talk(command({"AUTH", "boss"}), "+OK\r\n");
  s.talk(command({"SET", "k", "v"}), "-Namespace is in read-only mode\r\n");
  s.talk(command({"SELECT", "default", "boss"}), "+OK\r\n");
  s.talk(command({"SET", "k", "v"}), "$1\r\nk\r\n");
}

TEST_CASE("a key that is too long is no key, whatever it is asked for") {
  temporary_directory dir;
  server_thread server{local_options(dir.path)};
  raw_socket s{server.address()};
  std::string key(300, 'k');
  s.send(command({"HISTORY", key}));
  CHECK(s.receive(16) == "-Key not found\r\n");
  s.send(command({"GET", key}));
  CHECK(s.receive(14) == "-Invalid key\r\n");
}

TEST_CASE("flush empties a private namespace, for good") {
  temporary_directory dir;
  session_options o;
  o.name_space = "n";
  o.password = "p";
  for (int round = 0; round < 2; ++round) {
    server_thread server{local_options(dir.path)};
    if (round == 0) {
      auto admin = server.connect();
      REQUIRE(admin->nsnew("n").ok());
      REQUIRE(admin->nsset("n", "password", "p").ok());
      REQUIRE(admin->nsset("n", "public", "0").ok());
      auto c = server.connect(o);
      for (int i = 0; i < 100; ++i) REQUIRE(c->set(fmt::format("k{}", i), "v").ok());
      auto file = c->nsinfo("n")->lines["data_current_id"];
      REQUIRE(c->flush().ok());
      CHECK(*c->dbsize() == 0);
      CHECK(c->nsinfo("n")->data_size_bytes == 0);
      REQUIRE(c->set("after", "v").ok());
      CHECK(c->nsinfo("n")->lines["data_current_id"] != file);
      CHECK(std::stoull(c->nsinfo("n")->lines["data_disk_size_bytes"]) < 200);
    } else {
      auto c = server.connect(o);
      CHECK(*c->dbsize() == 1);
      CHECK(text_of(*c->get("after")) == "v");
      CHECK(c->get("k1").err().code == errc::not_found);
    }
  }
}

TEST_CASE("a pipeline of 10,000, with SYNC among them, is answered in order") {
  temporary_directory dir;
  server_thread server{local_options(dir.path)};
  auto c = server.connect();
  std::size_t answered = 0;
  bool in_order = true;
  for (std::size_t i = 0; i < 10'000; ++i) {
    auto next = [&, i](bool ok) {
      in_order = in_order && ok && answered == i;
      ++answered;
    };
    auto key = fmt::format("k{}", i % 1000);
    if (i % 500 == 499)
      c->raw().sync([next](status s) { next(s.ok()); });
    else if (i % 2 == 0)
      c->raw().set(key, share(to_buffer(fmt::format("value {}", i))),
                   [next](auto r) { next(r.ok()); });
    else
      c->raw().exists(key, [next](auto r) { next(r.ok()); });
  }
  REQUIRE(c->run_until([&] { return answered == 10'000; }).ok());
  CHECK(in_order);
}

TEST_CASE("values of every size up to 8 MiB") {
  temporary_directory dir;
  server_thread server{local_options(dir.path)};
  auto c = server.connect();
  for (std::size_t size :
       {0UL, 1UL, 511UL, 16383UL, 16384UL, 16385UL, 65536UL, 528576UL, 8388607UL, 8388608UL}) {
    buffer value(size);
    seeded_random{size}.fill(value);
    auto shared = share(value);
    auto key = fmt::format("size{}", size);
    CHECK(*c->set(key, shared) == set_outcome::stored);
    CHECK(*c->set(key, shared) == set_outcome::identical);
    auto got = c->get(key);
    REQUIRE(got.ok());
    CHECK(**got == value);
  }
}

TEST_CASE("a client that does not read is not read from, and the others are served") {
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.client_output_bytes = 1 << 20;
  server_thread server{o};
  auto good = server.connect();
  REQUIRE(good->set("big", share(buffer(1 << 20, std::byte{1}))).ok());
  raw_socket slow{server.address()};
  auto get = command({"GET", "big"});
  std::string many;
  for (int i = 0; i < 1000; ++i) many += get; // a gigabyte of replies
  ::send(slow.fd(), many.data(), many.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  for (int i = 0; i < 50; ++i) REQUIRE(good->get("big").ok());
  auto info = good->info();
  REQUIRE(info.ok());
  // What went to the slow one fits the kernel's buffers and the limit; it is far from what it asked
  // for.
  auto sent = std::stoull(info->lines.find("network_tx_bytes")->second);
  CHECK(sent < (50ULL << 20) + (16ULL << 20));
  // When it reads at last, it gets what it asked for.
  auto one = fmt::format("${}\r\n", 1 << 20).size() + (1 << 20) + 2;
  CHECK(slow.receive(20 * one).size() == 20 * one);
}

TEST_CASE("one byte at a time, and half a request") {
  temporary_directory dir;
  server_thread server{local_options(dir.path)};
  {
    raw_socket half{server.address()};
    half.send("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$8000000\r\nbegin");
  }
  raw_socket s{server.address()};
  for (char c : command({"SET", "key", "value"})) s.send(std::string_view{&c, 1});
  CHECK(s.receive(9) == "$3\r\nkey\r\n");
  raw_socket ended{server.address()};
  ended.send(command({"GET", "key"}));
  ::shutdown(ended.fd(), SHUT_WR);
  CHECK(ended.receive_all() == "$5\r\nvalue\r\n");
}

TEST_CASE("unix socket, and both") {
  temporary_directory dir;
  auto o = local_options(dir.path / "data");
  o.socket = dir.path / "zdb.sock";
  o.dual_net = true;
  server_thread server{o};
  for (auto& address : {server.address(), fmt::format("unix:{}", o.socket.string())}) {
    auto c = blocking_client::connect(address, {});
    REQUIRE(c.ok());
    CHECK((*c)->ping().ok());
  }
  CHECK((std::filesystem::status(o.socket).permissions() & std::filesystem::perms::others_all) ==
        std::filesystem::perms::none);
}

TEST_CASE("sync always: written means on disk") {
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.sync = sync_mode::always;
  server_thread server{o};
  auto c = server.connect();
  for (int i = 0; i < 20; ++i) CHECK(c->set(fmt::format("k{}", i), "v").ok());
  CHECK(c->del("k1").ok());
  CHECK(c->get("k2").ok());
}

TEST_CASE("nobody answers: the blocking client says so in time") {
  unique_fd fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  auto refused = blocking_client::connect("127.0.0.1:1", {}, std::chrono::milliseconds{500});
  REQUIRE(!refused.ok());
  CHECK(refused.err().code == errc::unreachable);
  CHECK(blocking_client::connect("nonsense", {}).err().code == errc::invalid_argument);
}

TEST_CASE("a server ends when it is told, also while one of its timers is due") {
  temporary_directory dir;
  for (int i = 0; i < 20; ++i) {
    CAPTURE(i);
    auto o = local_options(dir.path / "data");
    o.watch_every = std::chrono::milliseconds{0}; // always due
    o.sync = sync_mode::interval;
    o.sync_interval = std::chrono::milliseconds{0};
    std::filesystem::create_directories(o.data);
    server_process server{o};
    (void)server.address();
    REQUIRE(::kill(server.pid(), SIGTERM) == 0);
    REQUIRE(eventually([&] {
      siginfo_t info{};
      return ::waitid(P_PID, static_cast<id_t>(server.pid()), &info,
                      WEXITED | WNOHANG | WNOWAIT) == 0 &&
             info.si_pid == server.pid();
    }));
    CHECK(server.wait() == 0);
  }
}

} // namespace
} // namespace qs::zdb
