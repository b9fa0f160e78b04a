// What is done with one local node as a whole, by the provider and by the commands alike: look at
// it, start it, stop it, end it. Needs no keys. Those that change something want the node's lock
// held by the caller, except where said.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>

#include "base/result.hpp"
#include "grid/node_directory.hpp"
#include "grid/node_process.hpp"

namespace qs::grid {

using step_hook = std::function<void(std::string_view)>;

/// Looks only; wants no lock. Reasons: local_provider.hpp.
inspection inspect_node(const grid_paths& grid, const std::string& name);

/// Has the node's server running and listening. A server that lost its lock file under way is ended
/// first. The caller has seen that the data is whole. Errors: refused (it ended at its start),
/// not_found or access_denied (no such program), timed_out, io.
result<model::endpoint> start_node(const std::filesystem::path& program, const node_paths& node,
                                   const std::string& name, std::chrono::milliseconds deadline,
                                   const step_hook& after_step = {});

/// Ends the process, if there is one: true when there was. `data` as in find_process().
result<bool> stop_node(const node_paths& node, const std::filesystem::path& data, int signal,
                       std::chrono::milliseconds deadline);

/// Takes the node away: out of sight in one rename (the caller holds the grid's lock for that, and
/// has settled the ledger). Gives the directory for finish_removal(). Needs a random suffix, as a
/// name may come again.
result<node_paths> begin_removal(const grid_paths& grid, const std::string& name,
                                 std::uint64_t suffix);
/// Ends the process of a node taken away and deletes its files. Done again it is no error.
status finish_removal(const grid_paths& grid, const node_paths& taken,
                      const step_hook& after_step = {});
/// finish_removal() for everything that crashes left, of `name` or, if that is empty, of all.
status finish_removals(const grid_paths& grid, const std::string& name);

} // namespace qs::grid
