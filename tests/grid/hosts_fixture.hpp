// Orders and machines for the tests of the hosts provider.
#pragma once

#include <doctest/doctest.h>

#include "grid/hosts_provider.hpp"
#include "grid_fixture.hpp"

namespace grid_test {

inline hosts_machine machine(std::string name, std::string address, std::string_view admin) {
  hosts_machine m;
  m.name = std::move(name);
  m.address = std::move(address);
  m.place = {"home", "Belgium", ""};
  m.password = secret_string{admin};
  return m;
}

inline std::shared_ptr<hosts_provider> provider_of(std::vector<hosts_machine> machines,
                                                   std::string_view volume = "v") {
  hosts_options o{.keys = keys_of(volume), .machines = std::move(machines), .after_step = {}};
  o.deadline = std::chrono::seconds{2};
  return make_hosts(std::move(o));
}

inline node_order order(std::uint32_t node, std::string host = "nas", byte_count size = 2 * gib) {
  node_order o;
  o.node = {node};
  o.host = std::move(host);
  o.size = size;
  return o;
}

inline std::string name_of(std::uint32_t node) { return keys_of("v").node_name({node}, 1); }

inline request prepared(hosts_provider& p, const node_order& o) {
  auto r = p.prepare(o);
  REQUIRE(r.ok());
  return *r;
}

} // namespace grid_test
