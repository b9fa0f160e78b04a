// Sealed segments on their way to the nodes: same name, same bytes, until every shard is confirmed (volume.md 3).
#include <algorithm>
#include <bit>
#include <fmt/format.h>

#include "volume/engine.hpp"

namespace qs::volume {

namespace {
constexpr unsigned attempts_max = 512; ///< segments with shards out, most of them safe and waiting for a barrier or a slow node

/// While somebody writes fast: 50 MiB/s (a shard's worth in 10 ms), what a line of 600 Mbit/s takes with the parity of 4+2.
constexpr std::chrono::milliseconds turn_per_shard{10};
constexpr byte_count waiting_max = 640 * mib; ///< of what waits for its turn

/// Shards that may be outstanding while the next segments go on.
unsigned slack(unsigned parity) { return parity <= 1 ? 0 : parity <= 3 ? 1 : 2; }
constexpr std::uint64_t bit(unsigned i) { return std::uint64_t{1} << i; }
} // namespace

void engine::queue_send(const segment_ptr& segment) {
  {
    std::lock_guard lock{segment->mutex};
    if (segment->queued || segment->replacing || segment->unsynced) return;
    segment->queued = true;
  }
  {
    std::lock_guard lock{queue_mutex_};
    send_queue_.push_back(segment);
  }
  send_more();
}

std::chrono::milliseconds engine::turn() const { return turn_per_shard * options_.data_shards; }

bool engine::gives_way() const {
  if (now() >= next_turn_ || now() - last_full_.load() >= 2 * turn()) return false;
  auto waiting = byte_count{send_queue_.size()} * options_.data_shards * codec::shard_payload_max;
  if (waiting >= std::min(options_.staging_bytes / 16, waiting_max)) return false;
  // Nobody waits: for what is sent, or for room in the log.
  return drains_.empty() && !disk_full_ && write_delay().count() == 0;
}

bool engine::may_send() const {
  return !send_queue_.empty() && flying_ < limits::segments_in_flight_max && attempts_ < attempts_max &&
         late_ < options_.late_bytes && !gives_way();
}

void engine::send_more() {
  {
    std::lock_guard lock{queue_mutex_};
    if (sending_ || !may_send()) return;
    sending_ = true;
  }
  post([](engine& e) {
    for (;;) {
      segment_ptr segment;
      {
        std::lock_guard lock{e.queue_mutex_};
        if (!e.may_send() || e.closed_) {
          e.sending_ = false;
          return;
        }
        segment = e.send_queue_.front();
        e.send_queue_.pop_front();
      }
      e.send(segment);
    }
  });
}

result<std::vector<buffer_ptr>> engine::shard_values(local_segment& segment) {
  std::vector<std::pair<std::uint32_t, local_frame>> frames;
  codec::seal_record record;
  std::optional<codec::segment_body> sealed_there;
  {
    std::lock_guard lock{segment.mutex};
    record = *segment.record;
    sealed_there.swap(segment.body);
    segment.drop_body();
    frames.assign(segment.frames.begin(), segment.frames.end());
  }
  if (sealed_there) {
    auto built = codec::build_shards(*ring_, record, std::move(*sealed_there), options_.parity_shards);
    if (built.ok()) return built;
    note("warning", "SegmentReadBack", fmt::format("segment {}: {}", model::to_string(segment.ref()), describe(built.err())));
  }
  // Read where they will be sent from: nothing is copied after that.
  codec::segment_body body{shard_values_, record.shard_length};
  std::shared_ptr<const log_file> file;
  for (const auto& [number, f] : frames) {
    if (!file || file->number() != f.where.file) file = log_->file(f.where.file);
    if (!file) return error{errc::io, "the log file of a pinned segment is gone"};
    QS_TRY_ASSIGN(auto out, body.room({f.shard, f.position}, f.stored));
    QS_TRY(file->read(f.where.offset, out));
  }
  return codec::build_shards(*ring_, record, std::move(body), options_.parity_shards);
}

void engine::send(const segment_ptr& segment) {
  auto ref = segment->ref();
  auto give_up = [&](std::chrono::milliseconds wait) {
    std::lock_guard lock{segment->mutex};
    segment->queued = false;
    segment->next_try = now() + wait;
    segment->drop_body();
  };
  auto is_let_go = [&] {
    std::lock_guard lock{segment->mutex};
    return segment->let_go;
  };
  auto entry = table_.find(ref);
  if (!entry || entry->state != segment_state::sealed || entry->live_bytes == 0) return give_up(std::chrono::hours{1});

  // Where to: a group of its own, or the newest generation of the one it has.
  std::vector<model::node_id> slots;
  auto placed = [&]() -> result<bool> {
    if (entry->group == no_group) {
      auto chosen = table_.choose(codec::shard_header_bytes + entry->shard_length, entry->parity_shards, random_);
      if (!chosen) return false;
      QS_TRY_ASSIGN(auto op, begin_internal());
      QS_TRY_ASSIGN(auto row, segment_row_in(*op, ref));
      if (!row || row->state != segment_state::sealed) return false;
      row->group = chosen->id.number;
      row->group_generation = chosen->generation;
      op->put(segment_key(ref), encode(*row));
      QS_TRY(op->commit());
      slots = chosen->slots;
      std::lock_guard lock{segment->mutex};
      segment->generation = chosen->generation;
      segment->acked = segment->confirmed = 0;
      return true;
    }
    auto newest = table_.newest(entry->group);
    if (!newest) return false;
    slots = newest->slots;
    if (newest->generation == entry->group_generation) return true;
    auto old = table_.slots(entry->group, entry->group_generation);
    QS_TRY_ASSIGN(auto op, begin_internal());
    QS_TRY_ASSIGN(auto row, segment_row_in(*op, ref));
    if (!row || row->state != segment_state::sealed) return false; // let go meanwhile: repair's
    std::uint64_t keep = 0;
    for (unsigned i = 0; old && i < slots.size() && i < old->size(); ++i)
      if (slots[i] == (*old)[i]) keep |= bit(i);
    row->confirmed &= keep;
    row->group_generation = newest->generation;
    op->put(segment_key(ref), encode(*row));
    QS_TRY(op->commit());
    std::lock_guard lock{segment->mutex};
    segment->generation = newest->generation;
    segment->acked &= keep;
    segment->confirmed &= keep;
    return true;
  }();
  if (!placed.ok() || !*placed) return give_up(std::chrono::milliseconds{500});
  // To whom: nothing is read and encoded for nodes that are not there.
  std::uint64_t asked = 0;
  {
    std::lock_guard lock{segment->mutex};
    for (unsigned i = 0; i < slots.size(); ++i)
      if (table_.reachable(slots[i])) asked |= bit(i);
    asked &= entry->required & ~(segment->acked | segment->confirmed);
  }
  if (asked == 0) return give_up(std::chrono::seconds{1});
  auto values = shard_values(*segment);
  if (!values.ok()) {
    if (!is_let_go()) // with its frames
      note("error", "SegmentUnreadable", fmt::format("segment {}: {}", model::to_string(ref), describe(values.err())));
    return give_up(std::chrono::seconds{30});
  }

  store_request request;
  request.segment = ref;
  unsigned attempt = 0;
  bool hurry = somebody_waits();
  // Before anybody can see it fly.
  {
    std::lock_guard lock{queue_mutex_};
    ++flying_;
    ++attempts_;
  }
  {
    std::lock_guard lock{segment->mutex};
    if (segment->let_go) segment->queued = false; // while this was prepared: nobody would wait for what is sent now
    else prepare(*segment, slots, *values, asked, hurry, request);
    attempt = segment->attempt;
  }
  std::unique_lock lock{queue_mutex_};
  if (request.shards.empty()) {
    --flying_;
    --attempts_;
    return;
  }
  // Who comes late has not lost his turn; what went out of turn is nobody's debt.
  auto t = now();
  next_turn_ = std::clamp(next_turn_, t - 2 * turn(), t) + turn();
  lock.unlock();
  env_.port->store(std::move(request), [weak = weak_from_this(), segment, attempt](std::uint8_t index, model::node_id node,
                                                                                  shard_outcome outcome) {
    if (auto e = weak.lock()) e->progress(segment, attempt, index, node, outcome);
  });
}

void engine::prepare(local_segment& segment, const std::vector<model::node_id>& slots, const std::vector<buffer_ptr>& values,
                     std::uint64_t asked, bool hurry, store_request& request) {
  ++segment.attempt;
  segment.waiting = segment.distrusted = 0;
  for (unsigned i = 0; i < slots.size() && i < values.size(); ++i) {
    if ((asked >> i & 1) == 0 || !values[i]) continue;
    request.shards.push_back({static_cast<std::uint8_t>(i), slots[i], ring_->volume().shard_name(segment.info.id, i), values[i]});
    segment.waiting |= bit(i);
    segment.value_bytes = static_cast<std::uint32_t>(values[i]->size());
  }
  segment.unanswered = segment.waiting;
  segment.late = false;
  request.sync_soon = segment.short_seal || hurry;
  segment.flying = !request.shards.empty();
  if (segment.flying) return;
  segment.queued = false;
  segment.next_try = now() + std::chrono::seconds{1};
}

void engine::progress(const segment_ptr& segment, unsigned attempt, std::uint8_t index, model::node_id node,
                      shard_outcome outcome) {
  auto entry = table_.find(segment->ref());
  bool landed = false; // no longer counts among those in flight
  bool over = false;   // the attempt has no shard left that is not final
  bool complete = false;
  byte_count late = 0, came = 0; // bytes that begin, and cease, to be late
  bool full = outcome == shard_outcome::full;
  if (full) table_.mark_full(node);
  std::vector<model::node_id> slots;
  if (entry)
    if (auto s = table_.slots(entry->group, entry->group_generation)) slots = *s;
  {
    std::lock_guard lock{segment->mutex};
    if (attempt != segment->attempt) return;
    if (segment->late && (segment->unanswered >> index & 1) != 0) came += segment->value_bytes;
    segment->unanswered &= ~bit(index);
    if (index >= slots.size() || slots[index] != node) {
      segment->waiting &= ~bit(index);
    } else if ((segment->distrusted >> index & 1) != 0) {
      if (outcome != shard_outcome::acknowledged) segment->waiting &= ~bit(index);
    } else {
      switch (outcome) {
        case shard_outcome::acknowledged: segment->acked |= bit(index); break;
        case shard_outcome::confirmed:
          segment->acked |= bit(index);
          segment->confirmed |= bit(index);
          segment->waiting &= ~bit(index);
          break;
        case shard_outcome::unconfirmed: segment->acked &= ~bit(index); [[fallthrough]];
        default: segment->waiting &= ~bit(index); break;
      }
    }
    over = segment->waiting == 0 && segment->queued;
    auto required = entry ? entry->required : 0;
    if (segment->flying && (over || (entry && is_safe(*entry, slots, *segment)))) {
      landed = true;
      late = land(*segment);
    }
    complete = (segment->confirmed & required) == required && required != 0;
    if (over) {
      segment->queued = false;
      // Unknown is never failed and never done: again, under the same name, with the same bytes.
      segment->next_try = now() + std::chrono::milliseconds{std::min(30'000U, 500U << std::min(segment->attempt, 6U))};
    }
    if (full && !segment->replacing && !segment->let_go) segment->replacing = true;
    else full = false;
  }
  {
    std::lock_guard lock{queue_mutex_};
    if (landed) --flying_;
    if (over) --attempts_;
    late_ = late_ + late - came;
  }
  if (complete) post([segment](engine& e) { e.settle_confirmed(segment); });
  if (full) {
    note("warning", "NodeFull", fmt::format("{} has no space; segment {} goes to another group", model::to_string(node),
                                            model::to_string(segment->ref())));
    post([segment](engine& e) { e.move_frames(segment); });
  }
  if (landed || over || came > 0) send_more();
}

bool engine::is_safe(const segment_entry& entry, const std::vector<model::node_id>& slots, const local_segment& segment) const {
  auto acked = static_cast<unsigned>(std::popcount(segment.acked & entry.required));
  auto all = static_cast<unsigned>(std::popcount(entry.required));
  if (acked >= all - slack(options_.parity_shards)) return true;
  return acked >= entry.used_shards && !table_.some_reachable(slots, entry.required & ~segment.acked);
}

byte_count engine::land(local_segment& segment) {
  segment.flying = false;
  segment.late = true;
  return byte_count{segment.value_bytes} * static_cast<byte_count>(std::popcount(segment.unanswered));
}

void engine::judge_flying() {
  unsigned landed = 0;
  byte_count late = 0;
  {
    std::lock_guard lock{queue_mutex_};
    if (flying_ == 0) return;
  }
  {
    std::shared_lock view{view_mutex_};
    for (const auto& [ref, segment] : segments_) {
      std::lock_guard lock{segment->mutex};
      if (!segment->flying) continue;
      auto entry = table_.find(ref);
      if (!entry || entry->group_generation != segment->generation) continue;
      auto slots = table_.slots(entry->group, entry->group_generation);
      if (!slots || !is_safe(*entry, *slots, *segment)) continue;
      ++landed;
      late += land(*segment);
    }
  }
  if (landed == 0) return;
  {
    std::lock_guard lock{queue_mutex_};
    flying_ -= landed;
    late_ += late;
  }
  send_more();
}

void engine::settle_confirmed(const segment_ptr& segment) {
  if (commit_confirmed(segment, false)) check_drains();
}

bool engine::commit_confirmed(const segment_ptr& segment, bool some_missing) {
  auto ref = segment->ref();
  auto op = begin_internal();
  if (!op.ok()) return false;
  auto row = segment_row_in(**op, ref);
  if (!row.ok() || !*row || (*row)->state != segment_state::sealed) return false;
  // Read under the operation lock, as unconfirm() takes them back under it: either it finds them in the row, or they are gone.
  std::uint64_t confirmed = 0;
  std::uint32_t generation = 0;
  {
    std::lock_guard lock{segment->mutex};
    if (segment->replacing) return false; // a node was full: its frames are on their way to another segment
    confirmed = segment->confirmed & (*row)->required();
    generation = segment->generation;
  }
  // Only on the generation it was sent to, checked at the commit (invariant 10).
  auto newest = table_.newest((*row)->group);
  if ((*row)->group_generation != generation || !newest || newest->generation != generation) return false;
  auto all = static_cast<unsigned>(std::popcount((*row)->required()));
  if (!some_missing && static_cast<unsigned>(std::popcount(confirmed)) < all) return false;
  if (table_.count_there(newest->slots, confirmed, some_missing) < enough_to_unpin((*row)->used_shards, all)) return false;
  (*row)->confirmed = confirmed;
  (*row)->confirmed_ms = wall_ms();
  (*row)->state = segment_state::stored;
  (*op)->effect([this, ref](log_position) { forget_local(ref, true); });
  (*op)->put(segment_key(ref), encode(**row));
  auto done = (*op)->commit();
  if (!done.ok()) note("warning", "RowNotWritten", describe(done.err()));
  return done.ok();
}

bool engine::nobody_to_ask(const segment_entry& entry, const local_segment& segment) const {
  auto newest = entry.group == no_group ? std::nullopt : table_.newest(entry.group);
  if (!newest || newest->generation != segment.generation) return false; // it has to be given a place first
  return !table_.some_reachable(newest->slots, entry.required & ~segment.confirmed);
}

void engine::retry_sends() {
  std::vector<segment_ptr> due;
  {
    std::shared_lock view{view_mutex_};
    for (const auto& [ref, segment] : segments_) {
      std::lock_guard lock{segment->mutex};
      if (!segment->record || segment->unsynced || segment->queued || segment->replacing || now() < segment->next_try) continue;
      auto entry = table_.find(ref);
      if (!entry || entry->live_bytes == 0 || entry->state != segment_state::sealed) continue;
      if ((segment->confirmed & entry->required) == entry->required && entry->group != no_group) {
        auto newest = table_.newest(entry->group);
        if (newest && newest->generation == segment->generation) {
          segment->next_try = now() + std::chrono::seconds{1};
          post([held = segment](engine& e) { e.settle_confirmed(held); });
          continue;
        }
      }
      // What is acknowledged and never heard of again is sent again: the barrier's answer was lost.
      if (segment->acked != segment->confirmed) segment->acked = segment->confirmed;
      if (nobody_to_ask(*entry, *segment)) segment->next_try = now() + std::chrono::seconds{1};
      else due.push_back(segment);
    }
  }
  for (const auto& segment : due) queue_send(segment);
}

unsigned engine::enough_to_unpin(unsigned used, unsigned all) const {
  return options_.parity_shards <= 1 ? all : std::min(used + 1, all);
}

bool engine::is_under_way(model::segment_ref ref) const {
  segment_ptr segment;
  {
    std::lock_guard lock{queue_mutex_};
    auto it = under_way_.find(ref);
    if (it == under_way_.end()) return false;
    segment = it->second;
  }
  std::lock_guard lock{segment->mutex};
  return !segment->let_go || segment->waiting != 0;
}

void engine::forget_arrived() {
  std::vector<model::segment_ref> refs;
  {
    std::lock_guard lock{queue_mutex_};
    for (const auto& [ref, segment] : under_way_) refs.push_back(ref);
  }
  std::erase_if(refs, [this](auto ref) { return is_under_way(ref); });
  std::lock_guard lock{queue_mutex_};
  for (auto ref : refs) under_way_.erase(ref);
}

void engine::unpin_enough() {
  auto limit = options_.staging_bytes / 4;
  if (log_->held_bytes() <= limit) return;
  std::vector<segment_ptr> enough; // the oldest, which free the log, first
  {
    std::shared_lock view{view_mutex_};
    for (const auto& [ref, segment] : segments_) {
      std::lock_guard lock{segment->mutex};
      if (!segment->record || segment->replacing) continue;
      auto entry = table_.find(ref);
      if (!entry || entry->live_bytes == 0 || entry->group == no_group || entry->state != segment_state::sealed) continue;
      auto slots = table_.slots(entry->group, entry->group_generation);
      // What is on its way is soon there, unless it is on its way to a node that is not.
      if (!slots || table_.some_reachable(*slots, segment->waiting)) continue;
      auto all = static_cast<unsigned>(std::popcount(entry->required));
      if (table_.count_there(*slots, segment->confirmed & entry->required, true) >= enough_to_unpin(entry->used_shards, all))
        enough.push_back(segment);
    }
  }
  for (const auto& segment : enough) {
    {
      std::lock_guard lock{queue_mutex_};
      under_way_[segment->ref()] = segment; // before it is let go: perhaps it is being sent
    }
    if (!commit_confirmed(segment, true)) {
      std::lock_guard lock{queue_mutex_};
      under_way_.erase(segment->ref());
    }
    if (log_->held_bytes() <= limit) return;
  }
}

} // namespace qs::volume
