#include "grid/node_control.hpp"

#include <csignal>

#include <fmt/format.h>

#include "base/log.hpp"

namespace qs::grid {
namespace {

constexpr std::chrono::milliseconds kill_deadline{5000};
constexpr std::string_view gone_prefix = ".gone-";

inspection seen(inspection::state what, std::string reason, std::string detail) {
  return {what, std::move(reason), std::move(detail), {}};
}

void tell(const step_hook& hook, std::string_view step) {
  if (hook) hook(step);
}

/// A node's name out of ".gone-NAME-XXXX".
std::string name_of_gone(const std::string& directory) {
  return directory.size() > gone_prefix.size() + 18 ? directory.substr(gone_prefix.size(), 18)
                                                    : std::string{};
}

inspection look_at_process(const node_paths& node, const std::string& name,
                           const reservation& contract) {
  auto runs = server_runs(node);
  if (!runs) return seen(inspection::state::unknown, "Unreadable", runs.err().message);
  if (!*runs) {
    if (!contract.made)
      return seen(inspection::state::stopped, "HalfMade", "the reservation was not finished");
    return seen(inspection::state::stopped, "ProcessDown",
                "its process is not running; its data is whole");
  }
  auto where = read_endpoint(node);
  if (!where) return seen(inspection::state::unknown, "Starting", where.err().message);
  where->ns = name;
  inspection out{inspection::state::running, {}, {}, *where};
  auto p = find_process(node, node.data(), false);
  if (p && is_suspended(p->pid))
    out.detail = fmt::format("process {} is suspended (SIGSTOP)", p->pid);
  return out;
}

} // namespace

inspection inspect_node(const grid_paths& grid, const std::string& name) {
  std::error_code failed;
  // An unmounted disk is no proof that anything is gone.
  if (!std::filesystem::is_directory(grid.nodes(), failed))
    return seen(inspection::state::unknown, "Unreadable",
                fmt::format("{} is not there", grid.nodes().string()));
  auto node = grid.node(name);
  auto contract = read_reservation(node);
  if (!contract) {
    // A directory without its contract is a riddle, not an answer.
    if (contract.err().code == errc::not_found &&
        !std::filesystem::exists(node.directory, failed) && !failed)
      return seen(inspection::state::gone, "ReservationGone", contract.err().message);
    return seen(inspection::state::unknown, "Unreadable", contract.err().message);
  }
  auto dead = read_tombstone(node);
  if (!dead) return seen(inspection::state::unknown, "Unreadable", dead.err().message);
  if (*dead)
    return seen(inspection::state::gone, (*dead)->reason,
                fmt::format("dead since {}", to_rfc3339((*dead)->at)));
  switch (look_at_data(node, *contract)) {
  case data_state::gone:
    return seen(inspection::state::gone, "DataGone",
                fmt::format("{} was deleted", node.data().string()));
  case data_state::foreign:
    return seen(inspection::state::gone, "Foreign",
                fmt::format("{} is another node's", node.data().string()));
  case data_state::unknown:
    return seen(inspection::state::unknown, "Unreadable",
                fmt::format("{} cannot be read", node.marker().string()));
  case data_state::whole:
    break;
  }
  return look_at_process(node, name, *contract);
}

result<model::endpoint> start_node(const std::filesystem::path& program, const node_paths& node,
                                   const std::string& name, std::chrono::milliseconds deadline,
                                   const step_hook& after_step) {
  QS_TRY_ASSIGN(auto runs, server_runs(node));
  process p;
  if (runs) {
    if (auto there = find_process(node, node.data(), true))
      p = std::move(*there);
    else
      return error{errc::busy,
                   fmt::format("{} is locked by an unknown process", node.data().string())};
  } else {
    // Alive without the lock: somebody deleted the lock file. Two servers on one directory would
    // ruin it.
    if (auto stray = find_process(node, node.data(), true))
      QS_TRY(end_process(*stray, SIGKILL, kill_deadline));
    QS_TRY_ASSIGN(p, spawn_server(program, node));
    tell(after_step, "spawned");
  }
  QS_TRY_ASSIGN(auto where, wait_listening(node, p, deadline));
  tell(after_step, "listening");
  where.ns = name;
  return where;
}

result<bool> stop_node(const node_paths& node, const std::filesystem::path& data, int signal,
                       std::chrono::milliseconds deadline) {
  auto p = find_process(node, data, true);
  if (!p) return false;
  auto ended = end_process(*p, signal, deadline);
  if (!ended && ended.err().code == errc::timed_out && signal != SIGKILL)
    ended = end_process(*p, SIGKILL, kill_deadline);
  if (!ended) return std::move(ended).err();
  return true;
}

result<node_paths> begin_removal(const grid_paths& grid, const std::string& name,
                                 std::uint64_t suffix) {
  node_paths taken{grid.nodes() / fmt::format("{}{}-{:016x}", gone_prefix, name, suffix)};
  std::error_code failed;
  std::filesystem::rename(grid.node(name).directory, taken.directory, failed);
  if (failed)
    return errno_error(fmt::format("take away {}", grid.node(name).directory.string()),
                       failed.value());
  QS_TRY(sync_directory(grid.nodes()));
  return taken;
}

status finish_removal(const grid_paths& grid, const node_paths& taken,
                      const step_hook& after_step) {
  // The directory has a new name, its server was started with the old one. No search through /proc:
  // a new node may have the old name by now, and process.json tells the two apart.
  auto started_with = grid.node(name_of_gone(taken.directory.filename().string())).data();
  if (auto p = find_process(taken, started_with, false))
    QS_TRY(end_process(*p, SIGKILL, kill_deadline));
  tell(after_step, "killed");
  QS_TRY(remove_tree(taken.directory));
  tell(after_step, "deleted");
  return {};
}

status finish_removals(const grid_paths& grid, const std::string& name) {
  auto prefix = std::string{gone_prefix} + name;
  std::error_code failed;
  std::vector<node_paths> left;
  for (std::filesystem::directory_iterator it{grid.nodes(), failed}, end; !failed && it != end;
       it.increment(failed))
    if (it->path().filename().string().starts_with(prefix)) left.push_back({it->path()});
  if (failed) return errno_error(fmt::format("list {}", grid.nodes().string()), failed.value());
  for (const auto& taken : left) {
    log::info("grid", "finishing the removal of {}", taken.directory.filename().string());
    QS_TRY(finish_removal(grid, taken));
  }
  return {};
}

} // namespace qs::grid
