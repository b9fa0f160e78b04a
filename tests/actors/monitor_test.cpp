// The monitor alone: what counts as silence, and what is told of it.
#include "grid_world.hpp"

#include "actors/monitor.hpp"

namespace {

using namespace qs;
using namespace qs::actors;
using namespace qs::test;
using namespace std::chrono_literals;

struct fake_link_state {
  bool up = true;
  int pings = 0;
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
      ++s->pings;
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
  state::sightings known, recorded;
  int records = 0;

  explicit watching(std::uint32_t nodes = 3, std::uint32_t quorum = 2, state::sightings before = {}) : known{std::move(before)} {
    start();
    caf::anon_send(monitor, watch_pace{quorum, 1s});
    for (std::uint32_t n = 1; n <= nodes; ++n) {
      auto s = links[n] = std::make_shared<fake_link_state>();
      s->report.node = {n};
      s->report.state = link_state::ready;
      s->report.life = 1;
      s->report.instance = "life " + std::to_string(n);
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
    c.known = known;
    c.record = [this](state::sightings s) {
      recorded = std::move(s);
      ++records;
    };
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

TEST_CASE("monitor: a node that was restarted while no engine looked is doubted, from a quarter of an hour before it was seen") {
  auto seen = wall_time{std::chrono::hours{24 * 365 * 40}};
  watching f{3, 2, {{{1}, {"life 1", seen}}, {{2}, {"another", seen}}}}; // nobody knew the third
  f.advance(3s);
  REQUIRE(f.doubts.size() == 1);
  CHECK(f.doubts[0].node == model::node_id{2});
  CHECK(f.doubts[0].since == seen - 15min);
  CHECK(f.recorded.size() == 3);
  CHECK(f.recorded.at({2}).instance == "life 2");
  CHECK(f.recorded.at({2}).seen > seen);
  auto records = f.records;
  f.advance(4min, 1s);
  CHECK(f.records == records); // now and then is enough
  f.advance(2min, 1s);
  CHECK(f.records == records + 1);
  f.links[3]->report.instance = "a new one";
  f.links[3]->report.restarted = true;
  caf::anon_send(f.monitor, link_atom_v, f.links[3]->report);
  f.advance(2s);
  CHECK(f.recorded.at({3}).instance == "a new one"); // a new life at once
}

TEST_CASE("monitor: at most 100 PINGs a second, however many nodes and whoever asks; a round takes as long as that needs") {
  watching f{350, 2};
  f.links[350]->up = false;
  auto pings = [&] {
    int sum = 0;
    for (const auto& [n, l] : f.links) sum += l->pings;
    return sum;
  };
  for (int second = 0; second < 12; ++second) {
    auto before = pings();
    f.ask<monitor_round>(f.monitor, get_report{});
    f.advance(1s);
    CHECK(pings() - before <= 110); // of a second that begins in the middle of ten
    CHECK(pings() - before >= 50);
  }
  for (std::uint32_t n = 1; n < 350; ++n) CHECK(f.last(n).state == model::reach::answers);
  CHECK(f.last(350).state == model::reach::silent);
  CHECK(f.last(350).silent_for >= 3s); // told from the rounds, however long they are
  CHECK(f.last(350).silent_for <= 12s);
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

TEST_CASE("monitor: a link that stalls is silent at once, and answers again as soon as it moves") {
  watching f;
  f.advance(2s);
  auto before = f.rounds.size();
  auto r = f.links[1]->report;
  r.stalled = true;
  caf::anon_send(f.monitor, link_atom_v, r);
  f.run();
  REQUIRE(f.rounds.size() == before + 1);
  CHECK(f.last(1).state == model::reach::silent);
  CHECK(f.last(2).state == model::reach::answers);
  f.links[1]->up = false;
  f.advance(3s);
  CHECK(f.last(1).silent_for > 1s);
  f.links[1]->up = true;
  before = f.rounds.size() - 1;
  r.stalled = false;
  caf::anon_send(f.monitor, link_atom_v, r); // something left our queue: that is no answer
  f.run();
  CHECK(f.last(1).state == model::reach::silent);
  CHECK(f.last(1).silent_for > 1s);
  r.stalled = true;
  caf::anon_send(f.monitor, link_atom_v, r);
  f.run();
  before = f.rounds.size() - 1;
  r.stalled = false;
  r.last_seen = f.time.wall();
  caf::anon_send(f.monitor, link_atom_v, r);
  f.run();
  REQUIRE(f.rounds.size() == before + 2);
  CHECK(f.last(1).state == model::reach::answers);
  CHECK(f.last(1).silent_for == 0s);
  CHECK(f.doubts.empty()); // the same life on the same connection
  caf::anon_send(f.monitor, link_atom_v, r); // figures alone are no news
  f.run();
  CHECK(f.rounds.size() == before + 2);
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

} // namespace
