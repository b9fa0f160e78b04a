// Dropping data: truncate, punch, unlink, and the reaper that follows when there is much of it (volume.md 5).
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "volume/engine.hpp"

namespace qs::volume {

namespace {
constexpr std::size_t extents_at_once = 4096;
constexpr std::size_t reaps_at_once = 16;
constexpr std::uint64_t small_file = 1 << 20;

row_key trim_key(inode_number inode) {
  std::array<std::byte, 8> bytes;
  store_be(bytes.data(), inode);
  return local_key("trim/").append(as_text(bytes));
}

result<std::uint32_t> visible_bytes(engine_operation& op, inode_number inode, std::uint64_t index) {
  QS_TRY_ASSIGN(const auto row, op.extent(inode, index));
  if (!row.has_value()) return std::uint32_t{0};
  return row->visible;
}
} // namespace

result<bool> engine::drop_extents(operation& base, inode_number inode, inode_row& row, std::uint64_t from,
                                  std::uint64_t to) {
  auto& op = static_cast<engine_operation&>(base);
  if (from >= to) return true;
  bool to_end = to == ~std::uint64_t{0};
  op.add_drop(inode, from, to);
  auto less = [&](std::uint64_t bytes) { row.allocated -= std::min(row.allocated, bytes); };

  // The bytes [low, high) of one extent that is not dropped whole.
  auto cut_part = [&](std::uint64_t index, std::uint32_t low, std::uint32_t high) -> status {
    QS_TRY_ASSIGN(auto old, op.extent(inode, index));
    auto end = extent_end(inode, index, old);
    if (end <= low) return {};
    if (high < end) {
      op.add_range(inode, index, low, high, {}); // zeros, until they meet the base
      return {};
    }
    std::uint32_t left = old ? std::min(old->visible, low) : 0;
    if (const auto* e = extents_.find({inode, index}))
      for (const auto& r : e->ranges)
        if (r.from < low) left = std::max(left, std::min(r.to, low));
    less(end - left);
    if (old && old->visible > low) {
      old->visible = low; // whatever comes later, these bytes are never seen again (invariant 12)
      op.put(extent_key(inode, index), encode(*old));
    }
    return {};
  };

  auto first = from / extent_bytes;
  auto low = static_cast<std::uint32_t>(from % extent_bytes);
  auto last = to_end ? extent_index_end : to / extent_bytes; // whole extents: [first, last)
  auto high = to_end ? 0U : static_cast<std::uint32_t>(to % extent_bytes);
  if (low != 0) {
    if (!to_end && last == first) {
      QS_TRY(cut_part(first, low, high));
      return true;
    }
    QS_TRY(cut_part(first, low, extent_bytes));
    ++first;
  }
  if (high != 0) {
    QS_TRY_ASSIGN(auto old, op.extent(inode, last));
    if (extent_end(inode, last, old) <= high) ++last; // nothing is left of it: as good as whole
    else QS_TRY(cut_part(last, 0, high));
  }
  if (first >= last) return true;

  bool pending = row.trim_from < row.trim_to;
  bool touches = !pending || (first <= row.trim_to && last >= row.trim_from);
  auto end_key = to_end ? prefix_end(inode_prefix(row_kind::extent, inode)) : extent_key(inode, last);
  std::vector<std::pair<std::uint64_t, extent_row>> rows;
  bool more = false;
  status bad;
  // No row lies behind the end of the file, unless a trim is pending: a small file's rows are asked for one by one, which costs
  // less than the beginning of a scan.
  auto behind = std::min(last, (row.size + extent_bytes - 1) / extent_bytes);
  bool few = !pending && behind <= first + small_file / extent_bytes;
  for (auto index = first; few && index < behind; ++index) {
    QS_TRY_ASSIGN(auto old, op.extent(inode, index));
    if (old) rows.emplace_back(index, std::move(*old));
  }
  if (!few) QS_TRY(op.scan(extent_key(inode, first), end_key, [&](std::string_view key, byte_span value) {
    if (rows.size() >= extents_at_once && touches) {
      more = true;
      return false;
    }
    auto parts = parse_extent_key(key);
    auto old = decode_extent(value);
    if (!old.ok()) bad = std::move(old).err();
    else if (parts) rows.emplace_back(parts->index, std::move(*old));
    return bad.ok();
  }));
  QS_TRY(std::move(bad));
  for (auto place = extent_place{inode, first};;) { // extents that are only ranges yet
    const auto* e = extents_.next(place);
    if (!e || e->first.first != inode || e->first.second >= last) break;
    QS_TRY_ASSIGN(auto visible, visible_bytes(op, inode, e->first.second));
    less(e->second.end() - std::min(e->second.end(), visible));
    place = {inode, e->first.second + 1};
  }
  if (more) {
    row.trim_from = pending ? std::min(row.trim_from, first) : first;
    row.trim_to = pending ? std::max(row.trim_to, last) : last;
    if (to_end) row.allocated = std::min(row.allocated, from);
    op.put(trim_key(inode), {});
    op.after([this, inode] { post_trim(inode); });
    return false;
  }
  for (const auto& [index, old] : rows) {
    bool hidden = pending && index >= row.trim_from && index < row.trim_to;
    if (!hidden) less(old.visible);
    QS_TRY(op.set_extent(inode, index, std::nullopt));
  }
  if (pending && first <= row.trim_from && last >= row.trim_to) {
    row.trim_from = row.trim_to = 0;
    op.erase(trim_key(inode));
  }
  return true;
}

void engine::post_trim(inode_number inode) {
  {
    std::lock_guard lock{queue_mutex_};
    if (!trims_.insert(inode).second) return;
  }
  post([inode](engine& e) {
    auto done = e.finish_trim(inode);
    std::lock_guard lock{e.queue_mutex_};
    e.trims_.erase(inode);
    if (!done.ok() && !e.closed_) e.note("warning", "TrimIncomplete", describe(done.err()));
  });
}

status engine::finish_trim(inode_number inode) {
  for (;;) {
    QS_TRY_ASSIGN(bool done, trim_some(inode));
    if (done) return {};
  }
}

result<bool> engine::trim_some(inode_number inode) {
  QS_TRY_ASSIGN(auto op, begin_internal());
  QS_TRY_ASSIGN(auto value, op->get(inode_key(inode)));
  if (!value) {
    op->erase(trim_key(inode));
    QS_TRY(op->commit());
    return true;
  }
  QS_TRY_ASSIGN(auto row, decode_inode(*value));
  if (row.trim_from >= row.trim_to) return true;
  std::vector<std::uint64_t> found;
  auto end_key = row.trim_to == extent_index_end ? prefix_end(inode_prefix(row_kind::extent, inode))
                                                 : extent_key(inode, row.trim_to);
  QS_TRY(op->scan(extent_key(inode, row.trim_from), end_key, [&](std::string_view key, byte_span) {
    if (auto parts = parse_extent_key(key)) found.push_back(parts->index);
    return found.size() < extents_at_once;
  }));
  for (auto index : found) QS_TRY(op->set_extent(inode, index, std::nullopt));
  bool done = found.size() < extents_at_once;
  if (done) {
    row.trim_from = row.trim_to = 0;
    op->erase(trim_key(inode));
  } else {
    row.trim_from = found.back() + 1;
  }
  op->put(inode_key(inode), encode(row));
  QS_TRY(op->commit());
  return done;
}

void engine::reap_orphan(inode_number inode) {
  {
    std::lock_guard lock{queue_mutex_};
    reap_queue_.push_back(inode);
    if (reap_queue_.size() < reaps_at_once) return; // upkeep takes them: alone each would cost its unlink's time again
  }
  start_reaping();
}

void engine::start_reaping() {
  {
    std::lock_guard lock{queue_mutex_};
    if (reaping_ || reap_queue_.empty()) return;
    reaping_ = true;
  }
  post([](engine& e) {
    for (;;) {
      std::vector<inode_number> some;
      {
        std::lock_guard lock{e.queue_mutex_};
        auto n = std::min(e.reap_queue_.size(), reaps_at_once);
        some.assign(e.reap_queue_.begin(), e.reap_queue_.begin() + static_cast<std::ptrdiff_t>(n));
        e.reap_queue_.erase(e.reap_queue_.begin(), e.reap_queue_.begin() + static_cast<std::ptrdiff_t>(n));
        if (some.empty()) {
          e.reaping_ = false;
          return;
        }
      }
      auto left = e.reap_small(some);
      if (!left.ok()) left = some; // nothing happened: each for itself
      for (auto inode : *left) e.reap(inode);
    }
  });
}

/// Small orphans in one operation; gives back the others.
result<std::vector<inode_number>> engine::reap_small(const std::vector<inode_number>& orphans) {
  std::vector<inode_number> others;
  QS_TRY_ASSIGN(auto op, begin_internal());
  for (auto inode : orphans) {
    QS_TRY_ASSIGN(auto value, op->get(inode_key(inode)));
    if (value) {
      QS_TRY_ASSIGN(auto row, decode_inode(*value));
      if (row.nlink > 0 && !S_ISDIR(row.mode)) continue; // it has a name again
      if (row.trim_from < row.trim_to || row.size > small_file) {
        others.push_back(inode);
        continue;
      }
      QS_TRY_ASSIGN(bool gone, drop_extents(*op, inode, row, 0, ~std::uint64_t{0}));
      if (!gone) return error{errc::busy, "a small file with many extents"}; // by itself, then
    }
    if (erase_rows_) QS_TRY(erase_rows_(*op, inode));
  }
  QS_TRY(op->commit());
  return others;
}

void engine::reap(inode_number inode) {
  auto once = [&]() -> result<bool> {
    QS_TRY(finish_trim(inode));
    QS_TRY_ASSIGN(auto op, begin_internal());
    QS_TRY_ASSIGN(auto value, op->get(inode_key(inode)));
    bool gone = true;
    if (value) {
      QS_TRY_ASSIGN(auto row, decode_inode(*value));
      if (row.nlink > 0 && !S_ISDIR(row.mode)) return true; // it has a name again
      QS_TRY_ASSIGN(gone, drop_extents(*op, inode, row, 0, ~std::uint64_t{0}));
      if (!gone) op->put(inode_key(inode), encode(row));
    }
    if (gone && erase_rows_) QS_TRY(erase_rows_(*op, inode));
    QS_TRY(op->commit());
    return gone;
  };
  for (;;) {
    auto done = once();
    if (!done.ok()) {
      if (!closed_ && !read_only_) note("warning", "OrphanLeft", "left for the next start: " + describe(done.err()));
      return;
    }
    if (*done) return;
  }
}

} // namespace qs::volume
