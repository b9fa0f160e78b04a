// The grids of an engine: providers made when they are first wanted, and the machines of grid hosts
// as the file says them, as they were, and sealed.
#include <doctest/doctest.h>

#include "actors/grids.hpp"
#include "base/phrase.hpp"
#include "spec/load.hpp"

using namespace qs;
using namespace qs::actors;

namespace {

codec::volume_keys keys_of(std::uint64_t seed) {
  seeded_random random{seed};
  return codec::volume_keys::derive(new_root(random), "v");
}

grid::hosts_machine machine(std::string name, std::string address) {
  grid::hosts_machine m;
  m.name = std::move(name);
  m.address = std::move(address);
  m.place = {"home", "Belgium", ""};
  m.password = secret_string{"word of " + m.name};
  return m;
}

model::recorded_node node_on(std::uint32_t number, std::string provider, std::string host,
                             model::node_state state = model::node_state::ready) {
  model::recorded_node r;
  r.id = {number};
  r.provider = std::move(provider);
  r.host = std::move(host);
  r.state = state;
  return r;
}

std::vector<std::string> names(const std::vector<named_provider>& list) {
  std::vector<std::string> out;
  for (const auto& p : list) out.push_back(p.first);
  return out;
}

} // namespace

TEST_CASE("a provider is made when it is first wanted, once, and its failure is told") {
  provider_set set;
  auto made = 0;
  auto broken = true;
  set.offer("hosts", [&]() -> result<std::shared_ptr<grid::provider>> {
    ++made;
    return std::shared_ptr<grid::provider>{
        grid::make_hosts({.keys = keys_of(1), .machines = {}, .after_step = {}})};
  });
  set.offer("local", [&]() -> result<std::shared_ptr<grid::provider>> {
    if (broken) return error{errc::io, "no directory"};
    return std::shared_ptr<grid::provider>{
        grid::make_hosts({.keys = keys_of(1), .machines = {}, .after_step = {}})};
  });
  CHECK(set.knows("hosts"));
  CHECK_FALSE(set.knows("threefold"));
  CHECK(set.get("threefold").err().code == errc::not_found);
  CHECK(set.in_use().empty());
  CHECK(made == 0);
  set.use({"hosts", "local"});
  status trouble;
  CHECK(names(set.in_use(&trouble)) == std::vector<std::string>{"hosts"});
  CHECK(trouble.err().code == errc::io);
  broken = false;
  CHECK(names(set.in_use()) == std::vector<std::string>{"hosts", "local"});
  CHECK(made == 1);
  set.use({});
  CHECK(set.in_use().empty());
  CHECK(set.find("hosts") != nullptr); // its nodes may still be there
}

TEST_CASE("the grids of a volume: those of the file and those of its nodes") {
  auto spec = spec::load(
      "version: 1\nname: v\nstorage: {capacity: 1GiB, redundancy: {data: 1, parity: 1}}\n"
      "grid:\n  - hosts:\n      - {name: a, address: \"192.0.2.1:1\", password: \"${env:A}\", "
      "insecure: true}\n"
      "      - {name: b, address: \"192.0.2.2:1\", farm: f, capacity: 2TiB}\n",
      spec::fixed_environment{{{"${env:A}", "word"}}});
  REQUIRE(spec.spec);
  model::recorded recorded;
  recorded.nodes = {node_on(1, "local", "h1", model::node_state::gone)};
  CHECK(grids_of(&*spec.spec, recorded) == std::set<std::string>{"hosts"});
  recorded.nodes.push_back(node_on(2, "local", "h2"));
  CHECK(grids_of(&*spec.spec, recorded) == std::set<std::string>{"hosts", "local"});
  CHECK(grids_of(nullptr, recorded) == std::set<std::string>{"local"});
  auto machines = machines_of(*spec.spec);
  REQUIRE(machines.size() == 2);
  CHECK(machines[0].password.text() == "word");
  CHECK(machines[0].insecure);
  CHECK(machines[0].place.farm == "a");
  CHECK(machines[1].place.farm == "f");
  CHECK(machines[1].capacity == 2 * tib);
}

TEST_CASE("a machine that left the file stays known until its last node is gone") {
  auto before = std::vector{machine("a", "192.0.2.1:1"), machine("b", "192.0.2.2:1")};
  auto now = with_former({machine("a", "192.0.2.9:1")}, before);
  REQUIRE(now.size() == 2);
  CHECK(now[0].address == "192.0.2.9:1"); // the file's word
  CHECK(now[0].offered);
  CHECK(now[1].name == "b");
  CHECK_FALSE(now[1].offered);
  model::recorded recorded;
  recorded.nodes = {node_on(1, "hosts", "b"), node_on(2, "local", "a")};
  CHECK(without_unused(now, recorded).size() == 2);
  recorded.nodes[0].state = model::node_state::gone;
  CHECK(without_unused(now, recorded).size() == 1);
}

TEST_CASE("machines are sealed for one phrase and come back as they were") {
  seeded_random random{3};
  auto keys = keys_of(1);
  auto m = machine("a", "unix:/run/a.sock");
  m.capacity = 5 * gib;
  m.insecure = true;
  auto sealed = seal_machines(keys, {m, machine("b", "[::1]:9900")}, random);
  CHECK(sealed.find("word of") == std::string::npos);
  auto back = open_machines(keys, sealed);
  REQUIRE(back.size() == 2);
  CHECK(back[0].name == "a");
  CHECK(back[0].address == m.address);
  CHECK(back[0].place == m.place);
  CHECK(back[0].capacity == m.capacity);
  CHECK(back[0].password.text() == "word of a");
  CHECK(back[0].insecure);
  CHECK_FALSE(back[1].capacity);
  CHECK(open_machines(keys_of(2), sealed).empty());
  CHECK(open_machines(keys, "").empty());
  CHECK(open_machines(keys, "00").empty());
}
