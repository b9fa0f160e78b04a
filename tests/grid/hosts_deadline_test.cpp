// The hosts provider and servers that are slow, silent or busy: each call ends in its time and says
// only what it knows (control.md, 4).
#include <doctest/doctest.h>

#include <chrono>
#include <optional>

#include <netinet/in.h>
#include <sys/socket.h>

#include "hosts_fixture.hpp"
#include "support/old_zdb.hpp"

using namespace qs;
using namespace qs::grid;
using namespace grid_test;
using namespace std::chrono_literals;
using test::old_zdb;

namespace {

/// A call against a deadline, on a machine that may be crowded.
template <class Call>
auto timed(std::string_view what, std::chrono::milliseconds at_most, const Call& call) {
  using steady = std::chrono::steady_clock;
  auto begun = steady::now();
  auto out = call();
  auto took = std::chrono::duration_cast<std::chrono::milliseconds>(steady::now() - begun);
  CAPTURE(what);
  CHECK(took < at_most);
  return out;
}

hosts_options options_for(std::vector<hosts_machine> machines) {
  return {.keys = keys_of("v"), .machines = std::move(machines), .after_step = {}};
}

bool open_or_done(outcome o) {
  return o == outcome::unknown || o == outcome::pending || o == outcome::done;
}

} // namespace

TEST_CASE("one deadline for a whole call: a server that answers each step, and each slowly") {
  old_zdb s;
  auto first = provider_of({machine("nas", s.address(), s.admin)});
  auto there = prepared(*first, order(1));
  auto fresh = prepared(*first, order(2));
  REQUIRE(first->submit(there).what == outcome::done);
  auto o = options_for({machine("nas", s.address(), s.admin)});
  o.deadline = 5s;
  o.call_deadline = 700ms;
  auto p = make_hosts(std::move(o));
  s.pace = 300ms; // every call has five steps and more
  constexpr auto most = 1400ms;
  CHECK(timed("resolve", most, [&] { return p->resolve(there).what; }) == outcome::unknown);
  CHECK(timed("resolve", most, [&] { return p->resolve(fresh).what; }) == outcome::unknown);
  auto seen = timed("inspect", most, [&] { return p->inspect(there).what; });
  CHECK(seen == inspection::state::unknown);
  CHECK(timed("resize", most, [&] { return p->resize(there, 3 * gib).what; }) == outcome::unknown);
  CHECK(timed("cancel", most, [&] { return p->cancel(there).what; }) == outcome::unknown);
  CHECK_FALSE(timed("list", most, [&] { return p->list_ours().ok(); }));
  auto hosts = timed("hosts", most, [&] { return p->hosts(); });
  REQUIRE(hosts.ok());
  CHECK_FALSE(hosts->front().available);
  // Nothing of the order was sent in time: that is a refusal, and nothing is there.
  CHECK(timed("submit", most, [&] { return p->submit(fresh).what; }) == outcome::refused);
  CHECK(s.spaces().size() == 1);
}

TEST_CASE("one deadline for a whole call: what it cuts after NSNEW was sent is unknown, then found") {
  // However far it gets: 8 steps until NSNEW, then the rest.
  for (auto steps : {9, 10, 11, 12}) {
    old_zdb s;
    auto o = options_for({machine("nas", s.address(), s.admin)});
    o.call_deadline = std::chrono::milliseconds{60 * steps};
    auto p = make_hosts(std::move(o));
    auto r = prepared(*p, order(1));
    s.pace = 60ms;
    auto said = p->submit(r);
    CAPTURE(steps);
    CAPTURE(said.detail);
    s.pace = 0ms;
    auto known = provider_of({machine("nas", s.address(), s.admin)});
    auto found = known->resolve(r);
    if (said.what == outcome::refused) {
      CHECK(found.what == outcome::absent);
    } else {
      CHECK((said.what == outcome::unknown || said.what == outcome::done));
      auto lost = said.what == outcome::unknown && found.what == outcome::absent;
      CHECK((found.what == outcome::done || lost));
    }
    if (found.what == outcome::done) CHECK(s.spaces().at(name_of(1)).maxsize == 2 * gib);
  }
}

TEST_CASE("one deadline for a whole call: many machines that take a connection and say nothing") {
  unique_fd listener{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof a;
  REQUIRE(::bind(listener.get(), reinterpret_cast<sockaddr*>(&a), sizeof a) == 0);
  REQUIRE(::listen(listener.get(), 1024) == 0);
  REQUIRE(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&a), &size) == 0);
  std::vector<hosts_machine> all;
  for (int i = 0; i < 320; ++i)
    all.push_back(
        machine(fmt::format("m{}", i), fmt::format("127.0.0.1:{}", ntohs(a.sin_port)), "x"));
  auto o = options_for(all);
  o.deadline = 300ms; // one after the other in groups: 3 s
  o.call_deadline = 600ms;
  auto p = make_hosts(std::move(o));
  auto hosts = timed("hosts", 2s, [&] { return p->hosts(); });
  REQUIRE(hosts.ok());
  CHECK(hosts->size() == 320);
  for (const auto& h : *hosts) CHECK_FALSE(h.available);
  auto ours = timed("list", 2s, [&] { return p->list_ours(); });
  REQUIRE_FALSE(ours.ok());
}

TEST_CASE("a silent machine is named, and who answers is not") {
  old_zdb good;
  std::optional<old_zdb> bad{std::in_place};
  auto p = provider_of({machine("nas", good.address(), good.admin),
                        machine("attic", bad->address(), bad->admin)});
  bad.reset();
  auto ours = p->list_ours();
  REQUIRE_FALSE(ours.ok());
  auto said = describe(ours.err());
  CHECK(said.find("attic") != std::string::npos);
  CHECK(said.find("nas") == std::string::npos);
}

// "Try again": the name is being made or deleted, so it is neither there nor not there.
TEST_CASE("busy is no answer: never absent, never refused") {
  for (std::string at : {"SELECT", "NSINFO", "NSNEW", "NSSET", "NSDEL", "NSLIST"}) {
    CAPTURE(at);
    old_zdb s;
    auto p = provider_of({machine("nas", s.address(), s.admin)});
    auto there = prepared(*p, order(1));
    auto fresh = prepared(*p, order(2));
    REQUIRE(p->submit(there).what == outcome::done);
    s.is_busy_with(at);
    auto all = std::vector{p->submit(there), p->resolve(there), p->resize(there, 3 * gib),
                           p->submit(fresh)};
    for (const auto& said : all) {
      CAPTURE(said.detail);
      CHECK(open_or_done(said.what));
    }
    if (at == "NSNEW" || at == "NSSET") CHECK(all.back().what == outcome::unknown);
    auto seen = p->inspect(there).what;
    CHECK((seen == inspection::state::running || seen == inspection::state::unknown));
    if (at == "SELECT" || at == "NSINFO") {
      CHECK(all.front().what == outcome::unknown);
      CHECK(seen == inspection::state::unknown);
      CHECK_FALSE(p->list_ours().ok());
    }
    if (at != "NSNEW" && at != "NSSET" && at != "NSLIST") {
      CHECK(p->cancel(there).what == outcome::unknown);
      CHECK(s.spaces().contains(name_of(1))); // what is not known is not undone
    }
    // When it is no longer busy all of it is found out.
    s.is_busy_with("");
    CHECK(p->resolve(there).what == outcome::done);
    auto found = p->resolve(fresh).what;
    CHECK((found == outcome::done || found == outcome::absent));
    CHECK(p->submit(fresh).what == outcome::done);
    CHECK(s.spaces().size() == 2);
  }
}
