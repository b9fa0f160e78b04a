#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <set>

#include "base/posix.hpp"
#include "grid/catalogue.hpp"

using namespace qs;
using namespace qs::grid;

TEST_CASE("the default catalogue: 24 hosts, 8 farms, 5 countries") {
  auto hosts = parse_catalogue(default_catalogue());
  REQUIRE(hosts.ok());
  CHECK(hosts->size() == 24);
  std::set<std::string> ids, farms, countries, regions;
  for (const auto& h : *hosts) {
    ids.insert(h.id);
    farms.insert(h.place.farm);
    countries.insert(h.place.country);
    regions.insert(h.place.region);
    CHECK(h.free == h.capacity);
    CHECK(h.available);
    CHECK(h.price_per_gib_month.units > 0);
  }
  CHECK(ids.size() == 24);
  CHECK(farms.size() == 8);
  CHECK(farms.contains("greenfarm"));
  CHECK(countries.size() == 5);
  CHECK(regions.size() == 3);
}

TEST_CASE("what is wrong in a catalogue is said, all of it, with the host's id") {
  auto host = [](const std::string& more) {
    return R"({"version": 1, "hosts": [{"id": "a", "farm": "f", "country": "c", )" + more + "}]}";
  };
  struct {
    std::string text;
    std::vector<std::string> says;
  } cases[] = {
      {"", {"not valid JSON"}},
      {"[1, 2", {"not valid JSON"}},
      {"[]", {"must be an object with a list of \"hosts\""}},
      {R"({"version": 2, "hosts": []})", {"\"version\" must be 1"}},
      {R"({"version": 1, "hosts": [3]})", {"hosts[0]: must be an object"}},
      {R"({"version": 1, "hosts": [], "farms": []})", {"unknown key 'farms'"}},
      {host(R"("capacity": "1TiB")"), {"host a: 'price_per_gib_month' is missing"}},
      {host(R"("capacity": "1 loaf", "price_per_gib_month": "0.1")"), {"host a: 'capacity': "}},
      {host(R"("capacity": "1MiB", "price_per_gib_month": "0.1")"), {"between 1GiB and 1PiB"}},
      {host(R"("capacity": 5, "price_per_gib_month": "-1")"),
       {"'capacity' must be a text", "'price_per_gib_month': "}},
      {host(R"("capacty": "1TiB", "price_per_gib_month": "0.1")"),
       {"'capacity' is missing", "unknown key 'capacty'; did you mean 'capacity'?"}},
      {host(R"("capacity": "1TiB", "price_per_gib_month": "0.1", "available": "no")"),
       {"must be true or false"}},
      {R"({"version": 1, "hosts": [{"id": "A B", "farm": "f", "country": "c", "capacity": "1TiB", "price_per_gib_month": "1"}]})",
       {"'id' may have a-z"}},
      {R"({"version": 1, "hosts": [
         {"id": "x", "farm": "f", "country": "c", "capacity": "1TiB", "price_per_gib_month": "1"},
         {"id": "x", "farm": "", "country": "c", "capacity": "1TiB", "price_per_gib_month": "1"}]})",
       {"host x: 'id' is used twice", "host x: 'farm' must be a text"}},
  };
  for (const auto& c : cases) {
    CAPTURE(c.text);
    auto read = parse_catalogue(c.text);
    REQUIRE_FALSE(read.ok());
    CHECK(read.err().code == errc::invalid_argument);
    for (const auto& s : c.says) {
      CAPTURE(s);
      CAPTURE(read.err().message);
      CHECK(read.err().message.find(s) != std::string::npos);
    }
  }
}

TEST_CASE("the catalogue is made once and an edited one is kept") {
  auto dir = std::filesystem::temp_directory_path() / "qs-catalogue-XXXXXX";
  auto name = dir.string();
  REQUIRE(::mkdtemp(name.data()) != nullptr);
  CHECK(load_catalogue(name)->size() == 24);
  auto edited =
      R"({"version": 1, "hosts": [{"id": "only", "farm": "mine", "country": "Home", "capacity": "5GiB",
                   "price_per_gib_month": "0", "available": false}]})";
  REQUIRE(write_file_atomic(name + "/catalogue.json", as_bytes(edited)).ok());
  auto hosts = load_catalogue(name);
  REQUIRE(hosts.ok());
  REQUIRE(hosts->size() == 1);
  CHECK(hosts->front().id == "only");
  CHECK(hosts->front().capacity == 5 * gib);
  CHECK_FALSE(hosts->front().available);
  REQUIRE(write_file_atomic(name + "/catalogue.json", as_bytes("{")).ok());
  auto broken = load_catalogue(name);
  REQUIRE_FALSE(broken.ok());
  CHECK(broken.err().message.find("catalogue.json") != std::string::npos);
  std::filesystem::remove_all(name);
}

TEST_CASE("a month's price is rounded up") {
  CHECK(monthly_price({500'000}, 100 * gib).units == 50'000'000);
  CHECK(monthly_price({1}, 1).units == 1);
  CHECK(monthly_price({0}, tib).units == 0);
  CHECK(monthly_price({3}, gib + gib / 2).units == 5);
  CHECK(monthly_price({model::units_per_tft * 1000}, 1024 * tib).units ==
        model::units_per_tft * 1000 * 1024 * 1024);
}
