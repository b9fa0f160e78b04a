// Open segments: handing out frame numbers, and sealing once (volume.md 2, 3).
#include <algorithm>
#include <array>
#include <cerrno>

#include "volume/engine.hpp"

namespace qs::volume {

namespace {
/// What a shard certainly takes: eight raw frames.
constexpr std::uint64_t shard_fill = 8ULL * codec::frame_stored_max;
/// Of segments that are being filled or wait to be sent, or two segments; those that find no room are read back from the log.
constexpr std::uint64_t body_bytes_max = 16 * mib;
} // namespace

frame_ticket& frame_ticket::operator=(frame_ticket&& other) noexcept {
  if (this != &other) {
    give_back();
    engine_ = std::exchange(other.engine_, nullptr);
    segment_ = std::move(other.segment_);
    number_ = other.number_;
    placed_ = other.placed_;
    added_ = other.added_;
  }
  return *this;
}

void frame_ticket::give_back() {
  if (engine_ && segment_) engine_->give_back(segment_, number_, placed_, added_);
  engine_ = nullptr;
  segment_.reset();
}

result<bool> frame_ticket::place(std::uint32_t stored_length, mutable_byte_span& room) {
  std::lock_guard lock{segment_->mutex};
  auto at = segment_->packer.place(number_, stored_length);
  if (!at) {
    segment_->closing = true;
    return false;
  }
  placed_ = true;
  --segment_->unplaced;
  if (segment_->body) {
    QS_TRY_ASSIGN(room, segment_->body->room(*at, stored_length));
  }
  return true;
}

void engine::give_back(const segment_ptr& segment, std::uint32_t number, bool placed, bool added) {
  bool seal_it = false;
  {
    std::lock_guard lock{segment->mutex};
    QS_ASSERT(segment->outstanding > 0);
    --segment->outstanding;
    if (!placed) --segment->unplaced;
    else if (!added) segment->drop_frame(number); // it was not to be: the number is burnt, the place stays empty
    seal_it = segment->closing && segment->outstanding == 0 && !segment->sealing;
    if (seal_it) segment->sealing = true;
  }
  if (seal_it) seal(segment);
}

bool engine::body_room() const {
  auto bytes = std::uint64_t{options_.data_shards} * codec::shard_value_max;
  return static_cast<std::uint64_t>(body_shares_.use_count() - 1) < std::max<std::uint64_t>(2, body_bytes_max / bytes);
}

status engine::open_segment() {
  QS_TRY_ASSIGN(auto op, begin_internal());
  codec::segment_id id{session_, ++segment_counter_};
  if (id.counter >= codec::segment_counter_limit) return error{errc::no_space, "segment numbers are used up", ENOSPC};
  auto info = codec::new_segment(*ring_, id, random_);
  auto segment = std::make_shared<local_segment>(info, options_.data_shards);
  QS_TRY_ASSIGN(auto cipher, codec::make_frame_cipher(*ring_, info));
  segment->cipher = std::move(cipher);
  segment->ours = true;
  segment->opened = segment->last_frame = now();
  if (body_room()) {
    segment->body.emplace(shard_values_);
    segment->body_share = body_shares_;
  }

  segment_row row;
  row.data_shards = options_.data_shards;
  row.parity_shards = options_.parity_shards;
  row.cipher = info.cipher;
  row.key_generation = info.generation;
  row.salt = info.salt;
  op->put(segment_key(id.ref()), encode(row));
  op->record().opened = info; // in the log before the first frame that uses the salt
  op->effect([this, segment](log_position place) {
    log_->retain(place.file);
    segment->record_files.push_back(place.file);
    segments_[segment->ref()] = segment;
  });
  QS_TRY(op->commit());
  std::lock_guard lock{open_mutex_};
  current_ = segment;
  return {};
}

result<frame_ticket> engine::reserve() {
  std::unique_lock opening{opening_mutex_, std::defer_lock};
  for (;;) {
    segment_ptr full;
    {
      std::lock_guard lock{open_mutex_};
      if (current_) {
        std::lock_guard own{current_->mutex};
        auto& s = *current_;
        auto capacity = shard_fill * options_.data_shards;
        auto taken = s.packer.bytes() + std::uint64_t{s.unplaced} * codec::frame_stored_max;
        bool room = taken + codec::frame_stored_max <= capacity;
        if (!room && s.packer.frames() > 0) {
          // Compressible data: go on by the average. Who does not fit in the end goes into the next segment.
          auto average = s.packer.bytes() / s.packer.frames();
          room = average < codec::frame_stored_max / 2 &&
                 s.packer.bytes() + s.unplaced * average + codec::frame_stored_max <= capacity;
        }
        if (room && !s.closing) {
          auto number = s.next_frame++;
          ++s.outstanding;
          ++s.unplaced;
          s.last_frame = now();
          return frame_ticket{*this, current_, number};
        }
        full = std::move(current_);
        current_.reset();
      }
    }
    if (full) {
      last_full_ = now();
      close_segment(full, false);
    }
    if (!opening.owns_lock()) {
      opening.lock(); // then look again: somebody may have opened one meanwhile
      continue;
    }
    QS_TRY(open_segment());
  }
}

result<sealed_frame> engine::seal_frame(byte_span plain) {
  // Packed before it is sealed, so that a frame of text holds no more memory than it takes.
  static thread_local std::array<std::byte, codec::frame_plain_max> scratch;
  QS_TRY_ASSIGN(auto packed, codec::pack_frame(plain, scratch));
  auto length = packed.stored_length();
  sealed_frame frame;
  mutable_byte_span room;
  for (bool fits = false; !fits;) {
    QS_TRY_ASSIGN(frame.ticket, reserve());
    QS_TRY_ASSIGN(fits, frame.ticket.place(length, room));
  }
  if (room.empty()) {
    frame.own = std::make_unique_for_overwrite<std::byte[]>(length);
    room = {frame.own.get(), length};
  }
  QS_TRY_ASSIGN(frame.size, frame.ticket.segment()->cipher->seal(frame.ticket.number(), packed, room));
  frame.stored = room.first(frame.size.stored);
  return frame;
}

void engine::close_segment(const segment_ptr& segment, bool short_seal) {
  {
    std::lock_guard lock{open_mutex_};
    if (current_ == segment) current_.reset();
    if (short_seal) last_short_seal_ = now();
  }
  bool seal_it = false;
  {
    std::lock_guard lock{segment->mutex};
    segment->closing = true;
    segment->short_seal = segment->short_seal || short_seal;
    seal_it = segment->outstanding == 0 && !segment->sealing;
    if (seal_it) segment->sealing = true;
  }
  if (seal_it) seal(segment);
}

void engine::seal(const segment_ptr& segment) {
  post([segment](engine& e) {
    auto sealed = e.seal_now(segment);
    if (sealed.ok() || e.closed_ || e.read_only_) return;
    e.note("error", "SealFailed", "a segment could not be sealed, will try again: " + describe(sealed.err()));
    std::lock_guard lock{segment->mutex};
    segment->sealing = false; // upkeep finds it closing and not sealed
  });
}

status engine::seal_now(const segment_ptr& segment) {
  {
    QS_TRY_ASSIGN(auto op, begin_internal());
    std::optional<codec::segment_layout> layout;
    {
      std::lock_guard lock{segment->mutex};
      if (segment->record) return {};
      if (!segment->packer.empty()) layout = segment->packer.layout();
    }
    if (!layout) {
      op->erase(segment_key(segment->ref()));
      op->effect([this, segment](log_position) { forget_local(segment->ref(), false); });
      return op->commit();
    }
    QS_TRY_ASSIGN(auto record, codec::seal_segment(*ring_, segment->info, *layout, random_));
    QS_TRY_ASSIGN(auto row, segment_row_in(*op, segment->ref()));
    if (!row) return error{errc::corrupt, "a segment lost its row"};
    row->state = segment_state::sealed;
    row->used_shards = static_cast<std::uint8_t>(record.used_shards());
    row->shard_length = record.shard_length;
    row->sealed_ms = wall_ms();
    op->put(segment_key(segment->ref()), encode(*row));
    op->record().sealed = codec::encode(record);
    op->effect([this, segment, record = std::move(record)](log_position place) {
      std::lock_guard lock{segment->mutex};
      log_->retain(place.file);
      segment->record_files.push_back(place.file);
      segment->record = record;
      segment->unsynced = true;
      segment->packer = codec::segment_packer{1};
      // Shards that are hardly filled would hold on to the memory of full ones until they are confirmed.
      if (record.shard_length < codec::shard_payload_max / 2) segment->drop_body();
    });
    QS_TRY(op->commit());
  }
  {
    std::lock_guard lock{queue_mutex_};
    sealed_.push_back(segment);
    if (syncing_sealed_) return {};
    syncing_sealed_ = true;
  }
  post([](engine& e) { e.send_sealed(); });
  return {};
}

void engine::send_sealed() {
  std::vector<segment_ptr> some;
  for (;;) {
    {
      std::lock_guard lock{queue_mutex_};
      some = std::exchange(sealed_, {});
      syncing_sealed_ = !some.empty();
    }
    if (some.empty()) return;
    // For good: nothing is sent any more.
    if (auto synced = log_->sync(); !synced.ok()) return go_read_only(describe(synced.err()));
    for (const auto& segment : some) {
      {
        std::lock_guard lock{segment->mutex};
        segment->unsynced = false;
      }
      queue_send(segment);
    }
  }
}

void engine::keep_local(const local_segment& segment) {
  // Some 24 bytes a frame: bounded also for tiny ones.
  constexpr std::size_t frames_max = 1'000'000;
  if (!segment.cipher || segment.frames.empty()) return;
  kept_segment kept;
  kept.cipher = segment.cipher;
  kept.frames.reserve(segment.frames.size());
  for (const auto& [number, f] : segment.frames) {
    kept.frames.push_back({number, f.stored, f.where});
    kept.last_file = std::max(kept.last_file, f.where.file);
  }
  std::sort(kept.frames.begin(), kept.frames.end(), [](const auto& a, const auto& b) { return a.number < b.number; });
  kept_frames_ += kept.frames.size();
  kept_[segment.ref()] = std::move(kept);
  while (kept_frames_ > frames_max) {
    kept_frames_ -= kept_.begin()->second.frames.size();
    kept_.erase(kept_.begin());
  }
}

void engine::drop_kept(bool all) {
  auto first = all ? ~std::uint64_t{0} : log_->first_file();
  std::unique_lock view{view_mutex_};
  std::erase_if(kept_, [&](const auto& k) {
    if (k.second.last_file >= first) return false;
    kept_frames_ -= k.second.frames.size();
    return true;
  });
}

void engine::forget_local(model::segment_ref ref, bool stored) {
  if (auto k = kept_.find(ref); k != kept_.end()) {
    kept_frames_ -= k->second.frames.size();
    kept_.erase(k);
  }
  auto it = segments_.find(ref);
  if (it == segments_.end()) return;
  auto segment = it->second;
  segments_.erase(it);
  std::lock_guard lock{segment->mutex};
  segment->let_go = true;
  if (stored) keep_local(*segment);
  for (const auto& [number, f] : segment->frames) log_->release(f.where.file);
  segment->frames.clear();
  for (auto file : segment->record_files) log_->release(file);
  segment->record_files.clear();
}

void engine::move_frames(const segment_ptr& from) {
  std::vector<std::pair<std::uint32_t, local_frame>> frames;
  {
    std::lock_guard lock{from->mutex};
    if (from->let_go) return; // the nodes have enough of it; what is missing is repair's
    frames.assign(from->frames.begin(), from->frames.end());
    // All of it goes through the log once more. The oldest come first when there is room again, and they free it. One that was
    // not sealed when the engine ended has no other way to the nodes, and there are few of those.
    if (from->record && (disk_short_ || log_promised() + from->bytes + log_reserve() / 4 > options_.staging_bytes)) {
      from->replacing = false;
      return;
    }
  }
  bool all = true;
  auto ref = from->ref();
  auto same = [&](const std::optional<extent_row>& row, std::uint32_t number) {
    return row && row->segment == ref && row->frame_number == number;
  };
  for (const auto& entry : frames) {
    // Not a structured binding: clang 14 refuses to capture one.
    const auto number = entry.first;
    const auto& f = entry.second;
    auto value = rows_->get(extent_key(f.inode, f.extent));
    if (!value.ok()) { all = false; continue; }
    if (!*value) continue;
    auto row = decode_extent(**value);
    if (!row.ok() || !same(*row, number)) continue;
    bool here = false;
    auto plain = frame_from_log(*row, here);
    if (!plain.ok() || !here) {
      note("error", "FrameLost", "a frame in the log cannot be read back: " +
                                   (plain.ok() ? std::string{"not there"} : describe(plain.err())));
      all = false;
      continue;
    }
    auto moved = [&]() -> status {
      QS_TRY_ASSIGN(auto frame, seal_frame(**plain));
      QS_TRY_ASSIGN(auto op, begin_internal());
      QS_TRY_ASSIGN(auto now_row, op->extent(f.inode, f.extent));
      if (!same(now_row, number)) return {}; // swapped only if it still holds the old address
      QS_TRY_ASSIGN(auto owner, inode_in(*op, f.inode));
      QS_TRY(op->add_frame(frame, f.inode, owner.generation, f.extent, now_row->visible, 0));
      return op->commit();
    }();
    if (!moved.ok()) all = false;
  }
  if (!all) {
    std::lock_guard lock{from->mutex};
    from->replacing = false;
    return;
  }
  auto done = [&]() -> status {
    QS_TRY_ASSIGN(auto op, begin_internal());
    QS_TRY_ASSIGN(auto row, segment_row_in(*op, ref));
    bool sealed = false;
    {
      std::lock_guard lock{from->mutex};
      sealed = from->record.has_value();
    }
    if (sealed) return {}; // it has no live bytes now: removed like every dead segment, on the nodes too
    if (row && row->live_bytes != 0) return error{errc::busy, "frames were left"};
    op->erase(segment_key(ref));
    op->effect([this, ref](log_position) { forget_local(ref, false); });
    return op->commit();
  }();
  if (!done.ok()) note("warning", "MoveIncomplete", describe(done.err()));
}

} // namespace qs::volume
