// Writing bytes: whole extents become frames at once, outside the operation lock; the rest are raw ranges (volume.md 4).
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "volume/engine.hpp"

#ifndef FALLOC_FL_KEEP_SIZE
#include <linux/falloc.h>
#endif

namespace qs::volume {

namespace {
constexpr std::uint64_t file_size_max = std::uint64_t{1} << 62;
constexpr std::size_t write_piece_max = 4 << 20; // one record; FUSE sends at most 1 MiB

void touch(inode_row& row, file_time now, bool kill_privileges) {
  row.mtime = row.ctime = now;
  if (!kill_privileges) return;
  row.mode &= ~std::uint32_t{S_ISUID};
  if ((row.mode & S_IXGRP) != 0) row.mode &= ~std::uint32_t{S_ISGID};
}

bool trimming(const inode_row& row, std::uint64_t first, std::uint64_t last) {
  return row.trim_from < row.trim_to && first < row.trim_to && last >= row.trim_from;
}
} // namespace

std::uint32_t engine::extent_end(inode_number inode, std::uint64_t index,
                                 const std::optional<extent_row>& row) const {
  const auto* e = extents_.find({inode, index});
  return std::max(row ? row->visible : 0U, e ? e->end() : 0U);
}

std::chrono::milliseconds engine::write_delay() const {
  auto limit = static_cast<double>(options_.staging_bytes);
  auto x = (static_cast<double>(log_promised()) / limit - 0.5) / 0.375;
  if (x <= 0) return {};
  return std::chrono::milliseconds{static_cast<std::int64_t>(500.0 * std::min(1.0, x * x))};
}

void engine::write(inode_number inode, std::uint64_t offset, byte_span data, bool append, bool kill_privileges,
                   filesystem::write_done done) {
  std::size_t written = 0;
  status outcome;
  do {
    auto piece = data.subspan(written, std::min(data.size() - written, write_piece_max));
    if (piece.empty()) break;
    outcome = write_now(inode, offset + written, piece, append, kill_privileges);
    if (!outcome.ok()) break;
    written += piece.size();
  } while (written < data.size());
  if (!outcome.ok() && written == 0) return done(std::move(outcome).err());
  auto delay = write_delay();
  if (delay.count() > 0 && !closed_) {
    std::lock_guard lock{queue_mutex_};
    slowed_.push_back({now() + delay, [done = std::move(done), written] { done(written); }});
    return;
  }
  done(written);
}

status engine::write_now(inode_number inode, std::uint64_t offset, byte_span data, bool append, bool kill_privileges) {
  if (!table_.has_space()) return error{errc::no_space, "no placement group has space", ENOSPC};
  for (int tries = 0;; ++tries) {
    // Frames are made before it is known whether the file's end stays where it is; if it keeps moving, ranges do.
    QS_TRY_ASSIGN(bool done, try_write(inode, offset, data, append, kill_privileges, tries < 3));
    if (done) return {};
  }
}

result<bool> engine::try_write(inode_number inode, std::uint64_t offset, byte_span data, bool append,
                               bool kill_privileges, bool frames) {
  if (closed_) return posix_error(EIO);
  if (read_only_) return posix_error(EROFS);
  if (log_is_full()) return error{errc::no_space, "the local log is full: data waits for nodes", ENOSPC};
  auto guess = offset;
  if (append) {
    QS_TRY_ASSIGN(auto row, this->inode(inode));
    guess = row.size;
  }
  struct piece {
    std::uint64_t index = 0;
    std::uint32_t from = 0, to = 0;
    byte_span bytes;
    std::optional<sealed_frame> frame;
  };
  std::vector<piece> pieces;
  auto plan = [&](std::uint64_t at) {
    pieces.clear();
    for (std::size_t taken = 0; taken < data.size();) {
      piece p;
      p.index = (at + taken) / extent_bytes;
      p.from = static_cast<std::uint32_t>((at + taken) % extent_bytes);
      auto n = std::min<std::size_t>(data.size() - taken, extent_bytes - p.from);
      p.to = p.from + static_cast<std::uint32_t>(n);
      p.bytes = data.subspan(taken, n);
      taken += n;
      pieces.push_back(std::move(p));
    }
  };
  if (guess > file_size_max || data.size() > file_size_max - guess) return posix_error(EFBIG);
  plan(guess);
  if (frames)
    for (auto& p : pieces)
      if (p.from == 0 && p.to == extent_bytes) {
        QS_TRY_ASSIGN(auto frame, seal_frame(p.bytes));
        p.frame.emplace(std::move(frame));
      }

  std::vector<extent_place> ranged;
  {
    QS_TRY_ASSIGN(auto op, begin_operation(true));
    QS_TRY_ASSIGN(auto row, inode_in(*op, inode));
    if (append && row.size != guess) {
      if (frames) return false;
      guess = row.size;
      if (guess > file_size_max || data.size() > file_size_max - guess) return posix_error(EFBIG);
      plan(guess);
    }
    if (trimming(row, pieces.front().index, pieces.back().index)) {
      op.reset();
      pieces.clear();
      QS_TRY(finish_trim(inode));
      return false;
    }
    for (auto& p : pieces) {
      QS_TRY_ASSIGN(auto old, op->extent(inode, p.index));
      auto end = extent_end(inode, p.index, old);
      if (p.frame) {
        QS_TRY(op->add_frame(*p.frame, inode, row.generation, p.index, p.to, op->sequence() - 1));
      } else {
        op->add_range(inode, p.index, p.from, p.to, p.bytes);
        ranged.emplace_back(inode, p.index);
      }
      if (p.to > end) row.allocated += p.to - end;
    }
    row.size = std::max(row.size, guess + data.size());
    touch(row, op->now(), kill_privileges);
    op->put(inode_key(inode), encode(row));
    QS_TRY(op->commit());
  }
  for (auto place : ranged) {
    std::shared_lock view{view_mutex_};
    const auto* e = extents_.find(place);
    bool full = e && !e->merging && e->covers(extent_bytes);
    view.unlock();
    if (full) queue_merge(place);
  }
  return true;
}

status engine::fallocate(inode_number inode, int mode, std::uint64_t offset, std::uint64_t length) {
  if (length == 0) return posix_error(EINVAL);
  if (offset > file_size_max || length > file_size_max - offset) return posix_error(EFBIG);
  bool keep = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  auto what = mode & ~FALLOC_FL_KEEP_SIZE;
  bool punch = what == FALLOC_FL_PUNCH_HOLE;
  bool zero = what == FALLOC_FL_ZERO_RANGE;
  if ((!punch && !zero && what != 0) || (punch && !keep)) return posix_error(EOPNOTSUPP);
  if (what == 0 && keep) {
    QS_TRY_ASSIGN(auto row, this->inode(inode));
    return {}; // nothing is reserved ahead: space is taken when a segment is opened
  }
  QS_TRY_ASSIGN(auto op, begin_operation(!punch));
  QS_TRY_ASSIGN(auto row, inode_in(*op, inode));
  if (S_ISDIR(row.mode)) return posix_error(EISDIR);
  if (!S_ISREG(row.mode)) return posix_error(ENODEV);
  auto end = offset + length;
  if (punch || zero) {
    QS_TRY_ASSIGN([[maybe_unused]] bool all, drop_extents(*op, inode, row, offset, end));
  }
  if (!keep) row.size = std::max(row.size, end);
  touch(row, op->now(), false);
  op->put(inode_key(inode), encode(row));
  return op->commit();
}

result<std::uint64_t> engine::seek(inode_number inode, std::uint64_t offset, int whence) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) return posix_error(EINVAL);
  std::shared_lock view{view_mutex_};
  QS_TRY_ASSIGN(auto row, this->inode(inode));
  if (offset >= row.size) return posix_error(ENXIO);
  // Extents with anything in them are data, whole; the bytes before the end of the file behind the last one are a hole.
  auto trimmed = [&](std::uint64_t index) { return index >= row.trim_from && index < row.trim_to; };
  auto next_row = [&](std::uint64_t from) -> result<std::uint64_t> {
    auto at = extent_index_end;
    QS_TRY(rows_->scan(extent_key(inode, from), prefix_end(inode_prefix(row_kind::extent, inode)),
                       [&](std::string_view key, byte_span) {
                         auto parts = parse_extent_key(key);
                         if (!parts || trimmed(parts->index)) return true;
                         at = parts->index;
                         return false;
                       }));
    return at;
  };
  auto next_data = [&](std::uint64_t from) -> result<std::uint64_t> {
    QS_TRY_ASSIGN(auto at, next_row(from));
    for (auto place = extent_place{inode, from};;) {
      const auto* e = extents_.next(place);
      if (!e || e->first.first != inode || e->first.second >= at) break;
      for (const auto& r : e->second.ranges)
        if (!r.zero) return e->first.second;
      place = {inode, e->first.second + 1};
    }
    return at;
  };
  auto index = offset / extent_bytes;
  if (whence == SEEK_DATA) {
    QS_TRY_ASSIGN(auto at, next_data(index));
    if (at == extent_index_end || at * extent_bytes >= row.size) return posix_error(ENXIO);
    return std::max(offset, at * extent_bytes);
  }
  for (;; ++index) {
    if (index * extent_bytes >= row.size) return row.size;
    QS_TRY_ASSIGN(auto at, next_data(index));
    if (at != index) return std::max(offset, index * extent_bytes);
  }
}

} // namespace qs::volume
