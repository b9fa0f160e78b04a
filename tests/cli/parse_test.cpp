// The command line: what is taken, what is refused with 64, the help (golden), and docs/commands.md against it.
#include <algorithm>

#include "cli/completion.hpp"
#include "cli/parse.hpp"
#include "cli_fixture.hpp"

using namespace qs;
using namespace qs::test;

TEST_CASE("cli parse: good command lines give a command") {
  const std::vector<std::vector<std::string>> table{
    {"apply"},
    {"apply", "x.yaml", "--auto-approve", "--wait", "deployed", "--timeout", "5m"},
    {"diff", "--detailed-exitcode", "--json"},
    {"nodes"},
    {"nodes", "--json"},
    {"nodes", "show", "n1"},
    {"wallet", "topup", "12.5"},
    {"wallet"},
    {"cache", "drop"},
    {"grid", "kill", "--wipe", "n1"},
    {"grid", "kill", "n1", "--wipe", "--volume", "a"},
    {"key", "new", "a"},
    {"init", "dir", "--name", "a", "--data", "4", "--parity", "2", "--no-mount"},
    {"status", "--wait-for", "Ready", "--timeout", "1m"},
    {"run", "--ready-fd", "3", "--watch"},
    {"completion", "bash"},
  };
  for (const auto& arguments : table) {
    CAPTURE(arguments.front());
    auto p = cli::parse(arguments);
    CHECK(!p.exit);
    CHECK(p.command);
  }
}

TEST_CASE("cli parse: mistakes are exit 64 and say what to look at") {
  const std::vector<std::pair<std::vector<std::string>, std::string>> table{
    {{}, "qs --help"},
    {{"aply"}, "did you mean 'apply'"},
    {{"apply", "--nonsense"}, "qs apply --help"},
    {{"apply", "--wait", "forever"}, "qs apply --help"},
    {{"apply", "a.yaml", "b.yaml"}, "qs apply --help"},
    {{"grid", "kill"}, "qs grid kill --help"},
    {{"key"}, "qs key --help"},
    {{"grow"}, "qs grow --help"},
    {{"add-nodes", "many"}, "qs add-nodes --help"},
    {{"completion", "tcsh"}, "qs completion --help"},
    {{"status", "--watch", "--wait-for", "Ready"}, "qs status --help"},
    {{"status", "--color", "pink"}, "qs status --help"},
  };
  for (const auto& [arguments, part] : table) {
    auto p = cli::parse(arguments);
    CAPTURE(p.err);
    CHECK(p.exit == 64);
    CHECK(p.err.find(part) != std::string::npos);
    CHECK(p.out.empty());
  }
}

TEST_CASE("cli parse: help and version go to stdout with 0") {
  auto help = cli::parse({"--help"});
  CHECK(help.exit == 0);
  CHECK(help.err.empty());
  CHECK(cli::parse({"grid", "kill", "--help"}).exit == 0);
  CHECK(cli::parse({"--version"}).out == std::string{"qs "} + QS_VERSION + "\n");
}

TEST_CASE("cli help: golden, all of it") {
  std::string all;
  for (const auto& c : cli::all_commands()) all += "==== qs" + (c.path.empty() ? "" : " " + c.path) + "\n" + c.text + "\n";
  check_golden("help.txt", all);
}

TEST_CASE("cli help: nothing of the watcher shows") {
  for (const auto& c : cli::all_commands()) CHECK(c.text.find("ready-fd") == std::string::npos);
}

TEST_CASE("docs/commands.md lists every command and every flag of its own") {
  auto docs = slurp(fs::path{QS_SOURCE_DIR} / "docs/commands.md");
  // Flags that every command takes are described once, in their own section.
  const std::vector<std::string> common{"--volume", "--state-dir", "--json", "--color"};
  for (const auto& flag : common) CHECK(docs.find("`" + flag) != std::string::npos);
  for (const auto& c : cli::all_commands()) {
    if (c.path.empty()) continue;
    CAPTURE(c.path);
    auto heading = docs.find("\n### qs " + c.path + "\n");
    REQUIRE(heading != std::string::npos);
    auto end = std::min(docs.find("\n### ", heading + 1), docs.find("\n## ", heading + 1));
    auto section = docs.substr(heading, end == std::string::npos ? std::string::npos : end - heading);
    for (const auto& flag : c.flags) {
      if (flag.rfind("--", 0) != 0 || std::find(common.begin(), common.end(), flag) != common.end()) continue;
      CAPTURE(flag);
      CHECK(section.find("`" + flag) != std::string::npos);
    }
  }
  // And nothing that does not exist.
  for (std::size_t at = docs.find("\n### qs "); at != std::string::npos; at = docs.find("\n### qs ", at + 1)) {
    auto path = docs.substr(at + 8, docs.find('\n', at + 1) - at - 8);
    CAPTURE(path);
    auto all = cli::all_commands();
    CHECK(std::any_of(all.begin(), all.end(), [&](const auto& c) { return c.path == path; }));
  }
}

TEST_CASE("cli completion: every command in every shell's script") {
  auto all = cli::all_commands();
  for (const char* shell : {"bash", "zsh", "fish"}) {
    auto script = cli::completion_script(shell, all);
    CAPTURE(shell);
    for (const auto& c : all)
      for (const auto& word : c.words) CHECK(script.find(word) != std::string::npos);
    CHECK(script.find("auto-approve") != std::string::npos);
    CHECK(script.back() == '\n');
  }
}
