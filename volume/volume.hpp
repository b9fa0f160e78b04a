// A volume, opened by the one engine that holds the state lock: the file system and what the engine steers of it.
// Owns the log, the rows, the cache and the segments on their way; owns no thread and no socket: background work runs on the
// executor, shards go through the port, time comes from the clock, and the engine calls tick() a few times a second.
// Thread-safe. Format and invariants: volume.md, docs/formats/.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/phrase.hpp"
#include "base/random.hpp"
#include "model/group.hpp"
#include "model/observed.hpp"
#include "volume/executor.hpp"
#include "volume/filesystem.hpp"
#include "volume/shard_port.hpp"

namespace qs::volume {

struct volume_options {
  std::string name;
  root_secret root;                      ///< the 24 words' entropy; sub-keys are derived from it and the name
  std::filesystem::path state_directory; ///< 0700; holds log/, rows/, volume.json; mount.staging may move log/
  std::filesystem::path staging_directory; ///< empty: <state>/log
  std::filesystem::path cache_directory; ///< ciphertext; may vanish at any time; empty: no disk cache
  byte_count cache_bytes = 10 * gib;
  byte_count staging_bytes = 10 * gib;   ///< writers slowed at half, ENOSPC at the end
  byte_count memory_cache_bytes = 64 * mib; ///< decrypted frames
  std::uint8_t data_shards = 4;
  std::uint8_t parity_shards = 2;
  byte_count capacity = 0;               ///< usable, declared: the roof of statfs
  byte_count free_disk_bytes = 1 * gib;  ///< the log takes nothing new when its disk has less left than this
  byte_count log_file_bytes = 64 * mib;  ///< a log file is closed when it is this long
  byte_count late_bytes = 64 * mib;      ///< of shards that slow nodes still owe a word for, while the next segments go on
};

struct volume_environment {
  qs::clock* time = nullptr;
  random_source* random = nullptr;
  shard_port* port = nullptr;
  executor* work = nullptr;
  /// A clear line for the engine's log and events: level (info, warning, error), kind (CamelCase), message. May be null.
  std::function<void(std::string_view, std::string_view, std::string_view)> note;
  /// What the disk under this directory has free for us. Null: the kernel is asked.
  std::function<result<byte_count>(const std::filesystem::path&)> free_disk;
};

/// Figures of the moment; cheap, for status and metrics.
struct volume_stats {
  byte_count used_bytes = 0;     ///< stored bytes of live frames
  byte_count usable_bytes = 0;   ///< what the groups could hold empty, at most the declared capacity
  byte_count free_bytes = 0;
  byte_count bytes_at_risk = 0;  ///< of segments not fully confirmed, and of what is not in a segment yet
  wall_time at_risk_since{};     ///< oldest such byte; epoch if none
  byte_count node_read_bytes = 0; ///< shard bytes received since open
  byte_count decoded_bytes = 0;   ///< payload bytes reconstructed from parity since open
  byte_count log_bytes = 0;       ///< of log files that are needed
  byte_count log_cache_bytes = 0; ///< of those that only save reads from nodes; they go when space is needed
  byte_count log_limit_bytes = 0;
  byte_count cache_disk_bytes = 0;
  std::uint64_t segments = 0;
  std::uint64_t segments_in_flight = 0;
  std::vector<std::uint64_t> segments_by_missing; ///< [i] = segments with i shards not confirmed on live nodes
  std::uint32_t redundancy_left_min = 0; ///< least confirmed shards on live nodes, minus k; m when there is no segment
  std::uint64_t rebuild_pending = 0;     ///< segments with something to rebuild or move
  bool read_only = false;                ///< corruption was found; says why in `read_only_reason`
  std::string read_only_reason;
  bool log_full = false;
};

class volume {
public:
  virtual ~volume() = default;

  virtual filesystem& files() = 0;

  /// The groups as they shall be: new ids are added, a higher generation replaces slots (old places stay readable until
  /// everything moved). Logged, idempotent. Refused if a known group would change without a new generation.
  virtual status set_groups(const std::vector<model::group>& groups) = 0;
  virtual std::vector<model::group> groups() const = 0;
  virtual void set_capacity(byte_count usable) = 0;

  /// What the monitor and the state know of each node: `reachable` answer now; `live` count for redundancy (not lost or gone,
  /// and not replaced and silent); those that are not, but `may_return`, may have what nobody else has when they answer again:
  /// nothing of theirs is given up. Free/limit bytes per node for statfs and for choosing groups.
  struct node_view {
    model::node_id id;
    bool reachable = false;
    bool live = true;
    byte_count limit = 0;
    byte_count used = 0;
    bool may_return = true;
  };
  virtual void set_nodes(const std::vector<node_view>& nodes) = 0;
  /// What was confirmed on this node since then must be checked again (volume.md 3, identity). time 0 = everything.
  virtual void unconfirm(model::node_id node, wall_time since) = 0;

  /// Clock-driven work: sealing by age, retries, freeing log files, deleting dead segments. Call every ~100 ms.
  virtual void tick() = 0;
  /// Keeps up to `most` rebuilds or moves going, lowest redundancy first. Call after tick(); returns how many run now.
  virtual std::size_t repair(std::size_t most) = 0;

  /// Seals what is open and calls back when nothing is at risk, or with timed_out. Writers may go on meanwhile.
  virtual void drain(std::chrono::milliseconds deadline, std::function<void(status)> done) = 0;
  /// After a drain: lets log files, pinned copies, disk and memory caches go (qs cache drop). busy when bytes are at risk.
  virtual status drop_caches() = 0;

  virtual volume_stats stats() const = 0;
  virtual std::vector<model::group_health> health() const = 0;
  /// Nodes whose loss would lose the last k copies of something, and nodes still needed as sources of moves.
  virtual std::vector<model::node_id> indispensable() const = 0;
  virtual std::vector<model::node_id> sources() const = 0;
  /// Bytes of this segment that rows point to; 0: dead, nothing can ask for its shards again.
  virtual byte_count live_bytes(model::segment_ref segment) const = 0;
  /// Live stored bytes of one node's slots: what replacing it moves.
  virtual byte_count bytes_on(model::node_id node) const = 0;

  /// Orderly end: log synced, rows flushed; later calls on files() give EIO. The destructor alone is a crash.
  virtual status close() = 0;
};

/// Removes what create_volume and its use left in these directories (qs destroy); the volume must be closed.
status destroy_volume(const volume_options& options);
/// Makes the local half of a new volume: VK list, root directory, first epoch. already_exists if there is one.
status create_volume(const volume_options& options, const volume_environment& env);
/// Opens it as the writer: takes a new session (epoch synced before use), replays the log, goes on with what was
/// under way. Errors: refused (phrase does not fit), version_mismatch, corrupt, not_found, io.
result<std::unique_ptr<volume>> open_volume(const volume_options& options, const volume_environment& env);

} // namespace qs::volume
