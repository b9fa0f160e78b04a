// The JSON documents that people and machines look at: status, nodes, wallet, events (interface.md,
// JSON). Pure: values in, text out; used by the engine and, with less in it, when no engine runs.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "actors/messages.hpp"
#include "controller/decide.hpp"
#include "model/observed.hpp"
#include "model/recorded.hpp"

namespace qs::actors {

struct status_condition {
  controller::condition what;
  wall_time since{};
};

/// A node whose end was asked of its provider and not settled: how often, and what was said last.
struct open_end {
  std::uint32_t tries = 0;
  std::string detail;
};

struct status_input {
  std::string volume;
  model::recorded recorded;
  model::observed observed;
  volume_report report;
  std::string state; ///< Stopped, Deploying, Ready, …
  std::vector<status_condition> conditions;
  std::uint64_t pid = 0; ///< 0: no engine
  wall_time started{};
  wall_time now{};
  std::string mount_problem;
  std::string volume_problem;              ///< why the volume does not open
  std::size_t under_way = 0;               ///< steps that were begun and are not answered yet
  std::map<model::node_id, open_end> open_ends = {};
  std::optional<int> redundancy_left = {}; ///< as the decisions see it: who does not answer counts as away
};

std::string status_json(const status_input& in);
/// What is left of a node that was given up, and what deletes it on its machine by hand.
std::string by_hand(const model::recorded_node& row);
std::string nodes_json(const status_input& in);
std::string wallet_json(const model::wallet_view& wallet,
                        const std::vector<grid::ledger_entry>& history);
/// One line, no newline.
std::string event_json(const model::event& e);

} // namespace qs::actors
