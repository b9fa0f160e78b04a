// The volume's core: one object that owns log, rows, ranges, segments on their way and caches, and does everything below names.
// Its parts by file: engine.cpp (operations), recovery.cpp (start), write.cpp, trim.cpp (dropping data), read.cpp, merge.cpp (ranges to
// frames), seal.cpp, send.cpp, repair.cpp, upkeep.cpp (tick, drain, figures). Thread-safe; owns no thread.
//
// Order of locks: opening, operation, view, then the small ones (open, queue, a segment's), of which no two are held at once.
// No lock is held while a callback or the port is called. Jobs and port callbacks hold a weak pointer: a volume that is
// destroyed is a volume that crashed.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <unordered_set>

#include "base/buffer_pool.hpp"
#include "base/limits.hpp"
#include "codec/shard.hpp"
#include "volume/caches.hpp"
#include "volume/core.hpp"
#include "volume/engine_operation.hpp"
#include "volume/extents.hpp"
#include "volume/local_segment.hpp"
#include "volume/log.hpp"
#include "volume/log_record.hpp"
#include "volume/row_store.hpp"
#include "volume/segment_table.hpp"
#include "volume/volume.hpp"

namespace qs::volume {

class engine final : public core, public std::enable_shared_from_this<engine> {
public:
  /// See create_volume() and open_volume(). `names_ready` is called when core functions work and before orphans are reaped.
  static status create(const volume_options& options, const volume_environment& env);
  static result<std::shared_ptr<engine>> open(const volume_options& options, const volume_environment& env);
  ~engine() override;
  /// What must live as long as jobs may call it.
  void keep(std::shared_ptr<void> companion) { companion_ = std::move(companion); }
  /// Reaps orphans, takes up what was under way. After the names half registered itself.
  void start();

  // -- core -------------------------------------------------------------------------------------------------------
  result<std::unique_ptr<operation>> begin(purpose why) override;
  result<std::optional<buffer>> get(std::string_view key) const override { return rows_->get(key); }
  status scan(std::string_view from, std::string_view end, const row_visitor& visit) const override {
    return rows_->scan(from, end, visit);
  }
  [[nodiscard]] const codec::volume_keys& keys() const override { return ring_->volume(); }
  inode_number new_inode() override { return make_inode_number(session_.epoch, ++inode_counter_); }
  result<bool> drop_extents(operation& op, inode_number inode, inode_row& row, std::uint64_t from,
                            std::uint64_t to) override;
  void reap_orphan(inode_number inode) override;
  void on_reaped(std::function<status(operation&, inode_number)> erase_rows) override {
    erase_rows_ = std::move(erase_rows);
  }

  // -- bytes (filesystem.hpp) -------------------------------------------------------------------------------------
  void read(inode_number inode, std::uint64_t offset, std::size_t length, filesystem::read_done done);
  void write(inode_number inode, std::uint64_t offset, byte_span data, bool append, bool kill_privileges,
             filesystem::write_done done);
  status fallocate(inode_number inode, int mode, std::uint64_t offset, std::uint64_t length);
  result<std::uint64_t> seek(inode_number inode, std::uint64_t offset, int whence);
  status fsync();
  space statfs();

  // -- volume (volume.hpp) ----------------------------------------------------------------------------------------
  status set_groups(const std::vector<model::group>& groups);
  [[nodiscard]] std::vector<model::group> groups() const { return table_.groups(); }
  void set_capacity(byte_count usable) { capacity_ = usable; }
  void set_nodes(const std::vector<volume::node_view>& nodes);
  void unconfirm(model::node_id node, wall_time since);
  void tick();
  std::size_t repair(std::size_t most);
  void drain(std::chrono::milliseconds deadline, std::function<void(status)> done);
  status drop_caches();
  [[nodiscard]] volume_stats stats() const;
  [[nodiscard]] const segment_table& table() const { return table_; }
  [[nodiscard]] unsigned parity() const { return options_.parity_shards; }
  status close();

private:
  friend class engine_operation;
  friend class frame_ticket;
  friend struct read_job;

  engine(const volume_options& options, const volume_environment& env);

  // -- engine.cpp
  /// For the core's own operations: works on a full log.
  result<std::unique_ptr<engine_operation>> begin_internal();
  result<std::unique_ptr<engine_operation>> begin_operation(bool grow);
  [[nodiscard]] bool log_is_full() const;
  [[nodiscard]] byte_count log_promised() const; ///< needed, and what ranges still take until they are frames
  [[nodiscard]] byte_count log_reserve() const;
  void note(std::string_view level, std::string_view kind, std::string_view message) const;
  void go_read_only(std::string_view why);
  [[nodiscard]] boot_time now() const { return env_.time->boot(); }
  [[nodiscard]] std::uint64_t wall_ms() const {
    return static_cast<std::uint64_t>(env_.time->wall().time_since_epoch().count());
  }
  /// In the background, when much waits.
  void drain_rows();
  /// Runs `job(*this)` on the executor, unless the volume is gone by then.
  void post(std::function<void(engine&)> job);
  [[nodiscard]] result<inode_row> inode(inode_number inode) const;
  static result<inode_row> inode_in(operation& op, inode_number inode);
  [[nodiscard]] result<std::optional<segment_row>> segment_row_of(model::segment_ref ref) const;
  static result<std::optional<segment_row>> segment_row_in(operation& op, model::segment_ref ref);

  // -- recovery.cpp
  status recover(bool fresh);
  status replay(const found_record& found);
  void apply_sections(const log_record& record, log_position data);
  status load_tables();
  status settle_segments();
  status begin_session(bool fresh);

  // -- write.cpp
  status write_now(inode_number inode, std::uint64_t offset, byte_span data, bool append, bool kill_privileges);
  result<bool> try_write(inode_number inode, std::uint64_t offset, byte_span data, bool append, bool kill_privileges,
                         bool frames);
  [[nodiscard]] std::chrono::milliseconds write_delay() const;
  /// The end of an extent's bytes: of its base as visible, or of its ranges.
  [[nodiscard]] std::uint32_t extent_end(inode_number inode, std::uint64_t index,
                                         const std::optional<extent_row>& row) const;

  // -- seal.cpp
  result<frame_ticket> reserve();
  result<sealed_frame> seal_frame(byte_span plain);
  void give_back(const segment_ptr& segment, std::uint32_t number, bool placed, bool added);
  void close_segment(const segment_ptr& segment, bool short_seal);
  void seal(const segment_ptr& segment);
  status seal_now(const segment_ptr& segment);
  /// Sends what was sealed once the log is on the disk up to there: after a power cut exactly these bytes are sent again, or none
  /// ever were (invariant 2). One at a time; what is sealed while the log is synced has the next sync together.
  void send_sealed();
  status open_segment();
  /// Under the view lock. `stored`: the nodes have it, and what the log has of it stays readable as long as the files do.
  void forget_local(model::segment_ref ref, bool stored);
  void keep_local(const local_segment& segment);
  void drop_kept(bool all); ///< those whose log files are gone
  /// Puts the live frames of a segment into new ones; then its row goes.
  void move_frames(const segment_ptr& from);

  // -- send.cpp
  void queue_send(const segment_ptr& segment);
  void send_more();
  [[nodiscard]] bool may_send() const; ///< under the queue lock
  /// Under the queue lock: what waits can wait until its turn, so that who writes fast has the machine (decision 0014).
  [[nodiscard]] bool gives_way() const;
  [[nodiscard]] std::chrono::milliseconds turn() const; ///< from one segment to the next, while it does
  void send(const segment_ptr& segment);
  result<std::vector<buffer_ptr>> shard_values(local_segment& segment);
  /// The next attempt: which shards to whom. Under the segment's lock.
  void prepare(local_segment& segment, const std::vector<model::node_id>& slots, const std::vector<buffer_ptr>& values,
               std::uint64_t asked, bool hurry, store_request& request);
  void progress(const segment_ptr& segment, unsigned attempt, std::uint8_t index, model::node_id node,
                shard_outcome outcome);
  /// Enough nodes have acknowledged it for the next ones to be sent. Under the segment's lock.
  [[nodiscard]] bool is_safe(const segment_entry& entry, const std::vector<model::node_id>& slots,
                             const local_segment& segment) const;
  /// It counts no longer among those in flight, but its shards that are still on their way among what is late: how many bytes.
  static byte_count land(local_segment& segment);
  /// Again for those in flight: a node that is not there any more is not waited for.
  void judge_flying();
  void settle_confirmed(const segment_ptr& segment);
  /// Writes the confirmed bits into the row and lets the log go: when all are confirmed, or with `some_missing` as many as the
  /// rule of volume.md 3 asks for; the others are repair's then. False: not written, it stays pinned.
  bool commit_confirmed(const segment_ptr& segment, bool some_missing);
  [[nodiscard]] unsigned enough_to_unpin(unsigned used, unsigned all) const; ///< confirmed shards, of so many
  void retry_sends();
  /// What is missing of it is on nodes that are not there. Under the segment's lock.
  [[nodiscard]] bool nobody_to_ask(const segment_entry& entry, const local_segment& segment) const;
  void unpin_enough();
  /// Let go by unpin_enough() while a shard was on its way to a node that stands still, and it still is: a DEL now might come
  /// before its SET, and repair would ask for what is coming.
  [[nodiscard]] bool is_under_way(model::segment_ref ref) const;
  void forget_arrived();

  // -- merge.cpp
  void start_round();
  void queue_merge(extent_place place);
  void run_merges();
  void merge(extent_place place);
  void finish_merge(extent_place place, bool ok);
  /// A round whose last merges wait for their base only is over after a while: they go on beside the next.
  void end_slow_round();
  void round_ended(); ///< under the queue lock
  void seal_after_round();
  /// Whether the frame is here, or enough nodes are that may have it.
  [[nodiscard]] bool can_get(const extent_row& row);
  struct merge_job;
  void merge_with_base(const std::shared_ptr<merge_job>& job, result<buffer_ptr> base);
  status merge_now(merge_job& job, const buffer_ptr& base);

  // -- trim.cpp
  void post_trim(inode_number inode);
  result<bool> trim_some(inode_number inode);
  status finish_trim(inode_number inode);
  void start_reaping();
  result<std::vector<inode_number>> reap_small(const std::vector<inode_number>& orphans);
  void reap(inode_number inode);

  // -- read.cpp
  using frame_done = std::function<void(result<buffer_ptr>)>;
  /// The plain bytes of an extent's base frame: from memory, the log, the cache or the nodes. `since` is when the read began
  /// that needs it: all it asks for has one deadline.
  void get_frame(const extent_row& row, boot_time since, frame_done done);
  [[nodiscard]] result<buffer_ptr> frame_from_log(const extent_row& row, bool& here);
  /// Of a segment that the nodes have, too; null if the log has it no more.
  [[nodiscard]] buffer_ptr frame_from_kept(const extent_row& row);
  /// Whether the log has the frame; under the view lock.
  [[nodiscard]] bool in_log(const extent_row& row) const;
  [[nodiscard]] result<std::shared_ptr<const codec::frame_cipher>> cipher_of(model::segment_ref ref);
  [[nodiscard]] buffer_ptr frame_from_cache(const extent_row& row);
  [[nodiscard]] result<buffer_ptr> open_frame(const extent_row& row, byte_span stored);
  using shard_done = std::function<void(result<buffer_ptr>)>;
  /// `since`: when the one who waits for it began to; nothing: it is read ahead (and not fetched at all when much is under way).
  void get_shard(shard_key key, std::optional<boot_time> since, shard_done done);
  struct shard_fetch;
  void begin_fetch(shard_key key);
  void ask_for(shard_fetch f);
  void set_times(shard_fetch& f);
  void fetch_shard(shard_fetch f);
  void fetched(shard_fetch f, result<std::vector<fetched_shard>> got);
  void shard_arrived(shard_key key, const result<buffer_ptr>& value);
  /// Answers reads whose time is over before their turn came.
  void end_late_fetches();
  result<codec::segment_id> segment_id_of(model::segment_ref ref) const;
  std::vector<shard_source> sources_of(const segment_entry& e, const codec::segment_id& id, int first) const;
  /// A shard that a node gave (`damaged`) or should have is not what it must be: repair makes it anew.
  void mark_missing(model::segment_ref ref, std::uint8_t index, model::node_id node, bool damaged, std::string_view why);
  void read_ahead(inode_number inode, std::uint64_t from_index, std::uint64_t size);

  // -- repair.cpp
  struct repair_job;
  /// False: nothing can be done for it now.
  bool start_repair(model::segment_ref ref, const segment_entry& e);
  void check_first(const std::shared_ptr<repair_job>& job);
  void purge_first(const std::shared_ptr<repair_job>& job, std::vector<shard_to_store> shards);
  void fetch_sources(const std::shared_ptr<repair_job>& job);
  void rebuild(const std::shared_ptr<repair_job>& job, std::vector<fetched_shard> got);
  void finish_repair(const std::shared_ptr<repair_job>& job, bool moved);
  void store_rebuilt(const std::shared_ptr<repair_job>& job, std::vector<shard_to_store> shards);
  void commit_repair(const std::shared_ptr<repair_job>& job);
  /// What the job put where the segment is not.
  void note_left(engine_operation& op, const repair_job& job, const std::optional<segment_row>& row);
  [[nodiscard]] std::uint64_t times_unconfirmed(model::node_id node) const;

  // -- stale.cpp
  void note_stale(engine_operation& op, const stale_shard& s);
  [[nodiscard]] bool stale_room(std::size_t more) const;
  status count_stale();
  void sweep_stale();
  void forget_stale(const std::vector<row_key>& keys);

  // -- upkeep.cpp
  void upkeep();
  void seal_by_clock();
  void free_log();
  void remove_dead();
  [[nodiscard]] byte_count log_keep() const; ///< so much of the log may be there only as a cache
  [[nodiscard]] result<byte_count> free_disk(const std::filesystem::path& path) const;
  bool remove_segment(model::segment_ref ref);
  /// `later`: copies that could not be deleted yet; they are in the batch that forgets the segment.
  void removed(model::segment_ref ref, bool everywhere, const std::vector<stale_shard>& later);
  void check_drains();
  void run_slowed();
  void drop_old_generations();
  [[nodiscard]] byte_count unsealed_bytes(std::uint64_t* since_ms) const;
  [[nodiscard]] bool somebody_waits() const;

  volume_options options_;
  volume_environment env_;
  locked_random random_;
  buffer_pool shard_values_; ///< of the next segments to be sent
  std::shared_ptr<int> body_shares_ = std::make_shared<int>(); ///< one more owner for every segment with a body
  [[nodiscard]] bool body_room() const;
  std::optional<codec::key_ring> ring_;
  codec::session_id session_;
  std::unique_ptr<write_log> log_;   ///< before rows_: its flushes sync the log
  std::unique_ptr<row_store> rows_;
  std::atomic<bool> draining_rows_{false};
  std::function<status(operation&, inode_number)> erase_rows_;
  std::shared_ptr<void> companion_;

  std::atomic<std::uint64_t> inode_counter_{1};
  std::atomic<std::uint64_t> segment_counter_{0};
  std::atomic<byte_count> capacity_{0};
  std::atomic<bool> closed_{false};
  std::atomic<bool> read_only_{false};
  mutable std::mutex reason_mutex_;
  std::string read_only_reason_;

  std::mutex opening_mutex_;
  mutable std::mutex operation_mutex_;
  std::uint64_t sequence_ = 0;      ///< under operation_mutex_
  file_time last_now_{};            ///< under operation_mutex_
  std::int64_t inodes_ = 0;         ///< under operation_mutex_; mirrored in a local row
  std::atomic<std::int64_t> inodes_seen_{0};

  mutable std::shared_mutex view_mutex_; ///< rows and the two below change together
  extent_map extents_;
  std::map<model::segment_ref, segment_ptr> segments_; ///< those in the log
  std::map<model::segment_ref, kept_segment> kept_;    ///< stored ones of which the log has something left
  std::size_t kept_frames_ = 0;

  std::mutex open_mutex_;
  segment_ptr current_;
  boot_time last_short_seal_{};

  segment_table table_;
  frame_cache frames_;
  shard_cache shards_;
  std::map<std::uint32_t, codec::writer_id> writers_; ///< session table: fixed after recovery

  mutable std::mutex queue_mutex_; ///< queues and counters of background work
  std::vector<segment_ptr> sealed_; ///< the log is to be synced before they are sent
  bool syncing_sealed_ = false;
  std::deque<segment_ptr> send_queue_;
  unsigned flying_ = 0;
  unsigned attempts_ = 0;
  byte_count late_ = 0; ///< bytes in memory of segments that are safe enough to go on
  bool sending_ = false;
  boot_time next_turn_{};                          ///< of sending, while it gives way
  std::atomic<boot_time> last_full_{boot_time{}};  ///< when a writer last had filled a segment
  std::deque<extent_place> merge_queue_;
  unsigned merge_jobs_ = 0;
  std::size_t merges_open_ = 0;     ///< queued, running or waiting for their base; and the round itself
  std::size_t merges_fetching_ = 0;
  std::vector<extent_place> merges_parked_; ///< wait for a base from a node, behind those being fetched
  bool merges_failed_ = false;              ///< in this round
  boot_time round_began_{};
  boot_time next_round_{};                  ///< after a round with failures not at once
  boot_time dirty_before_{};                ///< dirty_since_ as it was before this round
  bool round_ = false;
  std::uint64_t rounds_started_ = 0, rounds_done_ = 0;
  std::atomic<boot_time> dirty_since_{boot_time{}}; ///< since when there have been ranges
  std::atomic<boot_time> last_range_{boot_time{}};
  bool upkeep_posted_ = false;
  std::unordered_set<inode_number> trims_;
  std::deque<inode_number> reap_queue_;
  bool reaping_ = false;
  struct drain_waiter {
    boot_time deadline{};
    std::uint64_t round = 0;    ///< this round must be done
    std::uint64_t sequence = 0; ///< and no range of an operation up to this one be left
    std::uint64_t segments = 0; ///< and segments of this session up to this counter safe (0: not known yet)
    std::function<void(status)> done;
  };
  std::vector<drain_waiter> drains_;
  struct slowed_reply {
    boot_time due{};
    std::function<void()> reply;
  };
  std::deque<slowed_reply> slowed_;
  std::unordered_set<model::segment_ref> repairing_;
  std::unordered_map<model::segment_ref, segment_ptr> under_way_; ///< not all of them still are
  std::map<model::node_id, std::uint64_t> unconfirmed_; ///< how often each was: what a job heard before counts no more
  std::unordered_map<model::segment_ref, boot_time> repair_after_;
  std::optional<segment_table::work_key> repair_cursor_;
  std::unordered_set<model::segment_ref> removing_;
  model::segment_ref removal_cursor_;
  boot_time next_flush_{};
  boot_time next_sync_{};
  std::atomic<boot_time> next_removal_{boot_time{}};
  boot_time next_disk_look_{};
  std::atomic<bool> disk_full_{false};
  std::atomic<bool> disk_short_{false}; ///< not even for frames made of ranges
  std::atomic<std::size_t> stale_{0};
  std::atomic<bool> sweeping_{false};
  boot_time next_stale_{};   ///< upkeep's
  row_key stale_cursor_;     ///< upkeep's

  std::mutex fetch_mutex_;
  struct pending_shard {
    std::vector<shard_done> waiters;
    std::optional<boot_time> since; ///< when the first of them began to wait; nothing: only read ahead
    bool asked = false;             ///< the port knows of it
    std::uint64_t number = 0;       ///< tells it from a later one of the same shard
  };
  std::uint64_t fetch_number_ = 0;
  std::unordered_map<shard_key, pending_shard, shard_key_hash> fetching_;
  std::deque<shard_key> fetch_queue_; ///< those of fetching_ that have not begun; somebody waits for each
  std::size_t fetches_ = 0;
  std::size_t fetches_max_ = 32; ///< each holds up to k shards of half a MiB for a moment
  std::list<std::pair<model::segment_ref, std::shared_ptr<const codec::frame_cipher>>> ciphers_;
  std::unordered_map<model::segment_ref,
                     std::list<std::pair<model::segment_ref, std::shared_ptr<const codec::frame_cipher>>>::iterator>
    cipher_map_;
  struct read_position {
    std::uint64_t next = 0;  ///< where a sequential reader goes on
    std::uint64_t ahead = 0; ///< extents below are asked for
  };
  std::unordered_map<inode_number, read_position> readers_;

  std::atomic<std::uint64_t> node_read_bytes_{0};
  std::atomic<std::uint64_t> decoded_bytes_{0};
  std::atomic<std::uint64_t> repaired_{0};
  std::atomic<boot_time> last_fetched_{boot_time{}}; ///< when nodes last gave what was asked for
  std::atomic<boot_time> next_read_note_{boot_time{}}; ///< ten thousand failed reads are one line a second
};

} // namespace qs::volume
