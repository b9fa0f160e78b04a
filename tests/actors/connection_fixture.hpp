// A connection to a scripted node over a network that stands still until told.
#pragma once

#include <doctest/doctest.h>

#include "object_names.hpp"
#include "support/actor_fixture.hpp"

namespace qs::test {

using namespace qs::actors;
using namespace std::chrono_literals;

inline std::string key_of(std::string_view text) { return std::string{as_text(name_of(text))}; }

struct connection_fixture : actor_fixture {
  scripted_zdb server;
  std::shared_ptr<simulated_network> network = std::make_shared<simulated_network>(*this);
  seeded_random random{7};
  std::shared_ptr<std::vector<link_report>> reports = std::make_shared<std::vector<link_report>>();
  link_listener_actor listener = sys.spawn(
    [r = reports](link_listener_actor::pointer, int) -> link_listener_actor::behavior_type {
      return {[r](link_atom, const link_report& report) { r->push_back(report); }};
    },
    0);
  connection_actor node;

  connection_fixture() { server.objects[key_of("identity")] = "I am n1"; }
  ~connection_fixture() {
    if (node) caf::anon_send_exit(node, caf::exit_reason::user_shutdown);
    caf::anon_send_exit(listener, caf::exit_reason::user_shutdown);
    node = nullptr;
    listener = nullptr;
    run();
  }
  connection_config config() {
    connection_config c;
    c.node = {1};
    c.where = {"127.0.0.1", 9900, "ns"};
    c.password = secret_string{"secret"};
    c.identity_name = name_of("identity");
    c.identity = bytes_of("I am n1");
    c.listener = listener;
    c.sockets = network;
    c.time = &time;
    c.random = &random;
    return c;
  }
  void spawn(connection_config c) {
    node = spawn_connection(sys, std::move(c));
    run();
  }
  void start() {
    spawn(config());
    network->accept(server);
    REQUIRE(state() == link_state::ready);
  }
  link_report status() {
    auto a = ask<link_report>(node, status_atom_v);
    run();
    REQUIRE(a->has_value());
    return ***a;
  }
  link_state state() { return status().state; }

  auto put(std::string_view name, std::string_view value) {
    return ask<std::uint64_t>(node, store_atom_v, name_of(name), bytes_of(value));
  }
  auto get(std::string_view name) { return ask<buffer_ptr>(node, read_atom_v, name_of(name)); }
  auto barrier() { return ask<std::uint64_t>(node, barrier_atom_v); }
};

template <class T>
errc code_of(const answer_of<T>& a) {
  REQUIRE(a->has_value());
  return (*a)->ok() ? errc::none : (*a)->err().code;
}
inline std::string text_of(const answer_of<buffer_ptr>& a) {
  REQUIRE(code_of(a) == errc::none);
  return std::string{as_text(**(**a))};
}

} // namespace qs::test
