// The engine killed after every durable step of every mutation (control.md 4): nothing is reserved
// twice, nothing leaks.
#include "grid_fixture.hpp"

#include <sstream>

#include <fmt/format.h>

using namespace grid_test;

namespace {

constexpr byte_count size = 2 * gib;

request order(provider& p) { return *p.prepare({n1, 1, "h1", size, {}}); }

/// Exactly one node: one reservation, one process, nothing half-made beside it.
void one_node(grid_fixture& g, provider& p) {
  CHECK(g.entries() == std::vector<std::string>{g.node_directory(n1).filename().string()});
  CHECK(eventually([&] { return g.servers().size() == 1; }));
  CHECK(p.list_ours()->size() == 1);
  CHECK(p.hosts()->front().free == 2 * tib - size);
}

void nothing(grid_fixture& g, provider& p) {
  CHECK(g.entries().empty());
  CHECK(eventually([&] { return g.servers().empty(); }));
  CHECK(p.list_ours()->empty());
  CHECK(p.hosts()->front().free == 2 * tib);
}

} // namespace

TEST_CASE("submit killed after every step") {
  std::size_t absent = 0, done = 0;
  for (std::size_t n = 0;; ++n) {
    CAPTURE(n);
    grid_fixture g;
    if (!g.dies_at(n, [](provider& p) { (void)p.submit(order(p)); })) break;
    auto p = g.open();
    auto a = p->resolve(order(*p));
    CAPTURE(a.detail);
    if (a.what == outcome::absent) {
      ++absent;
      nothing(g, *p);
      a = p->submit(order(*p));
    } else {
      ++done;
    }
    REQUIRE(a.what == outcome::done);
    one_node(g, *p);
    auto client = enter(a.where, password_of(a.where));
    REQUIRE(client.ok());
    auto info = (*client)->nsinfo(a.where.ns);
    REQUIRE(info.ok());
    CHECK_FALSE(info->is_public);
    CHECK(info->data_limits_bytes == size);
    CHECK((*client)->set("k", "v").ok());
    // It is charged once, from the reservation on.
    g.time.advance(charge_month);
    CHECK(p->wallet()->balance == welcome_credit - a.price);
  }
  CHECK(absent >= 1);
  CHECK(done >= 7);
}

TEST_CASE("submit killed after every step, then cancelled") {
  for (std::size_t n = 0;; ++n) {
    CAPTURE(n);
    grid_fixture g;
    if (!g.dies_at(n, [](provider& p) { (void)p.submit(order(p)); })) break;
    auto p = g.open();
    auto a = p->cancel(order(*p));
    CHECK((a.what == outcome::done || a.what == outcome::absent));
    nothing(g, *p);
  }
}

namespace {

/// Field 22 of /proc/PID/stat: clock ticks from the start of the machine.
std::uint64_t start_time(pid_t pid) {
  auto text = read_file("/proc/" + std::to_string(pid) + "/stat", 64 * kib);
  REQUIRE(text.ok());
  std::istringstream words{text->substr(text->rfind(')') + 2)};
  std::string word;
  for (int field = 3; field <= 22; ++field) words >> word;
  return std::stoull(word);
}

/// Of the process that is to be taken for n1's server.
std::string process_file(pid_t pid, std::uint64_t started, std::string boot) {
  if (boot.empty()) boot = *read_file("/proc/sys/kernel/random/boot_id", 4096);
  while (!boot.empty() && boot.back() == '\n') boot.pop_back();
  return fmt::format("{{\"pid\": {}, \"start_time\": {}, \"boot\": \"{}\"}}", pid, started, boot);
}

} // namespace

TEST_CASE("a server in the middle of exec has no arguments yet; it is ended all the same, and nobody else") {
  struct {
    bool its = false;
    std::uint64_t later = 0;
    std::string boot;
  } cases[] = {{true, 0, ""}, {false, 1, ""}, {false, 0, "another boot"}};
  for (auto& c : cases) {
    CAPTURE(c.later);
    CAPTURE(c.boot);
    grid_fixture g;
    REQUIRE(g.dies_at(1, [](provider& p) { (void)p.submit(order(p)); })); // reserved, not started
    auto server = ::fork();
    REQUIRE(server >= 0);
    if (server == 0) {
      for (;;) ::pause();
    }
    auto file = process_file(server, start_time(server) + c.later, c.boot);
    REQUIRE(write_file_atomic(g.node_directory(n1) / "process.json", as_bytes(file)).ok());
    auto p = g.open();
    CHECK(p->cancel(order(*p)).what == outcome::done);
    nothing(g, *p);
    int code = 0;
    auto ended = [&] { return ::waitpid(server, &code, WNOHANG) == server; };
    if (c.its && eventually(ended)) continue;
    CHECK_FALSE(c.its);
    CHECK_FALSE(ended());
    ::kill(server, SIGKILL);
    ::waitpid(server, &code, 0);
  }
}

TEST_CASE("a half-made node that was killed is removed by resolve") {
  std::size_t half = 0;
  for (std::size_t n = 1;; ++n) {
    CAPTURE(n);
    grid_fixture g;
    if (!g.dies_at(n, [](provider& p) { (void)p.submit(order(p)); })) break;
    auto commands = local_grid::open(g.root, QS_TEST_ZDB);
    REQUIRE(commands.ok());
    REQUIRE(commands->kill({}, n1, true).ok());
    auto p = g.open();
    auto a = p->resolve(order(*p));
    CAPTURE(a.detail);
    if (a.what == outcome::absent) {
      ++half;
      nothing(g, *p);
    } else {
      CHECK(a.what == outcome::done);
      CHECK(p->inspect(order(*p)).reason == "Tombstone");
    }
  }
  CHECK(half >= 5);
}

TEST_CASE("cancel killed after every step") {
  std::size_t steps = 0;
  for (bool reused : {false, true})
    for (std::size_t n = 0;; ++n) {
      CAPTURE(reused);
      CAPTURE(n);
      grid_fixture g;
      model::money price;
      {
        auto p = g.open();
        auto a = p->submit(order(*p));
        REQUIRE(a.what == outcome::done);
        price = a.price;
      }
      g.time.advance(charge_month);
      if (!g.dies_at(n, [](provider& p) { (void)p.cancel(order(p)); })) break;
      ++steps;
      auto p = g.open();
      if (reused) { // the same name comes again: the old one's rests are not taken for the new
        if (p->resolve(order(*p)).what == outcome::absent)
          CHECK(p->submit(order(*p)).what == outcome::done);
        one_node(g, *p);
        CHECK(p->inspect(order(*p)).what == inspection::state::running);
        continue;
      }
      auto a = p->cancel(order(*p));
      CHECK((a.what == outcome::done || a.what == outcome::absent));
      nothing(g, *p);
      g.time.advance(charge_month);
      CHECK(p->wallet()->balance == welcome_credit - price);
    }
  CHECK(steps >= 8);
}

TEST_CASE("resize killed after every step") {
  std::size_t steps = 0;
  for (std::size_t n = 0;; ++n) {
    CAPTURE(n);
    grid_fixture g;
    REQUIRE(g.open()->submit(order(*g.open())).what == outcome::done);
    if (!g.dies_at(n, [](provider& p) { (void)p.resize(order(p), 2 * size); })) break;
    ++steps;
    auto p = g.open();
    auto a = p->resize(order(*p), 2 * size);
    CAPTURE(a.detail);
    REQUIRE(a.what == outcome::done);
    auto client = enter(a.where, password_of(a.where));
    REQUIRE(client.ok());
    CHECK((*client)->nsinfo(a.where.ns)->data_limits_bytes == 2 * size);
    CHECK(p->hosts()->front().free == 2 * tib - 2 * size);
    g.time.advance(charge_month);
    CHECK(p->wallet()->balance == welcome_credit - a.price);
  }
  CHECK(steps >= 3);
}

TEST_CASE("a node survives its engine, in a session of its own") {
  grid_fixture g;
  CHECK_FALSE(g.dies_at(1000, [](provider& p) { (void)p.submit(order(p)); }));
  auto servers = g.servers();
  REQUIRE(servers.size() == 1);
  CHECK(::getsid(*servers.begin()) != ::getsid(0));
  auto p = g.open();
  CHECK(p->inspect(order(*p)).what == inspection::state::running);
  CHECK(p->resolve(order(*p)).what == outcome::done);
  CHECK(g.servers() == servers);
}

/// Kills the child when the directory has changed so often, or it is done by itself; 15 s at most.
void kill_after_changes(pid_t child, const std::filesystem::path& root, int changes) {
  auto look = [&] {
    std::vector<std::pair<std::string, std::uintmax_t>> seen;
    std::error_code ec;
    for (std::filesystem::recursive_directory_iterator at{root, ec}, end; !ec && at != end; at.increment(ec)) {
      std::error_code gone;
      auto bytes = at->is_regular_file(gone) ? at->file_size(gone) : 0;
      seen.emplace_back(at->path().string(), gone ? 0 : bytes);
    }
    std::sort(seen.begin(), seen.end());
    return seen;
  };
  auto code = 0;
  auto before = look();
  auto until = system_clock().boot() + 15s;
  for (auto n = 0; n < changes && system_clock().boot() < until;) {
    if (::waitpid(child, &code, WNOHANG) == child) return;
    auto now = look();
    n += now != before ? 1 : 0;
    before = std::move(now);
  }
  ::kill(child, SIGKILL);
  while (::waitpid(child, &code, 0) < 0) {
  }
}

TEST_CASE("the engine killed at any moment of submit and cancel, not only between steps") {
  for (int round = 0; round < 24; ++round) {
    CAPTURE(round);
    grid_fixture g;
    auto child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      auto made = make_local(g.options());
      if (made && (*made)->submit(order(**made)).what == outcome::done)
        (void)(*made)->cancel(order(**made));
      ::_exit(0);
    }
    kill_after_changes(child, g.root, round); // where in between differs from run to run; what must hold does not
    auto p = g.open();
    // What the dead one sent last may be done only now, beside us: pending, and asked again.
    auto settled = [&](answer a) {
      eventually([&] {
        if (a.what == outcome::pending) a = p->resolve(order(*p));
        return a.what != outcome::pending;
      });
      return a;
    };
    auto a = settled(p->resolve(order(*p)));
    if (a.what == outcome::absent) {
      nothing(g, *p);
      a = settled(p->submit(order(*p)));
    }
    CAPTURE(a.detail);
    REQUIRE(a.what == outcome::done);
    one_node(g, *p);
    CHECK(enter(a.where, password_of(a.where)).ok());
    CHECK(p->cancel(order(*p)).what == outcome::done);
    nothing(g, *p);
  }
}
