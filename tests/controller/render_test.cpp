// Plans as text, JSON and documents: what the golden files do not show.
#include <functional>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "controller/render.hpp"
#include "controller/trivial_world.hpp"

using namespace qs;

namespace {

controller::plan some_plan() {
  test::trivial_world w{test::parse("version: 1\nname: x\nstorage: {capacity: 20GiB}\n")};
  w.add_hosts(24, 8, 5, 100 * gib, 500'000);
  return w.diff(w.spec).made.value();
}

} // namespace

TEST_CASE("colour is a matter of the caller; without it there is no escape, whatever a host calls "
          "itself") {
  auto p = some_plan();
  p.actions[0].host = "evil\x1b[2J\nhost";
  CHECK(controller::render(p).find('\x1b') == std::string::npos);
  CHECK(controller::render(p).find("evil?[2J?host") != std::string::npos);
  auto coloured = controller::render(p, {true, 80});
  CHECK(coloured.find("\x1b[32m") != std::string::npos);
  CHECK(coloured.find("\x1b[0m") != std::string::npos);
  CHECK(controller::render(std::vector<controller::refusal>{{true, "no"}}) == "refused: no\n");
  CHECK(controller::render(std::vector<controller::refusal>{{false, "no"}}) == "error: no\n");
}

TEST_CASE("JSON has the fields of the contract, money as decimal strings, and survives bytes that "
          "are no text") {
  auto p = some_plan();
  p.actions[0].reason = "\xff\xfe";
  auto text = controller::to_json(p);
  for (auto field : {"\"format_version\"", "\"plan_hash\"", "\"serial\"", "\"actions\"",
                     "\"kind\": \"create_node\"", "\"address\": \"node.n1\"", "\"reason\"",
                     "\"bytes_to_move\"", "\"price_per_month\": \"0.35\"", "\"depends_on\"",
                     "\"summary\"", "\"add\"", "\"change\"", "\"replace\"", "\"destroy\"",
                     "\"unknown\"", "\"usable_bytes_gained\"", "\"worst_redundancy\"", "\"drift\""})
    CHECK_MESSAGE(text.find(field) != std::string::npos, field);
  CHECK(controller::to_json(std::vector<controller::refusal>{{true, "no"}})
            .find("\"refused_by_rule\": true") != std::string::npos);
}

TEST_CASE("a saved plan comes back whole; a changed, foreign or newer one is refused") {
  auto p = some_plan();
  auto text = controller::to_document(p);
  auto back = controller::from_document(text);
  REQUIRE(back.ok());
  CHECK(back->hash == p.hash);
  CHECK(back->rows.size() == p.rows.size());
  CHECK(back->rows[3].host == p.rows[3].host);
  CHECK(back->rows[3].price_limit == p.rows[3].price_limit);
  CHECK(controller::to_document(*back) == text);

  auto with = [&](std::string from, std::string to) {
    auto changed = text;
    auto at = changed.find(from);
    REQUIRE(at != std::string::npos);
    return controller::from_document(changed.replace(at, from.size(), to));
  };
  CHECK(with("\"host\": \"" + p.rows[0].host + "\"", "\"host\": \"h99\"").err().code ==
        errc::corrupt);
  CHECK(with("\"format_version\": 1", "\"format_version\": 2").err().code ==
        errc::version_mismatch);
  CHECK(with("\"serial\": 0", "\"serial\": \"x\"").err().code == errc::invalid_argument);
  CHECK(controller::from_document("{}").err().code == errc::invalid_argument);
  CHECK(controller::from_document("[1]").err().code == errc::invalid_argument);
  CHECK(controller::from_document("not json").err().code == errc::invalid_argument);
  for (std::size_t cut = 0; cut < text.size(); cut += 97)
    CHECK(!controller::from_document(text.substr(0, cut)).ok());
}

TEST_CASE("every part of a plan is in its hash") {
  auto p = some_plan();
  std::vector<std::function<void(controller::plan&)>> changes{
      [](auto& x) { ++x.serial; },
      [](auto& x) { x.lineage += "x"; },
      [](auto& x) { x.spec_text += " "; },
      [](auto& x) { x.spec_hash += "0"; },
      [](auto& x) { x.actions.pop_back(); },
      [](auto& x) { x.actions[0].bytes_to_move = 1; },
      [](auto& x) { x.actions[0].depends_on.push_back("n9"); },
      [](auto& x) { x.drift.push_back("d"); },
      [](auto& x) { ++x.summary.worst_redundancy; },
      [](auto& x) { x.rows[0].host = "other"; },
      [](auto& x) { x.rows[0].size += gib; },
      [](auto& x) { x.rows[0].price_limit.units += 1; },
      [](auto& x) { x.rows[0].replaced_by = model::node_id{3}; },
      [](auto& x) { ++x.next_node_number; },
      [](auto& x) { x.needs_typed_name = true; },
  };
  for (std::size_t i = 0; i < changes.size(); ++i) {
    auto other = p;
    changes[i](other);
    CAPTURE(i);
    CHECK(controller::hash_of(other) != p.hash);
  }
  CHECK(controller::hash_of(p) == p.hash);
}
