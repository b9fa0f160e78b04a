// blocking, reservation, monitor and payment, each alone under the deterministic scheduler.
#include <doctest/doctest.h>

#include "support/actor_fixture.hpp"

#include <memory>
#include <unistd.h>

#include <fmt/format.h>

#include "actors/blocking.hpp"
#include "actors/monitor.hpp"
#include "actors/payment.hpp"
#include "actors/reservation.hpp"
#include "support/simulated_grid.hpp"

namespace {

using namespace qs;
using namespace qs::actors;
using namespace qs::test;
using namespace std::chrono_literals;
using verb = node_order_message::verb;
using model::node_state;

// -- blocking --------------------------------------------------------------------------------------------------------

struct lanes : actor_fixture {
  blocking_actor blocking = make_blocking(sys, {.detached = false, .provider_workers = 2});
  std::vector<std::string> log;

  answer_of<job_done> post(lane where, std::string key, std::function<void()> work) {
    auto j = std::make_shared<job>();
    j->where = where;
    j->key = std::move(key);
    j->work = std::move(work);
    return ask<job_done>(blocking, run_job{j});
  }
  answer_of<job_done> say(lane where, std::string key, std::string what) {
    return post(where, std::move(key), [this, what] { log.push_back(what); });
  }
  ~lanes() {
    caf::anon_send_exit(blocking, caf::exit_reason::kill);
    blocking = blocking_actor{};
    run();
  }
};

TEST_CASE("blocking: the state lane keeps order; provider jobs of one key wait for each other, others pass") {
  lanes f;
  for (auto i = 0; i < 5; ++i) f.say(lane::state, {}, fmt::format("s{}", i));
  f.run();
  CHECK(f.log == std::vector<std::string>{"s0", "s1", "s2", "s3", "s4"});
  f.log.clear();
  // The first two of "a" are posted before any worker runs; "b" may go beside them, the second "a" may not.
  auto running = 0, most = 0;
  for (auto i = 0; i < 3; ++i) f.post(lane::provider, "a", [&] { most = std::max(most, ++running); --running; });
  auto b = f.say(lane::provider, "b", "b");
  f.run();
  CHECK(most == 1);
  CHECK(b->has_value());
}

TEST_CASE("blocking: a job that throws is answered with an error and takes nothing else along") {
  lanes f;
  for (auto where : {lane::state, lane::volume, lane::provider}) {
    auto bad = f.post(where, "k", [] { throw std::runtime_error{"bug"}; });
    f.run();
    REQUIRE(bad->has_value());
    CHECK_FALSE((*bad)->ok());
    auto good = f.say(where, "k", "after");
    f.run();
    REQUIRE(good->has_value());
    CHECK((*good)->ok());
  }
  CHECK(f.log.size() == 3);
}

TEST_CASE("blocking: stop waits for what was taken and takes nothing more") {
  lanes f;
  auto taken = f.say(lane::state, {}, "taken");
  auto second = f.say(lane::state, {}, "second");
  auto stopped = f.ask<done>(f.blocking, stop_all{});
  auto again = f.ask<done>(f.blocking, stop_all{});
  auto late = f.say(lane::state, {}, "late");
  f.run();
  CHECK(f.log == std::vector<std::string>{"taken", "second"});
  REQUIRE(stopped->has_value());
  CHECK((*stopped)->ok());
  CHECK(again->has_value());
  REQUIRE(late->has_value());
  CHECK_FALSE((*late)->ok());
}

// -- a world with a store and a simulated grid -----------------------------------------------------------------------

struct with_grid : actor_fixture {
  std::filesystem::path directory = [] {
    auto name = (std::filesystem::temp_directory_path() / "qs-actors-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    return std::filesystem::path{name};
  }();
  codec::volume_keys keys = codec::volume_keys::derive(root_secret{byte_span{buffer(32, std::byte{9})}}, "sim");
  seeded_random random{7};
  simulated_grid grid{keys, random, time};
  std::shared_ptr<bool> alive = std::make_shared<bool>(true);
  world_ptr shared = [this] {
    engine_options o;
    o.volume = "sim";
    o.state_directory = directory;
    auto w = std::make_shared<world>(o, keys);
    w->time = &time;
    w->random = &random;
    w->detached = false;
    auto s = state::open_store(directory / "state.db", random, time);
    REQUIRE(s.ok());
    w->store = std::move(*s);
    w->providers.put("local", grid.door(alive));
    w->write_identity = [this](const model::recorded_node& row) { return grid.write_identity(row); };
    return w;
  }();
  blocking_actor blocking = make_blocking(sys, {.detached = false});

  ~with_grid() {
    caf::anon_send_exit(blocking, caf::exit_reason::kill);
    blocking = blocking_actor{};
    sched.clock().cancel_all();
    run();
    shared->store.reset();
    std::filesystem::remove_all(directory);
    for (const auto& v : grid.violations) FAIL_CHECK(v);
  }
};

struct one_node : with_grid {
  model::recorded_node row;
  reservation_actor actor;

  one_node() {
    row.id = {1};
    row.provider = "local";
    row.host = "h1";
    row.size = 2 * gib;
    row.price_limit = {model::units_per_tft};
    REQUIRE(shared->store->put_node(row).ok());
    spawn();
  }
  ~one_node() {
    caf::anon_send_exit(actor, caf::exit_reason::kill);
    actor = reservation_actor{};
    run();
  }
  void spawn() { actor = make_reservation(sys, {shared, blocking, row.id}); }
  /// The actor dies in the middle of whatever it does, and another takes its place.
  void replace_actor() {
    caf::anon_send_exit(actor, caf::exit_reason::kill);
    spawn();
    run();
  }
  node_report order(verb what) {
    auto answer = ask<node_report>(actor, node_order_message{what, row, row.size});
    run();
    REQUIRE(answer->has_value());
    REQUIRE((*answer)->ok());
    const node_report& report = ***answer;
    if (report.changed) row = report.row;
    return report;
  }
  model::recorded_node recorded() {
    auto r = shared->store->node({1});
    REQUIRE((r.ok() && r->has_value()));
    return **r;
  }
  std::size_t open() { return shared->store->open_intents()->size(); }
};

TEST_CASE("reservation: from planned to ready, and to gone") {
  one_node f;
  auto r = f.order(verb::reserve);
  CHECK(r.ok);
  CHECK(f.recorded().state == node_state::ready);
  CHECK(f.recorded().where.valid());
  CHECK(f.open() == 0);
  CHECK(f.grid.find(model::node_id{1})->objects.size() == 1); // its identity
  CHECK(f.order(verb::inspect).seen.what == grid::inspection::state::running);
  f.grid.stop_process(*f.grid.find(model::node_id{1}));
  CHECK(f.order(verb::inspect).seen.what == grid::inspection::state::stopped);
  auto before = f.recorded().where.port;
  CHECK(f.order(verb::restart).ok);
  CHECK(f.recorded().where.port != before);
  CHECK(f.order(verb::cancel).ok);
  CHECK(f.recorded().state == node_state::gone);
  CHECK(f.grid.nodes().empty());
  CHECK(f.order(verb::cancel).ok); // once more changes nothing
  CHECK(f.grid.counters["cancel"] == 1);
}

TEST_CASE("reservation: refused goes back to planned, and on under the next incarnation") {
  one_node f;
  f.grid.faults.refuse = 100;
  CHECK_FALSE(f.order(verb::reserve).ok);
  CHECK(f.recorded().state == node_state::planned);
  CHECK(f.recorded().reason == "Refused");
  CHECK(f.open() == 0);
  f.grid.faults.refuse = 0;
  f.row.incarnation = 2;
  f.row.host = "h2";
  f.row.reason.clear();
  CHECK(f.order(verb::reserve).ok);
  CHECK(f.recorded().incarnation == 2);
  CHECK(f.recorded().host == "h2");
  CHECK(f.recorded().state == node_state::ready);
}

TEST_CASE("reservation: after an unknown answer it only asks what became of it") {
  SUBCASE("it was made") {
    one_node f;
    f.grid.faults.lost_answer = 100;
    CHECK_FALSE(f.order(verb::reserve).ok);
    CHECK(f.open() == 1);
    f.grid.faults.unknown_query = 100;
    CHECK_FALSE(f.order(verb::reserve).ok); // even when told to reserve again
    CHECK_FALSE(f.order(verb::resolve).ok);
    f.grid.faults = {};
    CHECK(f.order(verb::resolve).ok);
    CHECK(f.recorded().state == node_state::ready);
    CHECK(f.grid.counters["submit"] == 1);
  }
  SUBCASE("it never arrived") {
    one_node f;
    f.grid.faults.lost_request = 100;
    CHECK_FALSE(f.order(verb::reserve).ok);
    f.grid.faults = {};
    f.advance(31s);
    CHECK_FALSE(f.order(verb::resolve).ok);
    CHECK(f.recorded().state == node_state::planned);
    CHECK(f.recorded().reason == "Absent");
    CHECK(f.open() == 0);
    CHECK(f.grid.counters["submit"] == 1);
  }
  SUBCASE("it comes late: nothing is cancelled or made before that is known") {
    one_node f;
    f.grid.faults.pending = 100;
    CHECK_FALSE(f.order(verb::reserve).ok);
    f.grid.faults = {};
    CHECK_FALSE(f.order(verb::cancel).ok);
    CHECK(f.grid.counters["cancel"] == 0);
    f.advance(31s);
    CHECK(f.order(verb::cancel).ok);
    CHECK(f.recorded().state == node_state::gone);
    CHECK(f.grid.nodes().empty());
  }
}

TEST_CASE("reservation: a cancel without an answer is resolved, not repeated, and never makes the node ready again") {
  one_node f;
  REQUIRE(f.order(verb::reserve).ok);
  f.row.state = node_state::draining;
  REQUIRE(f.shared->store->put_node(f.row).ok());
  SUBCASE("it was not carried out: the order is void") {
    f.grid.faults.lost_request = 100;
    CHECK_FALSE(f.order(verb::cancel).ok);
    CHECK(f.open() == 1);
    f.grid.faults = {};
    CHECK(f.order(verb::resolve).ok);
    CHECK(f.recorded().state == node_state::draining);
    CHECK(f.open() == 0);
    CHECK(f.grid.nodes().size() == 1);
  }
  SUBCASE("it was") {
    f.grid.faults.lost_answer = 100;
    CHECK_FALSE(f.order(verb::cancel).ok);
    f.grid.faults = {};
    CHECK(f.order(verb::resolve).ok);
    CHECK(f.recorded().state == node_state::gone);
    CHECK(f.open() == 0);
  }
}

TEST_CASE("reservation: a change of the row by others in the middle of an order is kept") {
  one_node f;
  auto answer = f.ask<node_report>(f.actor, node_order_message{verb::reserve, f.row, 0});
  for (auto i = 0; i < 12; ++i) f.sched.try_run_once(); // the intent is on its way
  auto changed = f.recorded();
  changed.size = 5 * gib; // what an accept does
  REQUIRE(f.shared->store->put_node(changed).ok());
  f.run();
  CHECK(f.recorded().size == 5 * gib);
  CHECK(f.recorded().state == node_state::ready);
}

TEST_CASE("reservation: busy while it works; an order for another incarnation is refused") {
  one_node f;
  auto first = f.ask<node_report>(f.actor, node_order_message{verb::reserve, f.row, 0});
  auto second = f.ask<node_report>(f.actor, node_order_message{verb::inspect, f.row, 0});
  f.run();
  REQUIRE(second->has_value());
  CHECK((*second)->err().code == errc::busy);
  CHECK((**first)->ok);
  f.row.incarnation = 5;
  CHECK_FALSE(f.order(verb::reserve).ok);
  CHECK(f.grid.counters["submit"] == 1);
}

TEST_CASE("reservation: an identity that does not stick: gone is lost, stopped is started") {
  one_node f;
  auto deny = true;
  f.shared->write_identity = [&](const model::recorded_node& row) -> status {
    if (deny) return error{errc::unreachable, "no connection"};
    return f.grid.write_identity(row);
  };
  CHECK_FALSE(f.order(verb::reserve).ok);
  CHECK(f.recorded().state == node_state::deploying);
  CHECK(f.open() == 1); // found again after a crash
  SUBCASE("stopped") {
    f.grid.stop_process(*f.grid.find(model::node_id{1}));
    CHECK_FALSE(f.order(verb::resolve).ok);
    CHECK(f.grid.find(model::node_id{1})->running);
    deny = false;
    CHECK(f.order(verb::resolve).ok);
    CHECK(f.recorded().state == node_state::ready);
  }
  SUBCASE("gone") {
    f.grid.kill_for_good(*f.grid.find(model::node_id{1}), true);
    CHECK_FALSE(f.order(verb::resolve).ok);
    CHECK(f.recorded().state == node_state::lost);
    CHECK(f.recorded().reason == "Tombstone");
    CHECK(f.open() == 0);
  }
}

// control.md, 7: a restarted actor goes on from its intent and never submits again.
TEST_CASE("reservation: killed after every step of an order, another goes on: never two reservations") {
  for (auto cut = 0; cut < 60; ++cut) {
    CAPTURE(cut);
    one_node f;
    f.ask<node_report>(f.actor, node_order_message{verb::reserve, f.row, 0});
    for (auto i = 0; i < cut; ++i) f.sched.try_run_once();
    f.replace_actor();
    for (auto tries = 0; tries < 6 && f.recorded().state != node_state::ready; ++tries) {
      f.row = f.recorded();
      if (f.row.state == node_state::planned && !f.row.reason.empty()) {
        ++f.row.incarnation;
        f.row.reason.clear();
      }
      f.order(f.open() != 0 || f.row.state == node_state::reserving ? verb::resolve : verb::reserve);
    }
    CHECK(f.recorded().state == node_state::ready);
    CHECK(f.grid.nodes().size() == 1);
    CHECK(f.open() == 0);
  }
}

// -- monitor ---------------------------------------------------------------------------------------------------------

struct fake_link_state {
  bool up = true;
  link_report report;
};

connection_actor::behavior_type fake_link(connection_actor::pointer, std::shared_ptr<fake_link_state> s) {
  return {
    [](store_atom, const model::object_name&, const buffer_ptr&) -> caf::result<std::uint64_t> { return std::uint64_t{1}; },
    [](read_atom, const model::object_name&) -> caf::result<buffer_ptr> { return to_caf({errc::not_found, ""}); },
    [](del_atom, const object_names_ptr&) -> caf::result<caf::ok_atom> { return caf::ok_atom_v; },
    [](check_atom, const model::object_name&) -> caf::result<bool> { return true; },
    [](barrier_atom) -> caf::result<std::uint64_t> { return std::uint64_t{1}; },
    [s](ping_atom) -> caf::result<caf::ok_atom> {
      if (s->up) return caf::ok_atom_v;
      return to_caf({errc::unreachable, "down"});
    },
    [s](status_atom) -> caf::result<link_report> { return s->report; },
    [](move_to_atom, const model::endpoint&) {},
    [](stop_atom) -> caf::result<caf::ok_atom> { return caf::ok_atom_v; },
  };
}

struct watching : with_grid {
  std::vector<monitor_round> rounds;
  std::vector<doubt_node> doubts;
  std::map<std::uint32_t, std::shared_ptr<fake_link_state>> links;
  std::vector<connection_actor> actors;
  monitor_actor monitor;

  explicit watching(std::uint32_t nodes = 3, std::uint32_t quorum = 2) {
    start();
    caf::anon_send(monitor, watch_pace{quorum, 1s});
    for (std::uint32_t n = 1; n <= nodes; ++n) {
      auto s = links[n] = std::make_shared<fake_link_state>();
      s->report.node = {n};
      s->report.state = link_state::ready;
      s->report.life = 1;
      actors.push_back(sys.spawn(fake_link, s));
      caf::anon_send(monitor, attach_atom_v, model::node_id{n}, actors.back());
    }
    run();
  }
  ~watching() {
    caf::anon_send_exit(monitor, caf::exit_reason::kill);
    for (auto& a : actors) caf::anon_send_exit(a, caf::exit_reason::kill);
    monitor = monitor_actor{};
    actors.clear();
    sched.clock().cancel_all();
    run();
  }
  void start() {
    monitor_config c;
    c.shared = shared;
    c.report = [this](monitor_round r) { rounds.push_back(std::move(r)); };
    c.doubt = [this](doubt_node d) { doubts.push_back(d); };
    monitor = make_monitor(sys, std::move(c));
  }
  const model::observed_node& last(std::uint32_t n) {
    REQUIRE_FALSE(rounds.empty());
    for (const auto& o : rounds.back().nodes)
      if (o.id.number == n) return o;
    FAIL("not watched");
    return rounds.back().nodes.front();
  }
};

TEST_CASE("monitor: silence counts only while enough others answer, and starts again with an answer") {
  watching f;
  f.advance(3s);
  CHECK(f.last(1).state == model::reach::answers);
  f.links[1]->up = false;
  f.advance(5s);
  CHECK(f.last(1).state == model::reach::silent);
  auto first = f.last(1).silent_for;
  CHECK(first >= 3s);
  CHECK(first <= 6s);
  f.links[2]->up = false; // one of three answers, two are needed: nobody knows
  f.advance(10s);
  CHECK(f.last(1).silent_for <= first + 1s);
  CHECK(f.last(2).silent_for <= 1s);
  f.links[1]->up = f.links[2]->up = true;
  f.advance(2s);
  CHECK(f.last(1).state == model::reach::answers);
  CHECK(f.last(1).silent_for == 0s);
}

TEST_CASE("monitor: silence starts at zero when the machine slept") {
  watching f;
  f.links[1]->up = false;
  f.advance(8s);
  CHECK(f.last(1).silent_for > 4s);
  f.sched.clock().advance_time(8h); // CLOCK_BOOTTIME goes on while it sleeps
  f.run();
  f.advance(2s);
  CHECK(f.last(1).state == model::reach::silent);
  CHECK(f.last(1).silent_for < 5s);
}

TEST_CASE("monitor: what a link says of its node is told at once; another life is doubted from 15 minutes before it was seen") {
  watching f;
  f.advance(2s);
  auto seen = f.time.wall();
  auto before = f.rounds.size();
  auto r = f.links[1]->report;
  r.state = link_state::data_lost;
  caf::anon_send(f.monitor, link_atom_v, r);
  f.run();
  REQUIRE(f.rounds.size() == before + 1);
  CHECK(f.last(1).state == model::reach::data_lost);
  CHECK_FALSE(f.rounds.back().complete);
  r = f.links[2]->report;
  r.state = link_state::ready;
  r.life = 2;
  r.restarted = true;
  caf::anon_send(f.monitor, link_atom_v, r);
  f.run();
  REQUIRE(f.doubts.size() == 1);
  CHECK(f.doubts[0].node == model::node_id{2});
  CHECK(f.doubts[0].since <= seen - 14min);
  CHECK(f.doubts[0].since >= seen - 16min);
}

TEST_CASE("monitor: one that is started later learns what its links told the one before") {
  watching f;
  f.links[3]->report.state = link_state::access_denied;
  caf::anon_send_exit(f.monitor, caf::exit_reason::kill);
  f.rounds.clear();
  f.start();
  for (std::uint32_t n = 1; n <= 3; ++n) caf::anon_send(f.monitor, attach_atom_v, model::node_id{n}, f.actors[n - 1]);
  f.run();
  CHECK(f.last(3).state == model::reach::access_denied);
  auto asked = f.ask<monitor_round>(f.monitor, get_report{});
  f.run();
  REQUIRE(asked->has_value());
  CHECK((**asked)->complete);
  CHECK((**asked)->nodes.size() == 3);
}

// -- payment ---------------------------------------------------------------------------------------------------------

struct paying : with_grid {
  std::vector<note_event> notes;
  payment_actor payment = make_payment(sys, {shared, blocking, [this](note_event e) { notes.push_back(std::move(e)); }});
  ~paying() {
    caf::anon_send_exit(payment, caf::exit_reason::kill);
    payment = payment_actor{};
    sched.clock().cancel_all();
    run();
  }
  status check(model::money cost, bool replacement = false) {
    model::recorded_node row;
    row.id = {1};
    row.price_limit = cost;
    if (replacement) row.replaces = model::node_id{2};
    auto a = ask<done>(payment, price_check{row});
    run();
    REQUIRE(a->has_value());
    return (*a)->ok() ? status{} : status{(*a)->err()};
  }
};

TEST_CASE("payment: what the budget forbids or the wallet cannot carry a day is not reserved") {
  paying f;
  constexpr auto tft = model::units_per_tft;
  CHECK(f.check({30 * tft}).ok());
  caf::anon_send(f.payment, budget{model::money{10 * tft}, 0ms, model::money{12 * tft}});
  auto over = f.check({2 * tft});
  REQUIRE_FALSE(over.ok());
  CHECK(over.err().code == errc::over_budget);
  CHECK(f.check({2 * tft}, true).ok()); // overlap of a replacement is exempt
  caf::anon_send(f.payment, budget{std::nullopt, 0ms, model::money{12 * tft}});
  f.grid.balance = {tft / 100};
  auto poor = f.check({30 * tft});
  REQUIRE_FALSE(poor.ok());
  CHECK(poor.err().message.find("topup") != std::string::npos);
  f.grid.faults.unknown_query = 100; // unknown is neither yes nor no of ours: the last known balance stands
  CHECK_FALSE(f.check({30 * tft}).ok());
}

TEST_CASE("payment: it asks for money once, and again only after it had enough") {
  paying f;
  constexpr auto tft = model::units_per_tft;
  auto door = f.grid.door(f.alive);
  auto request = door->prepare({{1}, 1, "h1", 100 * gib, {}});
  REQUIRE(door->submit(*request).what == grid::outcome::done);
  f.grid.balance = {tft};
  for (auto i = 0; i < 3; ++i) {
    caf::anon_send(f.payment, budget{std::nullopt, 24h * 7, model::money{10 * tft}}); // as after every order
    f.advance(31s, 1s);
  }
  CHECK(f.notes.size() == 1);
  CHECK(f.notes.at(0).kind == "TopUpNeeded");
  f.grid.balance = {1000 * tft};
  f.advance(31s, 1s);
  f.grid.balance = {tft};
  f.advance(31s, 1s);
  CHECK(f.notes.size() == 2);
}

} // namespace
