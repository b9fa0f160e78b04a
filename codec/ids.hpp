// Names of what the codec seals: volume, session, segment. Values only; encodings are little-endian
// and fixed. Not the rows' encodings (volume/ has its own). docs/formats/keys.md says every byte.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "base/bytes.hpp"
#include "model/ids.hpp"

namespace qs::codec {

/// 16 public bytes derived from phrase and volume name; also the check value for a phrase.
using volume_id = model::volume_id;
using writer_id = std::array<std::byte, 16>;
/// 32 random bytes per segment: with them no key is derived twice, whatever happens to counters.
using segment_salt = std::array<std::byte, 32>;

/// Epochs from here on are refused: inode numbers and operation sequences keep 24 bits of them.
inline constexpr std::uint32_t epoch_limit = 1U << 24;
/// Segment counters stay below, so that counter and shard index share 64 bits.
inline constexpr std::uint64_t segment_counter_limit = std::uint64_t{1} << 40;

/// One start of one writer.
struct session_id {
  std::uint32_t epoch = 0;
  writer_id writer{};
  auto operator<=>(const session_id&) const = default;
};

struct segment_id {
  session_id session;
  std::uint64_t counter = 0;
  auto operator<=>(const segment_id&) const = default;
  /// As rows have it; the session table gives the writer back.
  [[nodiscard]] model::segment_ref ref() const noexcept { return {session.epoch, counter}; }
};

/// epoch (4) ‖ writer (16) ‖ counter (8).
inline constexpr std::size_t segment_id_bytes = 28;

void put(byte_writer& out, const session_id& id);
void put(byte_writer& out, const segment_id& id);
/// Check `in.ok()` before the value is believed.
session_id get_session_id(byte_reader& in);
segment_id get_segment_id(byte_reader& in);

/// "epoch.counter@writer", the writer cut to 8 hex digits: for logs and errors.
std::string to_string(const segment_id& id);

} // namespace qs::codec

template <>
struct std::hash<qs::codec::segment_id> {
  std::size_t operator()(const qs::codec::segment_id& id) const noexcept {
    auto writer = qs::load_le<std::uint64_t>(id.session.writer.data());
    return std::hash<std::uint64_t>{}(
        writer ^ (id.counter * 0x9e3779b97f4a7c15U + (std::uint64_t{id.session.epoch} << 40)));
  }
};
