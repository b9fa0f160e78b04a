#include <sys/stat.h>

#include <thread>

#include "grid_fixture.hpp"

using namespace grid_test;

namespace {

answer reserve(provider& p, model::node_id node, const std::string& host = "h1",
               byte_count size = 2 * gib) {
  auto r = p.prepare({node, 1, host, size, {}});
  REQUIRE(r.ok());
  return p.submit(*r);
}

} // namespace

TEST_CASE("prepare is pure, prints no secret and names the node by a keyed hash") {
  grid_fixture g;
  auto p = g.open();
  node_order order{n3, 2, "h4", 5 * gib, {123}};
  auto r = p->prepare(order);
  REQUIRE(r.ok());
  CHECK(*r == *p->prepare(order));
  CHECK(g.entries().empty());
  auto keys = keys_of("v");
  auto name = keys.node_name(n3, 2);
  CHECK(r->find(name) != std::string::npos);
  CHECK(r->find(keys.node_password(name)) == std::string::npos);
  CHECK(r->find(keys.derived_password("admin", name)) == std::string::npos);
  CHECK_FALSE(p->prepare({{}, 1, "h1", gib, {}}).ok());
  CHECK_FALSE(p->prepare({n1, 1, "", gib, {}}).ok());
  CHECK_FALSE(p->prepare({n1, 1, "h1", 0, {}}).ok());
  // Another volume's request is nobody's business here.
  auto other = g.open("another");
  CHECK(other->submit(*r).what == outcome::refused);
  CHECK(other->resolve(*r).what == outcome::unknown);
  CHECK(other->inspect(*r).what == inspection::state::unknown);
  CHECK(p->submit("{}").what == outcome::refused);
}

TEST_CASE("a node from reservation to end") {
  grid_fixture g;
  auto p = g.open();
  auto r = *p->prepare({n1, 1, "h1", 2 * gib, {}});
  CHECK(p->resolve(r).what == outcome::absent);
  CHECK(p->inspect(r).reason == "ReservationGone");
  auto made = p->submit(r);
  CAPTURE(made.detail);
  REQUIRE(made.what == outcome::done);
  CHECK(made.price == *p->price("h1", 2 * gib));
  CHECK(made.where.address == "127.0.0.1");
  CHECK(made.where.ns == keys_of("v").node_name(n1, 1));

  SUBCASE("its namespace is private, limited and opens with the derived password alone") {
    auto client = enter(made.where, password_of(made.where));
    REQUIRE(client.ok());
    CHECK((*client)->set("k", "v").ok());
    auto info = (*client)->nsinfo(made.where.ns);
    REQUIRE(info.ok());
    CHECK(info->has_password);
    CHECK_FALSE(info->is_public);
    CHECK(info->data_limits_bytes == 2 * gib);
    CHECK((*client)->nsnew("mine").err().code == errc::refused);
    auto wrong = enter(made.where, "guess");
    REQUIRE_FALSE(wrong.ok());
    CHECK(wrong.err().code == errc::access_denied);
  }
  SUBCASE("again changes nothing") {
    auto again = p->submit(r);
    CHECK(again.what == outcome::done);
    CHECK(again.where == made.where);
    CHECK(p->resolve(r).where == made.where);
    CHECK(p->restart(r).where == made.where);
    CHECK(g.servers().size() == 1);
    CHECK(reserve(*p, n1, "h2").what == outcome::refused);          // the same node elsewhere
    CHECK(reserve(*p, n1, "h1", 3 * gib).what == outcome::refused); // or larger
    CHECK(g.servers().size() == 1);
  }
  SUBCASE("it is counted, listed and paid") {
    auto hosts = p->hosts();
    REQUIRE(hosts.ok());
    for (const auto& h : *hosts) CHECK(h.free == h.capacity - (h.id == "h1" ? 2 * gib : 0));
    auto ours = p->list_ours();
    REQUIRE(ours.ok());
    REQUIRE(ours->size() == 1);
    CHECK(ours->front().reservation == made.where.ns);
    CHECK(ours->front().host == "h1");
    CHECK(ours->front().size == 2 * gib);
    CHECK(g.open("another")->list_ours()->empty());
    auto wallet = p->wallet();
    REQUIRE(wallet.ok());
    CHECK(wallet->known);
    CHECK(wallet->per_month == made.price);
    CHECK(wallet->balance == welcome_credit);
    g.time.advance(charge_month);
    CHECK(p->wallet()->balance == welcome_credit - made.price);
    CHECK(p->cancel(r).what == outcome::done);
    g.time.advance(charge_month);
    CHECK(p->wallet()->balance == welcome_credit - made.price);
    CHECK(p->wallet()->per_month == model::money{});
    CHECK(p->ledger(10)->back().kind == "charge");
  }
  SUBCASE("no secret is to be seen by others") {
    auto keys = keys_of("v");
    auto admin = keys.derived_password("admin", made.where.ns);
    for (auto pid : g.servers())
      for (const char* file : {"cmdline", "environ"}) {
        auto text = read_file("/proc/" + std::to_string(pid) + "/" + file);
        REQUIRE(text.ok());
        CHECK(text->find(admin) == std::string::npos);
        CHECK(text->find(password_of(made.where)) == std::string::npos);
        CHECK(text->find("QS_") == std::string::npos);
      }
    auto node = g.node_directory(n1);
    struct ::stat info {};
    REQUIRE(::stat(node.c_str(), &info) == 0);
    CHECK((info.st_mode & 0777) == 0700);
    REQUIRE(::stat((node / "admin").c_str(), &info) == 0);
    CHECK((info.st_mode & 0777) == 0600);
    for (const char* file : {"reservation.json", "log", "process.json"}) {
      auto text = read_file(node / file);
      REQUIRE(text.ok());
      CHECK(text->find(admin) == std::string::npos);
      CHECK(text->find(password_of(made.where)) == std::string::npos);
    }
  }
  CHECK(p->cancel(r).what != outcome::unknown);
  CHECK(p->cancel(r).what == outcome::absent);
  CHECK(p->resolve(r).what == outcome::absent);
  CHECK(p->restart(r).what == outcome::absent);
  CHECK(g.entries().empty());
  CHECK(eventually([&] { return g.servers().empty(); }));
}

TEST_CASE("refusals say why and leave nothing") {
  grid_fixture g;
  auto p = g.open();
  auto refused = [&](const node_order& order, std::string_view why) {
    auto a = p->submit(*p->prepare(order));
    CAPTURE(a.detail);
    CHECK(a.what == outcome::refused);
    CHECK(a.detail.find(why) != std::string::npos);
    CHECK(p->resolve(*p->prepare(order)).what == outcome::absent);
    CHECK(g.entries().empty());
    CHECK(g.servers().empty());
  };
  refused({n1, 1, "h99", gib, {}}, "no host h99");
  refused({n1, 1, "h1", 3 * tib, {}}, "h1 has 2 TiB free");
  refused({n1, 1, "h1", 100 * gib, {1}}, "agreed were at most");
  auto o = g.options();
  o.program = "/nonexistent/qs";
  p = std::move(*make_local(std::move(o)));
  refused({n1, 1, "h1", gib, {}}, "/nonexistent/qs");
  o = g.options();
  o.program = "/bin/false";
  p = std::move(*make_local(std::move(o)));
  refused({n1, 1, "h1", gib, {}}, "ended at its start");
}

TEST_CASE("an empty wallet reserves and enlarges nothing until it is filled") {
  grid_fixture g;
  auto p = g.open();
  REQUIRE(reserve(*p, n1, "h1", 1 * tib).what == outcome::done); // 51.2 TFT a month
  g.time.advance(charge_month * 25);
  auto wallet = p->wallet();
  REQUIRE(wallet.ok());
  CHECK(wallet->balance == model::money{});
  auto r2 = *p->prepare({n2, 1, "h4", gib, {}});
  auto a = p->submit(r2);
  CHECK(a.what == outcome::refused);
  CHECK(a.detail.find("wallet is empty") != std::string::npos);
  auto r1 = *p->prepare({n1, 1, "h1", 1 * tib, {}});
  CHECK(p->resize(r1, 2 * tib).what == outcome::refused);
  CHECK(p->inspect(r1).what == inspection::state::running);
  // 25 months of 51.2 are 1280: 280 are owed.
  auto left = p->top_up({1000 * model::units_per_tft});
  REQUIRE(left.ok());
  CHECK(*left == model::money{720 * model::units_per_tft});
  CHECK(p->submit(r2).what == outcome::done);
  CHECK_FALSE(p->top_up({0}).ok());
  CHECK_FALSE(p->top_up({-1}).ok());
}

TEST_CASE("resize changes quota, price and room; what does not fit is refused") {
  grid_fixture g;
  auto p = g.open();
  auto r = *p->prepare({n1, 1, "h1", 100 * gib, {}});
  auto made = p->submit(r);
  REQUIRE(made.what == outcome::done);
  g.time.advance(charge_month);
  auto larger = p->resize(r, 200 * gib);
  CAPTURE(larger.detail);
  REQUIRE(larger.what == outcome::done);
  CHECK(larger.price == made.price + made.price);
  auto client = enter(made.where, password_of(made.where));
  REQUIRE(client.ok());
  CHECK((*client)->nsinfo(made.where.ns)->data_limits_bytes == 200 * gib);
  CHECK(p->hosts()->front().free == 2 * tib - 200 * gib);
  CHECK(p->resize(r, 3 * tib).what == outcome::refused);
  g.time.advance(charge_month);
  CHECK(p->wallet()->balance == welcome_credit - made.price - larger.price);
  REQUIRE((*client)->set("k", std::string(3 * mib, 'x')).ok());
  auto small = p->resize(r, 2 * mib);
  CHECK(small.what == outcome::refused);
  CHECK(small.detail.find("holds 3 MiB") != std::string::npos);
  CHECK((*client)->nsinfo(made.where.ns)->data_limits_bytes == 200 * gib);
  // The engine's later requests carry the new size; they mean the same node.
  auto later = *p->prepare({n1, 1, "h1", 200 * gib, {}});
  CHECK(p->resolve(later).what == outcome::done);
  CHECK(p->inspect(later).what == inspection::state::running);
  CHECK(p->cancel(later).what == outcome::done);
}

TEST_CASE("SIGKILL: stopped, data whole; restarted, everything is there; never a second node") {
  grid_fixture g;
  auto p = g.open();
  auto r = *p->prepare({n1, 1, "h1", gib, {}});
  auto made = p->submit(r);
  REQUIRE(made.what == outcome::done);
  auto keys = keys_of("v");
  auto identity = codec::make_identity(keys, n1, 1, system_random());
  auto name = keys.identity_name(n1, 1);
  CHECK(check_identity(made.where, password_of(made.where), name, identity).err().code ==
        errc::data_lost);
  REQUIRE(write_identity(made.where, password_of(made.where), name, identity).ok());
  REQUIRE(write_identity(made.where, password_of(made.where), name, identity).ok()); // invariant 2
  CHECK(check_identity(made.where, password_of(made.where), name, identity).ok());
  CHECK(check_identity(made.where, "wrong", name, identity).err().code == errc::access_denied);
  auto foreign = codec::make_identity(keys, n1, 1, system_random());
  CHECK(check_identity(made.where, password_of(made.where), name, foreign).err().code ==
        errc::data_lost);
  CHECK(write_identity(made.where, password_of(made.where), name, foreign).err().code ==
        errc::data_lost);
  for (int round = 0; round < 2; ++round) {
    auto before = g.servers();
    REQUIRE(before.size() == 1);
    REQUIRE(::kill(*before.begin(), SIGKILL) == 0);
    REQUIRE(eventually([&] { return p->inspect(r).what == inspection::state::stopped; }));
    CHECK(p->inspect(r).reason == "ProcessDown");
    // A crashed engine asks by resolve(), a living one by restart().
    auto up = round == 0 ? p->restart(r) : p->resolve(r);
    CAPTURE(up.detail);
    REQUIRE(up.what == outcome::done);
    CHECK(p->inspect(r).where == up.where);
    CHECK(check_identity(up.where, password_of(up.where), name, identity).ok());
    CHECK(g.servers().size() == 1);
    CHECK(g.servers() != before);
  }
}

TEST_CASE("SIGSTOP: it counts as running, nothing is started beside it") {
  grid_fixture g;
  auto p = g.open();
  auto r = *p->prepare({n1, 1, "h1", gib, {}});
  REQUIRE(p->submit(r).what == outcome::done);
  auto pid = *g.servers().begin();
  REQUIRE(::kill(pid, SIGSTOP) == 0);
  CHECK(eventually([&] { return p->inspect(r).detail.find("SIGSTOP") != std::string::npos; }));
  CHECK(p->inspect(r).what == inspection::state::running);
  CHECK(p->restart(r).what == outcome::done);
  CHECK(g.servers() == std::set<pid_t>{pid});
  ::kill(pid, SIGCONT);
}

TEST_CASE("data deleted, swapped or emptied behind our back is lost, never an empty start") {
  grid_fixture g;
  auto p = g.open();
  auto r = *p->prepare({n1, 1, "h1", gib, {}});
  REQUIRE(p->submit(r).what == outcome::done);
  auto node = g.node_directory(n1);
  auto stop = [&] {
    for (auto pid : g.servers()) ::kill(pid, SIGKILL);
    REQUIRE(eventually([&] { return g.servers().empty(); }));
  };
  SUBCASE("deleted while it runs") {
    std::filesystem::remove_all(node / "data");
    CHECK(p->inspect(r).what == inspection::state::gone);
    CHECK(p->inspect(r).reason == "DataGone");
    CHECK(p->restart(r).what == outcome::refused);
    CHECK_FALSE(std::filesystem::exists(node / "data"));
    CHECK(p->resolve(r).what ==
          outcome::done); // the contract stands and is paid until it is cancelled
    CHECK(eventually([&] { return g.servers().empty(); })); // it finds out by itself
  }
  SUBCASE("deleted while it is down") {
    stop();
    std::filesystem::remove_all(node / "data");
    CHECK(p->inspect(r).reason == "DataGone");
    CHECK(p->restart(r).what == outcome::refused);
  }
  SUBCASE("another node's") {
    auto r2 = *p->prepare({n2, 1, "h4", gib, {}});
    REQUIRE(p->submit(r2).what == outcome::done);
    stop();
    std::filesystem::remove_all(node / "data");
    std::filesystem::copy(g.node_directory(n2) / "data", node / "data",
                          std::filesystem::copy_options::recursive);
    CHECK(p->inspect(r).reason == "Foreign");
    CHECK(p->restart(r).what == outcome::refused);
    CHECK(p->inspect(r2).what == inspection::state::stopped);
    CHECK(p->cancel(r2).what == outcome::done);
  }
  SUBCASE("emptied but for our marker") {
    stop();
    for (const auto& e : std::filesystem::directory_iterator{node / "data"})
      if (e.path().filename() != "qs-node") std::filesystem::remove_all(e.path());
    CHECK(p->inspect(r).what == inspection::state::stopped);
    CHECK(p->restart(r).what == outcome::refused);
    CHECK(p->inspect(r).reason == "DataGone");
    CHECK(p->restart(r).what == outcome::refused);
  }
  SUBCASE("the lock file alone: never two servers on one directory") {
    auto before = g.servers();
    std::filesystem::remove(node / "data" / "lock");
    auto a = p->restart(r);
    CAPTURE(a.detail);
    CHECK(a.what == outcome::done);
    CHECK(g.servers().size() == 1);
    CHECK(g.servers() != before);
  }
  CHECK(p->cancel(r).what == outcome::done);
  CHECK(g.entries().empty());
  CHECK(eventually([&] { return g.servers().empty(); }));
}

TEST_CASE("a vanished grid directory proves nothing") {
  grid_fixture g;
  auto p = g.open();
  auto r = *p->prepare({n1, 1, "h1", gib, {}});
  REQUIRE(p->submit(r).what == outcome::done);
  std::filesystem::rename(g.root / "nodes", g.root / "away");
  CHECK(p->inspect(r).what == inspection::state::unknown);
  CHECK(p->resolve(r).what != outcome::absent);
  std::filesystem::rename(g.root / "away", g.root / "nodes");
  CHECK(p->inspect(r).what == inspection::state::running);
}

TEST_CASE("a damaged or missing contract is not taken for absence; cancel ends it") {
  grid_fixture g;
  auto p = g.open();
  auto r = *p->prepare({n1, 1, "h1", gib, {}});
  REQUIRE(p->submit(r).what == outcome::done);
  auto file = g.node_directory(n1) / "reservation.json";
  SUBCASE("missing") { std::filesystem::remove(file); }
  SUBCASE("damaged") { REQUIRE(write_file_atomic(file, as_bytes("{\"version\": 1}")).ok()); }
  SUBCASE("of a newer version") {
    REQUIRE(write_file_atomic(file, as_bytes("{\"version\": 2}")).ok());
  }
  CHECK(p->resolve(r).what == outcome::unknown);
  CHECK(p->inspect(r).what == inspection::state::unknown);
  CHECK(p->submit(r).what == outcome::unknown);
  CHECK(g.servers().size() == 1);
  CHECK(p->cancel(r).what == outcome::done);
  CHECK(g.entries().empty());
  CHECK(eventually([&] { return g.servers().empty(); }));
}

TEST_CASE("two volumes race for the last room: one gets it") {
  grid_fixture g;
  auto tight =
      R"({"version": 1, "hosts": [{"id": "a", "farm": "f", "country": "c", "capacity": "3GiB",
                  "price_per_gib_month": "0.1"}]})";
  REQUIRE(write_file_atomic(g.root / "catalogue.json", as_bytes(tight)).ok());
  for (int round = 0; round < 3; ++round) {
    auto p = g.open("v"), q = g.open("w");
    auto rp = *p->prepare({n1, 1, "a", 2 * gib, {}}), rq = *q->prepare({n1, 1, "a", 2 * gib, {}});
    answer ap, aq;
    std::thread other{[&] { aq = q->submit(rq); }};
    ap = p->submit(rp);
    other.join();
    CAPTURE(ap.detail);
    CAPTURE(aq.detail);
    CHECK((ap.what == outcome::done) != (aq.what == outcome::done));
    CHECK((ap.what == outcome::refused) != (aq.what == outcome::refused));
    CHECK(p->hosts()->front().free == gib);
    CHECK(g.entries().size() == 1);
    CHECK(((p->cancel(rp).what == outcome::done) != (q->cancel(rq).what == outcome::done)));
  }
}

TEST_CASE("many nodes at once from one provider") {
  grid_fixture g;
  auto p = g.open();
  std::vector<std::thread> threads;
  std::vector<answer> answers(6);
  for (unsigned i = 0; i < 6; ++i)
    threads.emplace_back([&, i] {
      answers[i] = p->submit(*p->prepare({{i + 1}, 1, "h" + std::to_string(1 + 3 * i), gib, {}}));
    });
  for (auto& t : threads) t.join();
  std::set<std::uint16_t> ports;
  for (const auto& a : answers) {
    CAPTURE(a.detail);
    CHECK(a.what == outcome::done);
    ports.insert(a.where.port);
  }
  CHECK(ports.size() == 6);
  CHECK(g.servers().size() == 6);
  CHECK(p->list_ours()->size() == 6);
}

TEST_CASE("a read-only look changes nothing, before there is a grid and beside an engine") {
  grid_fixture g;
  auto o = g.options();
  o.directory = g.root / "not" / "yet";
  o.read_only = true;
  auto none = make_local(o);
  REQUIRE(none.ok());
  CHECK((*none)->hosts()->size() == 24);
  CHECK((*none)->list_ours()->empty());
  CHECK((*none)->wallet()->balance == welcome_credit);
  CHECK(*(*none)->price("h1", 10 * gib) == model::money{model::units_per_tft / 2});
  CHECK((*none)->ledger(5)->empty());
  CHECK_FALSE(std::filesystem::exists(g.root / "not"));

  auto p = g.open();
  auto r = *p->prepare({n1, 1, "h1", 100 * gib, {}});
  auto a = p->submit(r);
  REQUIRE(a.what == outcome::done);
  g.time.advance(charge_month);
  auto before = read_file(g.root / "ledger.jsonl");
  o.directory = g.root;
  auto beside = std::move(*make_local(o));
  auto held = file_lock::take(g.root / "lock", 1s); // an engine is busy: a look does not wait
  REQUIRE(held.ok());
  CHECK(beside->wallet()->balance == welcome_credit - a.price);
  CHECK(beside->hosts()->front().free == 2 * tib - 100 * gib);
  CHECK(beside->list_ours()->size() == 1);
  CHECK(beside->inspect(r).what == inspection::state::running);
  CHECK(beside->submit(r).what == outcome::refused);
  CHECK(beside->resolve(r).what == outcome::unknown);
  CHECK(beside->restart(r).what == outcome::refused);
  CHECK(beside->resize(r, 200 * gib).what == outcome::refused);
  CHECK(beside->cancel(r).what == outcome::refused);
  CHECK_FALSE(beside->top_up({1}).ok());
  CHECK(*read_file(g.root / "ledger.jsonl") == *before);
}

TEST_CASE("a catalogue spoilt by editing stops nothing that is there") {
  grid_fixture g;
  {
    auto p = g.open();
    REQUIRE(reserve(*p, n1).what == outcome::done);
  }
  REQUIRE(write_file_atomic(g.root / "catalogue.json", as_bytes("{")).ok());
  auto p = g.open();
  auto r = *p->prepare({n1, 1, "h1", 2 * gib, {}});
  CHECK(p->resolve(r).what == outcome::done);
  CHECK(p->wallet().ok());
  auto hosts = p->hosts();
  REQUIRE_FALSE(hosts.ok());
  CHECK(hosts.err().code == errc::invalid_argument);
  auto refused = reserve(*p, n2);
  CHECK(refused.what == outcome::refused);
  CHECK(refused.detail.find("catalogue.json") != std::string::npos);
  CHECK(p->cancel(r).what == outcome::done);
}
