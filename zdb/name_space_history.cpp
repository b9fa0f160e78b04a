// Versions of keys and records as they stand in their files: HISTORY and DATA RAW.
#include <fmt/format.h>

#include "zdb/crc32c.hpp"
#include "zdb/name_space.hpp"

namespace qs::zdb {

std::string encode_reference(record_place place) {
  buffer out;
  byte_writer{out}.put(place.file).put(place.offset);
  return to_string(out);
}

std::optional<record_place> decode_reference(byte_span bytes) noexcept {
  if (bytes.size() != 8) return std::nullopt;
  return record_place{load_le<std::uint32_t>(bytes.data()),
                      load_le<std::uint32_t>(bytes.data() + 4)};
}

/// The payload behind a header that was read; errc::corrupt if its checksum does not fit.
result<value_block> name_space::read_payload(record_place place, const record_header& header) {
  auto* f = file(place.file);
  value_block body{header.payload_length};
  QS_TRY(f->read(body.bytes(), std::uint64_t{place.offset} + record_header_bytes +
                                   header.key_length));
  if (crc32c(body.bytes()) != header.payload_crc)
    return error{errc::corrupt,
                 fmt::format("{} at {}: the record is damaged", f->path().string(), place.offset)};
  return body;
}

history_answer name_space::history(byte_span key, std::optional<record_place> at,
                                   key_version& out) {
  settle();
  record_place place;
  if (at) {
    place = *at;
    if (file(place.file) == nullptr)
      return place.valid() && place.file <= last_file_ ? history_answer::no_more
                                                       : history_answer::bad_reference;
  } else {
    auto live = locate(key, false);
    if (live.state == read_answer::missing) return history_answer::missing;
    if (live.state != read_answer::found) return history_answer::failed;
    place = live.entry.place;
  }
  std::string stored;
  auto header = read_head(place, stored);
  if (!header.ok() && at && header.err().code == errc::corrupt)
    return history_answer::bad_reference;
  if (!header.ok()) {
    note_read_error(header.err());
    return history_answer::failed;
  }
  auto same = byte_span{as_bytes(stored)};
  if (!std::equal(same.begin(), same.end(), key.begin(), key.end()))
    return history_answer::other_key;
  auto body = read_payload(place, *header);
  if (!body.ok()) {
    note_read_error(body.err());
    return history_answer::failed;
  }
  out.timestamp = header->timestamp;
  out.payload = std::move(*body);
  out.previous = {};
  if (!header->moved && file(header->previous.file) != nullptr) out.previous = header->previous;
  return history_answer::found;
}

raw_answer name_space::raw(std::uint32_t id, std::uint64_t offset, raw_record& out) {
  settle();
  auto* f = file(id);
  if (f == nullptr) return raw_answer::bad_request;
  offset = std::max<std::uint64_t>(offset, file_header_bytes);
  if (offset >= f->size()) return raw_answer::end_of_file;
  record_place place{id, static_cast<std::uint32_t>(offset)};
  auto header = read_head(place, out.key);
  if (!header.ok())
    return header.err().code == errc::corrupt ? raw_answer::bad_request : raw_answer::failed;
  auto body = read_payload(place, *header);
  if (!body.ok()) {
    note_read_error(body.err());
    return raw_answer::failed;
  }
  out.header = *header;
  out.payload = std::move(*body);
  out.offset = place.offset;
  out.next = offset + header->record_bytes();
  return raw_answer::found;
}

std::vector<std::uint32_t> name_space::changed_files() const {
  return {changed_.begin(), changed_.end()};
}

} // namespace qs::zdb
