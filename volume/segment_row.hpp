// Rows of segments and groups: what is known of a segment without asking a node, and the slots of one generation of a group.
// Pure encodings beside rows.hpp (docs/formats/rows.md has the bytes). Values; any thread.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "codec/frame.hpp"
#include "model/group.hpp"
#include "volume/rows.hpp"

namespace qs::volume {

enum class segment_state : std::uint8_t {
  open = 0,   ///< takes frames; exists in the log only
  sealed = 1, ///< its bytes are final; pinned in the log until every shard is confirmed
  stored = 2, ///< unpinned: the nodes have it; what is not confirmed is missing and repair's
};

inline constexpr std::uint32_t no_group = ~std::uint32_t{0};

struct segment_row {
  segment_state state = segment_state::open;
  std::uint8_t data_shards = 0;   ///< k
  std::uint8_t parity_shards = 0; ///< m
  std::uint8_t used_shards = 0;   ///< data shards that are stored; the others are implied zeros
  codec::cipher_id cipher = codec::cipher_id::aes256_gcm;
  std::uint32_t key_generation = 0;
  codec::segment_salt salt{};
  std::uint32_t shard_length = 0; ///< L
  std::uint32_t group = no_group;
  std::uint32_t group_generation = 0;
  std::uint64_t confirmed = 0;    ///< bit i: shard i is confirmed on slot i of that generation
  std::uint64_t live_bytes = 0;   ///< stored bytes of its frames that rows point to
  std::uint64_t sealed_ms = 0;    ///< wall clock, since 1970
  std::uint64_t confirmed_ms = 0; ///< when a bit was last set
  /// Bit i: what slot i of that generation holds failed verification; the node's word for it is worth nothing until it is
  /// written anew. Never set together with confirmed. TLV 1, absent when 0.
  std::uint64_t damaged = 0;
  std::vector<unknown_field> unknown;
  bool operator==(const segment_row&) const = default;

  /// The shards that exist: used data shards and parity.
  [[nodiscard]] std::uint64_t required() const noexcept {
    auto low = [](unsigned bits) { return bits >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1; };
    return low(used_shards) | (low(parity_shards) << data_shards);
  }
  [[nodiscard]] unsigned implied() const noexcept { return static_cast<unsigned>(data_shards - used_shards); }
  [[nodiscard]] std::uint64_t missing() const noexcept { return required() & ~confirmed; }
};

buffer encode(const segment_row& row);
/// Errors: corrupt (also: counts out of bounds), version_mismatch.
result<segment_row> decode_segment(byte_span value);

buffer encode_slots(const std::vector<model::node_id>& slots);
result<std::vector<model::node_id>> decode_slots(byte_span value);

} // namespace qs::volume
