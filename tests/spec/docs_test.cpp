// The documents that are lists of what the code knows: they must say the same.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>

#include "spec/codes.hpp"
#include "spec/schema.hpp"

using namespace qs;
namespace fs = std::filesystem;

namespace {

std::string slurp(const fs::path& path) {
  std::ifstream in{path, std::ios::binary};
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

std::string between(const std::string& text, std::string_view from, std::string_view to) {
  auto begin = text.find(from);
  auto end = text.find(to);
  if (begin == std::string::npos || end == std::string::npos) return {};
  begin += from.size();
  return text.substr(begin, end - begin);
}

/// With QS_GOLDEN_WRITE=1 the part of the document between the marks is written anew.
void check_document(const char* name, const std::string& expected) {
  const std::string from = "<!-- from the code: begin -->\n";
  const std::string to = "<!-- from the code: end -->";
  auto path = fs::path{QS_SOURCE_DIR} / "docs" / name;
  auto text = slurp(path);
  auto part = between(text, from, to);
  if (std::getenv("QS_GOLDEN_WRITE") != nullptr && part != expected) {
    auto begin = text.find(from) + from.size();
    text.replace(begin, text.find(to) - begin, expected);
    std::ofstream{path, std::ios::binary} << text;
    part = between(slurp(path), from, to);
  }
  CHECK(part == expected);
}

} // namespace

TEST_CASE("docs/storage-yaml.md has the field table") {
  check_document("storage-yaml.md", "\n" + spec::reference_markdown() + "\n");
}

TEST_CASE("docs/diagnostics.md has every code") {
  std::string expected = "\n| code | what | what to do |\n|---|---|---|\n";
  for (const auto& c : spec::codes())
    expected += fmt::format("| {} | {} | {} |\n", c.code, c.title, c.advice);
  check_document("diagnostics.md", expected + "\n");
}

TEST_CASE("codes are unique, in order and said what to do about") {
  const auto& list = spec::codes();
  for (std::size_t i = 0; i < list.size(); ++i) {
    CHECK(list[i].code.size() == 6);
    CHECK(!list[i].advice.empty());
    if (i > 0) CHECK(list[i - 1].code < list[i].code);
    CHECK(spec::advice(list[i].code) == list[i].advice);
  }
  CHECK(spec::advice("QS9999").empty());
}

TEST_CASE("the schema is JSON Schema with every key") {
  auto j = nlohmann::json::parse(spec::schema_json());
  CHECK(j["$schema"] == "https://json-schema.org/draft/2020-12/schema");
  CHECK(j["additionalProperties"] == false);
  CHECK(j["required"] == nlohmann::json{"version", "name", "storage"});
  CHECK(j["properties"]["storage"]["required"] == nlohmann::json{"capacity"});
  CHECK(j["properties"]["storage"]["properties"]["redundancy"]["properties"]["parity"]["maximum"] ==
        16);
  CHECK(j["properties"]["storage"]["properties"]["protect"]["default"] == true);
}

TEST_CASE("the schema accepts the good files and the examples, and refuses the misshapen") {
  if (std::system("python3 -c 'import jsonschema, yaml' 2>/dev/null") != 0) {
    MESSAGE("skipped: python3 with jsonschema and yaml is not here");
    return;
  }
  auto dir = fs::path{QS_BINARY_DIR} / "tests" / "spec_schema";
  fs::create_directories(dir);
  std::ofstream{dir / "schema.json"} << spec::schema_json();
  auto script = fs::path{QS_SOURCE_DIR} / "tests/spec/check_schema.py";
  auto command = fmt::format("python3 '{}' '{}' '{}'", script.string(),
                             (dir / "schema.json").string(), QS_SOURCE_DIR);
  auto status = std::system(command.c_str());
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
