// What the clock drives, and the figures: sealing by age, freeing the log, deleting dead segments, drain, caches, stats.
#include <sys/statvfs.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "volume/engine.hpp"

namespace qs::volume {

namespace {
using namespace std::chrono_literals;
/// More in ranges than this and they are merged whatever their age. Before that they wait for the clock: every merge makes a
/// whole frame, and ranges of one extent that wait together share it.
constexpr std::uint64_t ranges_bytes_max = 256 * mib;
constexpr std::size_t ranges_max = 200'000; ///< some 100 bytes of memory each
} // namespace

void engine::tick() {
  run_slowed();
  end_late_fetches();
  {
    std::lock_guard lock{queue_mutex_};
    if (upkeep_posted_ || closed_) return;
    upkeep_posted_ = true;
  }
  post([](engine& e) {
    e.upkeep();
    std::lock_guard lock{e.queue_mutex_};
    e.upkeep_posted_ = false;
  });
}

void engine::upkeep() {
  if (read_only_ || closed_) return check_drains();
  end_slow_round();
  seal_by_clock();
  retry_sends();
  send_more();
  unpin_enough();
  forget_arrived();
  start_reaping();
  remove_dead();
  sweep_stale();
  drop_old_generations();
  free_log();
  check_drains();
}

void engine::run_slowed() {
  std::vector<slowed_reply> due;
  {
    std::lock_guard lock{queue_mutex_};
    auto relieved = write_delay().count() == 0;
    while (!slowed_.empty() && (relieved || slowed_.front().due <= now())) {
      due.push_back(std::move(slowed_.front()));
      slowed_.pop_front();
    }
  }
  for (auto& s : due) s.reply();
}

bool engine::somebody_waits() const {
  std::lock_guard lock{queue_mutex_};
  return !drains_.empty();
}

void engine::seal_by_clock() {
  auto t = now();
  bool something = false;
  bool much = false;
  auto oldest = t;
  auto last = boot_time{};
  boot_time short_seal{};
  std::vector<segment_ptr> stuck;
  {
    std::shared_lock view{view_mutex_};
    if (extents_.extents() > 0) {
      something = true;
      much = extents_.bytes() > ranges_bytes_max || extents_.ranges() > ranges_max ||
             extents_.merge_bytes() > options_.staging_bytes / 4;
      oldest = std::min(oldest, dirty_since_.load());
      last = last_range_;
    }
    for (const auto& [ref, segment] : segments_) {
      std::lock_guard lock{segment->mutex};
      if (segment->ours && segment->closing && !segment->sealing && !segment->record && segment->outstanding == 0)
        stuck.push_back(segment);
    }
  }
  for (const auto& segment : stuck) close_segment(segment, false);
  {
    std::lock_guard lock{open_mutex_};
    short_seal = last_short_seal_;
    if (current_) {
      std::lock_guard own{current_->mutex};
      if (!current_->packer.empty()) {
        something = true;
        oldest = std::min(oldest, current_->opened);
        last = std::max(last, current_->last_frame);
      }
    }
  }
  if (!something && !somebody_waits()) return;
  {
    std::lock_guard lock{queue_mutex_};
    if (round_ || t < next_round_) return;
  }
  bool idle = t - last >= 250ms && (short_seal == boot_time{} || t - short_seal >= 5s);
  if (idle || much || t - oldest >= 5s || somebody_waits()) start_round();
}

byte_count engine::log_keep() const {
  return disk_full_ ? 0 : std::min<byte_count>(options_.staging_bytes / 4, 2 * gib);
}

result<byte_count> engine::free_disk(const std::filesystem::path& path) const {
  if (env_.free_disk) return env_.free_disk(path);
  struct statvfs disk {};
  if (::statvfs(path.c_str(), &disk) != 0) return posix_error(errno);
  return byte_count{disk.f_bavail} * disk.f_frsize;
}

void engine::free_log() {
  auto flushed = rows_->flushed_sequence();
  auto before = log_->first_file();
  auto waits = flushed.ok() ? log_->trim(*flushed, log_keep()) : write_log::waits_for::users;
  if (log_->first_file() != before) drop_kept(false);
  if (waits == write_log::waits_for::sync && now() >= next_sync_) {
    next_sync_ = now() + 1s;
    post([](engine& e) {
      if (auto how = e.log_->sync(); !how.ok()) e.note("error", "LogNotSynced", describe(how.err()));
    });
  }
  if (waits == write_log::waits_for::flush && now() >= next_flush_) {
    // The front of the log waits only for the rows to be on the disk. Not at every file: a flush costs.
    if (log_->needed_bytes() > std::min<byte_count>(options_.staging_bytes / 16, 512 * mib)) {
      next_flush_ = now() + 1s;
      if (auto started = rows_->flush(false); !started.ok()) note("warning", "FlushFailed", describe(started.err()));
    }
  }
  if (now() < next_disk_look_) return;
  next_disk_look_ = now() + 1s;
  auto path = options_.staging_directory.empty() ? options_.state_directory / "log" : options_.staging_directory;
  auto left = free_disk(path);
  if (!left.ok()) return;
  // Ranges must still become frames: the space for that is not for others, and half of the rest is left to them.
  auto keep = options_.free_disk_bytes;
  auto least = keep == 0 ? 0 : keep + extents_.merge_bytes();
  disk_short_ = *left < keep / 2;
  bool full = *left < least;
  if (full && !disk_full_ && flushed.ok() && log_->bytes() > log_->needed_bytes()) {
    log_->trim(*flushed); // what is only a cache gives way first
    drop_kept(false);
    if (left = free_disk(path); left.ok()) full = *left < least;
  }
  if (full != disk_full_.exchange(full))
    note(full ? "error" : "info", full ? "LocalDiskFull" : "LocalDiskRoom",
         full ? "the disk under the log has too little free space: nothing new is taken" : "the disk under the log has space again");
}

void engine::remove_dead() {
  if (now() < next_removal_.load()) return;
  std::size_t running = 0;
  {
    std::lock_guard lock{queue_mutex_};
    running = removing_.size();
  }
  if (running >= 64) return;
  auto refs = table_.dead(removal_cursor_, 64);
  if (refs.empty()) {
    if (!removal_cursor_.valid()) return;
    removal_cursor_ = {};
    next_removal_ = now() + 1s;
    return;
  }
  // What made them dead must be on the disk before the nodes forget them: after a power cut the rows would point there again
  // (invariant 7).
  if (!log_->sync().ok()) return;
  removal_cursor_ = refs.back();
  for (auto ref : refs) {
    {
      std::lock_guard lock{queue_mutex_};
      // While a repair is under way a DEL might come before its SET; it ends, and then finds the segment dead.
      if (repairing_.contains(ref) || !removing_.insert(ref).second) continue;
    }
    if (remove_segment(ref)) continue;
    std::lock_guard lock{queue_mutex_};
    removing_.erase(ref);
  }
}

bool engine::remove_segment(model::segment_ref ref) {
  auto entry = table_.find(ref);
  auto id = segment_id_of(ref);
  if (!entry || !id.ok() || entry->live_bytes != 0 || is_under_way(ref)) return false;
  {
    std::shared_lock view{view_mutex_};
    if (auto it = segments_.find(ref); it != segments_.end()) {
      std::lock_guard lock{it->second->mutex};
      if (it->second->queued) { // perhaps shards are on their way: a DEL now might come before its SET
        return false;
      }
      it->second->replacing = true;
    }
  }
  std::map<model::node_id, std::vector<model::object_name>> names;
  std::vector<stale_shard> later; // of nodes that do not answer now
  if (entry->group != no_group) {
    auto slots = table_.slots(entry->group, entry->group_generation);
    for (unsigned i = 0; slots && i < slots->size(); ++i) {
      auto node = (*slots)[i];
      if ((entry->required >> i & 1) == 0 || !table_.may_return(node)) continue;
      if (table_.reachable(node)) names[node].push_back(ring_->volume().shard_name(*id, i));
      else if (table_.live(node)) later.push_back({node, ref, static_cast<std::uint8_t>(i)});
      // One that is replaced and silent is cancelled as a whole.
    }
  }
  if (!later.empty() && !stale_room(later.size())) return false; // then the row is the note
  if (names.empty()) {
    removed(ref, true, later);
    return true;
  }
  struct counter {
    std::atomic<std::size_t> left;
    std::atomic<bool> all{true};
  };
  auto count = std::make_shared<counter>();
  count->left = names.size();
  for (auto& [node, list] : names)
    env_.port->remove(node, std::move(list), [weak = weak_from_this(), count, ref, later](const status& gone) {
      if (!gone.ok()) count->all = false;
      if (--count->left != 0) return;
      if (auto e = weak.lock()) e->post([ref, later, all = count->all.load()](engine& self) { self.removed(ref, all, later); });
    });
  return true;
}

void engine::removed(model::segment_ref ref, bool everywhere, const std::vector<stale_shard>& later) {
  if (everywhere) {
    auto erased = [&]() -> status {
      QS_TRY_ASSIGN(auto op, begin_internal());
      QS_TRY_ASSIGN(auto row, segment_row_in(*op, ref));
      if (!row || row->live_bytes != 0) return {};
      if (!stale_room(later.size())) return {}; // others were quicker: the row stays the note
      op->erase(segment_key(ref));
      for (const auto& s : later) note_stale(*op, s);
      op->effect([this, ref](log_position) { forget_local(ref, false); });
      return op->commit();
    }();
    if (erased.ok())
      for (unsigned i = 0; i < options_.data_shards; ++i) shards_.erase({ref, static_cast<std::uint8_t>(i)});
  }
  std::lock_guard lock{queue_mutex_};
  removing_.erase(ref);
  if (!everywhere) next_removal_ = now() + 5s;
}

void engine::drop_old_generations() {
  for (auto [id, generation] : table_.empty_generations()) {
    auto op = begin_internal();
    if (!op.ok()) return;
    // Again under the lock: a segment may have been placed there meanwhile.
    auto empty = table_.empty_generations();
    if (std::find(empty.begin(), empty.end(), std::pair{id, generation}) == empty.end()) continue;
    (*op)->erase(group_key(id, generation));
    if (!(*op)->commit().ok()) return;
    table_.erase_group(id, generation);
  }
}

// -- drain ----------------------------------------------------------------------------------------------------------

void engine::drain(std::chrono::milliseconds deadline, std::function<void(status)> done) {
  if (closed_) return done(error{errc::cancelled, "the volume is closed"});
  auto sequence = log_->appended_sequence();
  {
    std::lock_guard lock{queue_mutex_};
    drains_.push_back({now() + deadline, rounds_started_ + 1, sequence, 0, std::move(done)});
  }
  tick();
}

void engine::check_drains() {
  std::vector<std::pair<std::function<void(status)>, status>> over;
  bool safe = stats().bytes_at_risk == 0;
  model::segment_ref oldest{~std::uint32_t{0}, ~std::uint64_t{0}};
  std::uint64_t asked = 0;
  {
    std::lock_guard lock{queue_mutex_};
    if (drains_.empty()) return;
    for (const auto& d : drains_)
      if (d.segments == 0 && rounds_done_ >= d.round) asked = std::max(asked, d.sequence);
  }
  bool ranges_left = false; // a round may be over while some wait for a base that no node gives
  {
    std::shared_lock view{view_mutex_};
    if (!segments_.empty()) oldest = segments_.begin()->first;
    for (const auto& [ref, segment] : segments_) { // an open one without frames holds nobody up
      std::lock_guard lock{segment->mutex};
      if (segment->ours && !segment->record && segment->frames.empty()) continue;
      oldest = ref;
      break;
    }
    ranges_left = asked != 0 && extents_.any_upto(asked);
  }
  {
    std::lock_guard lock{queue_mutex_};
    for (auto it = drains_.begin(); it != drains_.end();) {
      if (rounds_done_ >= it->round && it->segments == 0 && it->sequence <= asked && !ranges_left) it->segments = segment_counter_ + 1;
      bool all = safe || (it->segments != 0 && oldest > model::segment_ref{session_.epoch, it->segments});
      if (!all && !read_only_ && now() < it->deadline) {
        ++it;
        continue;
      }
      over.emplace_back(std::move(it->done), all         ? status{}
                                             : read_only_ ? status{error{errc::refused, "the volume is read-only", EROFS}}
                                                          : status{error{errc::timed_out, "not everything is safe on the nodes yet"}});
      it = drains_.erase(it);
    }
  }
  for (auto& [done, outcome] : over) done(std::move(outcome));
}

status engine::drop_caches() {
  if (closed_) return error{errc::cancelled, "the volume is closed"};
  if (stats().bytes_at_risk != 0) return error{errc::busy, "some bytes are only on this machine yet"};
  if (!read_only_) {
    QS_TRY(log_->sync());
    QS_TRY(rows_->flush(true));
    QS_TRY(log_->rotate());
    QS_TRY(log_->sync());
    QS_TRY_ASSIGN(auto flushed, rows_->flushed_sequence());
    log_->trim(flushed);
  }
  drop_kept(true);
  frames_.clear();
  shards_.clear();
  std::lock_guard lock{fetch_mutex_};
  readers_.clear();
  return {};
}

// -- figures --------------------------------------------------------------------------------------------------------

byte_count engine::unsealed_bytes(std::uint64_t* since_ms) const {
  std::shared_lock view{view_mutex_};
  byte_count bytes = extents_.bytes();
  if (bytes == 0) { // zeros over an extent are data too
    if (extents_.extents() > 0) bytes = 1;
  }
  auto oldest = bytes > 0 ? dirty_since_.load() : boot_time::max();
  for (const auto& [ref, segment] : segments_) {
    std::lock_guard lock{segment->mutex};
    if (segment->record) continue;
    bytes += segment->bytes;
    if (segment->bytes > 0) oldest = std::min(oldest, segment->opened);
  }
  if (bytes > 0 && since_ms) {
    auto age = static_cast<std::uint64_t>(std::max<std::int64_t>(0, (now() - oldest).count()));
    *since_ms = wall_ms() - std::min(age, wall_ms());
  }
  return bytes;
}

volume_stats engine::stats() const {
  volume_stats s;
  auto sum = table_.sum(options_.parity_shards);
  std::uint64_t since = 0;
  auto unsealed = unsealed_bytes(&since);
  auto room = table_.space(capacity_, options_.data_shards);
  s.used_bytes = sum.used_bytes;
  s.usable_bytes = room.usable;
  s.free_bytes = room.free;
  s.bytes_at_risk = sum.pinned_bytes + unsealed + sum.at_risk_stored;
  if (sum.pinned_bytes > 0) since = since == 0 ? sum.pinned_since_ms : std::min(since, sum.pinned_since_ms);
  if (s.bytes_at_risk > 0) s.at_risk_since = wall_time{std::chrono::milliseconds{since}};
  s.node_read_bytes = node_read_bytes_;
  s.decoded_bytes = decoded_bytes_;
  s.log_bytes = log_->needed_bytes();
  s.log_cache_bytes = log_->bytes() - s.log_bytes;
  s.log_limit_bytes = options_.staging_bytes;
  s.cache_disk_bytes = shards_.disk_bytes();
  s.segments = sum.segments;
  s.segments_by_missing = sum.by_missing;
  s.redundancy_left_min = sum.redundancy_left_min;
  s.rebuild_pending = sum.repairs;
  {
    std::lock_guard lock{queue_mutex_};
    s.segments_in_flight = flying_;
  }
  s.read_only = read_only_;
  if (s.read_only) {
    std::lock_guard lock{reason_mutex_};
    s.read_only_reason = read_only_reason_;
  }
  s.log_full = log_is_full();
  return s;
}

space engine::statfs() {
  auto room = table_.space(capacity_, options_.data_shards);
  auto waiting = unsealed_bytes(nullptr);
  space s;
  s.total_bytes = room.usable;
  s.free_bytes = room.free > waiting ? room.free - waiting : 0;
  s.files = static_cast<std::uint64_t>(std::max<std::int64_t>(0, inodes_seen_));
  s.files_free = (std::uint64_t{1} << 40) - s.files;
  return s;
}

} // namespace qs::volume
