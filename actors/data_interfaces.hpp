// The protocols of the data path: one zdb_connection per node, one dispersal over all of them.
// Forward declarations only; every message has a sentence. Included by interfaces.hpp.
// Errors travel as caf::error of category "qs" (caf_error.hpp turns them into qs::error and back).
#pragma once

#include <cstdint>

#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/atom.hpp>
#include <caf/fwd.hpp>
#include <caf/replies_to.hpp>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "actors/atoms.hpp"
#include "base/bytes.hpp"
#include "base/clock.hpp"
#include "base/units.hpp"
#include "model/ids.hpp"
#include "model/node.hpp"

namespace qs::actors {

/// disconnected → connecting → greeting → ready; data_lost, access_denied and stopped end it (the
/// first two until move_to).
enum class link_state : std::uint8_t {
  disconnected, ///< waits for the next attempt (exponential backoff with jitter)
  connecting,   ///< the connector tries
  greeting,     ///< handshake and identity check
  ready,        ///< serves
  data_lost, ///< it answers, but identity object or namespace is missing or different: never served
  access_denied, ///< it refuses our password: never served
  stopped,
};
std::string_view to_string(link_state state) noexcept;

/// What a connection knows of its node. Sent to its listener at every change of state and of facts,
/// and the answer to status.
struct link_report {
  model::node_id node;
  link_state state = link_state::disconnected;
  std::string detail;       ///< for people: what came back last
  std::uint64_t life = 0;   ///< counts the server's lives: goes up when it was or may have been
                            ///< restarted while we were away
  bool restarted = false;   ///< this report tells of a new life (not the first): what was confirmed
                            ///< lately is to be checked
  bool stalled = false;     ///< ready, owes an answer, and gave no sign of life for a while: nothing
                            ///< new is for it until it does, though it may only be slow
  wall_time last_seen{};    ///< last bytes from a node whose identity was right; epoch: never
  std::string instance;     ///< INFO instance_id, empty where the server has none
  bool has_sync = false;    ///< the server knows SYNC; without it a barrier takes two minutes
  byte_count used = 0;      ///< NSINFO: live payload of our namespace
  byte_count limit = 0;     ///< NSINFO: quota, 0 = none
  byte_count disk_free = 0; ///< NSINFO: of the disk below
  std::chrono::microseconds latency{0};     ///< of reads, smoothed
  std::chrono::microseconds latency_p90{0}; ///< of reads, estimated
  std::size_t bytes_in_flight = 0;
  std::uint32_t failures = 0; ///< attempts to connect that failed in a row
};

/// How much work a dispersal has on its hands.
struct dispersal_report {
  std::size_t nodes = 0;
  std::size_t read_bytes_in_flight = 0;
  std::size_t write_bytes_in_flight = 0;
  std::size_t background_bytes_in_flight = 0;
  std::size_t fetches = 0;     ///< not answered yet
  std::size_t queued = 0;      ///< operations that wait for a window
  std::size_t unconfirmed = 0; ///< shards acknowledged, not yet behind a barrier
  std::uint64_t hedges = 0; ///< reads that started more sources because one was late, since start
};

struct store_job;
struct fetch_job;
struct remove_job;
struct check_job;
struct dialed_socket;
using store_job_ptr = std::shared_ptr<store_job>;
using fetch_job_ptr = std::shared_ptr<fetch_job>;
using remove_job_ptr = std::shared_ptr<remove_job>;
using check_job_ptr = std::shared_ptr<check_job>;
using dialed_socket_ptr = std::shared_ptr<dialed_socket>;
using object_names = std::vector<model::object_name>;
using object_names_ptr = std::shared_ptr<const object_names>;

} // namespace qs::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::buffer_ptr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::model::node_id)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::model::object_name)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::model::endpoint)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::link_report)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::dispersal_report)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::store_job_ptr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::fetch_job_ptr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::remove_job_ptr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::check_job_ptr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::dialed_socket_ptr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(qs::actors::object_names_ptr)

namespace qs::actors {

/// Whoever wants to know how the nodes are: the monitor.
using link_listener_actor = caf::typed_actor<
    // A connection tells of a change: state, a new life, fresh figures from NSINFO.
    caf::reacts_to<link_atom, link_report>>;

/// One node's namespace (zdb_connection.hpp). While it is not ready every request fails at once
/// with unreachable (data_lost or access_denied where that is why); over the byte window with busy.
/// Requests are pipelined in order.
using connection_actor = caf::typed_actor<
    // SET. Replies with the server's life when the node has acknowledged it, or holds the very same
    // bytes already. maybe_delivered: nobody knows.
    caf::replies_to<store_atom, model::object_name, buffer_ptr>::with<std::uint64_t>,
    // GET. Replies with the bytes as they came; not_found is an answer, not a failure of the node.
    caf::replies_to<read_atom, model::object_name>::with<buffer_ptr>,
    // DEL of every name; what is not there counts as done. Replies when all are answered, with the
    // first error if any.
    caf::replies_to<del_atom, object_names_ptr>::with<caf::ok_atom>,
    // CHECK. Replies true: intact, false: damaged; not_found: no such object.
    caf::replies_to<check_atom, model::object_name>::with<bool>,
    // Replies with the life once all that was acknowledged in it before this message is on disk:
    // SYNC, or two minutes in the same life.
    caf::replies_to<barrier_atom>::with<std::uint64_t>,
    // PING, and NSINFO when the figures are older than ten seconds. Replies when the node has
    // answered; at once while it is busy answering much else.
    caf::replies_to<ping_atom>::with<caf::ok_atom>,
    // Replies with what is known now; asks the node nothing.
    caf::replies_to<status_atom>::with<link_report>,
    // The node has moved or been mended: forget what was, connect there and look again.
    caf::reacts_to<move_to_atom, model::endpoint>,
    // Takes no more work, ends when nothing is in flight (or nothing comes), then replies.
    caf::replies_to<stop_atom>::with<caf::ok_atom>>;

/// Shards to and from the nodes (dispersal.hpp); the volume reaches it through dispersal_port.
using dispersal_actor = caf::typed_actor<
    // From now on this node is reached through this connection; replaces the one before.
    caf::reacts_to<attach_atom, model::node_id, connection_actor>,
    // This node is not used any more; what waits for it fails.
    caf::reacts_to<detach_atom, model::node_id>,
    // A connection tells of a change. (What a link_listener_actor takes.)
    caf::reacts_to<link_atom, link_report>,
    // Sends shards to their nodes and reports each one's outcomes through the job.
    caf::reacts_to<store_atom, store_job_ptr>,
    // Gets one shard or enough others, hedging on the slow, and answers through the job.
    caf::reacts_to<fetch_atom, fetch_job_ptr>,
    // Somebody waits now for what a background fetch of this shard gets (epoch, counter, index).
    caf::reacts_to<hurry_atom, std::uint32_t, std::uint64_t, std::uint8_t>,
    // Deletes objects on one node and answers through the job.
    caf::reacts_to<remove_atom, remove_job_ptr>,
    // Asks one node whether an object is intact and answers through the job.
    caf::reacts_to<check_atom, check_job_ptr>,
    // Replies with how much is going on.
    caf::replies_to<status_atom>::with<dispersal_report>,
    // Takes no more work; sends a last barrier; replies when nothing is outstanding, at most 20 s
    // later, and ends.
    caf::replies_to<stop_atom>::with<caf::ok_atom>>;

} // namespace qs::actors
