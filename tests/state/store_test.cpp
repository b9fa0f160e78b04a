// The recorded state on disk: every value comes back, accept is compare-and-set, readers write
// nothing, what cannot be read says what to do.
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <map>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sqlite3.h>

#include "base/posix.hpp"
#include "state/store.hpp"

using namespace qs;
namespace fs = std::filesystem;

namespace {

struct fixture {
  fixture() {
    std::string name = (fs::temp_directory_path() / "qs-state-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    dir = name;
    file = dir / "state.db";
  }
  ~fixture() {
    std::error_code ignored;
    fs::remove_all(dir, ignored);
  }
  std::unique_ptr<state::store> open() {
    auto s = state::open_store(file, random, time);
    REQUIRE_MESSAGE(s.ok(), (s.ok() ? "" : describe(s.err())));
    return std::move(*s);
  }
  fs::path dir, file;
  seeded_random random{7};
  manual_clock time;
};

model::recorded_node some_node(std::uint32_t number) {
  model::recorded_node n;
  n.id = {number};
  n.incarnation = 3;
  n.provider = "local";
  n.host = fmt::format("h{}", number);
  n.place = {"greenfarm", "Belgium", "Europe"};
  n.size = 7 * gib;
  n.price_limit = {1'100'000};
  n.price = {1'000'000};
  n.state = model::node_state::unreachable;
  n.reason = "Silent";
  n.since = wall_time{std::chrono::milliseconds{1234567}};
  n.where = {"127.0.0.1", 4711, "qs0011"};
  n.identity = to_buffer(std::string_view{"a\0b", 3});
  n.replaces = model::node_id{1};
  return n;
}

void check_equal(const model::recorded_node& a, const model::recorded_node& b) {
  CHECK(a.id == b.id);
  CHECK(a.incarnation == b.incarnation);
  CHECK(a.provider == b.provider);
  CHECK(a.host == b.host);
  CHECK(a.place == b.place);
  CHECK(a.size == b.size);
  CHECK(a.price_limit == b.price_limit);
  CHECK(a.price == b.price);
  CHECK(a.state == b.state);
  CHECK(a.reason == b.reason);
  CHECK(a.since == b.since);
  CHECK(a.where == b.where);
  CHECK(a.identity == b.identity);
  CHECK(a.replaces == b.replaces);
  CHECK(a.replaced_by == b.replaced_by);
}

state::store::acceptance first_accept(std::vector<model::recorded_node> nodes, std::uint32_t next) {
  state::store::acceptance a;
  a.spec.text = "version: 1\nname: x\n";
  a.spec.hash = "abc";
  a.nodes = std::move(nodes);
  a.next_node_number = next;
  return a;
}

std::map<std::string, std::pair<fs::file_time_type, std::uintmax_t>> listing(const fs::path& dir) {
  std::map<std::string, std::pair<fs::file_time_type, std::uintmax_t>> out;
  out["."] = {fs::last_write_time(dir), 0};
  for (const auto& e : fs::directory_iterator{dir})
    out[e.path().filename().string()] = {e.last_write_time(), e.file_size()};
  return out;
}

} // namespace

TEST_CASE("a new state has a lineage and nothing else") {
  fixture f;
  auto s = f.open();
  auto r = s->load();
  REQUIRE(r.ok());
  CHECK(r->lineage.size() == 36);
  CHECK(r->serial == 0);
  CHECK(!r->accepted);
  CHECK(r->nodes.empty());
  CHECK(r->next_node_number == 1);
  CHECK(r->mount_wanted);
  CHECK(!r->protect);
  CHECK(!r->destroying);
  struct ::stat info {};
  REQUIRE(::stat(f.file.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
  auto lineage = r->lineage;
  s.reset();
  CHECK(f.open()->load()->lineage == lineage);
}

TEST_CASE("accept: spec, rows and serial in one step; everything comes back after opening again") {
  fixture f;
  auto n1 = some_node(1);
  n1.replaces.reset();
  auto n2 = some_node(2);
  {
    auto s = f.open();
    auto a = first_accept({n1, n2}, 3);
    a.sealed_references = std::string{"\x01sealed\0bytes", 13};
    auto serial = s->accept(a);
    REQUIRE(serial.ok());
    CHECK(*serial == 1);
  }
  auto s = f.open();
  auto r = s->load();
  REQUIRE(r.ok());
  CHECK(r->serial == 1);
  REQUIRE(r->accepted);
  CHECK(r->accepted->text == "version: 1\nname: x\n");
  CHECK(r->accepted->hash == "abc");
  CHECK(r->accepted->generation == 1);
  CHECK(r->accepted->accepted_at == f.time.wall());
  CHECK(r->protect);
  CHECK(r->next_node_number == 3);
  REQUIRE(r->nodes.size() == 2);
  check_equal(r->nodes[0], n1);
  check_equal(r->nodes[1], n2);
  CHECK(s->sealed_references().value() == std::string{"\x01sealed\0bytes", 13});
}

TEST_CASE("accept is compare-and-set: another serial, numbers given out since, or a changed node "
          "are busy and change nothing") {
  fixture f;
  auto s = f.open();
  REQUIRE(s->accept(first_accept({some_node(1)}, 2)).ok());

  auto stale = first_accept({}, 2);
  auto again = s->accept(stale);
  REQUIRE(!again.ok());
  CHECK(again.err().code == errc::busy);

  // The engine made a replacement meanwhile: its number is in the plan too.
  auto old = some_node(1);
  old.state = model::node_state::replaced;
  old.replaced_by = model::node_id{2};
  REQUIRE(s->put_nodes({some_node(2), old}, 3).ok());
  auto collides = first_accept({some_node(2)}, 3);
  collides.nodes[0].since = {};
  collides.expected_serial = 1;
  CHECK(s->accept(collides).err().code == errc::busy);
  auto skips = first_accept({some_node(3)}, 3);
  skips.expected_serial = 1;
  CHECK(s->accept(skips).err().code == errc::busy);
  auto on_replaced = first_accept({some_node(1)}, 3);
  on_replaced.expected_serial = 1;
  CHECK(s->accept(on_replaced).err().code == errc::busy);
  auto r = s->load();
  CHECK(r->serial == 1);
  CHECK(r->accepted->generation == 1);
  CHECK(r->nodes.size() == 2);
}

TEST_CASE(
    "accept of a node that exists takes its size and its leaving, never its state of yesterday") {
  fixture f;
  auto s = f.open();
  REQUIRE(s->accept(first_accept({some_node(1), some_node(2)}, 3)).ok());
  auto now = some_node(1);
  now.state = model::node_state::lost;
  now.reason = "Tombstone";
  REQUIRE(s->put_node(now).ok());
  auto planned = some_node(1);
  planned.state = model::node_state::ready;
  planned.size = 20 * gib;
  auto leaving = some_node(2);
  leaving.state = model::node_state::draining;
  leaving.reason = "Surplus";
  leaving.replaced_by = model::node_id{3};
  auto a = first_accept({planned, leaving, some_node(3)}, 4);
  a.expected_serial = 1;
  REQUIRE(s->accept(a).ok());
  auto r = s->load();
  CHECK(r->nodes[0].state == model::node_state::lost);
  CHECK(r->nodes[0].reason == "Tombstone");
  CHECK(r->nodes[0].size == 20 * gib);
  CHECK(r->nodes[1].state == model::node_state::draining);
  CHECK(r->nodes[1].reason == "Surplus");
  CHECK(r->nodes[1].replaced_by == model::node_id{3});
  CHECK(r->accepted->generation == 2);
}

TEST_CASE("intents have numbers of their own, are open until they end, and are found by node and "
          "incarnation") {
  fixture f;
  auto s = f.open();
  model::intent draft;
  draft.node = {4};
  draft.incarnation = 2;
  draft.request = R"({"host":"h4"})";
  auto a = s->add_intent(draft);
  auto b = s->add_intent(draft);
  REQUIRE(a.ok());
  REQUIRE(b.ok());
  CHECK(a->number == 1);
  CHECK(b->number == 2);
  using progress = model::intent::progress;
  for (auto [p, open] : {std::pair{progress::written, 2},
                         {progress::submitted, 2},
                         {progress::unknown, 2},
                         {progress::done, 1},
                         {progress::refused, 1},
                         {progress::absent, 1}}) {
    auto i = *a;
    i.state = p;
    i.detail = "said so";
    REQUIRE(s->put_intent(i).ok());
    CHECK(static_cast<int>(s->open_intents()->size()) == open);
  }
  auto found = s->reservation_of({4}, 2);
  REQUIRE(found->has_value());
  CHECK((*found)->number == 2);
  CHECK((*found)->request == draft.request);
  CHECK(!s->reservation_of({4}, 3)->has_value());
  draft.what = model::intent::verb::cancel;
  REQUIRE(s->add_intent(draft).ok());
  CHECK((*s->reservation_of({4}, 2))->number == 2);
  CHECK(s->put_intent(model::intent{}).err().code == errc::invalid_argument);
}

TEST_CASE("events are numbered and bounded") {
  fixture f;
  auto s = f.open();
  sqlite3* raw = nullptr;
  for (int i = 0; i < 3; ++i)
    REQUIRE(s->add_event({0, f.time.wall(), "info", "NodeReady", "n1", fmt::format("{}", i)}).ok());
  s.reset();
  // As if 10,000 had been written: a full sync each would take the test half a minute.
  REQUIRE(sqlite3_open(f.file.c_str(), &raw) == SQLITE_OK);
  REQUIRE(
      sqlite3_exec(
          raw,
          "WITH RECURSIVE n(i) AS (SELECT 4 UNION ALL SELECT i+1 FROM n WHERE i < 10000) INSERT "
          "INTO events SELECT i, 0, "
          "'info', 'x', 'y', '' FROM n; UPDATE meta SET value = '10000' WHERE key = 'last_event'",
          nullptr, nullptr, nullptr) == SQLITE_OK);
  sqlite3_close(raw);
  s = f.open();
  CHECK(s->events(0, 20'000)->size() == 10'000);
  REQUIRE(s->add_event({0, f.time.wall(), "error", "NodeLost", "n3", "gone"}).ok());
  auto all = s->events(0, 20'000);
  CHECK(all->size() == 10'000);
  CHECK(all->front().number == 2);
  CHECK(all->back().number == 10'001);
  CHECK(all->back().kind == "NodeLost");
  CHECK(s->events(10'000, 5)->size() == 1);
  CHECK(s->events(0, 5)->size() == 5);
  CHECK(state::read_events(f.file, 10'000, 5)->back().subject == "n3");
}

TEST_CASE("flags, notes, summary") {
  fixture f;
  auto s = f.open();
  for (auto flag : {"protect", "suspended", "destroying"}) REQUIRE(s->set_flag(flag, true).ok());
  REQUIRE(s->set_flag("mount_wanted", false).ok());
  CHECK(s->set_flag("nonsense", true).err().code == errc::invalid_argument);
  CHECK(!s->note("sight")->has_value());
  REQUIRE(s->put_note("sight", "12").ok());
  REQUIRE(s->put_note("sight", "13").ok());
  CHECK(**s->note("sight") == "13");
  model::volume_summary v;
  v.created = true;
  v.data_shards = 4;
  v.parity_shards = 2;
  v.capacity = 20 * gib;
  v.used_bytes = 5;
  v.bytes_at_risk = 6;
  v.groups = {{{0}, 1, {{1}, {2}}}, {{1}, 7, {{2}, {1}}}};
  v.health = {{{1}, 7, 10, 2, 3, 1, 99}};
  REQUIRE(s->put_summary(v).ok());
  auto r = state::read_recorded(f.file);
  REQUIRE(r.ok());
  CHECK(r->protect);
  CHECK(r->suspended);
  CHECK(r->destroying);
  CHECK(!r->mount_wanted);
  CHECK(r->volume.created);
  CHECK(r->volume.groups == v.groups);
  REQUIRE(r->volume.health.size() == 1);
  CHECK(r->volume.health[0].segments_missing_shards == 3);
  CHECK(r->volume.health[0].stored_bytes == 99);
  CHECK(r->volume.capacity == 20 * gib);
}

TEST_CASE("reading changes nothing: no file comes, goes or gets a new time") {
  fixture f;
  REQUIRE(f.open()->put_note("a", "b").ok());
  auto before = listing(f.dir);
  for (int i = 0; i < 3; ++i) {
    CHECK(state::read_recorded(f.file).ok());
    CHECK(state::read_events(f.file, 0, 10).ok());
  }
  CHECK(listing(f.dir) == before);
  CHECK(state::read_recorded(f.dir / "other.db").err().code == errc::not_found);
  CHECK(listing(f.dir) == before);
}

TEST_CASE("a reader sees the last commit while a store is open for writing") {
  fixture f;
  auto s = f.open();
  REQUIRE(s->put_note("a", "b").ok());
  CHECK(state::read_recorded(f.file).ok());
  REQUIRE(s->accept(first_accept({some_node(1)}, 2)).ok());
  CHECK(state::read_recorded(f.file)->serial == 1);
}

TEST_CASE("a process that dies inside a transaction leaves the state before it; a reader says busy "
          "and touches nothing") {
  fixture f;
  REQUIRE(f.open()->accept(first_accept({some_node(1)}, 2)).ok());
  auto child = ::fork();
  if (child == 0) {
    sqlite3* raw = nullptr;
    sqlite3_open(f.file.c_str(), &raw);
    // A cache of one page spills, so that the file itself is half changed when the process dies.
    sqlite3_exec(raw,
                 "PRAGMA cache_size = 1; BEGIN IMMEDIATE; UPDATE meta SET value = '99' WHERE key = "
                 "'serial'; WITH RECURSIVE n(i) AS "
                 "(SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 2000) INSERT INTO notes SELECT "
                 "'k' || i, hex(randomblob(200)) FROM n",
                 nullptr, nullptr, nullptr);
    ::_exit(0);
  }
  REQUIRE(child > 0);
  ::waitpid(child, nullptr, 0);
  REQUIRE(fs::exists(f.dir / "state.db-journal"));
  auto before = listing(f.dir);
  auto look = state::read_recorded(f.file);
  REQUIRE(!look.ok());
  CHECK(look.err().code == errc::busy);
  CHECK(listing(f.dir) == before);
  auto r = f.open()->load();
  CHECK(r->serial == 1);
  CHECK(!f.open()->note("k1")->has_value());
}

TEST_CASE("what cannot be used says so and stays as it is") {
  fixture f;
  SUBCASE("a newer schema") {
    f.open();
    sqlite3* raw = nullptr;
    REQUIRE(sqlite3_open(f.file.c_str(), &raw) == SQLITE_OK);
    sqlite3_exec(raw, "PRAGMA user_version = 999", nullptr, nullptr, nullptr);
    sqlite3_close(raw);
    auto before = listing(f.dir);
    CHECK(state::open_store(f.file, f.random, f.time).err().code == errc::version_mismatch);
    CHECK(state::read_recorded(f.file).err().code == errc::version_mismatch);
    CHECK(listing(f.dir) == before);
  }
  SUBCASE("no database at all") {
    REQUIRE(write_file_atomic(f.file, as_bytes(std::string(5000, 'x'))).ok());
    auto before = listing(f.dir);
    auto e = state::open_store(f.file, f.random, f.time);
    REQUIRE(!e.ok());
    CHECK(e.err().code == errc::corrupt);
    CHECK(e.err().message.find("put back a copy") != std::string::npos);
    CHECK(state::read_recorded(f.file).err().code == errc::corrupt);
    CHECK(listing(f.dir) == before);
  }
  SUBCASE("somebody else's database") {
    sqlite3* raw = nullptr;
    REQUIRE(sqlite3_open(f.file.c_str(), &raw) == SQLITE_OK);
    sqlite3_exec(raw, "CREATE TABLE photos (x)", nullptr, nullptr, nullptr);
    sqlite3_close(raw);
    CHECK(state::open_store(f.file, f.random, f.time).err().code == errc::corrupt);
  }
  SUBCASE("a damaged page") {
    {
      auto s = f.open();
      for (int i = 0; i < 40; ++i)
        REQUIRE(s->put_note(fmt::format("{}", i), std::string(500, 'n')).ok());
    }
    auto content = read_file(f.file);
    REQUIRE(content->size() > 3 * 4096);
    for (std::size_t i = 4096; i < content->size(); ++i) (*content)[i] = '\x5a';
    REQUIRE(write_file_atomic(f.file, as_bytes(*content)).ok());
    CHECK(state::open_store(f.file, f.random, f.time).err().code == errc::corrupt);
  }
  SUBCASE("a directory that cannot be made") {
    REQUIRE(write_file_atomic(f.dir / "plain", as_bytes("x")).ok());
    CHECK(state::open_store(f.dir / "plain" / "state.db", f.random, f.time).err().code == errc::io);
  }
  SUBCASE("an empty file is what a crash at the very beginning leaves: begun again") {
    REQUIRE(write_file_atomic(f.file, {}).ok());
    CHECK(state::open_store(f.file, f.random, f.time).ok());
  }
}

/// What version 1 wrote: the tables of today without what came since.
void make_version_1(const fs::path& file) {
  sqlite3* raw = nullptr;
  REQUIRE(sqlite3_open(file.c_str(), &raw) == SQLITE_OK);
  CHECK(sqlite3_exec(raw, "DROP TABLE refused_hosts; PRAGMA user_version = 1", nullptr, nullptr, nullptr) == SQLITE_OK);
  sqlite3_close(raw);
}

int version_of(const fs::path& file) {
  sqlite3* raw = nullptr;
  REQUIRE(sqlite3_open_v2(file.c_str(), &raw, SQLITE_OPEN_READONLY, nullptr) == SQLITE_OK);
  auto version = -1;
  sqlite3_exec(raw, "PRAGMA user_version", [](void* out, int, char** column, char**) {
    *static_cast<int*>(out) = std::atoi(column[0]);
    return 0;
  }, &version, nullptr);
  sqlite3_close(raw);
  return version;
}

TEST_CASE("a state of version 1 is read as it is, and brought up to date with a copy of it kept") {
  fixture f;
  {
    auto s = f.open();
    auto one = some_node(1);
    auto two = some_node(2);
    one.since = two.since = wall_time{};
    REQUIRE(s->accept(first_accept({one, two}, 3)).ok());
    REQUIRE(s->put_note("k", "v").ok());
  }
  make_version_1(f.file);
  auto old = read_file(f.file);
  REQUIRE(old.ok());
  // Eyes change nothing, and need no engine to have been there.
  auto before = listing(f.dir);
  auto seen = state::read_recorded(f.file);
  REQUIRE_MESSAGE(seen.ok(), (seen.ok() ? "" : describe(seen.err())));
  CHECK(seen->nodes.size() == 2);
  CHECK(seen->refused_hosts.empty());
  CHECK(listing(f.dir) == before);
  CHECK(version_of(f.file) == 1);
  {
    auto s = f.open();
    CHECK(s->put_refusal("local", "h7").ok());
    auto now = s->load();
    REQUIRE(now.ok());
    CHECK(now->nodes.size() == 2);
    CHECK(now->refused_hosts.contains({"local", "h7"}));
    CHECK(**s->note("k") == "v");
  }
  CHECK(version_of(f.file) == state::schema_version);
  auto copy = f.file;
  copy += ".v1";
  auto kept = read_file(copy);
  REQUIRE(kept.ok());
  CHECK(*kept == *old);
  CHECK((fs::status(copy).permissions() & fs::perms::mask) == (fs::perms::owner_read | fs::perms::owner_write));
  // Once: the next start finds nothing to do and leaves the copy alone.
  auto time = fs::last_write_time(copy);
  f.open();
  CHECK(fs::last_write_time(copy) == time);
}

TEST_CASE("hosts that refused are remembered over a restart, for seven days") {
  fixture f;
  {
    auto s = f.open();
    REQUIRE(s->put_refusal("local", "h1").ok());
    f.time.advance(std::chrono::hours{24 * 6});
    REQUIRE(s->put_refusal("local", "h2").ok());
    REQUIRE(s->put_refusal("hosts", "h2").ok());
  }
  auto now = f.open()->load();
  REQUIRE(now.ok());
  CHECK(now->refused_hosts.size() == 3); // two grids may have hosts of one name
  CHECK(now->refused_hosts[{"local", "h2"}] == f.time.wall());
  f.time.advance(std::chrono::hours{24 * 2});
  auto s = f.open();
  REQUIRE(s->put_refusal("local", "h3").ok());
  now = s->load();
  REQUIRE(now.ok());
  CHECK(!now->refused_hosts.contains({"local", "h1"}));
  CHECK(now->refused_hosts.contains({"local", "h2"}));
  CHECK(now->refused_hosts.contains({"local", "h3"}));
}

TEST_CASE("what was cancelled is so until the next accept") {
  fixture f;
  auto s = f.open();
  REQUIRE(s->accept(first_accept({}, 1)).ok());
  REQUIRE(s->set_flag("cancelled", true).ok());
  CHECK(s->load()->cancelled);
  auto again = first_accept({}, 1);
  again.expected_serial = 1;
  REQUIRE(s->accept(again).ok());
  CHECK(!s->load()->cancelled);
}

TEST_CASE("after_commit counts every write and no refused one") {
  fixture f;
  auto s = f.open();
  std::vector<std::uint64_t> seen;
  s->after_commit = [&](std::uint64_t n) { seen.push_back(n); };
  CHECK(s->put_note("a", "b").ok());
  CHECK(s->accept(first_accept({}, 1)).ok());
  CHECK(!s->accept(first_accept({}, 1)).ok());
  CHECK(s->add_intent({}).ok());
  CHECK(seen == std::vector<std::uint64_t>{1, 2, 3});
}

TEST_CASE("state_directory") {
  fixture f;
  state::state_roots roots;
  roots.system_root = f.dir / "var";
  roots.user_root = f.dir / "home";
  CHECK(*state::state_directory(roots, "x") == f.dir / "home" / "x");
  REQUIRE(make_directories(f.dir / "var" / "x").ok());
  CHECK(*state::state_directory(roots, "x") == f.dir / "var" / "x");
  REQUIRE(make_directories(f.dir / "home" / "x").ok());
  auto both = state::state_directory(roots, "x");
  REQUIRE(!both.ok());
  CHECK(both.err().message.find("--state-dir") != std::string::npos);
  roots.explicit_dir = "/somewhere";
  CHECK(*state::state_directory(roots, "x") == "/somewhere");
  state::state_roots nowhere;
  nowhere.system_root = f.dir / "none";
  CHECK(!state::state_directory(nowhere, "x").ok());
}
