// source_text, parse_host_port and fixed_environment: the small parts by themselves.
#include <string>

#include <doctest/doctest.h>

#include "spec/environment.hpp"
#include "spec/scalars.hpp"
#include "spec/source_text.hpp"
#include "spec/yaml_tree.hpp"

using namespace qs;
using namespace qs::spec;

TEST_CASE("places are characters, lines end before the break, the mark is no column") {
  std::string text = "\xEF\xBB\xBF"
                     "a: \xC3\xBC"
                     "b\r\n\r\nlast";
  source_text source{text};
  CHECK(source.lines() == 3);
  auto b = text.find('b');
  auto range = source.range(b, b + 1);
  CHECK(range.line == 1);
  CHECK(range.column == 5);
  CHECK(range.end_column == 6);
  CHECK(source.offset_of(1, 5) == b);
  CHECK(source.offset(0, 5) == b);
  CHECK(source.offset_of(1, 99) == text.find('\r'));
  CHECK(source.offset(99, 99) == text.size());
  CHECK(source.range(3, text.size()).end_column == 6); // only the first line
  CHECK(source.range(text.size(), text.size()).column == 5);
  CHECK(source_text{""}.range(0, 1).line == 1);
}

TEST_CASE("host:port") {
  CHECK(parse_host_port("a-b.example:9900")->port == 9900);
  CHECK(parse_host_port("[::1]:1")->host == "::1");
  for (auto text : {"", ":1", "a", "a:", "a:0", "a:65536", "a:01", "a:1x", "::1:9900", "[::1]",
                    "[]:1", "[::g]:1", "a b:1", "a/b:1", "user@a:1"}) {
    CAPTURE(text);
    CHECK(!parse_host_port(text));
  }
  CHECK(is_loopback("127.1.2.3"));
  CHECK(!is_loopback("0.0.0.0"));
}

TEST_CASE("a tree knows the offsets of its scalars") {
  diagnostics problems;
  std::string text = "a: 'it''s' # x\nb: \"q\\\"\"\nc: [plain one, 2]\n";
  auto root = parse_yaml(text, problems);
  REQUIRE(root);
  CHECK(problems.empty());
  auto source_of = [&](const yaml_node& n) { return text.substr(n.begin, n.end - n.begin); };
  CHECK(source_of(*find(*root, "a")) == "'it''s'");
  CHECK(source_of(*find(*root, "b")) == "\"q\\\"\"");
  CHECK(source_of(find(*root, "c")->items.at(0)) == "plain one");
  CHECK(find(*root, "c")->flow);
  CHECK(find(*root, "d") == nullptr);
}

TEST_CASE("sealed values answer for what was recorded and nothing else") {
  fixed_environment env{{{"${env:A}", "1"}, {"${file:/x}", "2"}, {"~", "/home/me"}}};
  CHECK(env.variable("A") == "1");
  CHECK(!env.variable("B"));
  CHECK(*env.file("/x") == "2");
  REQUIRE(!env.file("/y").ok());
  CHECK(env.file("/y").err().code == errc::not_found);
  CHECK(env.home() == "/home/me");
  CHECK(fixed_environment{}.home().empty());
}
