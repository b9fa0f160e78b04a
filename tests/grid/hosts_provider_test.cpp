// The hosts provider against a 0-db of 2.0.7 (scripted, with faults) and against our server: made,
// found again, resized, ended; whose namespace it is; nothing is reserved twice whatever breaks off
// where (control.md, 4).
#include <doctest/doctest.h>

#include <fstream>
#include <functional>
#include <set>
#include <thread>

#include "grid/hosts_provider.hpp"
#include "grid/identity.hpp"
#include "grid_fixture.hpp"
#include "hosts_fixture.hpp"
#include "support/old_zdb.hpp"
#include "zdb/server.hpp"

using namespace qs;
using namespace qs::grid;
using namespace std::chrono_literals;
using namespace grid_test;
using test::old_zdb;

namespace {

/// A zdb server of ours on a thread.
struct our_server {
  explicit our_server(std::string admin = "admin-word", bool on_socket = false) {
    std::string name = (std::filesystem::temp_directory_path() / "qs-hosts-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    directory = name;
    options.data = directory / "data";
    options.port = 0;
    if (on_socket) options.socket = directory / "zdb.sock";
    options.admin_password = std::move(admin);
    start();
  }
  void start() {
    auto opened = zdb::server::open(options);
    REQUIRE_MESSAGE(opened.ok(), (opened.ok() ? "" : describe(opened.err())));
    server = std::move(*opened);
    thread = std::thread{[this] { (void)server->run(); }};
  }
  void restart(const std::function<void()>& meanwhile) {
    server->stop();
    thread.join();
    server.reset();
    meanwhile();
    start();
  }
  ~our_server() {
    server->stop();
    thread.join();
    std::error_code ignored;
    std::filesystem::remove_all(directory, ignored);
  }
  std::filesystem::path directory;
  zdb::server_options options;
  std::unique_ptr<zdb::server> server;
  std::thread thread;
};

} // namespace

TEST_CASE("a node is made, found, resized and ended on a server of ours") {
  our_server s;
  auto p = provider_of({machine("nas", s.server->address(), "admin-word")});
  auto r = prepared(*p, order(1));
  CHECK(r.find("admin-word") == std::string::npos);
  CHECK(p->resolve(r).what == outcome::absent);
  auto made = p->submit(r);
  REQUIRE_MESSAGE(made.what == outcome::done, made.detail);
  CHECK(made.where.ns == name_of(1));
  CHECK(made.price.units == 0);
  CHECK(p->resolve(r).what == outcome::done);
  CHECK(p->submit(r).what == outcome::done); // done again it changes nothing
  auto keys = keys_of("v");
  auto bytes = to_buffer("identity");
  CHECK(
      write_identity(made.where, keys.node_password(name_of(1)), keys.identity_name({1}, 1), bytes)
          .ok());
  CHECK(p->inspect(r).what == inspection::state::running);
  CHECK(p->inspect(r).where == made.where);

  auto hosts = p->hosts();
  REQUIRE(hosts.ok());
  REQUIRE(hosts->size() == 1);
  CHECK(hosts->front().available);
  CHECK(hosts->front().free > 0);

  CHECK(p->resize(r, 3 * gib).what == outcome::done);
  CHECK(p->resize(r, 1).what == outcome::refused); // it holds more
  CHECK(p->resolve(r).what == outcome::done);      // and does not make it small again
  auto ours = p->list_ours();
  REQUIRE(ours.ok());
  REQUIRE(ours->size() == 1);
  CHECK(ours->front().reservation == name_of(1));
  CHECK(ours->front().size == 3 * gib);
  CHECK(
      provider_of({machine("nas", s.server->address(), "admin-word")}, "w")->list_ours()->empty());

  CHECK(p->cancel(r).what == outcome::done);
  CHECK(p->cancel(r).what == outcome::absent);
  CHECK(p->inspect(r).what == inspection::state::gone);
  CHECK(p->inspect(r).reason == "NamespaceGone");
  CHECK(p->list_ours()->empty());
}

TEST_CASE("a namespace that its server cannot open: nothing is absent, gone or made anew") {
  our_server server;
  auto p = provider_of({machine("nas", server.server->address(), "admin-word")});
  auto r = prepared(*p, order(1));
  REQUIRE(p->submit(r).what == outcome::done);
  server.restart([&] {
    for (auto& e : std::filesystem::directory_iterator{server.directory / "data" / "namespaces"})
      if (e.path().filename() != "00000001")
        std::ofstream{e.path() / "namespace"} << "damaged";
  });
  for (const char* admin : {"admin-word", "wrong"}) {
    CAPTURE(admin);
    p = provider_of({machine("nas", server.server->address(), admin)});
    CHECK(p->resolve(r).what == outcome::unknown);
    CHECK(p->inspect(r).what == inspection::state::unknown);
    CHECK(p->cancel(r).what == outcome::unknown);
    CHECK(p->submit(r).what == outcome::refused);
    CHECK(!p->list_ours().ok()); // a list without it would not be the list
  }
  p = provider_of({machine("nas", server.server->address(), "admin-word")});
  CHECK_FALSE(p->hosts()->front().available); // what was promised to it is not known
}

TEST_CASE("a server behind a socket of this machine") {
  our_server s{"admin-word", true};
  auto path = (s.directory / "zdb.sock").string();
  auto p = provider_of({machine("nas", "unix:" + path, "admin-word")});
  auto r = prepared(*p, order(1));
  auto made = p->submit(r);
  REQUIRE_MESSAGE(made.what == outcome::done, made.detail);
  CHECK(made.where.address == path);
  CHECK(made.where.port == 0);
  auto keys = keys_of("v");
  auto bytes = to_buffer("identity");
  CHECK(
      write_identity(made.where, keys.node_password(name_of(1)), keys.identity_name({1}, 1), bytes)
          .ok());
  CHECK(p->cancel(r).what == outcome::done);
}

TEST_CASE("an old server without challenges: passwords go in clear only where that is declared") {
  old_zdb s;
  s.knows_challenge = false;
  auto m = machine("nas", s.address(), s.admin);
  auto p = provider_of({m});
  CHECK_FALSE(p->may_send_plain("nas"));
  CHECK(p->submit(prepared(*p, order(1))).what != outcome::done); // not on loopback either
  m.insecure = true;
  p->configure({m});
  CHECK(p->may_send_plain("nas"));
  CHECK(p->submit(prepared(*p, order(2))).what == outcome::done);
}

TEST_CASE("what 0-db gets: quota, password, private; passwords in clear once") {
  old_zdb s;
  auto p = provider_of({machine("nas", s.address(), s.admin)});
  auto r = prepared(*p, order(1));
  auto made = p->submit(r);
  REQUIRE_MESSAGE(made.what == outcome::done, made.detail);
  auto there = s.spaces().at(name_of(1));
  auto password = keys_of("v").node_password(name_of(1));
  CHECK(there.password == password);
  CHECK_FALSE(there.is_public);
  CHECK(there.maxsize == 2 * gib);
  CHECK(p->resolve(r).what == outcome::done);
  CHECK(p->inspect(r).what == inspection::state::running);
  CHECK(p->resize(r, 4 * gib).what == outcome::done);
  auto heard = s.heard();
  CHECK(heard.find(s.admin) == std::string::npos);
  auto first = heard.find(password);
  CHECK(first != std::string::npos);
  CHECK(heard.find(password, first + 1) == std::string::npos);
}

TEST_CASE("a server that makes sequential namespaces is told the mode") {
  old_zdb s;
  old_zdb::space half;
  half.mode = "sequential";
  s.put(name_of(1), half);
  auto p = provider_of({machine("nas", s.address(), s.admin)});
  CHECK(p->submit(prepared(*p, order(1))).what == outcome::done);
  CHECK(s.spaces().at(name_of(1)).mode == "userkey");
}

TEST_CASE("whose a namespace is: the derived password opens it, or it is empty and open") {
  old_zdb s;
  auto p = provider_of({machine("nas", s.address(), s.admin)});
  auto r = prepared(*p, order(1));
  old_zdb::space other;
  SUBCASE("another password") { other.password = "theirs"; }
  SUBCASE("entries and no password") { other.entries = 1; }
  s.put(name_of(1), other);
  CHECK(p->submit(r).what == outcome::refused);
  CHECK(p->resolve(r).what == outcome::absent);
  CHECK(p->cancel(r).what == outcome::absent);
  CHECK(p->inspect(r).what == inspection::state::gone);
  CHECK(p->inspect(r).reason == "AccessDenied");
  CHECK(s.spaces().contains(name_of(1))); // never deleted
  CHECK(p->list_ours()->empty());
}

TEST_CASE("nothing is reserved twice, wherever the connection ends") {
  for (auto kind : {old_zdb::fault::before, old_zdb::fault::after})
    for (const auto& at : std::vector<std::pair<std::string, int>>{{"AUTH", 0},
                                                                   {"AUTH", 1},
                                                                   {"NSINFO", 0},
                                                                   {"NSLIST", 0},
                                                                   {"NSINFO", 1},
                                                                   {"NSNEW", 0},
                                                                   {"NSINFO", 2},
                                                                   {"NSSET", 0},
                                                                   {"NSSET", 1},
                                                                   {"NSSET", 2},
                                                                   {"SELECT", 0}}) {
      old_zdb s;
      auto p = provider_of({machine("nas", s.address(), s.admin)});
      auto r = prepared(*p, order(1));
      s.break_at(at.first, at.second, kind);
      auto said = p->submit(r);
      CAPTURE(at.first);
      CAPTURE(at.second);
      CAPTURE(said.detail);
      auto there = s.spaces();
      // Refused and absent are only said of what is not there; done only of what is whole.
      if (said.what == outcome::refused || said.what == outcome::absent) CHECK(there.empty());
      CHECK(said.what != outcome::done);
      auto found = p->resolve(r);
      if (there.empty()) {
        CHECK(found.what == outcome::absent);
        CHECK(p->submit(r).what == outcome::done);
      } else {
        CHECK(said.what == outcome::unknown);
        CHECK(found.what == outcome::done);
      }
      auto after = s.spaces();
      CHECK(after.size() == 1);
      CHECK(after.at(name_of(1)).maxsize == 2 * gib);
      CHECK_FALSE(after.at(name_of(1)).is_public);
      // And the way back: an NSDEL without an answer is unknown, then absent.
      s.break_at("NSDEL", 0, kind);
      CHECK(p->cancel(r).what == outcome::unknown);
      CHECK(p->cancel(r).what == (kind == old_zdb::fault::after ? outcome::absent : outcome::done));
      CHECK(s.spaces().empty());
    }
}

TEST_CASE("the same order sent at the same time by several makes one node") {
  old_zdb s;
  auto p = provider_of({machine("nas", s.address(), s.admin)});
  auto r = prepared(*p, order(1));
  std::vector<answer> said(6);
  {
    std::vector<std::jthread> threads;
    for (auto& a : said) threads.emplace_back([&p, &r, &a] { a = p->submit(r); });
  }
  for (auto& a : said) CHECK(a.what != outcome::refused);
  CHECK(p->resolve(r).what == outcome::done);
  CHECK(s.spaces().size() == 1);
}

TEST_CASE("nobody answers: nothing was made, nothing is known of what was") {
  std::optional<old_zdb> s{std::in_place};
  auto p = provider_of({machine("nas", s->address(), s->admin)});
  auto r = prepared(*p, order(1));
  auto r2 = prepared(*p, order(2));
  REQUIRE(p->submit(r).what == outcome::done);
  s.reset();
  CHECK(p->submit(r2).what == outcome::refused);
  CHECK(p->resolve(r).what == outcome::unknown);
  CHECK(p->cancel(r).what == outcome::unknown);
  CHECK(p->resize(r, 3 * gib).what == outcome::unknown);
  CHECK(p->inspect(r).what == inspection::state::unknown);
  CHECK_FALSE(p->list_ours().ok());
  auto hosts = p->hosts();
  REQUIRE(hosts.ok());
  CHECK_FALSE(hosts->front().available);
  CHECK_FALSE(hosts->front().trouble.empty());
}

TEST_CASE("a wrong admin password makes nothing, says so, and still finds what is ours") {
  old_zdb s;
  auto good = machine("nas", s.address(), s.admin);
  auto p = provider_of({good});
  auto r = prepared(*p, order(1));
  REQUIRE(p->submit(r).what == outcome::done);
  p->configure({machine("nas", s.address(), "wrong")});
  auto said = p->submit(prepared(*p, order(2)));
  CHECK(said.what == outcome::refused);
  CHECK(said.detail.find("Access denied") != std::string::npos);
  CHECK(said.detail.find("wrong") == std::string::npos);
  CHECK(s.spaces().size() == 1);
  CHECK(p->resolve(r).what == outcome::done);
  CHECK(p->inspect(r).what == inspection::state::running);
  CHECK(p->cancel(r).what == outcome::unknown);
  CHECK(s.spaces().size() == 1);
}

TEST_CASE("room: the file's word, else what the disk has and was not promised to others") {
  old_zdb s;
  s.disk_free = 10 * gib;
  old_zdb::space tenant;
  tenant.password = "theirs";
  tenant.maxsize = 4 * gib;
  tenant.used = 1 * gib;
  s.put("tenant", tenant);
  auto m = machine("nas", s.address(), s.admin);
  auto free = [&] { return provider_of({m})->hosts()->front().free; };
  CHECK(free() == 7 * gib); // 3 GiB are still promised
  m.capacity = 8 * gib;
  CHECK(free() == 4 * gib);
  m.capacity = 100 * gib;
  CHECK(free() == 10 * gib); // never more than there is
  m.capacity = 5 * gib;
  auto p = provider_of({m});
  auto said = p->submit(prepared(*p, order(1)));
  CHECK(said.what == outcome::refused);
  CHECK(said.detail.find("1 GiB free") != std::string::npos);
  CHECK_FALSE(s.spaces().contains(name_of(1)));
}

TEST_CASE("a machine that moved is found where it is, and where the order went") {
  old_zdb before;
  old_zdb after;
  auto p = provider_of({machine("nas", before.address(), before.admin)});
  auto r = prepared(*p, order(1));
  REQUIRE(p->submit(r).what == outcome::done);
  p->configure({machine("nas", after.address(), after.admin)});
  CHECK(p->resolve(r).what == outcome::done); // still at the old address: not absent
  after.put(name_of(1), before.spaces().at(name_of(1)));
  auto seen = p->inspect(r);
  CHECK(seen.what == inspection::state::running);
  CHECK(fmt::format("{}:{}", seen.where.address, seen.where.port) == after.address());
}

TEST_CASE("a machine that left the file takes no new node and keeps what it has") {
  old_zdb s;
  auto m = machine("nas", s.address(), s.admin);
  auto p = provider_of({m});
  auto r = prepared(*p, order(1));
  REQUIRE(p->submit(r).what == outcome::done);
  m.offered = false;
  p->configure({m});
  CHECK(p->hosts()->empty());
  CHECK(p->resize(r, 3 * gib).what == outcome::done);
  CHECK(p->cancel(r).what == outcome::done);
}

TEST_CASE("a peer that does not speak zdb is no server") {
  old_zdb s;
  auto p = provider_of({machine("nas", s.address(), s.admin)});
  auto r = prepared(*p, order(1));
  s.on = "NSINFO";
  s.garbage = "HTTP/1.1 400 Bad Request\r\n\r\n";
  CHECK(p->submit(r).what == outcome::refused);
  CHECK(p->resolve(r).what == outcome::unknown);
  CHECK(s.spaces().empty());
}

TEST_CASE("hosts cost nothing and have no wallet") {
  auto p = provider_of({});
  CHECK_FALSE(p->charges());
  CHECK(p->wallet().err().code == errc::unsupported);
  CHECK(p->top_up({1}).err().code == errc::unsupported);
  CHECK_FALSE(p->prepare(order(1)).ok()); // no such machine
}
