// The rules of the house that a compiler does not see: who may include whom, how long files and
// lines may be, words that must not occur. A rule that has an exception names it here, with its
// reason.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

// architecture: base ← model ← spec codec zdb net ← grid volume controller state ← actors ← fuse ←
// cli
const std::map<std::string, std::set<std::string>> may_know{
    {"base", {}},
    {"model", {"base"}},
    {"spec", {"base", "model"}},
    {"codec", {"base", "model"}},
    {"zdb", {"base", "model"}},
    {"net", {"base", "model"}},
    {"grid", {"base", "model", "spec", "codec", "zdb", "net"}},
    {"volume", {"base", "model", "spec", "codec"}},
    {"controller", {"base", "model", "spec"}},
    {"state", {"base", "model", "spec", "codec"}},
    {"actors",
     {"base", "model", "spec", "codec", "zdb", "net", "grid", "volume", "controller", "state"}},
    {"fuse",
     {"base", "model", "spec", "codec", "zdb", "net", "grid", "volume", "controller", "state",
      "actors"}},
    {"cli",
     {"base", "model", "spec", "codec", "zdb", "net", "grid", "volume", "controller", "state",
      "actors", "fuse"}}};

struct source {
  std::string room;
  std::string name; // "room/file.cpp"
  std::vector<std::string> lines;
};

const std::vector<source>& sources() {
  static const auto all = [] {
    std::vector<source> out;
    for (const auto& [room, known] : may_know)
      for (const auto& entry : fs::recursive_directory_iterator{fs::path{QS_SOURCE_DIR} / room}) {
        auto extension = entry.path().extension();
        if (extension != ".hpp" && extension != ".cpp") continue;
        source s{room, fs::relative(entry.path(), QS_SOURCE_DIR).string(), {}};
        std::ifstream in{entry.path()};
        for (std::string line; std::getline(in, line);) s.lines.push_back(line);
        out.push_back(std::move(s));
      }
    return out;
  }();
  return all;
}

/// The path inside `#include "…"` or `#include <…>`, else "".
std::string included(const std::string& line) {
  if (line.rfind("#include", 0) != 0) return {};
  auto from = line.find_first_of("\"<");
  auto to = line.find_last_of("\">");
  return from == std::string::npos || to <= from ? "" : line.substr(from + 1, to - from - 1);
}

} // namespace

TEST_CASE("a room includes only from rooms to its left") {
  REQUIRE(sources().size() > 50);
  for (const auto& s : sources())
    for (const auto& line : s.lines) {
      auto what = included(line);
      auto slash = what.find('/');
      if (slash == std::string::npos) continue;
      auto room = what.substr(0, slash);
      if (!may_know.contains(room) || room == s.room) continue;
      CHECK_MESSAGE(may_know.at(s.room).contains(room), s.name << " includes " << what);
    }
}

TEST_CASE("third-party headers stay in the rooms that own them") {
  const std::map<std::string, std::set<std::string>> owners{
      {"caf/", {"actors"}},       {"fuse3/", {"fuse"}},        {"fuse_lowlevel.h", {"fuse"}},
      {"yaml-cpp/", {"spec"}},    {"rocksdb/", {"volume"}},    {"sqlite3.h", {"state"}},
      {"isa-l", {"codec", "zdb"}}, {"zstd", {"codec"}},         {"openssl/", {"codec", "zdb"}},
      {"boost/", {"zdb", "net"}}, {"curl/", {"net"}},          {"CLI/", {"cli"}},
      {"spdlog/", {"base"}},      {"prometheus/", {"actors"}}, {"httplib.h", {"actors", "cli"}},
      {"qrencode.h", {"cli"}}};
  for (const auto& s : sources())
    for (const auto& line : s.lines) {
      auto what = included(line);
      for (const auto& [prefix, rooms] : owners)
        if (!what.empty() && what.rfind(prefix, 0) == 0)
          CHECK_MESSAGE(rooms.contains(s.room), s.name << " includes " << what);
    }
}

TEST_CASE("headers open with what they are and are included once") {
  for (const auto& s : sources()) {
    if (!s.name.ends_with(".hpp")) continue;
    REQUIRE_FALSE(s.lines.empty());
    CHECK_MESSAGE(s.lines.front().rfind("//", 0) == 0,
                  s.name << " does not open by saying what it is");
    CHECK_MESSAGE(std::find(s.lines.begin(), s.lines.end(), "#pragma once") != s.lines.end(),
                  s.name << " lacks #pragma once");
  }
}

TEST_CASE("words that must not occur") {
  struct rule {
    std::string word;
    std::string why;
    std::set<std::string> except;
  };
  const std::vector<rule> rules{
      {"sleep_for", "wait for a condition with a deadline", {}},
      {"caf/all.hpp", "costs 4 s a file; in .cpp files of actors only", {}},
      {"nlohmann/json.hpp", "in .cpp files only", {}},
      {"std::cout", "stdout is the result of a command: cli writes it", {}},
  };
  for (const auto& s : sources())
    for (const auto& r : rules) {
      if (r.except.contains(s.name)) continue;
      auto header_only = r.word.find(".hpp") != std::string::npos;
      if (header_only && !s.name.ends_with(".hpp")) continue;
      // The precompiled header is what keeps it cheap; the supervisor's state is shared by the
      // files that implement it only.
      if (header_only && (s.name == "actors/pch.hpp" || s.name == "actors/supervisor_state.hpp"))
        continue;
      if (r.word == "std::cout" && s.room == "cli") continue;
      for (const auto& line : s.lines)
        CHECK_MESSAGE(line.find(r.word) == std::string::npos,
                      s.name << ": " << r.word << ": " << r.why);
    }
}

TEST_CASE("files say one thing and lines can be read") {
  for (const auto& s : sources()) {
    CHECK_MESSAGE(s.lines.size() <= 700,
                  s.name << " has " << s.lines.size() << " lines: split it along the design");
    // Data, a web page, and a table of one field a line.
    if (s.name == "base/bip39_words.cpp" || s.name == "actors/metrics.cpp" ||
        s.name == "spec/fields.cpp")
      continue;
    for (const auto& line : s.lines)
      CHECK_MESSAGE(line.size() <= 180, s.name << ": " << line.substr(0, 60) << "… is too long");
  }
}

TEST_CASE("no two atoms have the same text") {
  std::set<std::string> texts;
  for (const auto& s : sources()) {
    if (s.name != "actors/atoms.hpp") continue;
    for (const auto& line : s.lines) {
      if (line.rfind("CAF_ADD_ATOM", 0) != 0) continue;
      auto from = line.find('"');
      auto text = line.substr(from + 1, line.rfind('"') - from - 1);
      CHECK_MESSAGE(text.size() <= 10, text);
      CHECK_MESSAGE(texts.insert(text).second, text << " is used twice");
    }
  }
  CHECK(texts.size() > 5);
}
