// The reservation actor alone: every step of an order, and its death after each.
#include "grid_world.hpp"

#include <fmt/format.h>

#include "actors/reservation.hpp"

namespace {

using namespace qs;
using namespace qs::actors;
using namespace qs::test;
using namespace std::chrono_literals;
using verb = node_order_message::verb;
using model::node_state;

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

} // namespace
