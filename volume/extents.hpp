// What is in memory of partial writes: per extent the byte ranges in the log that lie over its base frame, newest on top.
// Only intervals and places, never bytes. Owned by the engine, guarded by its view lock.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "volume/filesystem.hpp"
#include "volume/log.hpp"

namespace qs::volume {

inline constexpr std::uint32_t extent_bytes = 64 * 1024;

struct byte_range {
  std::uint32_t from = 0; ///< in the extent
  std::uint32_t to = 0;
  bool zero = false;      ///< no bytes in the log: zeros
  log_position where;     ///< of the byte at `from`
  std::uint64_t sequence = 0;
};

struct extent_ranges {
  std::vector<byte_range> ranges; ///< by `from`, never overlapping
  std::uint64_t cut = 0;          ///< changes whenever bytes are taken away other than by newer bytes over them
  boot_time since{};              ///< of the oldest
  bool merging = false;           ///< somebody is making a frame of it
  std::uint32_t base = extent_bytes; ///< where the bytes of its base frame end, at most

  [[nodiscard]] std::uint32_t end() const noexcept { return ranges.empty() ? 0 : ranges.back().to; }
  [[nodiscard]] bool covers(std::uint32_t to) const noexcept; ///< [0, to) without a gap
  /// What the log takes at most when they become a frame.
  [[nodiscard]] std::uint64_t merge_bytes() const noexcept;
};

using extent_place = std::pair<inode_number, std::uint64_t>; // inode, index

class extent_map {
public:
  /// Called for every range that begins or ceases to need its log file.
  struct hooks {
    std::function<void(std::uint64_t file)> retain;
    std::function<void(std::uint64_t file)> release;
  };
  explicit extent_map(hooks h) : hooks_{std::move(h)} {}

  /// `base`: where the base frame's bytes end, looked at when it is the extent's first range.
  void add(extent_place place, const byte_range& range, boot_time now, std::uint32_t base = extent_bytes);
  /// Bytes [from, to) of the file.
  void drop(inode_number inode, std::uint64_t from, std::uint64_t to);
  /// The extent's ranges of operations up to `sequence`.
  void drop_upto(extent_place place, std::uint64_t sequence);

  [[nodiscard]] const extent_ranges* find(extent_place place) const;
  [[nodiscard]] extent_ranges* find(extent_place place);
  /// First extent with ranges at or after the place, or null; for scans.
  [[nodiscard]] const std::pair<const extent_place, extent_ranges>* next(extent_place place) const;
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; } ///< data bytes, zeros not counted
  /// What the log still takes until all of them are frames. Needs no lock.
  [[nodiscard]] std::uint64_t merge_bytes() const noexcept { return merge_bytes_; }
  [[nodiscard]] std::size_t extents() const noexcept { return map_.size(); }
  [[nodiscard]] std::size_t ranges() const noexcept { return ranges_; }
  /// Whether an operation up to `sequence` left a range. Walks until it finds one.
  [[nodiscard]] bool any_upto(std::uint64_t sequence) const;
  /// `since` of the longest waiting one is not kept; this walks. For rare use.
  void each(const std::function<void(extent_place, const extent_ranges&)>& visit) const;

private:
  using map = std::map<extent_place, extent_ranges>;
  /// Takes [from, to) out of the extent's ranges.
  void carve(extent_ranges& e, std::uint32_t from, std::uint32_t to);
  void gone(const byte_range& r);
  void came(const byte_range& r);

  hooks hooks_;
  map map_;
  std::uint64_t cuts_ = 0;
  std::uint64_t bytes_ = 0;
  std::atomic<std::uint64_t> merge_bytes_{0};
  std::size_t ranges_ = 0;
};

} // namespace qs::volume
