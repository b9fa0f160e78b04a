#include "zdb/record.hpp"

#include <fmt/format.h>

#include "zdb/crc32c.hpp"

namespace qs::zdb {

namespace {
constexpr std::string_view magic{"QSZDB\r\n\x1a", 8};
constexpr std::uint32_t version = 1;
constexpr std::uint32_t flag_flushes = 1;
constexpr std::uint32_t flag_compacted = 2;
// Not zero, so that a hole of zeros is no header.
constexpr std::uint32_t header_seed = 0x7a646221;
} // namespace

std::array<std::byte, file_header_bytes> encode_file_header(const file_header& header) {
  std::array<std::byte, file_header_bytes> out{};
  std::memcpy(out.data(), magic.data(), magic.size());
  store_le(out.data() + 8, version);
  store_le(out.data() + 12, header.id);
  store_le(out.data() + 16, (header.flushes ? flag_flushes : 0U) |
                                (header.compacted ? flag_compacted : 0U));
  out[20] = std::byte{header.sequential ? std::uint8_t{1} : std::uint8_t{0}};
  if (header.compacted) {
    store_le(out.data() + 24, header.first);
    store_le(out.data() + 28, header.last);
    store_le(out.data() + 32, header.next_id);
    store_le(out.data() + 40, header.written);
  }
  store_le(out.data() + 60, crc32c(byte_span{out}.first(60), header_seed));
  return out;
}

result<file_header> decode_file_header(byte_span bytes) {
  if (bytes.size() < file_header_bytes || as_text(bytes.first(magic.size())) != magic)
    return error{errc::corrupt, "not a zdb data file"};
  if (load_le<std::uint32_t>(bytes.data() + 60) != crc32c(bytes.first(60), header_seed))
    return error{errc::corrupt, "the file header is damaged"};
  auto v = load_le<std::uint32_t>(bytes.data() + 8);
  auto flags = load_le<std::uint32_t>(bytes.data() + 16);
  if (v != version || flags > flag_compacted) // never both
    return error{errc::version_mismatch,
                 fmt::format("data file version {} flags {}: made by a newer zdb", v, flags)};
  file_header h;
  h.id = h.first = h.last = load_le<std::uint32_t>(bytes.data() + 12);
  h.flushes = flags == flag_flushes;
  h.sequential = bytes[20] == std::byte{1};
  h.compacted = flags == flag_compacted;
  if (h.compacted) {
    h.first = load_le<std::uint32_t>(bytes.data() + 24);
    h.last = load_le<std::uint32_t>(bytes.data() + 28);
    h.next_id = load_le<std::uint64_t>(bytes.data() + 32);
    h.written = load_le<std::uint32_t>(bytes.data() + 40);
    if (h.first == 0 || h.first > h.last || h.last >= h.id)
      return error{errc::corrupt, "the file header makes no sense"};
  }
  return h;
}

std::array<std::byte, record_header_bytes>
encode_record_header(const record_header& header, byte_span key, std::uint32_t offset) {
  QS_ASSERT(key.size() == header.key_length);
  std::array<std::byte, record_header_bytes> out{};
  store_le(out.data() + 4, header.payload_length);
  store_le(out.data() + 8, header.payload_crc);
  store_le(out.data() + 12, header.timestamp);
  store_le(out.data() + 16, header.previous.file);
  store_le(out.data() + 20, header.previous.offset);
  store_le(out.data() + 24, offset);
  out[28] = static_cast<std::byte>(header.kind);
  out[29] = std::byte{header.key_length};
  store_le(out.data() + 30, std::uint16_t{header.moved ? std::uint16_t{1} : std::uint16_t{0}});
  auto crc = crc32c(byte_span{out}.subspan(4), header_seed);
  store_le(out.data(), crc32c(key, crc));
  return out;
}

record_header peek_record_header(byte_span bytes) noexcept {
  record_header h;
  h.payload_length = load_le<std::uint32_t>(bytes.data() + 4);
  h.payload_crc = load_le<std::uint32_t>(bytes.data() + 8);
  h.timestamp = load_le<std::uint32_t>(bytes.data() + 12);
  h.previous = {load_le<std::uint32_t>(bytes.data() + 16),
                load_le<std::uint32_t>(bytes.data() + 20)};
  h.kind = static_cast<record_kind>(bytes[28]);
  h.key_length = std::to_integer<std::uint8_t>(bytes[29]);
  h.moved = bytes[30] == std::byte{1};
  return h;
}

bool record_header_fits(byte_span header, byte_span key, std::uint32_t offset) noexcept {
  if (header.size() != record_header_bytes || load_le<std::uint32_t>(header.data() + 24) != offset)
    return false;
  auto kind = std::to_integer<std::uint8_t>(header[28]);
  if (kind != 1 && kind != 2) return false;
  auto crc = crc32c(header.subspan(4), header_seed);
  return load_le<std::uint32_t>(header.data()) == crc32c(key, crc);
}

} // namespace qs::zdb
