// Segment: k data shards filled with frames of any files, sealed once. This is the pure part: where
// frames go, the directories, the seal record. The shard values come from shard.hpp.
// docs/formats/segment.md has the bytes.
//
// Invariant 2: the seal record holds everything random, so the shard values made of it and the
// frames are always the same. Invariant 11: a frame lies in one shard; what is no frame and no
// directory is zero. Invariant 13: a frame number appears once in a segment (segment_packer refuses
// a second one).
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/bytes.hpp"
#include "base/limits.hpp"
#include "base/random.hpp"
#include "base/result.hpp"
#include "codec/frame.hpp"

namespace qs::codec {

/// S: the payload of a full shard. Eight raw frames with their tags, and room for the directory.
inline constexpr std::uint32_t shard_payload_max = 129 * 4096;
/// Shard lengths are multiples of it.
inline constexpr std::uint32_t shard_length_step = 4096;
inline constexpr std::size_t directory_entries_max = 4096;
inline constexpr std::size_t directory_entry_bytes = 49;
inline constexpr std::size_t directory_head_bytes = 4;
/// Bytes of the sealed directory of `entries` frames.
constexpr std::uint32_t directory_bytes(std::size_t entries) noexcept {
  return static_cast<std::uint32_t>(seal_overhead + directory_head_bytes +
                                    entries * directory_entry_bytes);
}

/// One frame as its shard's directory knows it.
struct directory_entry {
  std::uint32_t position = 0; ///< in the shard's payload
  std::uint32_t stored_length = 0;
  std::uint32_t plain_length = 0;
  std::uint32_t frame_number = 0;
  std::uint64_t inode = 0;
  std::uint64_t inode_generation = 0;
  std::uint64_t extent_index = 0;
  std::uint64_t sequence = 0; ///< of the operation; salvage takes the highest
  frame_codec codec = frame_codec::raw;
  bool operator==(const directory_entry&) const = default;
};

struct frame_place {
  unsigned shard = 0;
  std::uint32_t position = 0;
  bool operator==(const frame_place&) const = default;
};

/// Where everything of a segment is. Shards from `shards.size()` to k - 1 are empty: implied zeros,
/// never stored.
struct segment_layout {
  unsigned data_shards = 0;                         ///< k
  std::uint32_t shard_length = 0;                   ///< L, the same for all shards
  std::vector<std::vector<directory_entry>> shards; ///< the used data shards, entries by position
};

/// Places frames into the shards of an open segment: first shard that has room, the next one only
/// when none has. Not thread-safe.
class segment_packer {
public:
  /// `data_shards` from 1 to limits::data_shards_max.
  explicit segment_packer(unsigned data_shards);

  [[nodiscard]] bool fits(std::uint32_t stored_length) const noexcept;
  /// Room for a frame that is sealed there and then described by fill(). Nothing if it does not
  /// fit: seal this segment and open another. The number must be new in this segment, the length
  /// within bounds.
  std::optional<frame_place> place(std::uint32_t frame_number, std::uint32_t stored_length);
  /// The frame that was placed under entry.frame_number with this length; `entry.position` is
  /// ignored.
  frame_place fill(directory_entry entry);
  /// Both at once.
  std::optional<frame_place> add(const directory_entry& entry);
  /// A frame that was superseded, or placed and not made: it leaves zeros behind and is in no
  /// directory. Where it was; nothing if it is not here. Its number must never be used again.
  std::optional<frame_place> remove(std::uint32_t frame_number);

  /// Placed ones count like those that are there.
  [[nodiscard]] bool empty() const noexcept { return live_ == 0; }
  [[nodiscard]] std::size_t frames() const noexcept { return live_; }
  /// Stored bytes of the frames in it.
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }
  /// The layout of what is in it now, every frame where add() said: for rows written before the
  /// segment is sealed. Must not be empty(), nor have a place that was not filled. Shards at the
  /// end that lost all their frames are left out; one in the middle keeps an empty directory.
  [[nodiscard]] segment_layout layout() const;
  /// The same frames in at most as many shards, placed anew so that the fullest one is as short as
  /// can be found: what a short segment should use, as every shard and all parity have the length
  /// of the fullest. Takes the places from the layout, not from add().
  [[nodiscard]] segment_layout tight_layout() const;

private:
  struct shard_state {
    std::uint32_t end = 0; ///< behind the last frame placed
    std::vector<directory_entry> entries; ///< by position
    std::vector<directory_entry> placed;  ///< not filled: number, position and length only
  };
  [[nodiscard]] static bool has_room(const shard_state& shard,
                                     std::uint32_t stored_length) noexcept;

  unsigned data_shards_;
  std::vector<shard_state> shards_;
  std::unordered_map<std::uint32_t, unsigned> shard_of_; ///< frame number -> shard
  std::size_t live_ = 0;
  std::uint64_t bytes_ = 0;
};

/// What the log keeps when a segment is sealed, before its first shard leaves. With the frames'
/// bytes it gives every shard value, the same ones each time, for any number of parity shards.
struct seal_record {
  segment_info info;
  unsigned data_shards = 0;        ///< k
  std::uint32_t shard_length = 0;  ///< L
  std::vector<buffer> directories; ///< sealed, one per used data shard
  [[nodiscard]] unsigned used_shards() const noexcept {
    return static_cast<unsigned>(directories.size());
  }
  bool operator==(const seal_record&) const = default;
};

/// Seals the directories. Once per segment: a second call gives other bytes. Errors: not_found (key
/// generation).
result<seal_record> seal_segment(const key_ring& ring, const segment_info& info,
                                 const segment_layout& layout, random_source& random);
/// The record's bytes for the log. Not sealed: the log is as secret as the phrase.
buffer encode(const seal_record& record);
/// Errors: corrupt, version_mismatch.
result<seal_record> decode_seal_record(byte_span bytes);

/// The entries of a sealed directory, all within `shard_length`, ordered and not overlapping.
/// Errors: corrupt.
result<std::vector<directory_entry>> open_directory(const volume_id& volume, const volume_key& key,
                                                    const segment_id& segment, unsigned index,
                                                    std::uint32_t shard_length, byte_span sealed);

} // namespace qs::codec
