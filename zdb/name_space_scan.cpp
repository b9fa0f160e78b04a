// Walking a namespace: SCAN, RSCAN, KSCAN and their cursors. Goes through the data files in the
// order in which records were written and gives what the index says is alive. Needs no memory of
// its own. A cursor names the place where its item was written first, which compaction keeps in
// the record, so that it stays good.
#include <chrono>

#include <fmt/format.h>

#include "zdb/name_space.hpp"

namespace qs::zdb {

namespace {
constexpr std::size_t page_items = 4096;
constexpr std::size_t cursor_bytes = 17;
constexpr std::chrono::milliseconds page_time{2};

std::string make_cursor(const record_header& header, record_place origin) {
  buffer out;
  byte_writer{out}
      .put(header.key_length)
      .put(origin.file)
      .put(header.payload_length)
      .put(origin.offset)
      .put(header.payload_crc);
  return to_string(out);
}

/// Says when a page has taken long enough; looks at the clock now and then.
class page_clock {
public:
  bool over() { return ++asked_ % 64 == 0 && due(); }
  bool due() const { return std::chrono::steady_clock::now() - start_ > page_time; }

private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::size_t asked_ = 0;
};

bool begins_with(byte_span key, byte_span prefix) {
  return key.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), key.begin());
}
} // namespace

result<bool> name_space::is_live(const record_header& header, byte_span key, record_place here) {
  if (header.kind != record_kind::set) return false;
  auto is_it = [&](record_place p) {
    if (p == here) return true;
    // The compactor may have pointed the index at its copy already.
    if (moving_to_ == 0 || p.file != moving_to_) return false;
    std::string ignored;
    auto copy = read_head(p, ignored);
    return copy.ok() && copy->origin(p) == header.origin(here);
  };
  if (settings_.sequential) {
    if (!is_sequential_key(key)) return false;
    QS_TRY_ASSIGN(auto entry, ids_.find(id_of(key)));
    return entry.place.valid() && is_it(entry.place);
  }
  return keys_.find(key, is_it).there();
}

result<record_header> name_space::read_head(record_place place, std::string& key) {
  error none{errc::corrupt, "no record stands there"};
  auto* f = file(place.file);
  if (f == nullptr || place.offset < file_header_bytes ||
      std::uint64_t{place.offset} + record_header_bytes > f->size())
    return none;
  std::array<std::byte, record_header_bytes + 255> bytes; // NOLINT: filled by the read
  auto whole = mutable_byte_span{bytes}.first(
      std::min<std::size_t>(bytes.size(), static_cast<std::size_t>(f->size() - place.offset)));
  QS_TRY(f->read(whole, place.offset));
  auto head = byte_span{whole}.first(record_header_bytes);
  auto header = peek_record_header(head);
  if (place.offset + header.record_bytes() > f->size()) return none;
  auto stored = byte_span{whole}.subspan(record_header_bytes, header.key_length);
  if (!record_header_fits(head, stored, place.offset)) return none;
  key = to_string(stored);
  return header;
}

result<record_place> name_space::read_cursor(byte_span cursor) {
  error wrong{errc::invalid_argument, "not a cursor"};
  if (cursor.size() != cursor_bytes) return wrong;
  byte_reader in{cursor};
  auto key_length = in.get<std::uint8_t>();
  record_place origin;
  origin.file = in.get<std::uint32_t>();
  auto length = in.get<std::uint32_t>();
  origin.offset = in.get<std::uint32_t>();
  auto crc = in.get<std::uint32_t>();
  if (!origin.valid() || origin.file > last_file_ || origin.offset < file_header_bytes)
    return wrong;
  auto* f = file(origin.file);
  if (f == nullptr || f->header().compacted) return origin; // its file was compacted or flushed
  std::string key;
  auto header = read_head(origin, key);
  if (!header.ok()) return header.err().code == errc::corrupt ? wrong : header.err();
  if (header->key_length != key_length || header->payload_length != length ||
      header->payload_crc != crc)
    return wrong;
  return origin;
}

read_answer name_space::cursor_of(byte_span key, std::string& cursor) {
  settle();
  auto p = locate(key, true);
  if (p.state != read_answer::found) return p.state;
  cursor = make_cursor(p.header, p.header.origin(p.entry.place));
  return read_answer::found;
}

result<name_space::page> name_space::scan(byte_span cursor, scan_order order) {
  settle();
  return order == scan_order::oldest_first ? scan_forward(cursor, {}) : scan_backward(cursor);
}

result<name_space::page> name_space::scan_prefix(byte_span prefix, byte_span cursor) {
  settle();
  return scan_forward(cursor, prefix);
}

result<name_space::page> name_space::scan_forward(byte_span cursor, byte_span prefix) {
  page out;
  record_place after; // origins up to this one were given
  auto it = order_.begin();
  if (!cursor.empty()) {
    QS_TRY_ASSIGN(after, read_cursor(cursor));
    it = order_.upper_bound(after.file);
    if (it != order_.begin() && std::prev(it)->second->header().last >= after.file) --it;
  }
  page_clock clock;
  status unknown; // whether something is alive: to step over it would be to say that it is not
  bool full = false;
  record_header last;
  record_place last_origin;
  for (; it != order_.end() && !full; ++it) {
    auto& f = *it->second;
    auto visit = [&](const record_header& header, byte_span key, std::uint32_t offset) {
      if (full) return false;
      record_place here{f.id(), offset};
      auto origin = header.origin(here);
      if (origin <= after) return true;
      last = header;
      last_origin = origin;
      auto live = begins_with(key, prefix) ? is_live(header, key, here) : result<bool>{false};
      if (!live.ok()) {
        unknown = std::move(live).err();
        return false;
      }
      if (*live) out.items.push_back({to_string(key), header.payload_length, header.timestamp});
      full = out.items.size() >= page_items || clock.over();
      return true;
    };
    auto begin = after.valid() ? f.start_for(after) : std::uint32_t{file_header_bytes};
    if (f.header().first > after.file) begin = file_header_bytes;
    for (std::uint64_t from = begin; from < f.size() && !full;) {
      QS_TRY_ASSIGN(from, f.walk(from, f.size(), visit));
      QS_TRY(unknown);
      if (full || from >= f.size()) break;
      note_read_error({errc::corrupt,
                       fmt::format("{} at {}: SCAN steps over damage", f.path().string(), from)});
      QS_TRY_ASSIGN(from, f.next_record(from + 1));
    }
  }
  if (!out.items.empty() || full) out.cursor = make_cursor(last, last_origin);
  return out;
}

result<name_space::page> name_space::scan_backward(byte_span cursor) {
  page out;
  record_place before{~std::uint32_t{0}, ~std::uint32_t{0}}; // origins from here on were given
  if (!cursor.empty()) {
    QS_TRY_ASSIGN(before, read_cursor(cursor));
  }
  page_clock clock;
  status unknown;
  struct item {
    found_key found;
    std::string cursor;
  };
  std::vector<item> block;
  // Records lead forward only: the piece before the one that was given last is walked, and its
  // items handed out from its end.
  for (auto it = order_.upper_bound(before.file); it != order_.begin();) {
    auto& f = *(--it)->second;
    auto covers = f.header().last >= before.file;
    std::uint64_t end = f.size();
    // The piece with `before` in it starts at or before it, so nothing older lies behind it.
    auto start = covers ? f.start_for(before) : f.start_before(end);
    for (;;) {
      block.clear();
      record_header first;
      record_place first_origin;
      bool past = false;
      auto visit = [&](const record_header& header, byte_span key, std::uint32_t offset) {
        record_place here{f.id(), offset};
        auto origin = header.origin(here);
        past = offset >= end || origin >= before;
        if (past) return false;
        if (!first_origin.valid()) {
          first = header;
          first_origin = origin;
        }
        auto live = is_live(header, key, here);
        if (!live.ok()) {
          unknown = std::move(live).err();
          return false;
        }
        if (*live)
          block.push_back({{to_string(key), header.payload_length, header.timestamp},
                           make_cursor(header, origin)});
        return true;
      };
      for (std::uint64_t from = start; from < end;) {
        QS_TRY_ASSIGN(from, f.walk(from, f.size(), visit));
        QS_TRY(unknown);
        if (past || from >= end) break;
        note_read_error({errc::corrupt, fmt::format("{} at {}: RSCAN steps over damage",
                                                    f.path().string(), from)});
        QS_TRY_ASSIGN(from, f.next_record(from + 1));
      }
      for (auto i = block.rbegin(); i != block.rend() && out.items.size() < page_items; ++i) {
        out.items.push_back(std::move(i->found));
        out.cursor = std::move(i->cursor);
      }
      if (out.items.empty() && first_origin.valid()) out.cursor = make_cursor(first, first_origin);
      // Without a cursor (all of it damaged so far) this would say that nothing is left.
      if (out.items.size() >= page_items || (clock.due() && !out.cursor.empty())) return out;
      if (start <= file_header_bytes) break;
      end = start;
      start = f.start_before(end);
    }
  }
  if (out.items.empty()) out.cursor.clear();
  return out;
}

} // namespace qs::zdb
