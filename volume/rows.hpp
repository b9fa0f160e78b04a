// Rows: the keys and values of the volume's metadata, the same bytes in RocksDB, in log records, journal and checkpoint.
// Pure encodings; the row store, the log and the file system agree here and nowhere else. docs/formats/rows.md has the bytes.
// Values are little-endian, keys big-endian so that their byte order is their meaning's order. Thread-free values.
//
// Every value is fixed fields, then TLVs (u16 tag, u32 length, bytes). A reader keeps the TLVs it does not know and writes them
// back (invariant 16); tags from 0x8000 on are refused when unknown, because ignoring them would be wrong.
#pragma once

#include <array>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.hpp"
#include "base/result.hpp"
#include "base/units.hpp"
#include "model/ids.hpp"
#include "volume/filesystem.hpp"

namespace qs::volume {

/// The first byte of a key. Numbers are never given out twice; 0x80 and up stay free for local, unshared rows.
enum class row_kind : std::uint8_t {
  inode = 0x01,    ///< inode
  dirent = 0x02,   ///< parent, cookie
  xattr = 0x03,    ///< inode, name
  extent = 0x04,   ///< inode, index
  segment = 0x05,  ///< epoch, counter
  group = 0x06,    ///< group, generation
  orphan = 0x07,   ///< inode
  session = 0x08,  ///< epoch
  snapshot = 0x09, ///< reserved
  trash = 0x0a,    ///< reserved
  quota = 0x0b,    ///< reserved
  local = 0x80,    ///< name: applied_seq, counters, ...: not part of the volume, never shipped
};

/// Kept as std::string: short keys then need no allocation, and operator< is the store's order.
using row_key = std::string;

row_key inode_key(inode_number inode);
row_key dirent_key(inode_number parent, std::uint64_t cookie);
row_key xattr_key(inode_number inode, std::string_view name);
row_key extent_key(inode_number inode, std::uint64_t index);
row_key segment_key(model::segment_ref segment);
row_key group_key(model::group_id group, std::uint32_t generation);
row_key orphan_key(inode_number inode);
row_key session_key(std::uint32_t epoch);
row_key local_key(std::string_view name);

/// Prefixes for scans: all rows of a kind; all dirents, xattrs or extents of one inode; all generations of a group.
row_key kind_prefix(row_kind kind);
row_key inode_prefix(row_kind kind, inode_number inode);
row_key group_prefix(model::group_id group);
/// The first key after every key that starts with `prefix`.
row_key prefix_end(row_key prefix);

/// The parts of a key; nothing if it is not a key of that kind.
std::optional<inode_number> parse_inode_key(std::string_view key); ///< inode and orphan keys
struct dirent_key_parts {
  inode_number parent = 0;
  std::uint64_t cookie = 0;
};
std::optional<dirent_key_parts> parse_dirent_key(std::string_view key);
struct extent_key_parts {
  inode_number inode = 0;
  std::uint64_t index = 0;
};
std::optional<extent_key_parts> parse_extent_key(std::string_view key);
std::optional<model::segment_ref> parse_segment_key(std::string_view key);
std::optional<std::pair<model::group_id, std::uint32_t>> parse_group_key(std::string_view key);
std::optional<std::uint32_t> parse_session_key(std::string_view key);
/// The name in an xattr key; nothing for other keys.
std::optional<std::string_view> parse_xattr_key(std::string_view key);

/// A field that this version does not know, kept as it was.
struct unknown_field {
  std::uint16_t tag = 0;
  buffer bytes;
  bool operator==(const unknown_field&) const = default;
};

inline constexpr std::uint64_t extent_index_end = ~std::uint64_t{0}; ///< trim_to of a truncate: to the end of everything

struct inode_row {
  std::uint64_t generation = 0; ///< the operation sequence that made it
  std::uint32_t mode = 0;
  std::uint32_t nlink = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t rdev = 0;
  std::uint32_t project = 0;
  std::uint64_t size = 0;
  std::uint64_t allocated = 0; ///< bytes of data behind it: the sum of its extents' visible lengths; for st_blocks
  file_time atime{}; ///< i64 nanoseconds since 1970: 1677 to 2262
  file_time mtime{};
  file_time ctime{};
  file_time btime{};
  /// Extents in [trim_from, trim_to) are as if absent, and a reaper is removing their rows. Empty: nothing is.
  std::uint64_t trim_from = 0;
  std::uint64_t trim_to = 0;
  inode_number parent = 0; ///< directories: where `..` leads. TLV 1, absent when 0
  std::string target;      ///< symlinks. TLV 2, absent when empty
  std::uint32_t xattr_bytes = 0; ///< what listxattr needs: names and their NULs. TLV 3, absent when 0
  std::vector<unknown_field> unknown;
  bool operator==(const inode_row&) const = default;
};

/// The entry with disambiguator 0 exists whenever one with the same hash and a higher one does: a name whose (hash, 0) is
/// absent, or there, of another name and not chained, does not exist. If (hash, 0) itself goes while others stay it becomes a
/// vacant entry: inode 0, no name, chained.
struct dirent_row {
  inode_number inode = 0;
  std::uint32_t type = 0; ///< S_IFMT bits
  std::string name;
  bool chained = false; ///< only on disambiguator 0: higher ones exist. TLV 1, empty, absent when false
  std::vector<unknown_field> unknown;
  bool operator==(const dirent_row&) const = default;
};

/// Where an extent's bytes are. Bytes from `visible` on read as zero.
struct extent_row {
  model::segment_ref segment;
  std::uint8_t slot = 0;          ///< index of the data shard
  std::uint8_t codec = 0;         ///< codec::frame_codec
  std::uint32_t position = 0;     ///< in the shard's payload
  std::uint32_t stored = 0;       ///< bytes there, tag included
  std::uint32_t plain = 0;        ///< bytes that come out
  std::uint32_t frame_number = 0;
  std::uint32_t visible = 0;      ///< at most `plain`
  std::vector<unknown_field> unknown;
  bool operator==(const extent_row&) const = default;
};

/// An inode without a name: reaped when nobody holds it, at the latest at the next start.
struct orphan_row {
  std::uint64_t since = 0; ///< operation sequence that took its last name
  std::vector<unknown_field> unknown;
  bool operator==(const orphan_row&) const = default;
};

/// One start of one writer; gives the writer of a segment back, whose rows know only the epoch.
struct session_row {
  std::array<std::byte, 16> writer{};
  std::uint64_t started_ms = 0; ///< since 1970, UTC; for people
  std::vector<unknown_field> unknown;
  bool operator==(const session_row&) const = default;
};

buffer encode(const inode_row& row);
buffer encode(const dirent_row& row);
buffer encode(const extent_row& row);
buffer encode(const orphan_row& row);
buffer encode(const session_row& row);

/// Errors of all: corrupt (naming the kind of row), version_mismatch for an unknown TLV that must not be ignored.
result<inode_row> decode_inode(byte_span value);
result<dirent_row> decode_dirent(byte_span value);
result<extent_row> decode_extent(byte_span value);
result<orphan_row> decode_orphan(byte_span value);
result<session_row> decode_session(byte_span value);
// An xattr's value is the attribute's bytes and nothing else.

/// What the rows' TLVs look like, for rows whose encoding lives elsewhere (segment, group).
void put_field(byte_writer& out, std::uint16_t tag, byte_span bytes);
/// A number in its full width, left out when it is 0.
template <std::unsigned_integral T>
void put_number(byte_writer& out, std::uint16_t tag, T number) {
  if (number == 0) return;
  std::array<std::byte, sizeof(T)> bytes;
  store_le(bytes.data(), number);
  put_field(out, tag, bytes);
}
/// Such a field's number; false, and nothing changed, if it has another width.
template <std::unsigned_integral T>
bool take_number(byte_span field, T& number) {
  if (field.size() != sizeof(T)) return false;
  number = load_le<T>(field.data());
  return true;
}
void put_fields(byte_writer& out, const std::vector<unknown_field>& fields);
/// Reads fields to the end of `in`. `known(tag, bytes)` returns false for a tag it does not know; that one is kept in `unknown`.
template <class F>
status read_fields(byte_reader& in, std::vector<unknown_field>& unknown, F&& known);

/// An inode number: epoch (24 bits) ‖ counter (40 bits). The root is 1.
constexpr inode_number make_inode_number(std::uint32_t epoch, std::uint64_t counter) noexcept {
  return (std::uint64_t{epoch} << 40) | counter;
}

attributes to_attributes(inode_number inode, const inode_row& row);

/// The root directory of a new volume (inode 1), its own parent.
inode_row make_root_row(std::uint32_t uid, std::uint32_t gid, file_time now);

// -- limits of names ----------------------------------------------------------------------------------------------
inline constexpr std::size_t name_bytes_max = 255;
inline constexpr std::size_t symlink_bytes_max = 4095;
inline constexpr std::size_t xattr_value_bytes_max = 64 * kib;
inline constexpr std::size_t xattr_list_bytes_max = 64 * kib;
inline constexpr std::uint32_t nlink_max = 0x7fff'ffff;
inline constexpr std::size_t field_bytes_max = 1 << 20;
inline constexpr std::uint16_t field_must_understand = 0x8000;

template <class F>
status read_fields(byte_reader& in, std::vector<unknown_field>& unknown, F&& known) {
  while (in.ok() && in.left() > 0) {
    auto tag = in.get<std::uint16_t>();
    auto bytes = in.get_sized(field_bytes_max);
    if (!in.ok()) break;
    if (known(tag, bytes)) continue;
    if (tag >= field_must_understand)
      return error{errc::version_mismatch, "a row has a field that only a newer version of qs understands"};
    unknown.push_back({tag, to_buffer(bytes)});
  }
  if (!in.ok()) return error{errc::corrupt, "a row ends inside a field"};
  return {};
}

} // namespace qs::volume
