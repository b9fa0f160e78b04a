// The engine's messages as values. They travel only inside this process, so nothing here is
// serialised. No behaviour; who sends and answers what stands in interfaces.hpp.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <caf/allowed_unsafe_message_type.hpp>

#include "actors/mount_port.hpp"
#include "grid/provider.hpp"
#include "model/observed.hpp"
#include "model/recorded.hpp"
#include "volume/volume.hpp"

namespace qs::actors {

/// Where a job that may wait runs. Lanes do not wait for each other; within `state` and `volume`
/// jobs keep their order.
enum class lane : std::uint8_t { state, provider, volume };

/// One job for the blocking actor. `work` leaves its outcome where the asker finds it.
struct job {
  lane where = lane::provider;
  std::string key; ///< one job per key at a time; later ones wait. Empty: no such order.
  std::function<void()> work;
};
using job_ptr = std::shared_ptr<job>;

struct run_job {
  job_ptr what;
};
struct job_done {};

/// A timer's tick, of any actor that has one.
struct tick {};

/// What the supervisor wants of one node's reservation.
struct node_order_message {
  enum class verb : std::uint8_t { reserve, resolve, restart, resize, cancel, inspect } what{};
  model::recorded_node row; ///< as recorded now
  byte_count size = 0;      ///< resize
};

/// How that went. `row` is recorded already when this arrives.
struct node_report {
  model::node_id node;
  node_order_message::verb what{};
  bool ok = false;
  bool changed = false; ///< `row` differs from what the order carried
  model::recorded_node row;
  grid::inspection seen; ///< of inspect
  std::string detail;
};

/// One round of the monitor: what every watched node gave.
struct monitor_round {
  std::vector<model::observed_node> nodes;
  bool complete = false; ///< every watched node answered or timed out
};

/// How the monitor watches.
struct watch_pace {
  std::uint32_t quorum = 1; ///< k: silence accrues only in rounds where so many answered
  std::chrono::milliseconds interval{10'000};
};

/// What the mount actor knows of the volume; taken in one go.
struct volume_report {
  model::volume_view view;
  volume::volume_stats stats;
  bool open = false;
  bool mounted = false;
  std::string mount_path;
};

struct volume_setup {
  volume::volume_options options;
  std::vector<model::group> groups; ///< of a new volume; else empty
  bool create = false;
};

struct get_report { ///< → volume_report
  bool durable = false; ///< what it says is on this machine's disk: a power cut takes none of it back
};
struct close_volume { ///< orderly; with `destroy` its local files go too
  bool destroy = false;
  volume::volume_options options; ///< destroy: where they are; the volume need not have been open
};
struct change_groups {
  std::vector<model::group> groups;
};
struct change_nodes {
  std::vector<volume::volume::node_view> nodes;
};
struct change_capacity {
  byte_count usable = 0;
};
struct doubt_node { ///< what was confirmed there since `since` must be checked again
  model::node_id node;
  wall_time since{};
};
struct do_mount {
  mount_settings settings;
};
struct do_unmount {
  std::chrono::milliseconds deadline{10'000};
};
struct do_drain {
  std::chrono::milliseconds deadline{60'000};
};
struct drop_caches {};
struct repair_some {
  std::size_t most = 0;
};
struct done {}; ///< the answer of what has nothing else to say

/// Asks the wallet; answers with what it holds, or an error.
struct look_at_wallet {};
struct price_check { ///< may this node be reserved now? (balance, budget)
  model::recorded_node row;
};
/// What the accepted spec allows, and what all live nodes of it cost.
struct budget {
  std::optional<model::money> max_per_month;
  std::chrono::milliseconds top_up_below{0};
  model::money burn;
};
struct stop_all { ///< orderly end of an actor; answered when nothing is in flight
  bool destroy = false;
};
/// A line for the event list and the log.
struct note_event {
  std::string level;
  std::string kind;
  std::string subject;
  std::string message;
};

/// A command from the control socket, and its answer: an HTTP status, a JSON body.
struct control_request {
  std::string verb; ///< "plan", "accept", "status", …
  std::string body; ///< JSON or empty
};
struct control_reply {
  int status = 200;
  std::string body;
};

} // namespace qs::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::run_job)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::job_done)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::tick)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::node_order_message)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::node_report)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::monitor_round)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::watch_pace)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::volume_report)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::volume_setup)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::control_request)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::control_reply)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::get_report)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::close_volume)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::change_groups)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::change_nodes)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::change_capacity)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::doubt_node)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::do_mount)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::do_unmount)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::do_drain)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::drop_caches)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::repair_some)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::done)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::look_at_wallet)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::price_check)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::budget)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::stop_all)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::note_event)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::model::wallet_view)
