// The commands, one function and one file each (command_*.cpp): given what the command line said, do it, return the exit code.
// Main thread. They throw nothing.
#pragma once

#include <string>
#include <vector>

#include "cli/options.hpp"
#include "cli/terminal.hpp"

namespace qs::cli {

int command_init(const init_options& o, terminal& t);
int command_key_new(const key_options& o, terminal& t);
int command_key_import(const key_options& o, terminal& t);
int command_key_show(const key_options& o, terminal& t);
int command_validate(const common_flags& o, terminal& t);
int command_schema(const common_flags& o, terminal& t);
int command_diff(const plan_options& o, terminal& t);
int command_apply(const apply_options& o, terminal& t);
int command_grow(const size_options& o, terminal& t);
int command_add_nodes(const size_options& o, terminal& t);
int command_destroy(const apply_options& o, terminal& t);
int command_run(const run_options& o, terminal& t);
int command_start(const start_options& o, terminal& t);
int command_stop(const stop_options& o, terminal& t);
int command_restart(const stop_options& o, terminal& t);
int command_logs(const logs_options& o, terminal& t);
int command_status(const status_options& o, terminal& t);
int command_nodes(const common_flags& o, terminal& t);
int command_nodes_show(const node_options& o, terminal& t);
int command_nodes_replace(const node_options& o, terminal& t);
int command_nodes_delete(const node_options& o, terminal& t);
int command_nodes_drain(const node_options& o, terminal& t);
int command_wallet(const wallet_options& o, terminal& t);
int command_wallet_topup(const wallet_options& o, terminal& t);
int command_wallet_history(const wallet_options& o, terminal& t);
int command_mount(const common_flags& o, terminal& t);
int command_umount(const common_flags& o, terminal& t);
int command_suspend(const common_flags& o, terminal& t);
int command_resume(const common_flags& o, terminal& t);
int command_cache_drop(const common_flags& o, terminal& t);
int command_events(const events_options& o, terminal& t);
int command_grid_hosts(const grid_options& o, terminal& t);
int command_grid_nodes(const grid_options& o, terminal& t);
int command_grid_kill(const grid_options& o, terminal& t);
int command_grid_up(const grid_options& o, terminal& t);
int command_grid_down(const grid_options& o, terminal& t);
int command_completion(const text_options& o, terminal& t);
int command_version(const common_flags& o, terminal& t);
/// The arguments after `qs zdb`, in 0-db's own style.
int command_zdb(const std::vector<std::string>& arguments);

} // namespace qs::cli
