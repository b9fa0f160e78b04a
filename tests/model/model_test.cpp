#include <doctest/doctest.h>

#include "model/ids.hpp"
#include "model/money.hpp"
#include "model/node.hpp"

using namespace qs;
using namespace qs::model;

TEST_CASE("money is exact in both directions and refuses what it cannot hold") {
  for (auto text : {"0", "1", "12.5", "0.0000001", "99999999999"}) CHECK(to_decimal(*parse_money(text)) == text);
  CHECK(parse_money("50 TFT")->units == 50 * units_per_tft);
  CHECK(format_money(money{12'345'678}) == "1.23 TFT");
  CHECK(format_money(money{1}) == "0.0000001 TFT");
  CHECK(to_decimal(money{-5'000'000}) == "-0.5");
  for (auto bad : {"", ".5", "1.", "1.00000001", "-1", "1e3", "123456789012", "TFT"}) CHECK_FALSE(parse_money(bad).ok());
}

TEST_CASE("node ids print and parse, and nothing else parses") {
  CHECK(to_string(node_id{7}) == "n7");
  CHECK(parse_node_id("n7") == node_id{7});
  for (auto bad : {"", "n", "7", "n0", "n07", "n7x", "N7", "n99999999999"}) CHECK_FALSE(parse_node_id(bad).has_value());
}

TEST_CASE("every node state has a name that reads back") {
  for (auto s = 0; s <= static_cast<int>(node_state::gone); ++s) {
    auto state = static_cast<node_state>(s);
    CHECK(parse_node_state(to_string(state)) == state);
  }
  CHECK_FALSE(parse_node_state("healthy").has_value());
}
