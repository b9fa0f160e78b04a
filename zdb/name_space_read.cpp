// What a namespace reads by key, out of memory where it can.
#include <algorithm>

#include <fmt/format.h>

#include "base/limits.hpp"
#include "zdb/crc32c.hpp"
#include "zdb/name_space.hpp"

namespace qs::zdb {

namespace {
constexpr std::size_t compare_bytes = 64 << 10;
constexpr std::size_t one_read_bytes = 8 << 10; ///< on the stack
constexpr std::size_t key_bytes_max = limits::zdb_key_bytes_max;

/// The record that begins with `bytes` is one of this key.
bool has_key(byte_span bytes, byte_span key) {
  return record_key_length(bytes) == key.size() &&
         same_bytes(key, bytes.subspan(record_header_bytes, key.size()));
}
} // namespace

const value_block* name_space::cached(const data_file& f, std::uint32_t offset, source from) {
  return from == source::disk ? nullptr : pool_.cache.find(f.serial(), offset);
}

/// The hash of a key led here, and another key stands here. That happens once in four billion; it is
/// damage far more often than that, and what is damaged must not be "not there".
name_space::seen name_space::other_or_damaged(data_file& f, std::uint32_t offset) {
  std::array<std::byte, record_header_bytes + key_bytes_max> bytes; // NOLINT: filled by the read
  auto whole = mutable_byte_span{bytes}.first(
      static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), f.size() - offset)));
  if (auto got = f.read(whole, offset); !got.ok()) {
    note_read_error(got.err());
    return seen::unreadable;
  }
  auto header = peek_record_header(whole);
  if (record_header_bytes + header.key_length <= whole.size() &&
      record_header_fits(byte_span{whole}.first(record_header_bytes),
                         byte_span{whole}.subspan(record_header_bytes, header.key_length), offset))
    return seen::other;
  note_read_error(
      {errc::corrupt, fmt::format("{} at {}: the record is damaged", f.path().string(), offset)});
  return seen::damaged;
}

name_space::seen name_space::key_at(record_place place, byte_span key, record_header* header,
                                    source from) {
  if (key.size() > key_bytes_max) return seen::other; // whatever its hash
  auto* f = file(place.file);
  if (f == nullptr) return seen::unreadable;
  if (auto* known = cached(*f, place.offset, from)) {
    if (!has_key(known->bytes(), key)) return seen::other;
    if (header != nullptr) *header = peek_record_header(known->bytes());
    return seen::same;
  }
  std::array<std::byte, record_header_bytes + key_bytes_max> bytes; // NOLINT: filled by the read
  auto whole = mutable_byte_span{bytes}.first(record_header_bytes + key.size());
  if (std::uint64_t{place.offset} + whole.size() > f->size()) return seen::other; // a shorter key
  if (auto got = f->read(whole, place.offset); !got.ok()) {
    note_read_error(got.err());
    return seen::unreadable;
  }
  auto head = byte_span{whole}.first(record_header_bytes);
  if (!has_key(whole, key)) return other_or_damaged(*f, place.offset);
  auto stored = byte_span{whole}.subspan(record_header_bytes);
  if (!record_header_fits(head, stored, place.offset)) {
    note_read_error({errc::corrupt, fmt::format("{} at {}: the record is damaged",
                                                f->path().string(), place.offset)});
    return seen::damaged;
  }
  if (header != nullptr) *header = peek_record_header(head);
  return seen::same;
}

name_space::position name_space::locate(byte_span key, bool with_header) {
  auto p = look_up(key, with_header);
  if (!p.waits) return p;
  settle();
  return look_up(key, with_header);
}

name_space::position name_space::look_up(byte_span key, bool with_header) {
  position p;
  auto look_at = [&](record_place place) {
    p.waits = waits(place);
    if (p.waits) return true;
    auto what = key_at(place, key, &p.header);
    // What cannot be read might be it: to go on would be to say that it is not there.
    p.state = what == seen::unreadable ? read_answer::unreadable
              : what == seen::damaged  ? read_answer::damaged
              : what == seen::same     ? read_answer::found
                                       : read_answer::missing;
    return what != seen::other;
  };
  if (settings_.sequential) {
    if (!is_sequential_key(key)) return p;
    auto entry = ids_.find(id_of(key));
    if (!entry.ok()) {
      note_read_error(entry.err());
      p.state = read_answer::unreadable;
      return p;
    }
    p.entry = *entry;
    if (!p.entry.place.valid()) return p;
    p.waits = waits(p.entry.place);
    p.state = read_answer::found;
    // Another key at an id's place is damage.
    if (with_header && !p.waits && !look_at(p.entry.place)) p.state = read_answer::damaged;
    return p;
  }
  auto found = keys_.find(key, look_at);
  p.slot = found.slot;
  p.entry = found.entry;
  return p;
}

read_answer name_space::exists(byte_span key) {
  return locate(key, false).state;
}

read_answer name_space::look(byte_span key, record_header& out) {
  auto p = locate(key, true);
  out = p.header;
  return p.state;
}

/// The value of `key`, `length` bytes, if it is this key's record that stands at `at`: header, key
/// and payload in one read, as the slot knows the length. missing: it is another's.
read_answer name_space::value_at(record_place at, byte_span key, std::uint32_t length, source from,
                                 value_block& out) {
  if (key.size() > key_bytes_max) return read_answer::missing; // whatever its hash
  auto* f = file(at.file);
  if (f == nullptr) return read_answer::unreadable;
  auto before = record_header_bytes + key.size();
  if (auto* known = cached(*f, at.offset, from)) {
    if (!has_key(known->bytes(), key)) return read_answer::missing;
    out = known->rest(before); // checked when it came to memory
    return read_answer::found;
  }
  if (std::uint64_t{at.offset} + before + length > f->size())
    return read_answer::missing; // a shorter key with the same hash
  // In one block if it is to be kept, as it stands on the disk.
  auto keep = pool_.cache.takes(before + length);
  std::array<std::byte, record_header_bytes + key_bytes_max> head; // NOLINT: filled by the read
  value_block body{keep ? before + length : length};
  iovec parts[2] = {{keep ? body.bytes().data() : head.data(), before},
                    {body.bytes().data() + (keep ? before : 0), length}};
  if (keep) parts[0].iov_len += length;
  if (auto got = f->read({parts, keep || length == 0 ? 1U : 2U}, at.offset); !got.ok()) {
    note_read_error(got.err());
    return read_answer::unreadable;
  }
  auto whole = keep ? byte_span{body.bytes()}.first(before) : byte_span{head}.first(before);
  if (!has_key(whole, key)) // another key with the same hash
    switch (other_or_damaged(*f, at.offset)) {
    case seen::damaged:
      return read_answer::damaged;
    case seen::unreadable:
      return read_answer::unreadable;
    default:
      return read_answer::missing;
    }
  auto found = peek_record_header(whole);
  auto value = keep ? body.rest(before) : body;
  if (!record_header_fits(whole.first(record_header_bytes), whole.subspan(record_header_bytes),
                          at.offset) ||
      found.payload_length != length || crc32c(value.bytes()) != found.payload_crc) {
    note_read_error({errc::corrupt, fmt::format("{} at {}: the record is damaged",
                                                f->path().string(), at.offset)});
    return read_answer::damaged;
  }
  out = std::move(value);
  if (keep) pool_.cache.put(f->serial(), at.offset, std::move(body));
  return read_answer::found;
}

read_answer name_space::get(byte_span key, value_block& out, source from) {
  auto answer = read_answer::missing;
  auto gathered = false; // then it is written first, and looked for again
  if (settings_.sequential) {
    if (!is_sequential_key(key)) return answer;
    auto entry = ids_.find(id_of(key));
    if (!entry.ok()) {
      note_read_error(entry.err());
      return read_answer::unreadable;
    }
    if (!entry->place.valid()) return answer;
    if (waits(entry->place)) {
      settle();
      return get(key, out, from);
    }
    answer = value_at(entry->place, key, entry->length, from, out);
    // Another key at an id's place is damage.
    if (answer != read_answer::missing) return answer;
    note_read_error({errc::corrupt, fmt::format("{} at {}: not the record of this id",
                                                directory_.string(), entry->place.offset)});
    return read_answer::damaged;
  }
  keys_.find(key, [&](record_place at, std::uint32_t length) {
    gathered = waits(at);
    if (gathered) return true;
    answer = value_at(at, key, length, from, out);
    return answer != read_answer::missing;
  });
  if (!gathered) return answer;
  settle();
  return get(key, out, from);
}

read_answer name_space::get_range(byte_span key, std::uint64_t offset, std::uint64_t length,
                                  value_block& out) {
  auto p = locate(key, true);
  if (p.state != read_answer::found) return p.state;
  std::uint64_t size = p.header.payload_length;
  offset = std::min(offset, size);
  length = std::min(length, size - offset);
  value_block body{static_cast<std::size_t>(length)};
  auto* f = file(p.entry.place.file);
  auto before = record_header_bytes + key.size();
  if (auto* known = cached(*f, p.entry.place.offset, source::anywhere)) {
    auto part = byte_span{known->bytes()}.subspan(before + offset, length);
    std::copy(part.begin(), part.end(), body.bytes().begin());
    out = std::move(body);
    return read_answer::found;
  }
  auto at = p.entry.place.offset + before + offset;
  if (auto got = f->read(body.bytes(), at); !got.ok()) {
    note_read_error(got.err());
    return read_answer::unreadable;
  }
  if (length == size && crc32c(body.bytes()) != p.header.payload_crc) {
    note_read_error({errc::corrupt, fmt::format("{} at {}: the record is damaged",
                                                f->path().string(), p.entry.place.offset)});
    return read_answer::damaged;
  }
  out = std::move(body);
  return read_answer::found;
}

/// A small record in one read. False: too large for that, or something is different.
bool name_space::same_record(data_file& f, std::uint32_t offset, byte_span key, byte_span value) {
  std::array<std::byte, one_read_bytes> bytes; // NOLINT: filled by the read
  auto before = record_header_bytes + key.size();
  if (before + value.size() > bytes.size() || offset + before + value.size() > f.size()) return false;
  auto whole = mutable_byte_span{bytes}.first(before + value.size());
  if (!f.read(whole, offset).ok()) return false;
  auto stored_key = byte_span{whole}.subspan(record_header_bytes, key.size());
  return has_key(whole, key) &&
         record_header_fits(byte_span{whole}.first(record_header_bytes), stored_key, offset) &&
         same_bytes(byte_span{whole}.subspan(before), value);
}

/// On the disk, so that a value that is damaged there is written again.
bool name_space::same_value(record_place place, byte_span key, byte_span value) {
  auto* f = file(place.file);
  // What is in memory says nothing of the disk: not of the header either.
  if (cached(*f, place.offset, source::anywhere) != nullptr) {
    if (same_record(*f, place.offset, key, value)) return true;
    if (key_at(place, key, nullptr, source::disk) != seen::same) return false;
  }
  buffer piece(std::min(compare_bytes, value.size()));
  for (std::size_t at = 0; at < value.size();) {
    auto n = std::min(piece.size(), value.size() - at);
    auto part = mutable_byte_span{piece}.first(n);
    auto got = f->read(part, std::uint64_t{place.offset} + record_header_bytes + key.size() + at);
    if (!got.ok()) {
      note_read_error(got.err());
      return false;
    }
    if (!same_bytes(part, value.subspan(at, n))) return false;
    at += n;
  }
  return true;
}

} // namespace qs::zdb
