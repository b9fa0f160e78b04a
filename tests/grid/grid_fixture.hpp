// A grid directory of its own for one test, with real servers. Every server started in it is ended
// by pid and the directory deleted, also when the test fails.
#pragma once

#include <doctest/doctest.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "base/phrase.hpp"
#include "base/posix.hpp"
#include "grid/identity.hpp"
#include "grid/local_grid.hpp"
#include "grid/local_provider.hpp"
#include "grid/node_control.hpp"
#include "zdb/blocking_client.hpp"

namespace grid_test {

using namespace qs;
using namespace qs::grid;
using namespace std::chrono_literals;

inline codec::volume_keys keys_of(std::string_view volume) {
  seeded_random random{7};
  return codec::volume_keys::derive(new_root(random), volume);
}

class grid_fixture {
public:
  grid_fixture() {
    std::string name = (std::filesystem::temp_directory_path() / "qs-grid-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    root = name;
  }
  grid_fixture(const grid_fixture&) = delete;
  ~grid_fixture() {
    for (auto pid : servers()) ::kill(pid, SIGKILL); // their arguments name our directory
    std::error_code ignored;
    std::filesystem::remove_all(root, ignored);
  }

  [[nodiscard]] local_options options(std::string_view volume = "v") {
    local_options o{.directory = root,
                    .keys = keys_of(volume),
                    .wallet = "w1",
                    .program = QS_TEST_ZDB,
                    .time = &time,
                    .after_step = nullptr};
    return o;
  }
  [[nodiscard]] std::unique_ptr<provider> open(std::string_view volume = "v") {
    auto made = make_local(options(volume));
    if (!made) FAIL(made.err().message);
    return std::move(*made);
  }
  /// Runs `work` in a child process that dies at the `n`th step (0: the first); true if it got that
  /// far.
  bool dies_at(std::size_t n, const std::function<void(provider&)>& work) {
    auto child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      auto o = options();
      std::size_t steps = 0;
      o.after_step = [&](std::string_view) {
        if (steps++ == n) ::_exit(9);
      };
      auto made = make_local(std::move(o));
      if (!made) ::_exit(2);
      work(**made);
      ::_exit(0);
    }
    int code = 0;
    while (::waitpid(child, &code, 0) < 0) {
    }
    REQUIRE(WIFEXITED(code));
    REQUIRE((WEXITSTATUS(code) == 9 || WEXITSTATUS(code) == 0));
    return WEXITSTATUS(code) == 9;
  }

  /// Every live process whose arguments name something below our directory.
  [[nodiscard]] std::set<pid_t> servers() const {
    std::set<pid_t> out;
    for (const auto& entry : std::filesystem::directory_iterator{"/proc"}) {
      auto pid = static_cast<pid_t>(std::atoi(entry.path().filename().c_str()));
      if (pid <= 1 || pid == ::getpid()) continue;
      auto words = read_file(entry.path() / "cmdline", mib); // empty for a zombie
      if (words && words->find(root.string() + "/nodes/") != std::string::npos) out.insert(pid);
    }
    return out;
  }
  /// What there is in nodes/, hidden names too.
  [[nodiscard]] std::vector<std::string> entries() const {
    std::vector<std::string> out;
    for (const auto& e : std::filesystem::directory_iterator{root / "nodes"})
      out.push_back(e.path().filename());
    return out;
  }
  [[nodiscard]] std::filesystem::path node_directory(model::node_id node,
                                                     std::uint32_t incarnation = 1) const {
    return root / "nodes" / keys_of("v").node_name(node, incarnation);
  }

  std::filesystem::path root;
  manual_clock time;
};

/// A condition of the outside world, awaited.
template <class Condition>
bool eventually(Condition&& condition, std::chrono::milliseconds deadline = 15s) {
  auto until = system_clock().boot() + deadline;
  while (system_clock().boot() < until) {
    if (condition()) return true;
    ::usleep(5000);
  }
  return condition();
}

inline result<std::unique_ptr<zdb::blocking_client>> enter(const model::endpoint& where,
                                                           const std::string& password) {
  zdb::session_options o;
  o.name_space = where.ns;
  o.password = password;
  return zdb::blocking_client::connect(stream_address(where), std::move(o), 5s);
}

inline std::string password_of(const model::endpoint& where) {
  return keys_of("v").node_password(where.ns);
}

constexpr model::node_id n1{1}, n2{2}, n3{3};

} // namespace grid_test
