// The payment actor alone: what it lets be spent, and when it asks for money.
#include "grid_world.hpp"

#include "actors/payment.hpp"

namespace {

using namespace qs;
using namespace qs::actors;
using namespace qs::test;
using namespace std::chrono_literals;

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

/// A grid that charges nothing, and is asked nothing else.
struct free_grid final : grid::provider {
  static error no() { return {errc::unsupported, "not here"}; }
  std::string name() const override { return "machines"; }
  bool charges() const override { return false; }
  result<grid::request> prepare(const grid::node_order&) const override { return no(); }
  grid::answer submit(const grid::request&) override { return {}; }
  grid::answer resolve(const grid::request&) override { return {}; }
  result<std::vector<model::host>> hosts() override { return no(); }
  grid::inspection inspect(const grid::request&) override { return {}; }
  grid::answer restart(const grid::request&) override { return {}; }
  grid::answer resize(const grid::request&, byte_count) override { return {}; }
  grid::answer cancel(const grid::request&) override { return {}; }
  result<std::vector<model::stray_node>> list_ours() override { return no(); }
  result<model::money> price(const std::string&, byte_count) override { return no(); }
  result<model::wallet_view> wallet() override { return no(); }
  result<model::money> top_up(model::money) override { return no(); }
  result<std::vector<grid::ledger_entry>> ledger(std::size_t) override { return no(); }
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

TEST_CASE("payment: a node of a grid that charges nothing is not counted at the limit of the paid one it replaces") {
  paying f;
  constexpr auto tft = model::units_per_tft;
  f.shared->providers.put("machines", std::make_shared<free_grid>());
  model::recorded_node row;
  row.id = {1};
  row.price_limit = {30 * tft};
  row.provider = "local";
  CHECK(expected_cost(*f.shared, row).units == 30 * tft);
  row.price = {20 * tft};
  CHECK(expected_cost(*f.shared, row).units == 20 * tft);
  row.price = {};
  row.provider = "machines";
  CHECK(expected_cost(*f.shared, row).units == 0);
  // It goes through where the budget is used up and the wallet empty.
  caf::anon_send(f.payment, budget{model::money{10 * tft}, 0ms, model::money{12 * tft}});
  f.grid.balance = {};
  CHECK_FALSE(f.check({30 * tft}).ok());
  auto a = f.ask<done>(f.payment, price_check{row});
  f.run();
  REQUIRE(a->has_value());
  CHECK((*a)->ok());
}

TEST_CASE("payment: an empty wallet that pays for nothing lasts for ever") {
  paying f;
  f.grid.balance = {};
  caf::anon_send(f.payment, budget{std::nullopt, 24h * 7, model::money{}});
  f.advance(31s, 1s);
  CHECK(f.notes.empty());
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
