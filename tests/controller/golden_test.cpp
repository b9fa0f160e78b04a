// Golden plans: tests/golden/controller/NAME.scenario → NAME.plan. Adding a case needs no C++;
// QS_GOLDEN=write rewrites.
//
// A scenario is sections of lines. `# …` is a comment. Sections:
//   storage.yaml:   the file as it lies there, indented by two
//   accepted:       the file as it was accepted before; without it nothing was, and with it
//   everything is deployed world:          hosts COUNT farms=F countries=C free=SIZE price=TFT |
//   host ID farm=… country=… region=… free=… price=…
//                   before the first apply; then, in order: lost nN · denied nN · silent nN
//                   DURATION · stopped nN · stored SIZE (of shards, per slot) · stray ID HOST ·
//                   hosts-unknown · strays-unknown · room HOST SIZE · limit nN SIZE · protect ·
//                   destroying
//   do: destroy     the plan of destroying instead
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <sstream>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "base/posix.hpp"
#include "controller/trivial_world.hpp"

using namespace qs;
namespace fs = std::filesystem;

namespace {

struct scenario {
  std::string desired, accepted;
  std::vector<std::vector<std::string>> hosts, events;
  bool destroy = false;
};

std::vector<std::string> words(const std::string& line) {
  std::istringstream in{line};
  std::vector<std::string> out;
  for (std::string w; in >> w;) out.push_back(w);
  return out;
}

scenario read(const std::string& text) {
  scenario s;
  std::istringstream in{text};
  std::string section;
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line[0] == '#') continue;
    if (line[0] != ' ') {
      section = line;
      s.destroy = s.destroy || line == "do: destroy";
      continue;
    }
    if (section == "storage.yaml:")
      s.desired += line.substr(2) + "\n";
    else if (section == "accepted:")
      s.accepted += line.substr(2) + "\n";
    else if (section == "world:")
      (line.starts_with("  host") && !line.starts_with("  hosts-") ? s.hosts : s.events)
          .push_back(words(line));
    else
      FAIL("no such section: " << section);
  }
  return s;
}

std::string option(const std::vector<std::string>& line, const std::string& key,
                   const std::string& otherwise = "") {
  for (const auto& w : line)
    if (w.starts_with(key + "=")) return w.substr(key.size() + 1);
  return otherwise;
}

void add_hosts(test::trivial_world& w, const std::vector<std::string>& line) {
  auto free = *parse_bytes(option(line, "free", "100GiB"));
  auto price = model::parse_money(option(line, "price", "0.05"))->units;
  if (line[0] == "hosts") {
    w.add_hosts(std::stoi(line[1]), std::stoi(option(line, "farms", "8")),
                std::stoi(option(line, "countries", "5")), free, price);
    return;
  }
  model::host h;
  h.id = line[1];
  h.place = {option(line, "farm"), option(line, "country"), option(line, "region")};
  h.capacity = h.free = free;
  h.price_per_gib_month = {price};
  w.hosts["local"].push_back(h);
}

void happen(test::trivial_world& w, const std::vector<std::string>& e) {
  auto id = [&] { return model::parse_node_id(e.at(1)).value(); };
  if (e[0] == "lost") {
    auto& t = w.nodes.at(id());
    t.running = t.data = false;
    t.tombstone = true;
  } else if (e[0] == "denied") {
    w.nodes.at(id()).denied = true;
  } else if (e[0] == "silent") {
    w.nodes.at(id()).frozen = true;
    w.nodes.at(id()).silent_for = *parse_duration(e.at(2));
  } else if (e[0] == "stopped") {
    w.nodes.at(id()).running = false;
  } else if (e[0] == "stored") {
    w.store_segments(1000, *parse_bytes(e.at(1)));
  } else if (e[0] == "stray") {
    w.strays.push_back({"local", e.at(1), e.at(2), 8 * gib});
  } else if (e[0] == "hosts-unknown") {
    w.hosts_known = false;
  } else if (e[0] == "strays-unknown") {
    w.strays_known = false;
  } else if (e[0] == "room") {
    for (auto& h : w.hosts["local"])
      if (h.id == e.at(1) || e.at(1) == "*") {
        h.free = *parse_bytes(e.at(2));
        for (const auto& r : w.recorded.nodes)
          if (r.host == h.id) h.free += r.size; // what the world itself takes off again
      }
  } else if (e[0] == "limit") {
    w.nodes.at(id()).limit = *parse_bytes(e.at(2));
  } else if (e[0] == "protect") {
    w.recorded.protect = true;
  } else if (e[0] == "destroying") {
    w.recorded.destroying = true;
  } else {
    FAIL("no such event: " << e[0]);
  }
}

std::string play(const scenario& s) {
  auto desired = test::parse(s.desired);
  test::trivial_world w{s.accepted.empty() ? desired : test::parse(s.accepted)};
  for (const auto& h : s.hosts) add_hosts(w, h);
  if (!s.accepted.empty()) {
    auto first = w.diff(w.spec);
    REQUIRE_MESSAGE(first.made, (first.refusals.empty() ? "" : first.refusals[0].message));
    w.accept(w.spec, *first.made);
    REQUIRE(w.settle());
  }
  for (const auto& e : s.events) happen(w, e);
  auto d = s.destroy ? controller::diff_destroy(w.recorded, w.observe()) : w.diff(desired);
  if (!d.made) return controller::render(d.refusals);
  auto text = controller::render(*d.made);
  std::istringstream lines{text};
  for (std::string line; std::getline(lines, line);) CHECK_MESSAGE(line.size() <= 80, line);
  auto back = controller::from_document(controller::to_document(*d.made));
  REQUIRE(back.ok());
  CHECK(back->hash == d.made->hash);
  CHECK(controller::render(*back) == text);
  return text;
}

} // namespace

TEST_CASE("golden plans") {
  auto directory = fs::path{QS_SOURCE_DIR} / "tests" / "golden" / "controller";
  auto write = std::getenv("QS_GOLDEN") != nullptr;
  auto cases = 0;
  for (const auto& entry : fs::directory_iterator{directory}) {
    if (entry.path().extension() != ".scenario") continue;
    ++cases;
    CAPTURE(entry.path().filename().string());
    auto got = play(read(*read_file(entry.path())));
    auto golden = fs::path{entry.path()}.replace_extension(".plan");
    if (write) REQUIRE(write_file_atomic(golden, as_bytes(got), 0644).ok());
    auto want = read_file(golden);
    REQUIRE_MESSAGE(want.ok(), "no golden file; run with QS_GOLDEN=write and read what it wrote");
    CHECK_MESSAGE(got == *want, "got:\n" << got << "\nwant:\n" << *want);
  }
  CHECK(cases >= 20);
}
