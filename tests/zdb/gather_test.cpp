// SETs that are written together: seen as if each had been written on its own, also when the write
// fails.
#include "support/zdb_store.hpp"

#include <csignal>
#include <sys/resource.h>

#include "base/random.hpp"
#include "zdb/commands.hpp"

namespace qs::zdb {
namespace {

write_answer together(name_space& ns, std::string_view key, std::string_view value,
                      std::string* id = nullptr) {
  std::string ignored;
  return ns.set(as_bytes(key), as_bytes(value), 1, false, id != nullptr ? *id : ignored, true);
}

/// In a process of its own, in which files may not get longer than `bytes`: the write that crosses
/// it is cut short, the next fails, as on a full disk. `what` gives 0 if all is well.
template <class F>
int with_file_limit(std::uint64_t bytes, F&& what) {
  auto child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit limit{bytes, bytes};
    ::_exit(::setrlimit(RLIMIT_FSIZE, &limit) != 0 ? 100 : what());
  }
  int state = 0;
  REQUIRE(::waitpid(child, &state, 0) == child);
  return WIFEXITED(state) ? WEXITSTATUS(state) : 101;
}

struct table_client : client {
  void wake() override {}
  void drop() override {}
  std::string take() {
    std::string text;
    while (out.sendable()) {
      iovec part;
      if (out.gather(&part, 1) == 0) break;
      text.append(static_cast<const char*>(part.iov_base), part.iov_len);
      out.sent(part.iov_len);
    }
    return text;
  }
};

/// The command table on a store, without sockets.
struct table {
  explicit table(storage& s) : all{*s.all, {}, make()} {}
  environment make() {
    environment env;
    env.disk = [](const std::function<void()>& work, const std::function<void()>& then) {
      work();
      then();
    };
    env.gone = [] {};
    env.timers = &timers;
    return env;
  }
  void ask(client& c, const std::vector<std::string>& words) {
    auto text = fmt::format("*{}\r\n", words.size());
    for (auto& w : words) text += fmt::format("${}\r\n{}\r\n", w.size(), w);
    request_parser parser;
    std::size_t used = 0;
    if (parser.feed(as_bytes(text), used)) all.execute(c, parser.arguments());
  }
  std::shared_ptr<table_client> connect() {
    auto c = std::make_shared<table_client>();
    all.greet(*c);
    return c;
  }
  timer_queue timers;
  commands all;
};

TEST_CASE("gathered: one write, in the file only then, and read as if it were there") {
  storage s;
  auto& ns = s.space();
  REQUIRE(put(ns, "first", "1") == write_answer::stored); // makes the file
  auto size = ns.disk_bytes();
  auto path = data_file_path(ns.directory(), 1);
  for (int i = 0; i < 100; ++i)
    REQUIRE(together(ns, fmt::format("k{}", i), "v") == write_answer::gathered);
  CHECK(std::filesystem::file_size(path) == size);
  CHECK(value_of(ns, "first") == "1"); // another key does not need it
  CHECK(std::filesystem::file_size(path) == size);
  CHECK(value_of(ns, "k7") == "v");
  CHECK(std::filesystem::file_size(path) == ns.disk_bytes());
  CHECK(ns.disk_bytes() > size + 100 * 34);
  // The same key again, the same value again, another size.
  REQUIRE(together(ns, "k1", "w") == write_answer::gathered);
  REQUIRE(together(ns, "k1", "w") == write_answer::identical);
  REQUIRE(together(ns, "k1", "longer") == write_answer::gathered);
  REQUIRE(together(ns, "big", std::string(100'000, 'b')) == write_answer::stored);
  CHECK(value_of(ns, "k1") == "longer");
  CHECK(ns.entries() == 102);
  REQUIRE(together(ns, "k2", "w") == write_answer::gathered);
  REQUIRE(ns.erase(as_bytes("k2"), 1) == write_answer::stored);
  CHECK(!value_of(ns, "k2"));
  REQUIRE(together(ns, "last", "w") == write_answer::gathered);
  auto keys = keys_of(ns, scan_order::newest_first);
  CHECK(keys.front() == "last");
  CHECK(keys.size() == 102);
  REQUIRE(together(ns, "after", "w") == write_answer::gathered);
  sync_all(ns);
  CHECK(!ns.dirty());
  auto usage = ns.usage();
  s.reopen();
  CHECK(s.space().entries() == 103);
  CHECK(value_of(s.space(), "after") == "w");
  CHECK(s.space().usage().live == usage.live);
  CHECK(s.space().usage().dead == usage.dead);
  CHECK(s.space().live_bytes() == usage.live_payload);
}

TEST_CASE("gathered or not, through rotations and restarts: the same is there") {
  for (bool sequential : {false, true}) {
    CAPTURE(sequential);
    storage s{512 << 10, sequential};
    s.options.cache_bytes = 100 << 10;
    s.reopen();
    std::map<std::string, std::string> want;
    seeded_random random{5};
    for (int i = 0; i < 30'000; ++i) {
      auto& ns = s.space();
      std::uint64_t number = random.below(400);
      std::string key = fmt::format("k{}", number);
      if (sequential) key.assign(reinterpret_cast<const char*>(&number), sizeof(number));
      auto what = random.below(200);
      if (what < 150) {
        auto length = random.below(i % 50 == 0 ? 9000 : 90);
        auto value = fmt::format("{} {}", i, std::string(length, 'v'));
        auto append = sequential && !want.contains(key);
        std::string stored;
        auto done = together(ns, append ? std::string{} : key, value, &stored);
        REQUIRE((done == write_answer::stored || done == write_answer::gathered));
        want[stored] = value;
      } else if (what < 160) {
        auto gone = ns.erase(as_bytes(key), 1);
        CHECK(gone == (want.erase(key) > 0 ? write_answer::stored : write_answer::missing));
      } else if (what < 195) {
        auto it = want.find(key);
        REQUIRE(value_of(ns, key) == (it == want.end() ? std::nullopt : std::optional{it->second}));
      } else {
        ns.settle();
        if (random.below(50) == 0) s.reopen();
      }
    }
    s.space().settle();
    s.reopen();
    CHECK(s.space().entries() == want.size());
    std::uint64_t live = 0;
    for (auto& [key, value] : want) {
      REQUIRE(value_of(s.space(), key) == value);
      live += value.size();
    }
    CHECK(s.space().live_bytes() == live);
  }
}

TEST_CASE("a gathered write fails: what does not fit is nowhere, what fits is stored") {
  quiet no_log;
  storage s;
  auto failed = with_file_limit(100'000, [&] {
    auto& ns = s.space();
    if (put(ns, "old", "kept") != write_answer::stored) return 1;
    if (put(ns, "fill", std::string(90'000, 'x')) != write_answer::stored) return 2;
    std::vector<name_space::settled_write> came;
    ns.settled = [&](name_space&, auto writes) { came.assign(writes.begin(), writes.end()); };
    auto live = ns.live_bytes();
    // Of these the first fits, the second does not, the third does again.
    if (together(ns, "a", std::string(4000, 'a')) != write_answer::gathered) return 3;
    if (together(ns, "old", std::string(7000, 'o')) != write_answer::gathered) return 4;
    if (together(ns, "b", std::string(2000, 'b')) != write_answer::gathered) return 5;
    ns.settle();
    if (came.size() != 3) return 6;
    if (came[0].answer != write_answer::stored || came[0].id != "a") return 7;
    if (came[1].answer != write_answer::failed) return 8;
    if (came[2].answer != write_answer::stored || came[2].id != "b") return 9;
    if (value_of(ns, "old") != "kept" || ns.entries() != 4) return 10;
    if (ns.live_bytes() != live + 6000 || ns.usage().live_payload != live + 6000) return 11;
    if (std::filesystem::file_size(data_file_path(ns.directory(), 1)) != ns.disk_bytes()) return 12;
    // Reading one of them is what writes them.
    if (together(ns, "c", std::string(5000, 'c')) != write_answer::gathered) return 13;
    if (value_of(ns, "c") || ns.entries() != 4 || came[0].answer != write_answer::failed) return 14;
    return 0;
  });
  CHECK(failed == 0);
  s.reopen();
  CHECK(s.space().entries() == 4);
  CHECK(value_of(s.space(), "old") == "kept");
  CHECK(value_of(s.space(), "b") == std::string(2000, 'b'));
}

TEST_CASE("a gathered write fails: ids are as if it had not been tried") {
  quiet no_log;
  storage s{256 << 20, true};
  auto failed = with_file_limit(100'000, [&] {
    auto& ns = s.space();
    std::string id;
    if (ns.set({}, as_bytes(std::string(95'000, 'x')), 1, false, id) != write_answer::stored)
      return 1;
    std::vector<name_space::settled_write> came;
    ns.settled = [&](name_space&, auto writes) { came.assign(writes.begin(), writes.end()); };
    if (together(ns, "", std::string(6000, 'a')) != write_answer::gathered) return 2;
    if (together(ns, "", "small", &id) != write_answer::gathered) return 3;
    if (id_of(as_bytes(id)) != 2) return 4;
    ns.settle();
    if (came[0].answer != write_answer::failed || came[1].answer != write_answer::stored) return 5;
    if (id_of(as_bytes(came[1].id)) != 1 || ns.next_id() != 2 || ns.entries() != 2) return 6;
    return value_of(ns, came[1].id) == "small" ? 0 : 7;
  });
  CHECK(failed == 0);
}

TEST_CASE("each SET of a turn gets its own answer, whatever becomes of the write") {
  quiet no_log;
  storage s;
  auto big = std::string(7000, 'b');
  table t{s};
  auto a = t.connect();
  auto b = t.connect();
  t.ask(*a, {"SET", "make", "1"});
  CHECK(a->take() == "$4\r\nmake\r\n");
  t.all.gather();
  t.ask(*a, {"SET", "k", "1"});
  t.ask(*a, {"GET", "k"});
  t.ask(*b, {"SET", "k", "2"});
  t.ask(*a, {"GET", "k"});
  t.ask(*a, {"SET", "l", "1"});
  t.ask(*a, {"DBSIZE"});
  t.all.settle();
  CHECK(a->take() == "$1\r\nk\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\nl\r\n:3\r\n");
  CHECK(b->take() == "$1\r\nk\r\n");
  CHECK(t.all.stats.failed == 0);
  auto failed = with_file_limit(20'000, [&] {
    t.all.gather();
    t.ask(*a, {"SET", "a1", big});
    t.ask(*b, {"SET", "b1", big});
    t.ask(*a, {"SET", "a2", big}); // the first that is too much
    t.ask(*a, {"PING"});
    t.ask(*b, {"SET", "b2", big});
    t.ask(*a, {"SET", "a3", "small"});
    t.all.settle();
    if (a->take() != "$2\r\na1\r\n-Cannot write data right now\r\n+PONG\r\n$2\r\na3\r\n") return 1;
    if (b->take() != "$2\r\nb1\r\n-Cannot write data right now\r\n") return 2;
    if (t.all.stats.failed != 2) return 3;
    t.all.gather();
    t.ask(*a, {"SET", "a4", big});
    t.ask(*a, {"GET", "a4"}); // never there, not even for a moment
    t.ask(*a, {"EXISTS", "a2"});
    t.ask(*a, {"DBSIZE"});
    t.all.settle();
    if (a->take() != "-Cannot write data right now\r\n$-1\r\n:0\r\n:6\r\n") return 4;
    return 0;
  });
  CHECK(failed == 0);
}

TEST_CASE("quota: what is only gathered does not make others fail") {
  quiet no_log;
  storage s;
  auto failed = with_file_limit(20'000, [&] {
    auto& ns = s.space();
    auto settings = ns.settings();
    settings.maxsize = 20'000;
    ns.set_settings(settings);
    if (put(ns, "fill", std::string(14'000, 'x')) != write_answer::stored) return 1;
    if (together(ns, "a", std::string(5'950, 'a')) != write_answer::gathered) return 2;
    // Too much beside the first, which turns out not to fit on the disk.
    if (together(ns, "b", std::string(5'000, 'b')) != write_answer::stored) return 3;
    return ns.live_bytes() == 19'000 && !value_of(ns, "a") ? 0 : 4;
  });
  CHECK(failed == 0);
}

TEST_CASE("pipelines of everything behind a SET, on many connections") {
  temporary_directory dir;
  server_thread server{local_options(dir.path)};
  std::vector<std::unique_ptr<raw_socket>> all;
  for (int i = 0; i < 20; ++i) all.push_back(std::make_unique<raw_socket>(server.address()));
  for (int round = 0; round < 20; ++round) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      auto key = fmt::format("k{:02}", i);
      auto value = fmt::format("{:04}", round);
      all[i]->send(command({"SET", key, value}) + command({"GET", key}) +
                   command({"SET", key, value + "x"}) + command({"LENGTH", key}) +
                   command({"GETRANGE", key, "4", "9"}) + command({"MGET", key, "none"}) +
                   command({"CHECK", key}) + command({"DEL", key}) + command({"EXISTS", key}) +
                   command({"SETNX", key, "n"}) + command({"SETNX", key, "m"}) +
                   command({"GET", key}) + command({"DEL", key}) + command({"SYNC"}));
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
      auto stored = fmt::format("$3\r\nk{:02}\r\n", i);
      auto want = stored + fmt::format("$4\r\n{:04}\r\n", round) + stored +
                  fmt::format(":5\r\n$1\r\nx\r\n*2\r\n$5\r\n{:04}x\r\n$-1\r\n:1\r\n+OK\r\n:0\r\n",
                              round) +
                  stored + "$-1\r\n$1\r\nn\r\n+OK\r\n+OK\r\n";
      REQUIRE(all[i]->receive(want.size()) == want);
    }
  }
}

} // namespace
} // namespace qs::zdb
