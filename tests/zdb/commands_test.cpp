// The command table without sockets or threads: the helper thread's work is run when a test says
// so.
#include "support/zdb_store.hpp"

#include "zdb/commands.hpp"
#include "zdb/compactor.hpp"

namespace qs::zdb {
namespace {

struct test_client : client {
  void wake() override {}
  void drop() override {}
  /// What can be sent now.
  std::string take() {
    std::string text;
    while (out.sendable()) {
      iovec parts[64];
      auto n = out.gather(parts, 64);
      std::size_t bytes = 0;
      for (std::size_t i = 0; i < n; ++i) {
        text.append(static_cast<const char*>(parts[i].iov_base), parts[i].iov_len);
        bytes += parts[i].iov_len;
      }
      out.sent(bytes);
    }
    return text;
  }
};

struct table {
  explicit table(command_options o = {}) : all{*s.all, std::move(o), make()} {}
  environment make() {
    environment env;
    env.disk = [this](std::function<void()> work, std::function<void()> then) {
      jobs.push_back([work = std::move(work), then = std::move(then)] {
        work();
        then();
      });
    };
    env.gone = [] {};
    env.timers = &timers;
    env.fits = [this](std::size_t) { return memory; };
    return env;
  }
  std::shared_ptr<test_client> connect() {
    auto c = std::make_shared<test_client>();
    all.greet(*c);
    return c;
  }
  std::string ask(test_client& c, const std::vector<std::string>& words) {
    request_parser parser;
    auto text = fmt::format("*{}\r\n", words.size());
    for (auto& w : words) text += fmt::format("${}\r\n{}\r\n", w.size(), w);
    std::size_t used = 0;
    REQUIRE(parser.feed(as_bytes(text), used));
    all.execute(c, parser.arguments());
    return c.take();
  }
  void run_jobs() {
    while (!jobs.empty()) {
      auto job = std::move(jobs.front());
      jobs.pop_front();
      job();
    }
  }
  storage s;
  timer_queue timers;
  std::deque<std::function<void()>> jobs;
  bool memory = true; ///< there is some left for large answers
  commands all;
};

TEST_CASE("whether a namespace exists is told behind what makes or deletes it") {
  quiet no_log;
  table t;
  auto maker = t.connect();
  auto asker = t.connect();
  CHECK(t.ask(*asker, {"NSINFO", "n"}) == "-Namespace not found\r\n");
  CHECK(t.ask(*maker, {"NSNEW", "n"}).empty());
  maker.reset(); // has lost its connection; whoever asks now must not hear "not found"
  CHECK(t.ask(*asker, {"NSINFO", "n"}).empty());
  CHECK(asker->blocked);
  auto other = t.connect();
  CHECK(t.ask(*other, {"SELECT", "n"}) == "-Try again\r\n");
  CHECK(t.ask(*other, {"NSINFO", "m"}) == "-Namespace not found\r\n"); // nothing under way for it
  t.run_jobs();
  CHECK(!asker->blocked);
  CHECK(asker->take().find("name: n\n") != std::string::npos);
  CHECK(t.ask(*other, {"NSINFO", "n"}).find("name: n\n") != std::string::npos);
  CHECK(t.ask(*other, {"SELECT", "n"}) == "+OK\r\n");
  auto remover = t.connect();
  CHECK(t.ask(*remover, {"NSDEL", "n"}).empty());
  CHECK(t.ask(*asker, {"NSINFO", "n"}).empty());
  CHECK(t.ask(*t.connect(), {"SELECT", "n"}) == "-Try again\r\n");
  t.run_jobs();
  CHECK(remover->take() == "+OK\r\n");
  CHECK(asker->take() == "-Namespace not found\r\n");
  CHECK(t.ask(*asker, {"SELECT", "n"}) == "-Namespace not found\r\n");
}

/// How far back the versions of a key go.
std::size_t versions(name_space& ns, std::string_view key) {
  std::size_t n = 0;
  std::optional<record_place> at;
  for (key_version v; ns.history(as_bytes(key), at, v) == history_answer::found; at = v.previous) {
    ++n;
    if (!v.previous.valid()) break;
  }
  return n;
}

TEST_CASE("a namespace that becomes worm keeps all that is there when the answer comes, whatever "
          "compaction is doing") {
  quiet no_log;
  bool gave_up = false;
  bool waited = false;
  for (std::size_t steps = 0;; ++steps) {
    CAPTURE(steps);
    table t;
    auto who = t.connect();
    CHECK(t.ask(*who, {"NSNEW", "n"}).empty());
    t.run_jobs();
    CHECK(who->take() == "+OK\r\n");
    auto ns = t.s.all->find("n");
    REQUIRE(ns);
    for (int r = 0; r < 4; ++r)
      for (int i = 0; i < 50; ++i)
        REQUIRE(put(*ns, fmt::format("key{}", i), fmt::format("value {}", r)) ==
                write_answer::stored);
    REQUIRE(ns->jump().ok());
    sync_all(*ns);
    REQUIRE(versions(*ns, "key7") == 4);

    compaction_environment env;
    env.disk = [&t](std::function<void()> work, std::function<void()> then) {
      t.jobs.push_back([work = std::move(work), then = std::move(then)] {
        work();
        then();
      });
    };
    env.after = [&t](std::chrono::milliseconds, std::function<void()> then) {
      t.jobs.push_back(std::move(then));
    };
    compactor c{{0, 50, 1}, std::move(env)};
    status ended = error{errc::busy, "still under way"};
    REQUIRE(c.consider(ns, false, [&ended](const status& s) { ended = s; }));
    std::size_t done = 0;
    for (; done < steps && !t.jobs.empty(); ++done) {
      auto job = std::move(t.jobs.front());
      t.jobs.pop_front();
      job();
    }
    if (done < steps) break; // the pass was over before
    CHECK(t.ask(*who, {"NSSET", "n", "worm", "1"}).empty());
    waited = waited || t.timers.size() > 0;
    std::string reply;
    for (int i = 0; i < 1000 && reply.empty(); ++i) {
      if (!t.jobs.empty()) {
        auto job = std::move(t.jobs.front());
        t.jobs.pop_front();
        job();
      }
      t.timers.run(system_clock().boot() + std::chrono::hours{1});
      reply = who->take();
    }
    CHECK(reply == "+OK\r\n");
    CHECK(ns->settings().worm);
    auto kept = versions(*ns, "key7");
    auto files = ns->disk_bytes();
    t.run_jobs();
    CHECK(versions(*ns, "key7") == kept);
    CHECK(ns->disk_bytes() == files);
    CHECK(kept == (ended.ok() ? 1 : 4));
    gave_up = gave_up || !ended.ok();
    CHECK(!c.consider(ns, true));
    CHECK(value_of(*ns, "key7") == "value 3");
    // And when it is no worm namespace any more, space comes back again.
    CHECK(t.ask(*who, {"NSSET", "n", "worm", "0"}).empty());
    t.run_jobs();
    CHECK(who->take() == "+OK\r\n");
    if (kept == 4) CHECK(c.consider(ns, true));
    t.run_jobs();
  }
  CHECK(gave_up);
  CHECK(waited);
}

/// 60 MB in 300 values: longer than one client may take at once.
struct long_mget {
  long_mget() {
    expected = "*301\r\n";
    request = {"MGET"};
    for (int i = 0; i < 300; ++i) {
      auto key = fmt::format("k{}", i % 5);
      request.push_back(key);
      auto value = std::string(200'000, static_cast<char>('a' + i % 5));
      if (i < 5) REQUIRE(put(t.s.space(), key, value) == write_answer::stored);
      expected += fmt::format("${}\r\n{}\r\n", value.size(), value);
    }
    request.emplace_back("none");
    expected += "$-1\r\n";
  }
  std::span<const argument> parsed(const std::vector<std::string>& words) {
    text = fmt::format("*{}\r\n", words.size());
    for (auto& w : words) text += fmt::format("${}\r\n{}\r\n", w.size(), w);
    std::size_t used = 0;
    parser.release();
    REQUIRE(parser.feed(as_bytes(text), used));
    return parser.arguments();
  }
  /// One more piece.
  void pass() { t.timers.run(system_clock().boot() + std::chrono::hours{1}); }
  table t;
  std::vector<std::string> request;
  std::string expected;
  std::string text;
  request_parser parser;
};

TEST_CASE("an MGET that takes long goes on in pieces; others are served between them") {
  long_mget m;
  auto one = m.t.connect();
  auto two = m.t.connect();
  auto other = m.t.connect();
  auto first = m.t.ask(*one, m.request);
  CHECK(first.size() < m.expected.size() / 2);
  CHECK(one->blocked);
  CHECK(!one->gathered.empty()); // counts as its memory
  auto second = m.t.ask(*two, m.request);
  CHECK(m.t.timers.size() == 1); // one piece in a pass, however many there are
  int passes = 0;
  for (; one->blocked || two->blocked; ++passes) {
    CHECK(m.t.ask(*other, {"EXISTS", "k1"}) == ":1\r\n");
    REQUIRE(m.t.timers.size() == 1);
    m.pass();
    auto more_first = one->take();
    auto more_second = two->take();
    CHECK((more_first.empty() || more_second.empty()));
    first += more_first;
    second += more_second;
  }
  CHECK(passes >= 2);
  CHECK(first == m.expected);
  CHECK(second == m.expected);
  CHECK(one->gathered.empty());
  CHECK(m.t.timers.size() == 0);
  CHECK(m.t.ask(*one, {"EXISTS", "k1"}) == ":1\r\n");
}

TEST_CASE("what is sent in one turn is bounded, whatever is there to be sent") {
  long_mget m;
  auto who = m.t.connect();
  std::size_t all = 0;
  for (; all < 10 << 20; all = who->out.bytes()) m.t.all.execute(*who, m.parsed({"GET", "k1"}));
  iovec parts[64];
  std::size_t sent = 0;
  while (who->out.sendable()) {
    auto n = who->out.gather(parts, 64, 1 << 20);
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < n; ++i) bytes += parts[i].iov_len;
    CHECK(bytes <= (1 << 20) + 200'100);
    CHECK(bytes > 0);
    sent += bytes;
    who->out.sent(bytes);
  }
  CHECK(sent == all);
}

TEST_CASE("an MGET under way holds no more than a client may leave unread, and no more than fits") {
  long_mget m;
  auto who = m.t.connect();
  m.t.all.execute(*who, m.parsed(m.request));
  for (int i = 0; i < 100; ++i) {
    m.pass();
    CHECK(who->out.bytes() <= (4 << 20) + 200'100);
  }
  CHECK(who->blocked);
  std::string got;
  m.t.memory = false; // none left
  got += who->take();
  for (int i = 0; i < 10; ++i) m.pass();
  CHECK(who->out.bytes() == 0);
  m.t.memory = true;
  for (int i = 0; i < 1000 && who->blocked; ++i) {
    m.pass();
    got += who->take();
  }
  CHECK(got == m.expected);
}

TEST_CASE("those whose answers take long go on one of each namespace in turn") {
  long_mget m;
  auto maker = m.t.connect();
  CHECK(m.t.ask(*maker, {"NSNEW", "n"}).empty());
  m.t.run_jobs();
  CHECK(maker->take() == "+OK\r\n");
  CHECK(m.t.ask(*maker, {"SELECT", "n"}) == "+OK\r\n");
  for (int i = 0; i < 5; ++i)
    REQUIRE(put(*maker->space, fmt::format("k{}", i), std::string(200'000, 'x')) ==
            write_answer::stored);
  std::vector<std::shared_ptr<test_client>> many;
  for (int i = 0; i < 20; ++i) {
    many.push_back(m.t.connect());
    (void)m.t.ask(*many.back(), m.request);
    REQUIRE(many.back()->blocked);
  }
  (void)m.t.ask(*maker, m.request);
  int turns = 0;
  for (int i = 0; i < 4; ++i) {
    m.pass();
    turns += maker->take().empty() ? 0 : 1;
    for (auto& c : many) (void)c->take();
  }
  CHECK(turns == 2);
}

TEST_CASE("an MGET under way: its client leaves, or its namespace goes") {
  long_mget m;
  auto who = m.t.connect();
  CHECK(m.t.ask(*who, m.request).size() > 0);
  who.reset();
  while (m.t.timers.size() > 0) m.pass();

  quiet no_log;
  auto maker = m.t.connect();
  CHECK(m.t.ask(*maker, {"NSNEW", "n"}).empty());
  m.t.run_jobs();
  CHECK(m.t.ask(*maker, {"SELECT", "n"}).find("+OK") != std::string::npos);
  for (int i = 0; i < 5; ++i)
    REQUIRE(put(*maker->space, fmt::format("k{}", i), std::string(200'000, 'x')) ==
            write_answer::stored);
  auto got = m.t.ask(*maker, m.request);
  REQUIRE(maker->blocked);
  auto remover = m.t.connect();
  CHECK(m.t.ask(*remover, {"NSDEL", "n"}).empty());
  m.t.run_jobs();
  for (int i = 0; i < 1000 && maker->blocked; ++i) {
    m.pass();
    got += maker->take();
  }
  CHECK(!maker->blocked);
  CHECK(got.starts_with("*301\r\n$200000\r\n"));
  CHECK(got.ends_with("-Your active namespace is not available anymore (probably removed).\r\n"));
}

TEST_CASE("KSCANs that go on take turns, one page in a pass") {
  table t;
  auto& ns = t.s.space();
  for (int i = 0; i < 9000; ++i)
    REQUIRE(put(ns, fmt::format("k{}", i), "v") == write_answer::stored);
  auto one = t.connect();
  auto two = t.connect();
  CHECK(t.ask(*one, {"KSCAN", "k"}).empty());
  CHECK(t.ask(*two, {"KSCAN", "k"}).empty());
  int passes = 0;
  for (; t.timers.size() > 0; ++passes) {
    CHECK(t.timers.size() == 1);
    t.timers.run(system_clock().boot());
  }
  CHECK(passes >= 4); // at least two more pages each: one has 4,096 keys at most
  for (auto& c : {one, two}) {
    CHECK(!c->blocked);
    CHECK(c->take().starts_with("*2\r\n$1\r\n0\r\n*9000\r\n"));
  }
}

} // namespace
} // namespace qs::zdb
