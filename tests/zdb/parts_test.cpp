// The small parts of the server alone: turns, timers, guessed passwords, memory of a request,
// histograms, silence.
#include <doctest/doctest.h>

#include "zdb/metrics.hpp"
#include "zdb/password_guard.hpp"
#include "zdb/request.hpp"
#include "zdb/silence.hpp"
#include "zdb/timer_queue.hpp"
#include "zdb/turn_queue.hpp"

namespace qs::zdb {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_CASE("tenants take turns, whoever of them is busier") {
  turn_queue<std::string> turns;
  int flood = 0;
  int lone = 0;
  for (int i = 0; i < 1000; ++i) turns.add(&flood, std::make_shared<std::string>("flood"));
  turns.add(&lone, std::make_shared<std::string>("lone"));
  std::vector<std::string> first;
  for (int i = 0; i < 3; ++i) first.push_back(*turns.next());
  CHECK(first == std::vector<std::string>{"flood", "lone", "flood"});
  // Again and again: every second turn is his, as long as he has work.
  int his = 0;
  for (int i = 0; i < 100; ++i) {
    if (turns.size() % 2 == 0) turns.add(&lone, std::make_shared<std::string>("lone"));
    his += *turns.next() == "lone" ? 1 : 0;
  }
  CHECK(his >= 33);
  turns.clear();
  CHECK(turns.empty());
  CHECK(turns.next() == nullptr);
}

TEST_CASE("timers run in order, once, and not when cancelled") {
  timer_queue timers;
  std::string ran;
  int changes = 0;
  timers.changed = [&] { ++changes; };
  auto at = [&](int ms, char name) {
    return timers.add(milliseconds{ms}, [&ran, name] { ran += name; });
  };
  at(30, 'c');
  at(10, 'a');
  auto b = at(20, 'b');
  at(20, 'B');
  CHECK(changes == 2);
  CHECK(*timers.next() == milliseconds{10});
  timers.cancel(b);
  timers.run(milliseconds{9});
  CHECK(ran.empty());
  timers.run(milliseconds{25});
  CHECK(ran == "aB");
  // What one adds for at once waits for the next round.
  timers.add(milliseconds{0}, [&] { timers.add(milliseconds{0}, [&ran] { ran += 'n'; }); });
  timers.run(milliseconds{25});
  CHECK(ran == "aB");
  timers.run(milliseconds{25});
  CHECK(ran == "aBn");
  timers.run(milliseconds{1000});
  CHECK(ran == "aBnc");
  CHECK(!timers.next());
}

struct guarded {
  manual_clock time;
  timer_queue timers;
  password_guard guard{timers, time};
  /// One attempt: counted when it is judged.
  void attempt(const std::string& peer, const std::string& target, bool right, int& judged) {
    if (guard.at_once(peer)) {
      guard.judged(peer, target, right);
      ++judged;
      return;
    }
    auto at = guard.wait(peer, target, [this, peer, target, right, &judged] {
      guard.judged(peer, target, right);
      ++judged;
    });
    if (at.number == 0) ++refused;
  }
  void pass(milliseconds ms) {
    auto until = time.boot() + ms;
    while (timers.next() && *timers.next() <= until) {
      if (*timers.next() > time.boot()) time.advance(*timers.next() - time.boot());
      timers.run(time.boot());
    }
    if (until > time.boot()) time.advance(until - time.boot());
  }
  int refused = 0;
};

TEST_CASE("a thousand connections of one address guess no faster than one") {
  guarded g;
  int judged = 0;
  int others = 0;
  for (int i = 0; i < 1000; ++i) g.attempt("bad", "n", false, judged);
  CHECK(judged == 3); // the free ones
  CHECK(g.guard.waiting("bad") == password_guard::line_max);
  CHECK(g.refused == 1000 - 3 - static_cast<int>(password_guard::line_max));
  g.attempt("good", "n", true, others); // others are not touched
  CHECK(others == 1);
  g.pass(seconds{60});
  CHECK(judged >= 18);
  CHECK(judged <= 5 + 3 + 60'000 / 3200);
  // Forgiven, one after the other, when it is quiet.
  g.pass(std::chrono::hours{1});
  CHECK(judged == 3 + static_cast<int>(password_guard::line_max));
  CHECK(g.guard.at_once("bad"));
  CHECK(g.guard.addresses() == 0);
}

TEST_CASE("two hundred honest clients come back while one behind their address guesses") {
  for (bool same : {false, true}) {
    CAPTURE(same);
    guarded g;
    int wrong = 0;
    int right = 0;
    for (int i = 0; i < 20; ++i) { // so slow as it gets
      g.attempt("nat", "mine", false, wrong);
      g.pass(milliseconds{3300});
    }
    g.attempt("nat", "mine", false, wrong);
    g.attempt("nat", "mine", false, wrong);
    for (int i = 0; i < 200; ++i) g.attempt("nat", same ? "mine" : "theirs", true, right);
    g.pass(milliseconds{2 * 3200 + 100});
    CHECK(right == 200);
    CHECK(g.refused == 0);
  }
}

TEST_CASE("who is known gets every other turn, however many other things are guessed") {
  guarded g;
  int wrong = 0;
  int right = 0;
  g.attempt("nat", "theirs", true, right);
  for (int i = 0; i < 900; ++i) g.attempt("nat", "n" + std::to_string(i), false, wrong);
  CHECK(g.guard.waiting("nat") > 800);
  for (int i = 0; i < 50; ++i) g.attempt("nat", "theirs", true, right);
  g.pass(seconds{7});
  CHECK(right == 51);
  CHECK(wrong < 15);
  // One who is not known waits, but not behind every attempt: for one turn of each target.
  auto before = wrong;
  g.attempt("nat", "new", true, right);
  g.pass(seconds{3200 / 1000 * 1000});
  CHECK(right == 52);
  CHECK(wrong - before <= 1000);
}

TEST_CASE("who hangs up leaves the line, unjudged; addresses are bounded") {
  guarded g;
  int judged = 0;
  for (int i = 0; i < 4; ++i) g.attempt("bad", "n", false, judged);
  auto at = g.guard.wait("bad", "m", [&] { judged += 100; });
  REQUIRE(at.number != 0);
  g.guard.leave(at);
  g.guard.leave(at);
  CHECK(g.guard.waiting("bad") == 1);
  g.pass(seconds{10});
  CHECK(judged == 4);
  CHECK(g.guard.waiting("bad") == 0);
  for (std::size_t i = 0; i < password_guard::addresses_max + 100; ++i)
    g.guard.judged(std::to_string(i), "n", false);
  CHECK(g.guard.addresses() == password_guard::addresses_max);
}

TEST_CASE("a large request asks for its memory before it has it, and lets it go") {
  request_parser parser{true};
  std::size_t used = 0;
  auto feed = [&](std::string_view text) {
    auto done = parser.feed(as_bytes(text), used);
    return done;
  };
  CHECK(!feed("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\nxyz"));
  CHECK(parser.wanted() >= 100'000);
  CHECK(parser.held() == 0);
  auto at = used;
  CHECK(!feed("more")); // nothing is taken meanwhile
  CHECK(used == 0);
  CHECK(at > 0);
  parser.grant();
  CHECK(parser.held() >= 100'000);
  CHECK(parser.body_space().size() == 100'000);
  CHECK(!feed(std::string(100'000, 'v')));
  CHECK(feed("\r\n"));
  CHECK(parser.arguments()[2].size() == 100'000);
  parser.release();
  CHECK(parser.held() == 0);
  // Many small ones are a large one.
  std::string many = "*1024\r\n";
  for (int i = 0; i < 1024; ++i) many += "$2\r\nab\r\n";
  std::size_t done = 0;
  std::size_t granted = 0;
  bool complete = false;
  while (done < many.size() && !complete) {
    complete = parser.feed(as_bytes(std::string_view{many}.substr(done)), used);
    done += used;
    if (parser.wanted() > 0) {
      ++granted;
      parser.grant();
    }
  }
  CHECK(complete);
  CHECK(granted > 500);
  // One that does not ask says the same.
  request_parser trusting;
  std::size_t all = 0;
  CHECK(trusting.feed(as_bytes(many), all));
  CHECK(all == many.size());
}

TEST_CASE("who was silent for longest is first; whoever goes leaves no trace") {
  struct one : silence_line::member {};
  silence_line line;
  CHECK(line.empty());
  CHECK(line.silent(seconds{100}) == nullptr);
  one a;
  one b;
  {
    one c;
    line.heard(a, seconds{1});
    line.heard(b, seconds{2});
    line.heard(c, seconds{3});
    CHECK(line.silent(milliseconds{999}) == nullptr);
    CHECK(line.silent(seconds{1}) == &a);
    line.heard(a, seconds{4}); // one byte is enough
    CHECK(line.silent(seconds{1}) == nullptr);
    CHECK(line.silent(seconds{2}) == &b);
    b.leave();
    b.leave();
    CHECK(!b.listed());
    CHECK(line.silent(seconds{100}) == &c);
  }
  CHECK(line.silent(seconds{100}) == &a);
  line.heard(b, seconds{5});
  line.heard(b, seconds{6}); // the only last one
  CHECK(line.silent(seconds{4}) == &a);
  a.leave();
  CHECK(line.silent(seconds{5}) == nullptr);
  CHECK(line.silent(seconds{6}) == &b);
  {
    silence_line other;
    other.heard(a, seconds{1});
  }
  CHECK(!a.listed());
  b.leave();
  CHECK(line.empty());
}

TEST_CASE("histograms count by powers of four") {
  latency_histogram h;
  using std::chrono::nanoseconds;
  for (auto ns : {0, 1, 1000}) h.add(nanoseconds{ns}); // up to 1 µs
  h.add(nanoseconds{1001});                            // up to 4
  h.add(nanoseconds{4000});
  h.add(nanoseconds{4001}); // up to 16
  h.add(seconds{100});      // above all
  CHECK(h.up_to(0) == 3);
  CHECK(h.up_to(1) == 5);
  CHECK(h.up_to(2) == 6);
  CHECK(h.up_to(latency_histogram::bounds - 1) == 6);
  CHECK(h.count() == 7);
  CHECK(h.seconds() == doctest::Approx(100.00001));
  metrics_text text;
  text.head("x", "histogram", "An x.");
  text.histogram("x", h, metrics_text::label("command", "a\"b\\c\nd"));
  auto out = text.take();
  CHECK(out.starts_with("# HELP x An x.\n# TYPE x histogram\n"
                        "x_bucket{command=\"a\\\"b\\\\c\\nd\",le=\"1e-06\"} 3\n"));
  CHECK(out.find(",le=\"+Inf\"} 7\n") != std::string::npos);
  CHECK(out.find("x_count{command=\"a\\\"b\\\\c\\nd\"} 7\n") != std::string::npos);
}

} // namespace
} // namespace qs::zdb
