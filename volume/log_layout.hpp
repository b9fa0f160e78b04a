// The bytes around records: file header, record header, watermark, front mark (docs/formats/log.md). Between log.cpp, log_reader.cpp and
// tests; nobody else includes it.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <sys/uio.h>
#include <vector>

#include "base/bytes.hpp"
#include "base/result.hpp"
#include "model/ids.hpp"

namespace qs::volume::log_layout {

inline constexpr std::size_t file_header_bytes = 64;
inline constexpr std::size_t record_header_bytes = 56;
inline constexpr std::size_t watermark_bytes = 48;
inline constexpr std::size_t front_mark_bytes = 40;
inline constexpr std::uint32_t body_bytes_max = 64 << 20;
inline constexpr std::uint32_t data_bytes_max = 64 << 20;

std::string file_name(std::uint64_t number);
std::optional<std::uint64_t> parse_file_name(std::string_view name);

struct file_header {
  model::volume_id volume{};
  std::uint64_t number = 0;
  std::uint64_t before = 0; ///< sequence of the last record before this file
  std::uint64_t synced = 0;
  std::uint64_t chain = 0; ///< chained checksum of the last record before this file
};
buffer encode_file_header(const file_header& header);
/// Errors: corrupt, version_mismatch.
result<file_header> decode_file_header(byte_span bytes);

struct record_header {
  std::uint64_t sequence = 0;
  std::uint64_t synced = 0;
  std::uint32_t body_bytes = 0;
  std::uint32_t data_bytes = 0;
  std::uint64_t data_checksum = 0;
  std::uint64_t chain = 0; ///< over the header's other fields and the body, going on from the record before
};
std::array<std::byte, record_header_bytes> encode_record_header(const record_header& header, byte_span body,
                                                                std::uint64_t chain_before);
/// Nothing if it cannot be the header of a record (marker, lengths); the checksums are the caller's.
std::optional<record_header> decode_record_header(byte_span bytes);
std::uint64_t record_chain(byte_span header);
/// What the chain must be.
std::uint64_t chain_of(byte_span header, byte_span body, std::uint64_t chain_before);

struct watermark {
  model::volume_id volume{};
  std::uint64_t sequence = 0;
  std::uint64_t chain = 0;
};
buffer encode_watermark(const watermark& mark);
std::optional<watermark> decode_watermark(byte_span bytes);

/// Files before `number` are there to save reads only: nothing needs them.
struct front_mark {
  model::volume_id volume{};
  std::uint64_t number = 0;
};
buffer encode_front_mark(const front_mark& mark);
std::optional<front_mark> decode_front_mark(byte_span bytes);

/// pwritev of all of it.
status write_pieces(int fd, std::uint64_t offset, std::vector<iovec>& pieces);

} // namespace qs::volume::log_layout
