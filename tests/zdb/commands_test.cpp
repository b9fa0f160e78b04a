// The command table without sockets or threads: the helper thread's work is run when a test says
// so.
#include "support/zdb_store.hpp"

#include "zdb/commands.hpp"

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
