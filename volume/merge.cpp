// Ranges meet their base frame: a new frame of an extent, made beside the writers and swapped in only if nothing else changed.
#include <algorithm>
#include <bit>

#include "volume/engine.hpp"

namespace qs::volume {

namespace {
using namespace std::chrono_literals;
constexpr unsigned merge_jobs_max = 2;
constexpr std::size_t fetching_max = 64;
}

struct engine::merge_job {
  extent_place place;
  std::optional<extent_row> row;
  std::uint64_t inode_generation = 0;
  std::uint64_t cut = 0;
  std::uint64_t upto = 0;
  std::uint32_t end = 0;
  std::vector<byte_range> ranges;
  std::vector<std::shared_ptr<const log_file>> files;
};

void engine::start_round() {
  std::vector<extent_place> places;
  {
    std::shared_lock view{view_mutex_};
    places.reserve(extents_.extents());
    extents_.each([&](extent_place place, const extent_ranges& e) {
      if (!e.merging) places.push_back(place);
    });
  }
  {
    std::lock_guard lock{queue_mutex_};
    dirty_before_ = dirty_since_;
    dirty_since_ = now();
    // Those that wait behind others for their base are among these places again.
    merges_open_ -= merges_parked_.size();
    merges_parked_.clear();
    round_ = true;
    round_began_ = now();
    merges_failed_ = false;
    ++rounds_started_;
    merge_queue_.insert(merge_queue_.end(), places.begin(), places.end());
    merges_open_ += places.size() + 1;
  }
  run_merges();
  finish_merge({}, true); // the round itself: so that it ends even if there was nothing
}

void engine::queue_merge(extent_place place) {
  {
    std::lock_guard lock{queue_mutex_};
    merge_queue_.push_back(place);
    ++merges_open_;
  }
  run_merges();
}

void engine::run_merges() {
  unsigned begin = 0;
  {
    std::lock_guard lock{queue_mutex_};
    while (merge_jobs_ < merge_jobs_max && merge_jobs_ < merge_queue_.size()) {
      ++merge_jobs_;
      ++begin;
    }
  }
  for (unsigned i = 0; i < begin; ++i)
    post([](engine& e) {
      for (;;) {
        extent_place place;
        {
          std::lock_guard lock{e.queue_mutex_};
          if (e.merge_queue_.empty()) {
            --e.merge_jobs_;
            return;
          }
          place = e.merge_queue_.front();
          e.merge_queue_.pop_front();
        }
        e.merge(place);
      }
    });
}

void engine::finish_merge(extent_place place, bool ok) {
  if (place.first != 0) {
    std::unique_lock view{view_mutex_};
    if (auto* e = extents_.find(place)) e->merging = false;
  }
  bool round_over = false;
  {
    std::lock_guard lock{queue_mutex_};
    if (!ok) {
      merges_failed_ = true;
      dirty_since_ = std::min(dirty_since_.load(), dirty_before_); // at risk since then
    }
    round_over = --merges_open_ == 0 && round_;
    if (round_over) round_ended();
  }
  if (round_over) seal_after_round();
}

void engine::end_slow_round() {
  {
    std::lock_guard lock{queue_mutex_};
    if (!round_ || now() - round_began_ < 1s || merge_jobs_ != 0 || !merge_queue_.empty() ||
        merges_open_ != merges_fetching_ + merges_parked_.size())
      return;
    dirty_since_ = std::min(dirty_since_.load(), dirty_before_);
    round_ended();
  }
  seal_after_round();
}

void engine::round_ended() {
  round_ = false;
  rounds_done_ = rounds_started_;
  if (merges_failed_ || merges_open_ > 0) next_round_ = now() + 2s;
}

void engine::seal_after_round() {
  segment_ptr open;
  {
    std::lock_guard lock{open_mutex_};
    open = current_;
  }
  if (open) close_segment(open, true);
}

void engine::merge(extent_place place) {
  if (disk_short_) return finish_merge({}, false); // the last of it is for dropping data, and for the rows
  auto job = std::make_shared<merge_job>();
  job->place = place;
  bool base_needed = false;
  auto looked = [&]() -> result<bool> {
    std::unique_lock view{view_mutex_};
    auto* e = extents_.find(place);
    if (!e || e->ranges.empty() || e->merging || closed_ || read_only_) return false;
    QS_TRY_ASSIGN(auto owner, inode(place.first));
    QS_TRY_ASSIGN(auto value, rows_->get(extent_key(place.first, place.second)));
    if (value) {
      QS_TRY_ASSIGN(auto row, decode_extent(*value));
      job->row = std::move(row);
    }
    if (place.second >= owner.trim_from && place.second < owner.trim_to) return false;
    job->inode_generation = owner.generation;
    job->cut = e->cut;
    job->ranges = e->ranges;
    job->end = std::max(e->end(), job->row ? job->row->visible : 0U);
    for (const auto& r : job->ranges) {
      job->upto = std::max(job->upto, r.sequence);
      job->files.push_back(r.zero ? nullptr : log_->file(r.where.file));
    }
    base_needed = job->row && job->row->visible > 0 && !e->covers(job->row->visible);
    e->merging = true;
    return true;
  }();
  if (!looked.ok() || !*looked) {
    // Another job of this extent, if there is one, owns the mark.
    finish_merge({}, looked.ok());
    return;
  }
  if (!base_needed) return merge_with_base(job, buffer_ptr{});
  if (!can_get(*job->row)) return finish_merge(place, false); // no use asking; another round will
  bool parked = false;
  {
    // Those whose base comes from a node are open, not running: bounded, so that memory is.
    std::lock_guard lock{queue_mutex_};
    if (merges_fetching_ < fetching_max) ++merges_fetching_;
    else parked = true;
  }
  if (parked) {
    std::unique_lock view{view_mutex_};
    if (auto* e = extents_.find(place)) e->merging = false;
    std::lock_guard lock{queue_mutex_};
    merges_parked_.push_back(place);
    return;
  }
  get_frame(*job->row, now(), [weak = weak_from_this(), job](result<buffer_ptr> base) {
    auto e = weak.lock();
    if (!e) return;
    auto shared = std::make_shared<result<buffer_ptr>>(std::move(base));
    e->post([job, shared](engine& self) {
      {
        std::lock_guard lock{self.queue_mutex_};
        --self.merges_fetching_;
        if (!self.merges_parked_.empty()) {
          self.merge_queue_.push_back(self.merges_parked_.back());
          self.merges_parked_.pop_back();
        }
      }
      self.merge_with_base(job, std::move(*shared));
      self.run_merges();
    });
  });
}

bool engine::can_get(const extent_row& row) {
  if (frames_.find({row.segment, row.frame_number}) || shards_.contains({row.segment, row.slot})) return true;
  {
    std::shared_lock view{view_mutex_};
    if (in_log(row)) return true;
  }
  auto entry = table_.find(row.segment);
  auto id = segment_id_of(row.segment);
  if (!entry || !id.ok()) return true; // the fetch says what is wrong
  std::uint64_t indices = 0;
  for (const auto& s : sources_of(*entry, *id, row.slot))
    if (table_.reachable(s.node)) indices |= std::uint64_t{1} << s.index;
  return (indices >> row.slot & 1) != 0 || std::popcount(indices) >= int{entry->used_shards};
}

void engine::merge_with_base(const std::shared_ptr<merge_job>& job, result<buffer_ptr> base) {
  bool done = true;
  if (!base.ok()) {
    done = false; // the ranges stay in the log; the next round tries again
  } else {
    auto merged = merge_now(*job, *base);
    done = merged.ok();
    if (!done && !closed_ && !read_only_) note("warning", "MergeFailed", describe(merged.err()));
  }
  finish_merge(job->place, done);
}

/// Nothing happens if the extent changed meanwhile: another round will do it.
status engine::merge_now(merge_job& job, const buffer_ptr& base) {
  buffer plain(job.end);
  if (base && job.row) {
    auto n = std::min({job.row->visible, job.end, static_cast<std::uint32_t>(base->size())});
    std::memcpy(plain.data(), base->data(), n);
  }
  for (std::size_t i = 0; i < job.ranges.size(); ++i) {
    const auto& r = job.ranges[i];
    if (r.zero) {
      std::memset(plain.data() + r.from, 0, r.to - r.from);
      continue;
    }
    if (!job.files[i]) return {}; // gone: then the range is, too
    QS_TRY(job.files[i]->read(r.where.offset, {plain.data() + r.from, r.to - r.from}));
  }
  bool zeros = std::all_of(plain.begin(), plain.end(), [](std::byte b) { return b == std::byte{0}; });
  std::optional<sealed_frame> frame;
  if (!zeros) {
    QS_TRY_ASSIGN(auto sealed, seal_frame(plain));
    frame.emplace(std::move(sealed));
  }
  QS_TRY_ASSIGN(auto op, begin_internal());
  auto [inode, index] = job.place;
  const auto* e = extents_.find(job.place);
  QS_TRY_ASSIGN(auto row, op->extent(inode, index));
  bool same = row.has_value() == job.row.has_value() && (!row || *row == *job.row);
  if (!e || e->cut != job.cut || !same) return {};
  if (!frame) { // zeros and nothing: as good as no extent
    auto newer = std::any_of(e->ranges.begin(), e->ranges.end(), [&](const byte_range& r) { return r.sequence > job.upto; });
    if (newer) return {};
    QS_TRY_ASSIGN(auto owner, inode_in(*op, inode));
    owner.allocated -= std::min<std::uint64_t>(owner.allocated, job.end);
    op->put(inode_key(inode), encode(owner));
    QS_TRY(op->set_extent(inode, index, std::nullopt));
    op->add_drop(inode, index * extent_bytes, (index + 1) * extent_bytes);
    return op->commit();
  }
  QS_TRY(op->add_frame(*frame, inode, job.inode_generation, index, job.end, job.upto));
  return op->commit();
}

} // namespace qs::volume
