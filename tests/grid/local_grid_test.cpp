#include "grid_fixture.hpp"

using namespace grid_test;

namespace {

struct three_nodes : grid_fixture {
  three_nodes() : p{open()} {
    for (auto node : {n1, n2, n3}) {
      auto a = p->submit(asked(node));
      CAPTURE(a.detail);
      REQUIRE(a.what == outcome::done);
    }
    auto opened = local_grid::open(root, QS_TEST_ZDB);
    REQUIRE(opened.ok());
    commands = std::make_unique<local_grid>(std::move(*opened));
  }
  request asked(model::node_id node) const {
    return *p->prepare({node, 1, "h" + std::to_string(node.number * 3), gib, {}});
  }
  std::string tag = local_volume_tag(keys_of("v").id());
  std::unique_ptr<provider> p;
  std::unique_ptr<local_grid> commands;
};

} // namespace

TEST_CASE_FIXTURE(three_nodes, "nodes and hosts are listed without an engine") {
  auto nodes = commands->nodes(tag);
  REQUIRE(nodes.ok());
  REQUIRE(nodes->size() == 3);
  auto running = servers();
  for (std::uint32_t i = 0; i < 3; ++i) {
    const auto& n = (*nodes)[i];
    CHECK(n.node.number == i + 1);
    CHECK(n.host == "h" + std::to_string(3 * (i + 1)));
    CHECK(n.what == inspection::state::running);
    CHECK(running.contains(n.pid));
    CHECK(n.where == p->inspect(asked(n.node)).where);
    CHECK(n.price == *p->price(n.host, gib));
    CHECK(*commands->request_of(n.name) == asked(n.node));
  }
  CHECK(commands->nodes("0123456789abcdef")->empty());
  CHECK(commands->nodes()->size() == 3);
  CHECK(commands->hosts()->size() == 24);
  CHECK(commands->request_of("qs0000000000000000").err().code == errc::not_found);
}

TEST_CASE_FIXTURE(three_nodes, "kill: it stays dead, and the others are left alone") {
  bool wipe = false;
  SUBCASE("its data is kept") { wipe = false; }
  SUBCASE("its data is deleted") { wipe = true; }
  auto killed = commands->kill(tag, n2, wipe);
  REQUIRE(killed.ok());
  CHECK(killed->reason == "Tombstone");
  CHECK(killed->pid == 0);
  CHECK(std::filesystem::exists(node_directory(n2) / "data") != wipe);
  CHECK(servers().size() == 2);
  auto seen = p->inspect(asked(n2));
  CHECK(seen.what == inspection::state::gone);
  CHECK(seen.reason == "Tombstone");
  CHECK(p->restart(asked(n2)).what == outcome::refused);
  CHECK(p->resolve(asked(n2)).what == outcome::done); // its contract stands
  CHECK(*commands->up() == 0);
  CHECK(servers().size() == 2);
  CHECK(commands->kill(tag, n2, true).ok()); // again
  CHECK_FALSE(std::filesystem::exists(node_directory(n2) / "data"));
  CHECK(p->cancel(asked(n2)).what == outcome::done);
  CHECK(commands->kill(tag, n2, false).err().code == errc::not_found);
  CHECK(servers().size() == 2);
}

TEST_CASE_FIXTURE(three_nodes, "a stopped or suspended node is killed too") {
  auto pid = commands->nodes(tag)->front().pid;
  REQUIRE(::kill(pid, SIGSTOP) == 0);
  CHECK(commands->kill(tag, n1, false).ok());
  CHECK_FALSE(servers().contains(pid));
}

TEST_CASE_FIXTURE(three_nodes, "down and up") {
  auto before = servers();
  CHECK(*commands->down(tag) == 3);
  CHECK(servers().empty());
  CHECK(p->inspect(asked(n1)).what == inspection::state::stopped);
  CHECK(*commands->down(tag) == 0);
  REQUIRE(commands->kill(tag, n3, false).ok());
  CHECK(*commands->up("0123456789abcdef") == 0);
  auto up = commands->up(tag);
  REQUIRE(up.ok());
  CHECK(*up == 2);
  CHECK(servers().size() == 2);
  CHECK(*commands->up() == 0);
  auto where = p->inspect(asked(n1)).where;
  CHECK(enter(where, password_of(where)).ok());
}

TEST_CASE_FIXTURE(three_nodes, "a node of the same number in two volumes is named by its volume") {
  auto other = open("another");
  auto r = *other->prepare({n1, 1, "h20", gib, {}});
  REQUIRE(other->submit(r).what == outcome::done);
  CHECK(commands->kill({}, n1, false).err().code == errc::invalid_argument);
  CHECK(commands->kill({}, n2, false).ok());
  CHECK(commands->kill(local_volume_tag(keys_of("another").id()), n1, false).ok());
  CHECK(other->inspect(r).reason == "Tombstone");
  CHECK(p->inspect(asked(n1)).what == inspection::state::running);
}

TEST_CASE_FIXTURE(three_nodes, "a pid file that names somebody else kills nobody") {
  auto innocent = ::fork();
  REQUIRE(innocent >= 0);
  if (innocent == 0) {
    for (;;) ::pause();
  }
  auto file = node_directory(n1) / "process.json";
  auto pid = commands->nodes(tag)->front().pid;
  REQUIRE(write_file_atomic(
              file, as_bytes("{\"pid\": " + std::to_string(innocent) + ", \"start_time\": 5}"))
              .ok());
  CHECK(p->inspect(asked(n1)).what == inspection::state::running); // told by the lock
  CHECK(commands->kill(tag, n1, false).ok());                      // and found by its directory
  CHECK_FALSE(servers().contains(pid));
  int code = 0;
  CHECK(::waitpid(innocent, &code, WNOHANG) == 0);
  ::kill(innocent, SIGKILL);
  ::waitpid(innocent, &code, 0);
}

TEST_CASE("a grid that is not there is said so") {
  auto none = local_grid::open("/nonexistent/grid");
  REQUIRE_FALSE(none.ok());
  CHECK(none.err().code == errc::not_found);
}
