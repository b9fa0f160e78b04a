// Shard value: a sealed header of 192 bytes and L bytes of payload, data or parity; what one node
// stores under one name. Making all values of a segment, checking one, reading a frame out of one,
// and rebuilding any from any k. No I/O; pure functions, any thread. docs/formats/shard.md has the
// bytes.
//
// Invariant 2, 11: a value depends on seal record and frames only; a rebuilt one is byte-identical.
// Invariant 4: the header is authenticated before a length in it is believed, the body before it is
// used for decoding.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "base/buffer_pool.hpp"
#include "codec/segment.hpp"

namespace qs::codec {

inline constexpr std::size_t shard_header_bytes = 192;
inline constexpr std::size_t shard_value_max = shard_header_bytes + shard_payload_max;

using shard_mac = std::array<std::byte, 16>;

struct shard_header {
  volume_id volume{};
  segment_info info;
  unsigned index = 0;       ///< 0 … k-1 data, from k on parity
  unsigned data_shards = 0; ///< k
  unsigned used_shards = 0; ///< data shards that are stored; the others, up to k, are implied zeros
  std::uint32_t shard_length = 0;
  std::uint32_t directory_length = 0; ///< 0 in a parity shard
  shard_mac mac{};
  [[nodiscard]] bool is_parity() const noexcept { return index >= data_shards; }
  bool operator==(const shard_header&) const = default;
};

/// What to check: the header alone (enough to read a frame, which authenticates itself), or the MAC
/// over the body as well (before rebuilding, scrub, keeping it).
enum class shard_check { header, body };

/// A shard value that was opened. Shares the value's bytes.
struct shard {
  shard_header header;
  buffer_ptr value;
  shard_check checked = shard_check::header;
  [[nodiscard]] byte_span payload() const noexcept {
    return byte_span{*value}.subspan(shard_header_bytes);
  }
  /// Sealed; empty in a parity shard.
  [[nodiscard]] byte_span sealed_directory() const noexcept {
    return payload().last(header.directory_length);
  }
};

/// The data shards of one segment while their frames are put in place: sealed, or read from the log,
/// where they will be sent from, so that nothing is copied afterwards. Not thread-safe, but rooms of
/// different frames may be filled by different threads.
class segment_body {
public:
  /// Shards of at most `shard_length` payload bytes (S at most), out of `pool`, which is used until
  /// build_shards() returns.
  explicit segment_body(buffer_pool& pool, std::uint32_t shard_length = shard_payload_max);

  /// Where the sealed bytes of the frame at `place` belong: all of them are to be written before
  /// build_shards(). Once per frame. Errors: invalid_argument (a shard or a range that cannot be).
  result<mutable_byte_span> room(const frame_place& place, std::uint32_t stored_length);
  /// The frame that has room at `place` is not to be there after all.
  void drop(const frame_place& place);

private:
  friend class shard_builder;
  struct extent {
    std::uint32_t position = 0, length = 0;
  };
  struct data_shard {
    std::shared_ptr<buffer> value; ///< header and payload
    std::vector<extent> frames;
  };
  buffer_pool* pool_;
  std::uint32_t shard_length_;
  std::vector<data_shard> shards_; ///< by index
};

/// All k + m values of a segment, by index; null for the implied ones (used_shards … k-1). The
/// frames in `body` are exactly those of the layout that was sealed. Deterministic. Errors:
/// invalid_argument (frames that are not the directories', k or m out of bounds), not_found, io.
result<std::vector<buffer_ptr>> build_shards(const key_ring& ring, const seal_record& record,
                                             segment_body body, unsigned parity_shards);

/// `expected`: whose value this must be; a sound value of another place is corrupt too.
struct shard_address {
  segment_id segment;
  unsigned index = 0;
};

/// Opens the header of a value, or of its first 192 bytes. Errors: corrupt, version_mismatch.
result<shard_header> open_shard_header(const volume_keys& keys, byte_span value);
/// Errors: corrupt, version_mismatch, not_found (key generation).
result<shard> open_shard(const key_ring& ring, buffer_ptr value, shard_check check,
                         const std::optional<shard_address>& expected = std::nullopt);

/// The frames in a data shard; salvage needs nothing else. Errors: corrupt, invalid_argument
/// (parity), not_found.
result<std::vector<directory_entry>> list_frames(const key_ring& ring, const shard& from);
/// The sealed bytes of a frame in a payload. Errors: corrupt if it does not lie within.
result<byte_span> frame_bytes(const shard& from, std::uint32_t position,
                              std::uint32_t stored_length);

/// The values with the indexes `wanted` (data or parity up to k + 16), byte-identical to those that
/// were built, from any k of one segment's (implied ones count and are not passed). A wanted
/// implied shard gives null. Every shard of `have` must have been opened with shard_check::body.
/// Errors: invalid_argument (that, not one segment, index out of bounds), no_quorum (fewer than k),
/// corrupt (a rebuilt data shard has no directory), not_found, io.
result<std::vector<buffer_ptr>> rebuild_shards(const key_ring& ring, std::span<const shard> have,
                                               std::span<const unsigned> wanted);

/// Payload bytes [position, position + out.size()) of data shard `index`, decoded from any k
/// others: a read while its node is away. Costs only that range. With shards whose body was not
/// checked the frame opened from it may turn out damaged; check them then and use others. Errors:
/// as rebuild_shards.
status recover_range(std::span<const shard> have, unsigned index, std::uint32_t position,
                     mutable_byte_span out);

} // namespace qs::codec
