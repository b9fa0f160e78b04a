// Many clients, and clients that behave badly: memory stays bounded, and the others are served.
#include "support/zdb_server.hpp"

#include <atomic>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/log.hpp"

namespace qs::zdb {
namespace {

struct quiet {
  quiet() { log::configure({log::level::off, false, {}}); }
  ~quiet() { log::configure({log::level::warning, false, {}}); }
};

/// commands_executed of an answer to INFO that is on its way.
std::uint64_t executed(raw_socket& s) {
  std::string head;
  while (!head.ends_with("\n")) head += s.receive(1);
  auto text = s.receive(std::stoul(head.substr(1)) + 2);
  auto at = text.find("commands_executed: ");
  REQUIRE(at != std::string::npos);
  return std::stoull(text.substr(at + 19));
}

/// Sends what goes without waiting; how much that was.
std::size_t push(raw_socket& s, std::string_view text) {
  std::size_t done = 0;
  while (done < text.size()) {
    auto n = ::send(s.fd(), text.data() + done, text.size() - done, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n <= 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

TEST_CASE("who takes all places makes place for others") {
  quiet no_log;
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.clients_max = 20;
  o.socket = (dir.path / "s").string();
  o.dual_net = true;
  o.admin_password = "boss";
  server_thread server{o};
  std::vector<std::unique_ptr<raw_socket>> greedy;
  auto pings = [](raw_socket& s) {
    s.send(command({"PING"}));
    return s.receive(7) == "+PONG\r\n";
  };
  for (unsigned i = 0; i < 20; ++i) {
    greedy.push_back(std::make_unique<raw_socket>(server.address()));
    REQUIRE(pings(*greedy.back()));
  }
  greedy[0]->send(command({"AUTH", "boss"}));
  REQUIRE(greedy[0]->receive(5) == "+OK\r\n");
  REQUIRE(pings(*greedy[1])); // the others have been idle for longer
  CHECK(raw_socket{server.address()}.receive_all() == "-Too many clients\r\n");
  std::vector<std::unique_ptr<raw_socket>> modest; // of another address, as far as the server knows
  for (unsigned i = 0; i < 10; ++i) {
    modest.push_back(std::make_unique<raw_socket>("unix:" + o.socket.string()));
    REQUIRE(pings(*modest.back()));
  }
  CHECK(raw_socket{"unix:" + o.socket.string()}.receive_all() == "-Too many clients\r\n"); // its share
  CHECK(pings(*greedy[0]));
  CHECK(pings(*greedy[1]));
  CHECK(greedy[2]->receive_all().empty()); // closed
  CHECK(greedy[11]->receive_all().empty());
  for (unsigned i = 12; i < 20; ++i) CHECK(pings(*greedy[i]));
  for (auto& s : modest) CHECK(pings(*s));
}

TEST_CASE("a thousand connections, each served; more than allowed are told so") {
  quiet no_log;
  rlimit files{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &files) == 0);
  files.rlim_cur = std::min<rlim_t>(files.rlim_max, 4096);
  ::setrlimit(RLIMIT_NOFILE, &files);
  auto many = files.rlim_cur >= 2400 ? 1000U : 200U;
  if (many < 1000)
    MESSAGE("only ", many, " connections: the limit is ", files.rlim_cur, " descriptors");
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.clients_max = many;
  server_thread server{o};
  std::vector<std::unique_ptr<raw_socket>> all;
  for (unsigned i = 0; i < many; ++i) {
    all.push_back(std::make_unique<raw_socket>(server.address()));
    all.back()->send(command({"SET", fmt::format("k{}", i), "value"}));
  }
  for (unsigned i = 0; i < many; ++i) {
    auto key = fmt::format("k{}", i);
    auto want = fmt::format("${}\r\n{}\r\n", key.size(), key);
    REQUIRE(all[i]->receive(want.size()) == want);
  }
  raw_socket late{server.address()};
  CHECK(late.receive_all() == "-Too many clients\r\n");
  all.pop_back();
  CHECK(eventually([&] { // its place is free again
    raw_socket s{server.address()};
    s.send(command({"PING"}));
    return s.receive(7) == "+PONG\r\n";
  }));
  // All at once.
  for (auto& s : all) s->send(command({"GET", "k0"}));
  for (auto& s : all) REQUIRE(s->receive(11) == "$5\r\nvalue\r\n");
}

TEST_CASE("requests of all clients together are bounded; who does not send is dropped") {
  quiet no_log;
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.memory_bytes_max = 40 << 20;
  o.patience = std::chrono::milliseconds{300};
  o.metrics = "127.0.0.1:0";
  server_thread server{o};
  // Each wants 8 MiB and sends a little of it: four have room, the others wait for theirs.
  std::vector<std::unique_ptr<raw_socket>> slow;
  for (int i = 0; i < 40; ++i) {
    slow.push_back(std::make_unique<raw_socket>(server.address()));
    push(*slow.back(), "*3\r\n$3\r\nSET\r\n$1\r\ns\r\n$8388608\r\n" + std::string(1000, 'x'));
  }
  // One that sends everything gets through all the same, and small ones are not held up.
  auto good = server.connect();
  for (int i = 0; i < 3; ++i) {
    CHECK(good->set(fmt::format("good{}", i), share(buffer(8 << 20, std::byte{7}))).ok());
    CHECK(good->get("good0").ok());
    CHECK(metric(server.metrics_address(), "zdb_client_memory_bytes") <= 40U << 20U);
  }
  CHECK(metric(server.metrics_address(), "zdb_clients_dropped_total") >= 1);
}

TEST_CASE("replies of all clients together are bounded; who does not read is dropped") {
  quiet no_log;
  bool one_by_one = true;
  SUBCASE("each asked for by itself") {}
  SUBCASE("many at once") { one_by_one = false; }
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.memory_bytes_max = 40 << 20;
  o.patience = std::chrono::milliseconds{300};
  o.metrics = "127.0.0.1:0";
  server_thread server{o};
  auto good = server.connect();
  REQUIRE(good->set("big", share(buffer(8 << 20, std::byte{7}))).ok());
  REQUIRE(good->set("small", "value").ok());
  std::vector<std::unique_ptr<raw_socket>> greedy;
  std::string gets;
  for (int i = 0; i < 20; ++i)
    gets += one_by_one ? command({"GET", "big"}) : command({"MGET", "small", "big", "big", "big"});
  for (int i = 0; i < 20; ++i) {
    greedy.push_back(std::make_unique<raw_socket>(server.address()));
    push(*greedy.back(), gets);
  }
  for (int i = 0; i < 30; ++i) {
    CHECK(good->get("small").ok());
    // One answer may go over it.
    CHECK(metric(server.metrics_address(), "zdb_client_memory_bytes") <= 49U << 20U);
  }
  CHECK(good->get("big").ok());
  CHECK(eventually(
      [&] { return metric(server.metrics_address(), "zdb_clients_dropped_total") >= 1; }));
}

TEST_CASE("a server that ends gives an answer under way to its end") {
  quiet no_log;
  temporary_directory dir;
  server_thread server{local_options(dir.path)};
  auto c = server.connect();
  std::string mget = "*61\r\n$4\r\nMGET\r\n";
  for (int i = 0; i < 60; ++i) mget += fmt::format("$2\r\nk{}\r\n", i % 4);
  for (int i = 0; i < 4; ++i)
    REQUIRE(c->set(fmt::format("k{}", i), share(buffer(1 << 20, std::byte{7}))).ok());
  raw_socket s{server.address()};
  s.send(mget);
  REQUIRE(s.receive(5) == "*60\r\n"); // it has begun
  std::thread ends{[&] { server.stop(); }};
  auto rest = s.receive_all();
  ends.join();
  CHECK(rest.size() == 60 * ((1 << 20) + std::string{"$1048576\r\n\r\n"}.size()));
}

TEST_CASE("answers that wait for the disk count, also when their client is gone") {
  quiet no_log;
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.memory_bytes_max = 8 << 20;
  o.metrics = "127.0.0.1:0";
  server_thread server{o};
  // The helper thread stands still where it opens this file, until somebody reads it.
  auto mark = o.data / "namespaces" / "00000001" / "synced";
  std::filesystem::remove(mark);
  REQUIRE(::mkfifo(mark.c_str(), 0600) == 0);
  constexpr int each = 3000;
  std::string ask = command({"SET", "k", "v"});
  for (int i = 0; i < each; ++i) ask += command({"SYNC"});
  std::vector<std::unique_ptr<raw_socket>> all;
  for (int i = 0; i < 120; ++i) {
    all.push_back(std::make_unique<raw_socket>(server.address()));
    push(*all.back(), i == 0 ? ask : ask.substr(command({"SET", "k", "v"}).size()));
    if (i == 0) REQUIRE(all[0]->receive(7) == "$1\r\nk\r\n"); // now there is something to sync
  }
  auto held = [&] { return metric(server.metrics_address(), "zdb_client_memory_bytes"); };
  CHECK(eventually([&] { return held() > 7U << 20U; }));
  CHECK(held() <= (8U << 20U) + (1U << 20U));
  auto waiters = [&] { return metric(server.metrics_address(), "zdb_sync_waiters"); };
  auto waiting = waiters();
  // What still comes in finds no room after a while.
  CHECK(eventually([&] {
    auto before = waiting;
    waiting = waiters();
    return waiting == before;
  }));
  CHECK(waiting * 256 <= 8U << 20U);
  for (std::size_t i = 20; i < all.size(); ++i) all[i].reset();
  CHECK(waiters() >= waiting);
  CHECK(held() >= waiting * 256); // they wait all the same
  unique_fd reader{::open(mark.c_str(), O_RDONLY | O_NONBLOCK)};
  REQUIRE(reader.valid());
  for (std::size_t i = 0; i < 20; ++i) {
    CAPTURE(i);
    std::string want;
    for (int n = 0; n < each; ++n) want += "+OK\r\n";
    REQUIRE(all[i]->receive(want.size()) == want);
  }
  CHECK(eventually([&] { return held() < 1U << 20U; }));
}

TEST_CASE("keys of KSCANs count; where memory has run out they end earlier, with a cursor") {
  quiet no_log;
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.memory_bytes_max = 8 << 20;
  o.metrics = "127.0.0.1:0";
  server_thread server{o};
  constexpr int keys = 20'000; // 5 MB of them
  std::string tail(230, 'k');
  std::string sets;
  for (int i = 0; i < keys; ++i) {
    auto key = fmt::format("{:06}", i) + tail;
    sets += command({"SET", key, "v"});
  }
  raw_socket filler{server.address()};
  filler.send(sets);
  REQUIRE(filler.receive(keys * (6 + 236 + 2)).size() == keys * (6 + 236 + 2));
  std::vector<std::unique_ptr<raw_socket>> all;
  for (int i = 0; i < 40; ++i) {
    all.push_back(std::make_unique<raw_socket>(server.address()));
    all.back()->send(command({"KSCAN", "0"}));
  }
  std::size_t most = 0;
  for (int i = 0; i < 100; ++i)
    most = std::max<std::size_t>(most,
                                 metric(server.metrics_address(), "zdb_client_memory_bytes"));
  CHECK(most > 3U << 20U); // they are counted
  CHECK(most <= (8U << 20U) + (3U << 20U));
  // Each comes to its end over its cursors, and none loses a key.
  all.resize(2); // the others do not read
  for (auto& s : all) {
    std::size_t got = 0;
    std::string cursor;
    do {
      if (!cursor.empty()) s->send(command({"KSCAN", "0", cursor}));
      auto line = [&] {
        std::string text;
        while (!text.ends_with("\n")) text += s->receive(1);
        return text;
      };
      auto first = line();
      if (first == "-No keys match\r\n" && got > 0) break; // the last answer had all
      REQUIRE(first == "*2\r\n");
      cursor = s->receive(std::stoul(line().substr(1)));
      s->receive(2);
      auto n = std::stoul(line().substr(1));
      got += n;
      REQUIRE(s->receive(n * (6 + 236 + 2)).size() == n * (6 + 236 + 2));
    } while (cursor != "0");
    REQUIRE(got == keys);
  }
}

TEST_CASE("8 MiB that come in small pieces are taken, while others are served") {
  temporary_directory dir;
  server_thread server{local_options(dir.path)};
  raw_socket s{server.address()};
  auto good = server.connect();
  std::string_view head = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$8388608\r\n";
  for (auto c : head) s.send(std::string_view{&c, 1});
  for (int i = 0; i < 20'000; ++i) s.send("x"); // one byte at a time
  CHECK(good->ping().ok());
  std::string piece(1013, 'x');
  std::size_t left = 8388608 - 20'000;
  while (left > 0) {
    auto n = std::min(left, piece.size());
    s.send(std::string_view{piece}.substr(0, n));
    left -= n;
  }
  s.send("\r\n");
  CHECK(s.receive(7) == "$1\r\nk\r\n");
  CHECK((*good->get("k"))->size() == 8388608);
}

TEST_CASE("half-open and half-said: forgotten when the peer is") {
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.metrics = "127.0.0.1:0";
  o.watch_every = std::chrono::milliseconds{50};
  server_thread server{o};
  for (int i = 0; i < 50; ++i) {
    raw_socket silent{server.address()};
    raw_socket half{server.address()};
    half.send("*2\r\n$3\r\nGET\r\n$5\r\nab");
    raw_socket reset{server.address()};
    reset.send(command({"SET", "k", "v"}));
    linger now{1, 0};
    ::setsockopt(reset.fd(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
    raw_socket waits{server.address()};
    waits.send(command({"WAIT", "DEL", "1800000"}));
  }
  CHECK(eventually([&] { return metric(server.metrics_address(), "zdb_clients") == 0; }));
  CHECK(metric(server.metrics_address(), "zdb_client_memory_bytes") == 0);
}

/// Moves when told, by one thread, and is looked at by another.
class shared_clock final : public qs::clock {
public:
  [[nodiscard]] wall_time wall() const override { return wall_time{boot()}; }
  [[nodiscard]] boot_time boot() const override { return boot_time{now_.load()}; }
  void advance(std::chrono::milliseconds by) { now_ += by.count(); }

private:
  std::atomic<std::int64_t> now_{3'600'000};
};

TEST_CASE("a request may take as long as it likes, as long as something of it comes") {
  quiet no_log;
  using std::chrono::seconds;
  temporary_directory dir;
  shared_clock time;
  auto o = local_options(dir.path);
  o.metrics = "127.0.0.1:0";
  o.watch_every = std::chrono::milliseconds{5};
  o.time = &time;
  server_thread server{o};
  auto received = [&] {
    return metric(server.metrics_address(), "zdb_network_received_bytes_total");
  };
  auto dropped = [&] { return metric(server.metrics_address(), "zdb_clients_silent_total"); };
  std::string_view request = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n";
  raw_socket idle{server.address()}; // says nothing, or whole requests: may do so for ever
  raw_socket waits{server.address()};
  idle.talk(command({"PING"}), "+PONG\r\n");
  waits.send(command({"WAIT", "DEL", "1800000"}) + "*2\r\n$3\r\nGE");
  raw_socket slow{server.address()};
  auto before = received();
  for (std::size_t i = 0; i < request.size(); ++i) {
    slow.send(request.substr(i, 1));
    REQUIRE(eventually([&] { return received() >= before + i + 1; }));
    time.advance(seconds{50});
  }
  CHECK(slow.receive(7) == "$1\r\nk\r\n");
  CHECK(dropped() == 0);
  // Each in another place of a request, and nothing more. A value of 8 MiB is memory that was
  // granted.
  std::vector<std::unique_ptr<raw_socket>> half;
  for (std::string_view part : {"*", "*2\r\n", "*2\r\n$3\r\nGET\r\n$5\r\nab",
                                "*2\r\n$3\r\nGET\r\n$2\r\nab\r",
                                "*3\r\n$3\r\nSET\r\n$1\r\ns\r\n$8388608\r\nx"}) {
    before = received();
    half.push_back(std::make_unique<raw_socket>(server.address()));
    half.back()->send(part);
    REQUIRE(eventually([&] { return received() >= before + part.size(); }));
  }
  CHECK(metric(server.metrics_address(), "zdb_client_memory_bytes") >= 8U << 20U);
  time.advance(seconds{59});
  before = received();
  half[1]->send("$3\r\n"); // is not silent yet
  REQUIRE(eventually([&] { return received() >= before + 4; }));
  time.advance(seconds{2});
  for (std::size_t i = 0; i < half.size(); ++i)
    if (i != 1) CHECK(half[i]->receive_all().empty()); // closed
  CHECK(eventually([&] { return dropped() == half.size() - 1; }));
  CHECK(eventually([&] {
    return metric(server.metrics_address(), "zdb_client_memory_bytes") < 1U << 20U;
  }));
  half[1]->talk("GET\r\n$1\r\nk\r\n", "$5\r\nvalue\r\n");
  idle.talk(command({"PING"}), "+PONG\r\n");
  // Half a request behind one that is not answered: we are waited for. Then not.
  idle.send(command({"DEL", "k"}));
  CHECK(idle.receive(5) == "+OK\r\n");
  CHECK(waits.receive(6) == "+DEL\r\n");
  auto looked = dropped();
  waits.talk("T\r\n$1\r\nk\r\n", "$-1\r\n");
  CHECK(dropped() == looked);
}

TEST_CASE("a tenant that floods does not take the others' turns") {
  temporary_directory dir;
  server_thread server{local_options(dir.path)};
  auto admin = server.connect();
  REQUIRE(admin->nsnew("flood").ok());
  REQUIRE(admin->set("k", "v").ok());
  // Forty connections with a lot of work, and one of another tenant with ten turns of it: between
  // his first and his last command they get about as many turns, not forty times as many.
  constexpr std::uint64_t turn = 128;
  std::string lots;
  for (int i = 0; i < 2000; ++i) lots += command({"EXISTS", "none"});
  std::vector<std::unique_ptr<raw_socket>> flood;
  for (int i = 0; i < 40; ++i) {
    flood.push_back(std::make_unique<raw_socket>(server.address()));
    flood.back()->talk(command({"SELECT", "flood"}), "+OK\r\n");
  }
  raw_socket good{server.address()};
  std::string his;
  for (std::uint64_t i = 0; i < 10 * turn; ++i) his += command({"GET", "k"});
  std::uint64_t most = 0;
  for (int round = 0; round < 10; ++round) {
    for (auto& s : flood) push(*s, lots);
    good.send(command({"INFO"}) + his + command({"INFO"}));
    auto before = executed(good);
    for (std::uint64_t i = 0; i < 10 * turn; ++i) REQUIRE(good.receive(7) == "$1\r\nv\r\n");
    auto theirs = executed(good) - before - 10 * turn - 1;
    CHECK(theirs <= 20 * turn);
    most = std::max(most, theirs);
    for (auto& s : flood) {
      char sink[1 << 16];
      while (::recv(s->fd(), sink, sizeof sink, MSG_DONTWAIT) > 0) {
      }
    }
  }
  CHECK(most > 0); // they did work meanwhile
}

TEST_CASE("wrong passwords wait for their answers; nobody else does") {
  quiet no_log;
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.admin_password = "boss";
  server_thread server{o};
  raw_socket guesser{server.address()};
  std::string guesses;
  for (int i = 0; i < 6; ++i) guesses += command({"AUTH", fmt::format("guess{}", i)});
  guesser.send(guesses + command({"AUTH", "boss"}) + command({"PING"}));
  raw_socket other{server.address()};
  for (int i = 0; i < 100; ++i) other.talk(command({"PING"}), "+PONG\r\n");
  std::string want;
  for (int i = 0; i < 6; ++i) want += "-Access denied\r\n";
  want += "+OK\r\n+PONG\r\n";
  CHECK(guesser.receive(want.size()) == want);
}

TEST_CASE("two hundred connections guess no faster than one, and leave when they hang up") {
  quiet no_log;
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.admin_password = "boss";
  o.metrics = "127.0.0.1:0";
  server_thread server{o};
  auto wrong = [&] { return metric(server.metrics_address(), "zdb_wrong_passwords_total"); };
  auto start = std::chrono::steady_clock::now();
  std::vector<std::unique_ptr<raw_socket>> all;
  for (int i = 0; i < 200; ++i) {
    all.push_back(std::make_unique<raw_socket>(server.address()));
    all.back()->send(command({"AUTH", fmt::format("guess{}", i)}));
  }
  CHECK(eventually([&] { return wrong() >= 6; }));
  auto judged = wrong();
  auto spent = std::chrono::steady_clock::now() - start;
  // 100, 200, 400, … ms between them.
  CHECK(spent >= std::chrono::milliseconds{700});
  CHECK(judged <= 6 + static_cast<std::uint64_t>(spent / std::chrono::milliseconds{800}));
  raw_socket other{server.address()};
  other.talk(command({"SET", "k", "v"}), "$1\r\nk\r\n"); // nobody else waits
  raw_socket late{server.address()};
  late.send(command({"AUTH", "boss"}) + command({"PING"}));
  all.clear();
  CHECK(late.receive(12) == "+OK\r\n+PONG\r\n"); // not behind those who are gone
  CHECK(wrong() <= judged + 2);
}

} // namespace
} // namespace qs::zdb
