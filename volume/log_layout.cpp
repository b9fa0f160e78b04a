#include "volume/log_layout.hpp"

#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <fmt/format.h>

#include "base/posix.hpp"
#include "codec/checksum.hpp"

namespace qs::volume::log_layout {

namespace {
constexpr std::uint64_t file_magic = 0x312d676f6c2d7371; // "qs-log-1"
constexpr std::uint64_t mark_magic = 0x316b72616d2d7371; // "qs-mark1"
constexpr std::uint64_t front_magic = 0x31746e72662d7371; // "qs-frnt1"
constexpr std::uint32_t record_magic = 0x43527371;       // "qsRC"
constexpr std::uint32_t format_version = 1;
constexpr std::size_t chain_at = record_header_bytes - 8;
} // namespace

std::string file_name(std::uint64_t number) { return fmt::format("log-{:016x}", number); }

std::optional<std::uint64_t> parse_file_name(std::string_view name) {
  if (name.size() != 20 || !name.starts_with("log-")) return {};
  auto bytes = from_hex(name.substr(4));
  if (!bytes) return {};
  return load_be<std::uint64_t>(bytes->data());
}

buffer encode_file_header(const file_header& header) {
  buffer out;
  byte_writer w{out};
  w.put(file_magic).put(format_version).put_bytes(header.volume).put(header.number);
  w.put(header.before).put(header.synced).put(header.chain);
  w.put(static_cast<std::uint32_t>(codec::checksum64(out)));
  QS_ASSERT(out.size() == file_header_bytes);
  return out;
}

result<file_header> decode_file_header(byte_span bytes) {
  byte_reader in{bytes};
  auto magic = in.get<std::uint64_t>();
  auto version = in.get<std::uint32_t>();
  file_header h;
  h.volume = in.get_array<16>();
  h.number = in.get<std::uint64_t>();
  h.before = in.get<std::uint64_t>();
  h.synced = in.get<std::uint64_t>();
  h.chain = in.get<std::uint64_t>();
  auto sum = in.get<std::uint32_t>();
  if (!in.ok() || magic != file_magic) return error{errc::corrupt, "not a log file of qs"};
  if (sum != static_cast<std::uint32_t>(codec::checksum64(bytes.first(file_header_bytes - 4))))
    return error{errc::corrupt, "the header of a log file is damaged"};
  if (version != format_version)
    return error{errc::version_mismatch, fmt::format("a log file has format {}, this version reads {}", version,
                                                     format_version)};
  return h;
}

std::array<std::byte, record_header_bytes> encode_record_header(const record_header& header, byte_span body,
                                                                std::uint64_t chain_before) {
  buffer out;
  out.reserve(record_header_bytes);
  byte_writer w{out};
  w.put(record_magic).put(header.body_bytes).put(header.data_bytes).put(std::uint32_t{0});
  w.put(header.sequence).put(header.synced).put(header.data_checksum).put(std::uint64_t{0});
  std::array<std::byte, record_header_bytes> bytes{};
  std::copy(out.begin(), out.end(), bytes.begin());
  store_le(bytes.data() + chain_at, chain_of(bytes, body, chain_before));
  return bytes;
}

std::optional<record_header> decode_record_header(byte_span bytes) {
  if (bytes.size() < record_header_bytes) return std::nullopt;
  byte_reader in{bytes};
  record_header h;
  auto magic = in.get<std::uint32_t>();
  h.body_bytes = in.get<std::uint32_t>();
  h.data_bytes = in.get<std::uint32_t>();
  auto reserved = in.get<std::uint32_t>();
  h.sequence = in.get<std::uint64_t>();
  h.synced = in.get<std::uint64_t>();
  h.data_checksum = in.get<std::uint64_t>();
  in.get<std::uint64_t>(); // reserved
  h.chain = record_chain(bytes);
  if (!in.ok() || magic != record_magic || reserved != 0 || h.body_bytes > body_bytes_max ||
      h.data_bytes > data_bytes_max)
    return {};
  return h;
}

std::uint64_t record_chain(byte_span header) { return load_le<std::uint64_t>(header.data() + chain_at); }

std::uint64_t chain_of(byte_span header, byte_span body, std::uint64_t chain_before) {
  return codec::checksum64(body, codec::checksum64(header.first(chain_at), chain_before));
}

buffer encode_watermark(const watermark& mark) {
  buffer out;
  byte_writer w{out};
  w.put(mark_magic).put_bytes(mark.volume).put(mark.sequence).put(mark.chain);
  w.put(codec::checksum64(out));
  QS_ASSERT(out.size() == watermark_bytes);
  return out;
}

std::optional<watermark> decode_watermark(byte_span bytes) {
  byte_reader in{bytes};
  auto magic = in.get<std::uint64_t>();
  watermark m;
  m.volume = in.get_array<16>();
  m.sequence = in.get<std::uint64_t>();
  m.chain = in.get<std::uint64_t>();
  auto sum = in.get<std::uint64_t>();
  if (!in.done() || magic != mark_magic || sum != codec::checksum64(bytes.first(watermark_bytes - 8))) return {};
  return m;
}

buffer encode_front_mark(const front_mark& mark) {
  buffer out;
  byte_writer w{out};
  w.put(front_magic).put_bytes(mark.volume).put(mark.number);
  w.put(codec::checksum64(out));
  QS_ASSERT(out.size() == front_mark_bytes);
  return out;
}

std::optional<front_mark> decode_front_mark(byte_span bytes) {
  byte_reader in{bytes};
  auto magic = in.get<std::uint64_t>();
  front_mark m;
  m.volume = in.get_array<16>();
  m.number = in.get<std::uint64_t>();
  auto sum = in.get<std::uint64_t>();
  if (!in.done() || magic != front_magic || sum != codec::checksum64(bytes.first(front_mark_bytes - 8))) return {};
  return m;
}

status write_pieces(int fd, std::uint64_t offset, std::vector<iovec>& pieces) {
  std::size_t first = 0;
  while (first < pieces.size()) {
    auto count = std::min<std::size_t>(pieces.size() - first, IOV_MAX);
    auto n = ::pwritev(fd, pieces.data() + first, static_cast<int>(count), static_cast<off_t>(offset));
    if (n < 0) {
      if (errno == EINTR) continue;
      auto sys = errno;
      auto e = errno_error("write to the log", sys);
      if (sys == ENOSPC) e.code = errc::no_space;
      return e;
    }
    auto left = static_cast<std::size_t>(n);
    offset += left;
    while (first < pieces.size() && left >= pieces[first].iov_len) left -= pieces[first++].iov_len;
    if (left > 0) {
      pieces[first].iov_base = static_cast<std::byte*>(pieces[first].iov_base) + left;
      pieces[first].iov_len -= left;
    }
  }
  return {};
}

} // namespace qs::volume::log_layout
