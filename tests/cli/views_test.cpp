// What people read: tables, status, nodes, wallet, plans; golden files at 80 columns (QS_UPDATE_GOLDEN=1 writes them anew).
#include <nlohmann/json.hpp>

#include "cli/ending.hpp"
#include "cli/follow.hpp"
#include "cli/plan_client.hpp"
#include "cli/table.hpp"
#include "cli/terminal.hpp"
#include "cli/views.hpp"
#include "cli_fixture.hpp"

using namespace qs;
using namespace qs::test;
using nlohmann::json;

namespace {

json condition(const char* type, const char* status, const char* reason, const char* message) {
  return {{"type", type}, {"status", status}, {"reason", reason}, {"message", message}, {"observed_generation", 2}, {"since", "2026-01-31T09:30:00Z"}};
}

json node(const std::string& id, const std::string& state, const std::string& reason = "", const std::string& detail = "") {
  return {{"id", id},         {"host", "h" + id.substr(1)}, {"farm", "greenfarm"},        {"country", "Belgium"},
          {"region", "Europe"}, {"provider", "local"},      {"state", state},             {"reason", reason},
          {"detail", detail}, {"since", "2026-01-31T09:00:00Z"}, {"size", 8ULL << 30},      {"used_bytes", 3ULL << 29},
          {"price_per_month", "0.125"}, {"endpoint", "127.0.0.1:4375" + id.substr(1)}, {"namespace", "qs0123456789abcdef"}, {"replaces", json{}}, {"replaced_by", json{}}};
}

json healthy() {
  json s{{"format_version", 1}, {"name", "family-archive"}, {"state", "Ready"}, {"generation", 2}, {"unapplied_edits", false}};
  s["volume"] = {{"created", true}, {"data_shards", 4}, {"parity_shards", 2}, {"bytes_at_risk", 0}, {"at_risk_since", json{}}, {"usable_bytes", 20ULL << 30},
                 {"used_bytes", 5ULL << 30}, {"redundancy_left_min", 2}, {"segments", 2500}, {"segments_by_missing", {2500, 0, 0}}, {"rebuild_pending", 0}};
  s["nodes"] = json::array({node("n1", "ready"), node("n2", "ready"), node("n3", "ready"), node("n4", "ready"), node("n5", "ready"), node("n6", "ready")});
  s["wallet"] = {{"known", true}, {"balance", "987.5"}, {"per_month", "0.75"}, {"runway_days", 39500.0}};
  s["mount"] = {{"path", "/mnt/archive"}, {"mounted", true}, {"wanted", true}, {"problem", ""}};
  s["engine"] = {{"pid", 4711}, {"version", "0.1.0"}, {"started", "2026-01-30T07:00:00Z"}};
  s["conditions"] = json::array({condition("Ready", "True", "Ready", "all nodes answer"), condition("Redundant", "True", "Full", ""),
                                 condition("Rebuilding", "False", "None", ""), condition("Mounted", "True", "Mounted", "/mnt/archive"),
                                 condition("ApprovalNeeded", "False", "None", "")});
  return s;
}

json rebuilding() {
  auto s = healthy();
  s["state"] = "Rebuilding";
  s["unapplied_edits"] = true;
  s["volume"]["bytes_at_risk"] = 12ULL << 20;
  s["volume"]["at_risk_since"] = "2026-01-31T09:29:12Z";
  s["volume"]["redundancy_left_min"] = 0;
  s["volume"]["segments_by_missing"] = {1200, 900, 400};
  s["volume"]["rebuild_pending"] = 1300;
  auto lost = node("n1", "replaced", "Tombstone", "Tombstone");
  lost["replaced_by"] = "n7";
  s["nodes"] = json::array({lost, node("n2", "unreachable", "", "connect to 127.0.0.1:43752: Connection refused"), node("n3", "ready"), node("n4", "ready"),
                            node("n5", "ready"), node("n6", "ready"), node("n7", "deploying")});
  s["mount"]["mounted"] = false;
  s["mount"]["problem"] = "there is no /dev/fuse on this machine: load the module with `modprobe fuse`";
  s["wallet"] = {{"known", true}, {"balance", "0.1"}, {"per_month", "3"}, {"runway_days", 1.0}};
  s["conditions"] = json::array({condition("Ready", "False", "Rebuilding", "5 of 6 nodes answer; not: n2"),
                                 condition("Redundant", "False", "Reduced", "0 of 2 shards may still be lost in the worst group"),
                                 condition("Rebuilding", "True", "ShardsMissing", "1300 segments miss shards, 0 are to be moved, 1 replacements on their way"),
                                 condition("Mounted", "False", "Failed", "there is no /dev/fuse on this machine"), condition("Funded", "False", "Low", "0.10 TFT for 3.00 TFT a month")});
  return s;
}

} // namespace

TEST_CASE("cli views: status and nodes, golden") {
  check_golden("status-ready.txt", cli::status_view(healthy().dump()));
  check_golden("status-rebuilding.txt", cli::status_view(rebuilding().dump()));
  auto stopped = healthy();
  stopped["state"] = "Stopped";
  stopped["engine"] = json{};
  stopped["volume"]["redundancy_left_min"] = json{};
  stopped["conditions"] = json::array();
  check_golden("status-stopped.txt", cli::status_view(stopped.dump()));
  check_golden("nodes.txt", cli::nodes_view(json{{"nodes", rebuilding()["nodes"]}}.dump()));
  check_golden("node.txt", cli::node_view(json{{"nodes", rebuilding()["nodes"]}}.dump(), "n2"));
  CHECK(cli::node_view(json{{"nodes", rebuilding()["nodes"]}}.dump(), "n9").empty());
}

TEST_CASE("cli views: nothing is wider than 80 columns, and no colour unless asked") {
  for (const auto& text : {cli::status_view(rebuilding().dump()), cli::nodes_view(json{{"nodes", rebuilding()["nodes"]}}.dump())}) {
    std::istringstream lines{text};
    for (std::string line; std::getline(lines, line);) {
      CAPTURE(line);
      CHECK(cli::columns_of(line) <= 80);
    }
    CHECK(text.find('\x1b') == std::string::npos);
  }
  CHECK(cli::status_view(rebuilding().dump(), {true, 80}).find("\x1b[33mRebuilding\x1b[0m") != std::string::npos);
}

TEST_CASE("cli views: wallet and its history, golden") {
  json w{{"format_version", 1}, {"wallet", {{"known", true}, {"balance", "1099.9999999"}, {"per_month", "0.28"}, {"runway_days", 117857.1}}}};
  w["history"] = json::array({{{"at", "2026-01-01T00:00:00Z"}, {"kind", "credit"}, {"subject", "new wallet"}, {"amount", "1000"}, {"balance", "1000"}},
                              {{"at", "2026-01-31T09:00:00Z"}, {"kind", "charge"}, {"subject", "qs0123456789abcdef"}, {"amount", "0.0000001"}, {"balance", "999.9999999"}}});
  check_golden("wallet.txt", cli::wallet_view(w.dump(), false));
  check_golden("wallet-history.txt", cli::wallet_view(w.dump(), true));
}

TEST_CASE("cli views: events in one line each") {
  json e{{"number", 7}, {"at", "2026-01-31T09:30:00Z"}, {"level", "warning"}, {"kind", "NodeLost"}, {"subject", "n3"}, {"message", "its data is gone"}};
  CHECK(cli::event_view(e.dump(), false) == "2026-01-31 09:30:00  n3         NodeLost         its data is gone (warning)");
  CHECK(cli::event_view(e.dump(), true).find("\x1b[33m") == 0);
}

TEST_CASE("cli views: documents that are none give nothing, and nothing breaks on missing parts") {
  for (const char* text : {"", "[]", "nonsense", "42"}) {
    CHECK(cli::status_view(text).empty());
    CHECK(cli::nodes_view(text).empty());
    CHECK(cli::wallet_view(text, true).empty());
  }
  for (const char* text : {"{}", R"({"volume":3,"nodes":{},"wallet":[],"mount":null,"engine":"x","conditions":[1,"a",{}]})"})
    CHECK(!cli::status_view(text).empty());
}

TEST_CASE("cli views: a QR code has its finder pattern, and 3 KB is the end") {
  auto code = cli::qr_code("threebot://signandpay/#https://qs.example.org/s/1");
  CHECK(code.find("█ ▄▄▄▄▄ █") != std::string::npos);
  CHECK(!cli::qr_code(std::string(2900, 'x')).empty());
  CHECK(cli::qr_code(std::string(3001, 'x')).empty());
}

TEST_CASE("cli tables: columns, shrinking, wrapping") {
  cli::table t{{{"NAME", false, true}, {"SIZE", true, false}}};
  t.row({"short", "1"});
  t.row({std::string(30, 'x'), "100"});
  CHECK(t.render(80) == "NAME                            SIZE\nshort                              1\n" + std::string(30, 'x') + "   100\n");
  CHECK(t.render(20) == "NAME            SIZE\nshort              1\nxxxxxxxxxxxxx…   100\n");
  CHECK(cli::table{{{"A", false, false}}}.render().empty());
  CHECK(cli::columns_of("größe…") == 6);
  CHECK(cli::shortened("größe", 3) == "gr…");
  CHECK(cli::wrapped("one two three four", 9, 2) == "one two\n  three\n  four");
  CHECK(cli::wrapped("a\nb", 9, 2) == "a\n  b");
}

TEST_CASE("cli terminal: who gets colour") {
  cli::terminal_facts tty{true, true, true, false, false, 80};
  CHECK(cli::wants_colour("auto", true, tty));
  CHECK(!cli::wants_colour("auto", false, tty));
  CHECK(cli::wants_colour("always", false, tty));
  CHECK(!cli::wants_colour("never", true, tty));
  auto quiet = tty;
  quiet.no_color = true;
  CHECK(!cli::wants_colour("auto", true, quiet));
  auto dumb = tty;
  dumb.dumb = true;
  CHECK(!cli::wants_colour("auto", true, dumb));
}

TEST_CASE("cli terminal: a question on no terminal fails and names the flag") {
  cli::terminal t{{}, "never"};
  auto answer = t.ask("Really? ", "--auto-approve");
  REQUIRE(!answer.ok());
  CHECK(describe(answer.err()).find("--auto-approve") != std::string::npos);
}

TEST_CASE("cli follow: when a wait is over") {
  using cli::verdict;
  cli::follow_request ready{2, "ready", {}, 0, true};
  cli::follow_request deployed{2, "deployed", {}, 0, true};
  CHECK(cli::judge_status(healthy().dump(), ready).how == verdict::done);
  cli::follow_request later{3, "ready", {}, 0, true};
  CHECK(cli::judge_status(healthy().dump(), later).how == verdict::not_yet); // Ready of the generation before counts for nothing
  CHECK(cli::judge_status(rebuilding().dump(), ready).how == verdict::not_yet);
  CHECK(cli::judge_status("nonsense", ready).how == verdict::not_yet);

  auto no_fuse = healthy();
  no_fuse["state"] = "Degraded";
  no_fuse["conditions"] = json::array({condition("Redundant", "True", "Full", ""), condition("Mounted", "False", "Failed", "there is no /dev/fuse")});
  CHECK(cli::judge_status(no_fuse.dump(), ready).how == verdict::degraded);
  CHECK(cli::judge_status(no_fuse.dump(), ready).reason == "there is no /dev/fuse");
  CHECK(cli::judge_status(no_fuse.dump(), deployed).how == verdict::done);

  auto taken = healthy();
  taken["conditions"].push_back(condition("StatusServed", "False", "AddressInUse", "status.listen 127.0.0.1:9480 is in use"));
  CHECK(cli::judge_status(taken.dump(), ready).how == verdict::degraded);

  auto growing = healthy();
  growing["conditions"].push_back(condition("Synced", "False", "Reconciling", "6 steps to do"));
  CHECK(cli::judge_status(growing.dump(), ready).how == verdict::not_yet);

  auto cancelled = healthy(); // what was in flight was all of it
  cancelled["cancelled"] = true;
  CHECK(cli::judge_status(cancelled.dump(), ready).how == verdict::done);
  cancelled["conditions"].push_back(condition("Synced", "False", "Reconciling", "1 steps to do"));
  CHECK(cli::judge_status(cancelled.dump(), ready).how == verdict::paused);
  CHECK(cli::judge_status(cancelled.dump(), deployed).how == verdict::paused);
  auto suspended = healthy();
  suspended["state"] = "Suspended";
  suspended["suspended"] = true;
  CHECK(cli::judge_status(suspended.dump(), ready).how == verdict::paused);

  auto half = healthy();
  half["state"] = "Deploying";
  half["nodes"][5]["state"] = "deploying";
  CHECK(cli::judge_status(half.dump(), deployed).how == verdict::not_yet);
  CHECK(cli::progress_text(half.dump()) == "Deploying: 5 of 6 nodes ready");
  CHECK(cli::progress_text(rebuilding().dump()) == "Rebuilding: 4 of 6 nodes ready, 1300 segments to rebuild, 12 MiB at risk");
}

TEST_CASE("cli follow: the bar counts nodes, then what is to be rebuilt, then what is at risk") {
  CHECK(cli::progress_line("5 of 6", 0.5, 80) == "[##########----------] 50 % 5 of 6");
  CHECK(cli::progress_line("all but done", 0.999, 80) == "[###################-] 99 % all but done");
  CHECK(cli::progress_line("unknown", {}, 80) == "unknown");
  CHECK(cli::progress_line("narrow", 0.5, 40) == "narrow");
  CHECK(cli::progress_line(std::string(200, 'x'), 0.5, 80).size() == 79);

  cli::progress_meter meter;
  CHECK_FALSE(meter.see("nonsense"));
  CHECK_FALSE(meter.see(healthy().dump()));
  auto s = healthy();
  s["nodes"][5]["state"] = "deploying";
  CHECK(meter.see(s.dump()).value() == doctest::Approx(5.0 / 6));
  s = healthy();
  s["volume"]["rebuild_pending"] = 1000;
  CHECK(meter.see(s.dump()).value() == doctest::Approx(0.0));
  s["volume"]["rebuild_pending"] = 250;
  CHECK(meter.see(s.dump()).value() == doctest::Approx(0.75));
  s["volume"]["rebuild_pending"] = 0;
  s["volume"]["bytes_at_risk"] = 50;
  CHECK(meter.see(s.dump()).value() == doctest::Approx(0.0));
  s["destroying"] = true;
  CHECK(meter.see(s.dump()).value() == doctest::Approx(0.0));
  s["nodes"].erase(5);
  s["nodes"].erase(4);
  s["nodes"].erase(3);
  CHECK(meter.see(s.dump()).value() == doctest::Approx(0.5));
}

TEST_CASE("cli ending: what is left, since when it is stuck, and what was given up") {
  CHECK(cli::nodes_left("nonsense").empty());
  CHECK(cli::nodes_abandoned("{\"abandoned\": [1, \"x\"]}").empty());
  CHECK_FALSE(cli::only_stuck({}));
  json s{{"nodes", {{{"id", "n1"}, {"host", "nas"}, {"endpoint", "192.0.2.7:9900"}, {"not_deleted", {{"tries", 1}, {"detail", "no answer in time"}}}},
                    {{"id", "n2"}, {"host", "attic"}, {"endpoint", ""}, {"not_deleted", json{}}}}},
         {"abandoned", {{{"id", "n3"}, {"host", "nas"}, {"endpoint", "192.0.2.7:9900"}, {"namespace", "qs01"}, {"by_hand", "NSDEL qs01"}}}}};
  CHECK_FALSE(cli::only_stuck(cli::nodes_left(s.dump())));
  s["nodes"].erase(1);
  CHECK_FALSE(cli::only_stuck(cli::nodes_left(s.dump()))); // one try may fall into a restart
  s["nodes"][0]["not_deleted"]["tries"] = 2;
  auto left = cli::nodes_left(s.dump());
  CHECK(cli::only_stuck(left));
  CHECK(cli::left_text(left) == "  n1 on nas (192.0.2.7:9900): no answer in time");
  auto gone = cli::nodes_abandoned(s.dump());
  REQUIRE(gone.size() == 1);
  CHECK(cli::abandoned_text(gone) == "  nas (192.0.2.7:9900): namespace qs01 of n3; to delete it there by hand: NSDEL qs01");
  CHECK(json::parse(cli::abandoned_json(gone))[0]["by_hand"] == "NSDEL qs01");
  // In `qs nodes`, and of one of them.
  CHECK(cli::nodes_view(s.dump()).find("qs nodes delete n1") != std::string::npos);
  CHECK(cli::node_view(s.dump(), "n1").find("tried 2 times") != std::string::npos);
}

TEST_CASE("cli plan: the engine's answer taken apart") {
  json d{{"format_version", 1}, {"exit", 0}, {"empty", false}, {"only_unknown", false}, {"needs_typed_name", true}, {"human", "plan"}, {"human_colour", "PLAN"},
         {"plan", {{"format_version", 1}}}, {"plan_hash", "abc"}, {"serial", 4}, {"errors", json::array()}, {"warnings", {"no FUSE"}}};
  auto p = cli::read_plan(d.dump());
  CHECK(!p.refresh); // of an engine that does not say so
  d["refresh"] = true;
  CHECK(cli::read_plan(d.dump()).refresh);
  CHECK(p.exit == 0);
  CHECK(p.needs_typed_name);
  CHECK(p.plan_hash == "abc");
  CHECK(p.serial == 4);
  CHECK(p.warnings == std::vector<std::string>{"no FUSE"});
  auto refused = cli::read_plan(R"({"exit":3,"errors":["protected"]})");
  CHECK(refused.exit == 3);
  CHECK(refused.errors == std::vector<std::string>{"protected"});
  CHECK(cli::read_plan("nonsense").exit == 1);
  CHECK(cli::read_plan("{}").exit == 1); // neither a plan nor a reason is no success
  CHECK(!cli::read_plan("{}").errors.empty());
}
