// edit and make_template: the text that comes out, byte by byte where it matters.
#include <doctest/doctest.h>

#include "spec/edit.hpp"
#include "spec/load.hpp"
#include "spec/template.hpp"

using namespace qs;
using namespace qs::spec;

namespace {

const std::string commented = "# mine\n"
                              "version: 1\n"
                              "name: demo   # a name\n"
                              "storage:\n"
                              "  # how much\n"
                              "  capacity: 20GiB                  # usable\n"
                              "  redundancy: {data: 4, parity: 2} # as is\n"
                              "  nodes: 6    # six\n"
                              "  protect: true\n"
                              "# the end\n";

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

} // namespace

TEST_CASE("an edit changes its value and nothing else") {
  auto grown = set_capacity(commented, "40GiB");
  REQUIRE(grown.ok());
  CHECK(*grown == replaced(commented, "20GiB", "40GiB"));
  auto more = set_nodes(commented, 12);
  REQUIRE(more.ok());
  CHECK(*more == replaced(commented, "nodes: 6 ", "nodes: 12 "));
  auto open = set_protect(commented, false);
  REQUIRE(open.ok());
  CHECK(*open == replaced(commented, "protect: true", "protect: false"));
}

TEST_CASE("what is not there is put next to capacity") {
  std::string text = "version: 1\nname: d\nstorage:\n    capacity: 20GiB # c\n# end";
  auto nodes = set_nodes(text, 8);
  REQUIRE(nodes.ok());
  CHECK(*nodes == "version: 1\nname: d\nstorage:\n    capacity: 20GiB # c\n    nodes: 8\n# end");
  auto both = set_protect(*nodes, false);
  REQUIRE(both.ok());
  auto spec = load(*both, fixed_environment{}).spec;
  REQUIRE(spec);
  CHECK(spec->storage.nodes == 8);
  CHECK(!spec->storage.protect);
  auto flow = set_nodes("version: 1\nname: d\nstorage: {capacity: \"20 GiB\"} # x\n", 7);
  REQUIRE(flow.ok());
  CHECK(*flow == "version: 1\nname: d\nstorage: {capacity: \"20 GiB\", nodes: 7} # x\n");
  auto last = set_protect("version: 1\nname: d\nstorage:\n  capacity: 1GiB", false);
  REQUIRE(last.ok());
  CHECK(*last == "version: 1\nname: d\nstorage:\n  capacity: 1GiB\n  protect: false");
}

TEST_CASE("byte order mark, CRLF and other scripts stay") {
  std::string text = "\xEF\xBB\xBFversion: 1\r\nname: d\r\n# größer 日本\r\nstorage: \r\n  "
                     "capacity: '20GiB' # ü\r\n";
  auto grown = set_capacity(text, "1.5TB");
  REQUIRE(grown.ok());
  CHECK(*grown == replaced(text, "'20GiB'", "1.5TB"));
  auto more = set_nodes(text, 9);
  REQUIRE(more.ok());
  CHECK(*more == text + "  nodes: 9\r\n");
}

TEST_CASE("an edit that cannot be made says so") {
  CHECK(!set_capacity(commented, "lots").ok());
  CHECK(!set_capacity(commented, "40").ok());
  CHECK(!set_capacity(commented, "0GiB").ok());
  CHECK(!set_nodes(commented, 0).ok());
  CHECK(!set_nodes("version: 1\n", 6).ok());
  CHECK(!set_nodes("storage: [1]\n", 6).ok());
  CHECK(!set_nodes("storage: {capacity: [1]}\n", 6).ok());
  CHECK(!set_nodes("storage: {nodes: {a: b}}\n", 6).ok());
  CHECK(!set_nodes("storage: {capacity: *x}\n", 6).ok());
  auto broken = set_nodes("storage: {capacity: 1GiB\n", 6);
  REQUIRE(!broken.ok());
  CHECK(broken.err().code == errc::invalid_argument);
  CHECK(broken.err().message.find("qs validate") != std::string::npos);
}

TEST_CASE("the template is a file without errors, whatever the options") {
  fixed_environment env{{{"~", "/home/me"}}};
  template_options least;
  least.name = "demo";
  auto text = make_template(least);
  CHECK(text.rfind("# yaml-language-server: $schema=./storage.schema.json\n", 0) == 0);
  auto got = validate(text, env);
  CHECK(render(got.problems, "storage.yaml", text) == "");
  REQUIRE(got.spec);
  storage_spec expected;
  expected.name = "demo";
  expected.storage.capacity = 20 * gib;
  CHECK(*got.spec == expected);

  template_options all{.name = "-1",
                       .capacity = "300 GB",
                       .data_shards = 10,
                       .parity_shards = 1,
                       .nodes = 20,
                       .mount = "~/my \"files\": a #1",
                       .cache = "1GiB",
                       .staging = "2GiB",
                       .listen = "[::1]:9480",
                       .protect = false,
                       .interval = "1s",
                       .failed_after = "5s",
                       .replace_after = "10s"};
  text = make_template(all);
  got = validate(text, env);
  CHECK(render(got.problems, "storage.yaml", text) == "");
  REQUIRE(got.spec);
  CHECK(got.spec->name == "-1");
  CHECK(got.spec->storage.capacity == 300'000'000'000);
  CHECK(got.spec->storage.nodes == 20);
  CHECK(!got.spec->storage.protect);
  CHECK(got.spec->mount->path.value == "/home/me/my \"files\": a #1");
  CHECK(got.spec->mount->cache.size == gib);
  CHECK(got.spec->mount->staging.size == 2 * gib);
  CHECK(got.spec->status->listen == "[::1]:9480");
  CHECK(got.spec->monitor.replace_after == std::chrono::seconds{10});
  // The edits work on what init writes.
  auto grown = set_capacity(text, "600GB");
  REQUIRE(grown.ok());
  CHECK(*grown == replaced(text, "300 GB", "600GB"));
}
