#include <doctest/doctest.h>

#include <algorithm>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

#include "base/posix.hpp"
#include "grid/ledger.hpp"

using namespace qs;
using namespace qs::grid;
using namespace std::chrono_literals;

namespace {

struct place {
  place() {
    std::string name = (std::filesystem::temp_directory_path() / "qs-ledger-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    dir = name;
  }
  ~place() { std::filesystem::remove_all(dir); }
  [[nodiscard]] std::filesystem::path file() const { return dir / "ledger.jsonl"; }
  [[nodiscard]] std::string text() const { return read_file(file()).value_or(""); }
  [[nodiscard]] std::size_t lines() const {
    auto t = text();
    return static_cast<std::size_t>(std::count(t.begin(), t.end(), '\n'));
  }
  void append(std::string_view bytes) const {
    auto fd = open_file(file(), O_WRONLY | O_APPEND);
    REQUIRE(fd.ok());
    REQUIRE(write_all(fd->get(), as_bytes(bytes)).ok());
  }
  std::filesystem::path dir;
};

const wall_time t0{std::chrono::hours{24 * 20000}};
constexpr model::money tft(std::int64_t n) { return {n * model::units_per_tft}; }

} // namespace

TEST_CASE("a new wallet is credited once, each its own") {
  place p;
  ledger a{p.file()};
  REQUIRE(a.refresh("w1", t0).ok());
  REQUIRE(a.refresh("w1", t0).ok());
  CHECK(a.balance("w1", {}, t0) == tft(1000));
  ledger b{p.file()}; // another program
  REQUIRE(b.refresh("w1", t0).ok());
  REQUIRE(b.refresh("w2", t0).ok());
  CHECK(p.lines() == 2);
  CHECK(b.balance("w2", {}, t0) == tft(1000));
  CHECK(b.balance("nobody", {}, t0) == model::money{});
  struct ::stat info {};
  REQUIRE(::stat(p.file().c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
}

TEST_CASE("charging by time: thirty days cost the monthly price, in one charge or in many") {
  for (auto step : {720h, 24h, 7h, 1h}) {
    CAPTURE(step.count());
    place p;
    ledger l{p.file()};
    std::vector<charged_node> nodes{{"n", {333'333'337}, t0, {}}};
    REQUIRE(l.refresh("w", t0).ok());
    for (auto t = t0 + step; t <= t0 + charge_month; t += step) {
      REQUIRE(l.refresh("w", t).ok());
      REQUIRE(l.charge("w", nodes, t).ok());
    }
    REQUIRE(l.settle("w", nodes, t0 + charge_month).ok());
    CHECK(l.balance("w", nodes, t0 + charge_month).units == tft(1000).units - 333'333'337);
    // Settled: the same without counting what is not written.
    CHECK(l.balance("w", {}, t0 + charge_month).units == tft(1000).units - 333'333'337);
    auto entries = l.newest("w", 100'000);
    REQUIRE(entries.ok());
    model::money sum;
    for (const auto& e : *entries) sum = e.kind == "credit" ? sum + e.amount : sum - e.amount;
    CHECK(sum.units == tft(1000).units - 333'333'337);
    CHECK(entries->back().balance == sum);
  }
}

TEST_CASE("looks within the hour write nothing and are counted all the same; time that goes back "
          "costs nothing") {
  place p;
  ledger l{p.file()};
  std::vector<charged_node> nodes{{"n", tft(720), t0, {}}}; // 1 TFT an hour
  REQUIRE(l.refresh("w", t0).ok());
  REQUIRE(l.charge("w", nodes, t0 + 30min).ok());
  CHECK(p.lines() == 1);
  CHECK(l.balance("w", nodes, t0 + 30min).units == tft(1000).units - tft(1).units / 2);
  REQUIRE(l.charge("w", nodes, t0 + 60min).ok());
  CHECK(p.lines() == 2);
  CHECK(l.balance("w", nodes, t0 + 60min) == tft(999));
  REQUIRE(l.charge("w", nodes, t0 - 48h).ok());
  REQUIRE(l.settle("w", nodes, t0 + 10min).ok());
  CHECK(p.lines() == 2);
  CHECK(l.balance("w", nodes, t0 + 10min) == tft(999));
  // A new program goes on from the file: nothing is charged twice.
  ledger again{p.file()};
  REQUIRE(again.refresh("w", t0 + 60min).ok());
  REQUIRE(again.settle("w", nodes, t0 + 60min).ok());
  CHECK(p.lines() == 2);
  REQUIRE(again.settle("w", nodes, t0 + 90min).ok());
  CHECK(again.balance("w", nodes, t0 + 90min).units == tft(999).units - tft(1).units / 2);
}

TEST_CASE("a node that died is charged until its death; a changed rate from its change") {
  place p;
  ledger l{p.file()};
  REQUIRE(l.refresh("w", t0).ok());
  charged_node n{"n", tft(720), t0, t0 + 2h};
  REQUIRE(l.settle("w", {n}, t0 + 50h).ok());
  CHECK(l.balance("w", {n}, t0 + 50h) == tft(998));
  charged_node m{"m", tft(720), t0 + 50h, {}};
  REQUIRE(l.settle("w", {m}, t0 + 51h).ok());
  m.rate = tft(1440);
  m.since = t0 + 51h;
  CHECK(l.balance("w", {m}, t0 + 52h) == tft(995));
}

TEST_CASE("what an empty wallet cannot pay is owed and taken from the next credit") {
  place p;
  ledger l{p.file()};
  std::vector<charged_node> nodes{{"n", tft(720), t0, {}}};
  REQUIRE(l.refresh("w", t0).ok());
  CHECK(l.balance("w", nodes, t0 + 1200h) == model::money{});
  REQUIRE(l.settle("w", nodes, t0 + 1200h).ok());
  CHECK(l.balance("w", nodes, t0 + 1200h) == model::money{});
  REQUIRE(l.credit("w", tft(50), "topup", t0 + 1200h).ok());
  CHECK(l.balance("w", nodes, t0 + 1200h) == model::money{});
  REQUIRE(l.credit("w", tft(170), "topup", t0 + 1200h).ok());
  CHECK(l.balance("w", nodes, t0 + 1200h) == tft(20));
  ledger again{p.file()};
  REQUIRE(again.refresh("w", t0 + 1200h).ok());
  CHECK(again.balance("w", nodes, t0 + 1200h) == tft(20));
  CHECK_FALSE(l.credit("w", {0}, "topup", t0).ok());
  CHECK_FALSE(l.credit("w", {-5}, "topup", t0).ok());
}

TEST_CASE("a torn last line is cut, at every length; a whole line that is wrong is an error") {
  place p;
  std::string before, last;
  {
    ledger l{p.file()};
    REQUIRE(l.refresh("w", t0).ok());
    before = p.text();
    REQUIRE(l.credit("w", tft(5), "topup", t0).ok());
    last = p.text().substr(before.size());
  }
  for (std::size_t n = 0; n < last.size(); ++n) {
    CAPTURE(n);
    REQUIRE(write_file_atomic(p.file(), as_bytes(before + last.substr(0, n))).ok());
    ledger l{p.file()};
    REQUIRE(l.refresh("w", t0).ok());
    CHECK(l.balance("w", {}, t0) == tft(1000));
    CHECK(p.text() == before);
    REQUIRE(l.credit("w", tft(7), "topup", t0).ok());
    CHECK(ledger{p.file()}.refresh("w", t0).ok());
  }
  struct {
    std::string line;
    std::string says;
  } wrong[] = {{"{}\n", "line 2"}, {"nonsense\n", "line 2"}, {before, "balance should be 2000"}};
  for (const auto& w : wrong) {
    REQUIRE(write_file_atomic(p.file(), as_bytes(before + w.line)).ok());
    ledger l{p.file()};
    auto read = l.refresh("w", t0);
    REQUIRE_FALSE(read.ok());
    CHECK(read.err().code == errc::corrupt);
    CAPTURE(read.err().message);
    CHECK(read.err().message.find(w.says) != std::string::npos);
    CHECK(p.text() == before + w.line); // nothing is cut that was whole
  }
}

TEST_CASE("two programs append to one ledger") {
  place p;
  ledger a{p.file()}, b{p.file()};
  REQUIRE(a.refresh("w", t0).ok());
  REQUIRE(b.refresh("w", t0).ok());
  REQUIRE(a.credit("w", tft(1), "topup", t0).ok());
  REQUIRE(b.refresh("w", t0).ok());
  REQUIRE(b.credit("w", tft(2), "topup", t0).ok());
  REQUIRE(a.refresh("w", t0).ok());
  CHECK(a.balance("w", {}, t0) == tft(1003));
  auto entries = a.newest("w", 2);
  REQUIRE(entries.ok());
  REQUIRE(entries->size() == 2);
  CHECK(entries->back().amount == tft(2));
  CHECK(entries->back().kind == "credit");
  CHECK(entries->front().amount == tft(1));
}
