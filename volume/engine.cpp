#include "volume/engine.hpp"

#include <algorithm>
#include <cerrno>

#include "base/log.hpp"

namespace qs::volume {

// -- operations -----------------------------------------------------------------------------------------------------

engine_operation::engine_operation(engine& e, std::unique_lock<std::mutex> lock, std::uint64_t sequence, file_time now)
    : engine_{e}, lock_{std::move(lock)}, now_{now} {
  record_.sequence = sequence;
}

engine_operation::~engine_operation() {
  if (committed_) return;
  // Frames that were placed and did not happen: their numbers are burnt, their places stay empty (invariant 1, 13).
  for (auto& [segment, number] : placed_) {
    std::lock_guard lock{segment->mutex};
    segment->drop_frame(number);
  }
}

result<std::optional<buffer>> engine_operation::get(std::string_view key) {
  if (auto it = record_.rows.find(key); it != record_.rows.end()) return it->second;
  return engine_.rows_->get(key);
}

status engine_operation::scan(std::string_view from, std::string_view end, const row_visitor& visit) {
  return scan_over(record_.rows, from, end,
                   [&](const row_visitor& below) { return engine_.rows_->scan(from, end, below); }, visit);
}

result<std::optional<extent_row>> engine_operation::extent(inode_number inode, std::uint64_t index) {
  QS_TRY_ASSIGN(auto value, get(extent_key(inode, index)));
  if (!value) return std::optional<extent_row>{};
  QS_TRY_ASSIGN(auto row, decode_extent(*value));
  return std::optional<extent_row>{std::move(row)};
}

status engine_operation::set_extent(inode_number inode, std::uint64_t index, const std::optional<extent_row>& row) {
  QS_TRY_ASSIGN(auto old, extent(inode, index));
  if (old) {
    live(old->segment, -static_cast<std::int64_t>(old->stored));
    if (!row || row->segment != old->segment || row->frame_number != old->frame_number)
      superseded_.emplace_back(old->segment, old->frame_number);
  }
  if (row) {
    live(row->segment, static_cast<std::int64_t>(row->stored));
    put(extent_key(inode, index), encode(*row));
  } else if (old) {
    erase(extent_key(inode, index));
  }
  return {};
}

status engine_operation::add_frame(sealed_frame& frame, inode_number inode, std::uint64_t inode_generation,
                                   std::uint64_t index, std::uint32_t visible, std::uint64_t ranges_upto) {
  const auto& segment = frame.ticket.segment();
  frame_section section;
  section.segment = segment->ref();
  auto& entry = section.entry;
  entry.stored_length = frame.size.stored;
  entry.plain_length = frame.size.plain;
  entry.codec = frame.size.codec;
  entry.frame_number = frame.ticket.number();
  entry.inode = inode;
  entry.inode_generation = inode_generation;
  entry.extent_index = index;
  entry.sequence = sequence();
  {
    std::lock_guard lock{segment->mutex};
    auto place = segment->packer.fill(entry);
    section.shard = static_cast<std::uint8_t>(place.shard);
    entry.position = place.position;
  }
  frame.ticket.added();
  placed_.emplace_back(segment, entry.frame_number);
  section.ranges_upto = ranges_upto;
  section.data_at = static_cast<std::uint32_t>(data_bytes_);
  data_.push_back(frame.stored);
  data_bytes_ += frame.size.stored;

  extent_row row;
  row.segment = section.segment;
  row.slot = section.shard;
  row.codec = static_cast<std::uint8_t>(entry.codec);
  row.position = entry.position;
  row.stored = entry.stored_length;
  row.plain = entry.plain_length;
  row.frame_number = entry.frame_number;
  row.visible = visible;
  record_.frames.push_back(section);
  return set_extent(inode, index, row);
}

void engine_operation::add_range(inode_number inode, std::uint64_t index, std::uint32_t from, std::uint32_t to,
                                 byte_span bytes) {
  range_section r{inode, index, from, to, no_data};
  if (!bytes.empty()) {
    QS_ASSERT(bytes.size() == to - from);
    r.data_at = static_cast<std::uint32_t>(data_bytes_);
    data_.push_back(bytes);
    data_bytes_ += bytes.size();
  }
  record_.ranges.push_back(r);
}

status engine_operation::commit() {
  QS_ASSERT(!committed_);
  for (auto [ref, delta] : live_) {
    if (delta == 0) continue;
    QS_TRY_ASSIGN(auto row, engine::segment_row_in(*this, ref));
    if (!row) return error{errc::corrupt, "an extent points to a segment without a row", EIO};
    row->live_bytes += static_cast<std::uint64_t>(delta);
    put(segment_key(ref), encode(*row));
  }
  auto& e = engine_;
  if (inodes_ != 0) {
    buffer count(8);
    store_le(count.data(), static_cast<std::uint64_t>(e.inodes_ + inodes_));
    put(local_key("inodes"), std::move(count));
  }
  if (!record_.empty()) {
    auto body = encode_body(record_);
    auto place = e.log_->append(record_.sequence, body, data_);
    if (!place.ok()) {
      if (e.log_->broken()) e.go_read_only(describe(place.err()));
      return std::move(place).err();
    }
    std::vector<std::pair<model::segment_ref, std::optional<segment_row>>> segments;
    auto of_segments = kind_prefix(row_kind::segment);
    auto end = record_.rows.lower_bound(prefix_end(of_segments));
    for (auto it = record_.rows.lower_bound(of_segments); it != end; ++it) {
      auto ref = parse_segment_key(it->first);
      if (!ref) continue;
      if (!it->second) segments.emplace_back(*ref, std::nullopt);
      else if (auto row = decode_segment(*it->second); row.ok()) segments.emplace_back(*ref, std::move(*row));
    }
    {
      std::unique_lock view{e.view_mutex_};
      e.rows_->apply(std::move(record_.rows), record_.sequence);
      e.apply_sections(record_, *place);
      for (auto [ref, number] : superseded_) {
        auto it = e.segments_.find(ref);
        if (it == e.segments_.end()) continue;
        auto& segment = *it->second;
        std::lock_guard lock{segment.mutex};
        if (segment.record || !segment.ours) continue;
        segment.drop_frame(number);
        if (auto f = segment.frames.find(number); f != segment.frames.end()) {
          segment.bytes -= f->second.stored;
          e.log_->release(f->second.where.file);
          segment.frames.erase(f);
        }
      }
      for (auto& effect : effects_) effect(*place);
    }
    committed_ = true; // it is in the log: whatever happens now, it happened
    e.inodes_ += inodes_;
    e.inodes_seen_ = e.inodes_;
    // Whoever has time did not get to it: whoever writes waits, and readers do not.
    if (e.rows_->must_drain())
      if (auto drained = e.rows_->drain(); !drained.ok()) e.go_read_only("rows could not be written: " + describe(drained.err()));
    for (const auto& [ref, row] : segments) e.table_.update(ref, row ? &*row : nullptr);
  }
  committed_ = true;
  lock_.unlock();
  e.drain_rows();
  for (auto& then : after_) then();
  return {};
}

// -- the engine's own ends ------------------------------------------------------------------------------------------

engine::engine(const volume_options& options, const volume_environment& env)
    : options_{options}, env_{env}, random_{*env.random},
      // Two segments' worth wait for the next ones.
      shard_values_{codec::shard_value_max,
                    std::min<std::size_t>(std::size_t{2} * (options.data_shards + options.parity_shards), 24)},
      extents_{{[this](std::uint64_t file) { log_->retain(file); }, [this](std::uint64_t file) { log_->release(file); }}},
      frames_{options.memory_cache_bytes},
      shards_{options.cache_directory.empty() ? std::filesystem::path{} : options.cache_directory / "shards",
              options.cache_bytes, options.cache_directory.empty() ? 64 * mib : 16 * mib} {
  capacity_ = options.capacity;
  fetches_max_ = std::clamp<std::size_t>(128 / std::max<std::size_t>(1, options.data_shards), 4, 32);
}

engine::~engine() = default;

void engine::note(std::string_view level, std::string_view kind, std::string_view message) const {
  if (env_.note) env_.note(level, kind, message);
  else if (level == "error") log::error("volume", "{}: {}", kind, message);
  else if (level == "warning") log::warning("volume", "{}: {}", kind, message);
  else log::info("volume", "{}: {}", kind, message);
}

void engine::go_read_only(std::string_view why) {
  {
    std::lock_guard lock{reason_mutex_};
    if (read_only_.exchange(true)) return;
    read_only_reason_ = why;
  }
  note("error", "VolumeReadOnly", std::string{"the volume takes no more changes: "}.append(why));
}

void engine::post(std::function<void(engine&)> job) {
  env_.work->post([weak = weak_from_this(), job = std::move(job)] {
    if (auto self = weak.lock()) job(*self);
  });
}

byte_count engine::log_promised() const { return log_->needed_bytes() + extents_.merge_bytes(); }

byte_count engine::log_reserve() const { return std::min<byte_count>(options_.staging_bytes / 8, 256 * mib); }

bool engine::log_is_full() const {
  // The last part is for what must always work: dropping data, and the records of segments on their way. What ranges take once
  // they are frames counts from the beginning: making frames of them is what frees the log, so that there must be room for it.
  return log_promised() + log_reserve() >= options_.staging_bytes || disk_full_;
}

result<std::unique_ptr<engine_operation>> engine::begin_operation(bool grow) {
  if (closed_) return error{errc::io, "the volume is closed", EIO};
  if (read_only_) return error{errc::io, "the volume is read-only", EROFS};
  if (grow && log_is_full())
    return error{errc::no_space, "the local log is full: data waits for nodes", ENOSPC};
  std::unique_lock lock{operation_mutex_};
  auto wall = std::chrono::time_point_cast<std::chrono::nanoseconds>(env_.time->wall());
  last_now_ = std::max(last_now_, file_time{wall});
  return std::make_unique<engine_operation>(*this, std::move(lock), ++sequence_, last_now_);
}

result<std::unique_ptr<engine_operation>> engine::begin_internal() { return begin_operation(false); }

result<std::unique_ptr<operation>> engine::begin(purpose why) {
  QS_TRY_ASSIGN(auto op, begin_operation(why == purpose::grow));
  return std::unique_ptr<operation>{std::move(op)};
}

void engine::drain_rows() {
  if (!rows_->wants_drain() || draining_rows_.exchange(true)) return;
  post([](engine& e) {
    auto drained = e.rows_->drain();
    e.draining_rows_ = false;
    if (!drained.ok()) e.go_read_only("rows could not be written: " + describe(drained.err()));
  });
}

result<inode_row> engine::inode(inode_number number) const {
  QS_TRY_ASSIGN(auto value, rows_->get(inode_key(number)));
  if (!value) return posix_error(ESTALE);
  return decode_inode(*value);
}

result<inode_row> engine::inode_in(operation& op, inode_number number) {
  QS_TRY_ASSIGN(auto value, op.get(inode_key(number)));
  if (!value) return posix_error(ESTALE);
  return decode_inode(*value);
}

result<std::optional<segment_row>> engine::segment_row_of(model::segment_ref ref) const {
  QS_TRY_ASSIGN(auto value, rows_->get(segment_key(ref)));
  if (!value) return std::optional<segment_row>{};
  QS_TRY_ASSIGN(auto row, decode_segment(*value));
  return std::optional<segment_row>{std::move(row)};
}

result<std::optional<segment_row>> engine::segment_row_in(operation& op, model::segment_ref ref) {
  QS_TRY_ASSIGN(auto value, op.get(segment_key(ref)));
  if (!value) return std::optional<segment_row>{};
  QS_TRY_ASSIGN(auto row, decode_segment(*value));
  return std::optional<segment_row>{std::move(row)};
}

status engine::fsync() {
  if (closed_) return error{errc::io, "the volume is closed", EIO};
  auto synced = log_->sync();
  if (!synced.ok()) go_read_only(describe(synced.err()));
  return synced;
}

status engine::close() {
  if (closed_.exchange(true)) return {};
  std::vector<slowed_reply> slowed;
  std::vector<drain_waiter> drains;
  {
    std::lock_guard lock{queue_mutex_};
    slowed.assign(std::make_move_iterator(slowed_.begin()), std::make_move_iterator(slowed_.end()));
    slowed_.clear();
    drains.swap(drains_);
  }
  for (auto& s : slowed) s.reply();
  for (auto& d : drains) d.done(error{errc::cancelled, "the volume was closed"});
  std::lock_guard lock{operation_mutex_};
  if (read_only_) return {};
  QS_TRY(log_->sync());
  QS_TRY(rows_->flush(true));
  // What is kept only to save reads would cost the next start a reading of it all.
  QS_TRY_ASSIGN(auto flushed, rows_->flushed_sequence());
  log_->trim(flushed);
  return {};
}

} // namespace qs::volume
