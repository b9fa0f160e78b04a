// SCAN: walks the data files from a cursor on and gives what the index says is alive.
// Needs no memory of its own.
#include <chrono>

#include <fmt/format.h>

#include "zdb/name_space.hpp"

namespace qs::zdb {

namespace {
constexpr std::size_t page_items = 4096;
} // namespace

namespace {
constexpr std::size_t cursor_bytes = 17;

std::string make_cursor(const record_header& header, record_place place) {
  buffer out;
  byte_writer{out}
      .put(header.key_length)
      .put(place.file)
      .put(header.payload_length)
      .put(place.offset)
      .put(header.payload_crc);
  return to_string(out);
}
} // namespace

result<name_space::page> name_space::scan(byte_span cursor, scan_order) {
  page out;
  record_place from;
  if (!cursor.empty()) {
    error wrong{errc::invalid_argument, "not a cursor"};
    if (cursor.size() != cursor_bytes) return wrong;
    byte_reader in{cursor};
    auto key_length = in.get<std::uint8_t>();
    from.file = in.get<std::uint32_t>();
    auto length = in.get<std::uint32_t>();
    from.offset = in.get<std::uint32_t>();
    auto crc = in.get<std::uint32_t>();
    auto* f = file(from.file);
    std::array<std::byte, record_header_bytes + 255> bytes{};
    auto whole = mutable_byte_span{bytes}.first(record_header_bytes + key_length);
    if (f == nullptr || from.offset < file_header_bytes || from.offset + whole.size() > f->size())
      return wrong;
    QS_TRY(f->read(whole, from.offset));
    auto header = peek_record_header(whole);
    if (header.key_length != key_length || header.payload_length != length ||
        header.payload_crc != crc ||
        !record_header_fits(byte_span{whole}.first(record_header_bytes),
                            byte_span{whole}.subspan(record_header_bytes), from.offset))
      return wrong;
    from.offset = static_cast<std::uint32_t>(from.offset +
                                             header.record_bytes()); // < 2^32: it is in the file
  }
  auto start = std::chrono::steady_clock::now();
  std::size_t seen = 0;
  bool full = false;
  record_header last;
  record_place last_at;
  for (auto it = files_.lower_bound(from.file); it != files_.end() && !full; ++it) {
    auto& f = *it->second;
    auto visit = [&](const record_header& header, byte_span key, std::uint32_t offset) {
      if (full) return false;
      record_place here{f.id(), offset};
      last = header;
      last_at = here;
      auto live = header.kind == record_kind::set &&
                  (settings_.sequential
                       ? is_sequential_key(key) && ids_.find(id_of(key)).place == here
                       : keys_.find(key, [&](record_place p) { return p == here; }).there());
      if (live) out.items.push_back({to_string(key), header.payload_length, header.timestamp});
      if (out.items.size() >= page_items) full = true;
      if (++seen % 64 == 0) {
        auto spent = std::chrono::steady_clock::now() - start;
        // Nothing alive yet: go on for longer, then hand out an empty page from which to continue.
        full = full || spent > (out.items.empty() ? std::chrono::milliseconds{50}
                                                  : std::chrono::milliseconds{2});
      }
      return true;
    };
    auto begin = f.id() == from.file ? from.offset : std::uint32_t{file_header_bytes};
    QS_TRY_ASSIGN(auto stopped, f.walk(begin, f.size(), visit));
    if (!full && stopped < f.size())
      note_read_error({errc::corrupt, fmt::format("{} at {}: SCAN steps over damage",
                                                  f.path().string(), stopped)});
  }
  if (!out.items.empty() || full) out.cursor = make_cursor(last, last_at);
  return out;
}

} // namespace qs::zdb
