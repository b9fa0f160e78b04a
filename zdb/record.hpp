// The data file format of zdb: what every byte in NNNNNNNN.data is (docs/formats/zdb-files.md says
// the same).
//
//   file header, 64 bytes: "QSZDB\r\n\x1a" magic, version u32 = 1, file id u32, flags u32 (1 =
//   nothing in files with
//     lower ids counts: FLUSH; 2 = compacted), key mode u8 (0 user, 1 sequential), zero to 24, and
//     of a compacted file: 24 first u32, 28 last u32 (the files whose place it takes), 32 next id
//     u64 (sequential mode), 40 file u32 that was written to then; zero to 60, crc u32 of bytes 0..59.
//   record, 32 bytes + key + payload, little-endian:
//      0 header crc u32   of bytes 4..31 and the key
//      4 payload length u32
//      8 payload crc u32
//     12 timestamp u32    unix seconds
//     16 previous file u32, 20 previous offset u32   the version this one replaces, 0 0 = none
//     24 position u32     of this record in its file: a copied piece of a file is not a record
//     28 kind u8 (1 set, 2 delete), 29 key length u8, 30 flags u16 (1 = moved by compaction:
//        `previous` says where it stood when it was written)
//
// Invariants: a file only grows, and never changes below its end; ids go up and are never reused; a
// record counts only if its header crc fits, and, past the synced mark, its payload crc too;
// offsets fit 32 bits.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>

#include "base/bytes.hpp"
#include "base/result.hpp"

namespace qs::zdb {

inline constexpr std::size_t file_header_bytes = 64;
inline constexpr std::size_t record_header_bytes = 32;

inline bool same_bytes(byte_span a, byte_span b) noexcept {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

/// Where a record is. file 0 = nowhere.
struct record_place {
  std::uint32_t file = 0;
  std::uint32_t offset = 0;
  auto operator<=>(const record_place&) const = default;
  [[nodiscard]] bool valid() const noexcept { return file != 0; }
};

/// What an index knows of a live record.
struct index_entry {
  record_place place;
  std::uint32_t length = 0; ///< of the payload
};

enum class record_kind : std::uint8_t { set = 1, erase = 2 };

struct record_header {
  std::uint32_t payload_length = 0;
  std::uint32_t payload_crc = 0;
  std::uint32_t timestamp = 0;
  record_place previous; ///< moved: where it was written first, which is what cursors name
  bool moved = false;
  record_kind kind = record_kind::set;
  std::uint8_t key_length = 0;

  [[nodiscard]] std::uint64_t record_bytes() const noexcept {
    return record_header_bytes + std::uint64_t{key_length} + payload_length;
  }
  /// Where it was written first, if it stands at `here`. Compaction keeps it, so that cursors and
  /// the order of records outlive it.
  [[nodiscard]] record_place origin(record_place here) const noexcept {
    return moved ? previous : here;
  }
};

struct file_header {
  std::uint32_t id = 0;
  bool flushes = false; ///< nothing in lower files counts
  bool sequential = false;
  bool compacted = false;
  std::uint32_t first = 0;   ///< compacted: it stands in for the files first...last
  std::uint32_t last = 0;
  std::uint64_t next_id = 0; ///< compacted, sequential: ids below are used up
  std::uint32_t written = 0; ///< compacted: the file that was written to when it was begun
};

std::array<std::byte, file_header_bytes> encode_file_header(const file_header& header);
/// Errors: corrupt, version_mismatch.
result<file_header> decode_file_header(byte_span bytes);

/// 32 bytes, ready for the key and the payload to follow. `offset`: where it will stand in its
/// file.
std::array<std::byte, record_header_bytes>
encode_record_header(const record_header& header, byte_span key, std::uint32_t offset);
/// The fields without any check, to learn how long the key is.
record_header peek_record_header(byte_span bytes) noexcept;
inline std::size_t record_key_length(byte_span bytes) noexcept {
  return std::to_integer<std::size_t>(bytes[29]);
}
/// True if these 32 bytes and the key are a record that stands at `offset`.
bool record_header_fits(byte_span header, byte_span key, std::uint32_t offset) noexcept;

} // namespace qs::zdb
