// load: the typed values, references, places, bounds; validate, unsupported and the JSON of a
// report.
#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/limits.hpp"
#include "spec/codes.hpp"
#include "spec/load.hpp"
#include "spec/report.hpp"

using namespace qs;
using namespace qs::spec;

namespace {

const fixed_environment nothing;

std::string slurp(const std::filesystem::path& path) {
  std::ifstream in{path, std::ios::binary};
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

std::string example(const char* name) {
  return slurp(std::filesystem::path{QS_SOURCE_DIR} / "examples" / name);
}

fixed_environment home_lab_environment() {
  return fixed_environment{{{"~", "/home/me"},
                            {"${env:NAS_ADMIN}", "pw-nas"},
                            {"${env:ATTIC_ADMIN}", "pw-attic"},
                            {"${env:RENTED_ADMIN}", "pw-rented"},
                            {"${env:TG_TOKEN}", "pw-token"},
                            {"${file:/home/me/.config/qs/office}", "pw-office\n"}}};
}

std::vector<std::string> codes_of(const diagnostics& list) {
  std::vector<std::string> out;
  for (const auto& d : list) out.push_back(d.code);
  return out;
}

} // namespace

TEST_CASE("the least file has every default") {
  auto got = validate("version: 1\nname: demo\nstorage: {capacity: 20GiB}\n", nothing);
  REQUIRE(got.spec);
  CHECK(got.problems.empty());
  storage_spec expected;
  expected.name = "demo";
  expected.storage.capacity = 20 * gib;
  CHECK(*got.spec == expected);
  CHECK(got.spec->storage.data_shards == 4);
  CHECK(got.spec->storage.parity_shards == 2);
  CHECK(got.spec->storage.nodes == 6);
  CHECK(got.spec->storage.protect);
  CHECK(got.spec->storage.spread.host == 1);
  CHECK(got.spec->storage.spread.farm == 2);
  CHECK(!got.spec->storage.spread.country);
  CHECK(!got.spec->mount);
  CHECK(!got.spec->status);
  CHECK(got.spec->monitor.interval == std::chrono::seconds{10});
  CHECK(got.spec->payment.runway == std::chrono::hours{720});
}

TEST_CASE("defaults follow what they depend on") {
  auto got =
      load("version: 1\nname: d\nstorage: {capacity: 1TB, redundancy: {data: 10, parity: 5}}\n",
           nothing);
  REQUIRE(got.spec);
  CHECK(got.spec->storage.capacity == 1'000'000'000'000);
  CHECK(got.spec->storage.nodes == 15);
  CHECK(got.spec->storage.spread.farm == 5);
  auto one =
      load("version: 1\nname: d\nstorage: {capacity: 1TB, redundancy: {parity: 1}}\n", nothing);
  REQUIRE(one.spec);
  CHECK(one.spec->storage.spread.farm == 1);
}

TEST_CASE("examples/local.yaml is accepted") {
  fixed_environment env{{{"~", "/home/me"}}};
  auto got = validate(example("local.yaml"), env);
  CHECK(render(got.problems, "local.yaml", example("local.yaml")) == "");
  REQUIRE(got.spec);
  CHECK(got.spec->mount->path == sourced{"~/qs-try-me", "/home/me/qs-try-me"});
  CHECK(got.spec->mount->staging.size == 2 * gib);
  CHECK(!got.spec->mount->staging.path);
  CHECK(got.spec->monitor.replace_after == std::chrono::seconds{10});
  CHECK(got.spec->status->listen == "127.0.0.1:9480");
  CHECK(got.references == reference_values{{"~", "/home/me"}});
}

TEST_CASE("examples/home-lab.yaml is understood and done") {
  auto text = example("home-lab.yaml");
  auto got = load(text, home_lab_environment());
  CHECK(render(got.problems, "home-lab.yaml", text) == "");
  REQUIRE(got.spec);
  const auto& hosts = std::get<hosts_grid>(got.spec->grids.at(0)).hosts;
  REQUIRE(hosts.size() == 6);
  CHECK(hosts[0].password == sourced{"${env:NAS_ADMIN}", "pw-nas"});
  CHECK(hosts[0].capacity == 4 * tib);
  CHECK(hosts[2].password->value == "pw-office");
  CHECK(!hosts[2].capacity);
  CHECK(hosts[4].farm == "rented1"); // its own name
  CHECK(unsupported(got).empty());
  CHECK(validate(text, home_lab_environment()).spec);
}

TEST_CASE("who is told is typed, and refused only because this version does not do it") {
  auto got = load("version: 1\nname: d\nstorage: {capacity: 1TB}\nnotify:\n"
                  "  - {email: me@example.org, smtp: \"smtp://mail.example.org\"}\n"
                  "  - {telegram: {chat: 1234, token: \"${env:TG_TOKEN}\"}}\n",
                  fixed_environment{{{"${env:TG_TOKEN}", "token"}}});
  REQUIRE(got.spec);
  CHECK(std::get<email_target>(got.spec->notify.at(0)).smtp.value == "smtp://mail.example.org");
  CHECK(std::get<telegram_target>(got.spec->notify.at(1)).chat == 1234);
  CHECK(codes_of(unsupported(got)) == std::vector<std::string>{"QS0205"});
}

TEST_CASE("a host's address: host:port, or the path of a socket") {
  auto with = [](const std::string& address) {
    auto got = load("version: 1\nname: d\nstorage: {capacity: 1TB, redundancy: {data: 1, parity: 1}}\n"
                    "grid: {hosts: [{name: a, address: \"192.0.2.1:9900\"}, {name: b, address: \"" +
                        address + "\"}]}\n",
                    nothing);
    return codes_of(got.problems);
  };
  CHECK(with("[::1]:9900").empty());
  CHECK(with("unix:/run/zdb.sock").empty());
  CHECK(with("nas.home:9900").empty());
  for (const auto* bad : {"unix:", "unix:zdb.sock", "/run/zdb.sock", "nas"})
    CHECK(with(bad) == std::vector<std::string>{"QS0023"});
  CHECK(with("unix:/" + std::string(107, 'x')) == std::vector<std::string>{"QS0023"});
}

TEST_CASE("examples/threefold.yaml likewise") {
  auto got = load(example("threefold.yaml"), nothing);
  REQUIRE(got.spec);
  CHECK(std::get<threefold_grid>(got.spec->grids.at(0)).network == "main");
  CHECK(got.spec->payment.confirm == confirm_mode::connect);
  CHECK(got.spec->payment.max_per_month->units == 50 * model::units_per_tft);
  CHECK(got.spec->mount->fsync == fsync_mode::grid);
  CHECK(got.spec->storage.spread.country == 8);
  CHECK(got.spec->storage.exclude.farms == std::vector<std::string>{"slowfarm"});
  CHECK(codes_of(unsupported(got)) ==
        std::vector<std::string>{"QS0202", "QS0204", "QS0205", "QS0206", "QS0308"});
}

TEST_CASE("a list of grids is typed, and what is not done is refused at its place") {
  auto got =
      load("version: 1\nname: d\ngrid:\n  - local\n  - threefold: {}\nstorage: {capacity: 1TB}\n",
           nothing);
  REQUIRE(got.spec);
  REQUIRE(got.spec->grids.size() == 2);
  CHECK(std::holds_alternative<local_grid>(got.spec->grids[0]));
  CHECK(std::get<threefold_grid>(got.spec->grids[1]).network == "main");
  auto list = unsupported(got);
  CHECK(codes_of(list) == std::vector<std::string>{"QS0202"});
  CHECK(list[0].where.line == 5);
}

TEST_CASE("the sealed values load the same spec again, without the machine") {
  auto text = example("home-lab.yaml");
  auto first = load(text, home_lab_environment());
  REQUIRE(first.spec);
  auto again = load(text, fixed_environment{first.references});
  REQUIRE(again.spec);
  CHECK(*again.spec == *first.spec);
}

TEST_CASE("references can be kept, and nothing is asked then") {
  auto text = example("home-lab.yaml");
  auto got = load(text, nothing, reference_mode::keep);
  CHECK(render(got.problems, "x", text) == "");
  REQUIRE(got.spec);
  CHECK(std::get<hosts_grid>(got.spec->grids.at(0)).hosts[0].password ==
        sourced{"${env:NAS_ADMIN}", ""});
  CHECK(got.references.empty());
  auto resolved = load(text, home_lab_environment());
  REQUIRE(resolved.spec);
  CHECK(canonical_hash(*got.spec) == canonical_hash(*resolved.spec));
}

TEST_CASE("the canonical text ignores comments, order and spelling, and sees meaning") {
  auto hash = [](const char* text) {
    auto got = load(text, nothing);
    REQUIRE(got.spec);
    return canonical_hash(*got.spec);
  };
  auto plain = hash("version: 1\nname: d\nstorage: {capacity: 1024MiB}\n");
  CHECK(plain == hash("# x\nstorage:\n  nodes: 6\n  capacity: 1 GiB # y\nname: \"d\"\nversion: "
                      "1\ngrid: local\n"));
  CHECK(plain != hash("version: 1\nname: d\nstorage: {capacity: 1025MiB}\n"));
  CHECK(plain.size() == 64);
}

TEST_CASE("places are of the values, in characters") {
  auto got =
      load("version: 1\nname: d\nstorage: {exclude: {farms: [\"ü\"]}, capacity: 20GiB}\n", nothing);
  REQUIRE(got.spec);
  auto at = got.places.at("storage.capacity");
  CHECK(at.line == 3);
  CHECK(at.column == 47 - 1);
  CHECK(at.end_column == at.column + 5);
}

TEST_CASE("too big, too long and too much are refused quickly") {
  auto start = std::chrono::steady_clock::now();
  CHECK(codes_of(load(std::string(limits::spec_bytes_max + 1, '#'), nothing).problems) ==
        std::vector<std::string>{"QS0001"});
  CHECK(codes_of(load(std::string(5000, '#'), nothing).problems) ==
        std::vector<std::string>{"QS0001"});
  std::string deep;
  for (int i = 0; i < 4000; ++i) deep += "[\n";
  CHECK(codes_of(load(deep, nothing).problems) == std::vector<std::string>{"QS0007"});
  std::string many;
  while (many.size() < limits::spec_bytes_max - 100)
    many += "k" + std::to_string(many.size()) + ": 1\n";
  auto got = load(many, nothing);
  CHECK(!got.spec);
  CHECK(got.problems.size() < 300);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds{60});
}

TEST_CASE("the JSON of a report") {
  std::string text =
      "version: 1\nname: d # ü\nstorage:\n  capacity: 20GiB\n  exclude: {farms: [ü], x: 1}\n";
  auto got = validate(text, nothing);
  auto j = nlohmann::json::parse(to_json(got.problems, "dir/storage.yaml", text));
  CHECK(j["format_version"] == 1);
  CHECK(j["valid"] == false);
  CHECK(j["error_count"] == 1);
  CHECK(j["warning_count"] == 0);
  const auto& d = j["diagnostics"].at(0);
  CHECK(d["severity"] == "error");
  CHECK(d["code"] == "QS0011");
  CHECK(d["summary"].get<std::string>().find("unknown key 'x'") == 0);
  CHECK(d["detail"] == advice("QS0011"));
  CHECK(d["range"]["filename"] == "dir/storage.yaml");
  auto byte = text.find("x: 1");
  CHECK(d["range"]["start"]["byte"] == byte);
  CHECK(d["range"]["end"]["byte"] == byte + 1);
  CHECK(d["range"]["start"]["line"] == 5);
  CHECK(d["range"]["start"]["column"] == 25);
  auto fine = nlohmann::json::parse(to_json({}, "f", ""));
  CHECK(fine["valid"] == true);
  CHECK(fine["diagnostics"].empty());
  auto unplaced = nlohmann::json::parse(to_json(validate("", nothing).problems, "f", ""));
  CHECK(!unplaced["diagnostics"].at(0).contains("range"));
}
