#include "zdb/name_space.hpp"

#include <algorithm>
#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/log.hpp"
#include "zdb/crc32c.hpp"

namespace qs::zdb {

namespace {
constexpr std::size_t compare_bytes = 64 << 10;
} // namespace

name_space::name_space(file_pool& pool, std::filesystem::path directory, limits lim)
    : pool_{pool}, directory_{std::move(directory)}, limits_{lim}, keys_{lim.hash_key} {}

data_file* name_space::file(std::uint32_t id) {
  auto it = files_.find(id);
  return it == files_.end() ? nullptr : it->second.get();
}

void name_space::note_read_error(const error& why) {
  ++read_errors;
  log::error("zdb", "{}", describe(why));
}

// -- looking up -----------------------------------------------------------------------------------

bool name_space::key_at(record_place place, byte_span key, record_header* header) {
  auto* f = file(place.file);
  if (f == nullptr) return false;
  std::array<std::byte, record_header_bytes + 255> bytes; // NOLINT: filled by the read
  auto whole = mutable_byte_span{bytes}.first(record_header_bytes + key.size());
  if (auto got = f->read(whole, place.offset); !got.ok()) {
    note_read_error(got.err());
    return false;
  }
  auto head = byte_span{whole}.first(record_header_bytes);
  auto seen = peek_record_header(head);
  if (seen.key_length != key.size()) return false;
  auto stored = byte_span{whole}.subspan(record_header_bytes);
  if (!std::equal(stored.begin(), stored.end(), key.begin())) return false;
  if (!record_header_fits(head, stored, place.offset)) {
    note_read_error({errc::corrupt, fmt::format("{} at {}: the record is damaged",
                                                f->path().string(), place.offset)});
    return false;
  }
  if (header != nullptr) *header = seen;
  return true;
}

name_space::position name_space::locate(byte_span key, bool with_header) {
  position p;
  if (settings_.sequential) {
    if (!is_sequential_key(key)) return p;
    auto entry = ids_.find(id_of(key));
    if (!entry.place.valid()) return p;
    if (with_header && !key_at(entry.place, key, &p.header)) return p;
    p.entry = entry;
    p.slot = 0;
    return p;
  }
  auto found = keys_.find(key, [&](record_place place) { return key_at(place, key, &p.header); });
  p.slot = found.slot;
  p.entry = found.entry;
  return p;
}

bool name_space::exists(byte_span key) { return locate(key, false).entry.place.valid(); }

read_answer name_space::look(byte_span key, record_header& out) {
  auto p = locate(key, true);
  if (!p.entry.place.valid()) return read_answer::missing;
  out = p.header;
  return read_answer::found;
}

read_answer name_space::get(byte_span key, value_block& out) {
  record_place place;
  std::uint32_t crc = 0;
  // Header, key and payload in one read: the slot knows the length.
  auto read = [&](record_place at, std::uint32_t length) -> read_answer {
    auto* f = file(at.file);
    if (f == nullptr) return read_answer::unreadable;
    std::array<std::byte, record_header_bytes + 255> head; // NOLINT: filled by the read
    value_block body{length};
    iovec parts[2] = {{head.data(), record_header_bytes + key.size()},
                      {body.bytes().data(), length}};
    if (auto got = f->read({parts, length > 0 ? 2U : 1U}, at.offset); !got.ok()) {
      note_read_error(got.err());
      return read_answer::unreadable;
    }
    auto header = byte_span{head}.first(record_header_bytes);
    auto stored = byte_span{head}.subspan(record_header_bytes, key.size());
    auto seen = peek_record_header(header);
    if (seen.key_length != key.size() || !std::equal(stored.begin(), stored.end(), key.begin()))
      return read_answer::missing; // another key with the same hash
    if (!record_header_fits(header, stored, at.offset) || seen.payload_length != length)
      return read_answer::damaged;
    crc = seen.payload_crc;
    out = std::move(body);
    return read_answer::found;
  };
  auto answer = read_answer::missing;
  if (settings_.sequential) {
    if (!is_sequential_key(key)) return answer;
    auto entry = ids_.find(id_of(key));
    if (!entry.place.valid()) return answer;
    place = entry.place;
    answer = read(entry.place, entry.length);
    if (answer == read_answer::missing) answer = read_answer::damaged;
  } else {
    keys_.find(key, [&](record_place at, std::uint32_t length) {
      answer = read(at, length);
      place = at;
      return answer != read_answer::missing;
    });
  }
  if (answer == read_answer::found && crc32c(out.bytes()) != crc) answer = read_answer::damaged;
  if (answer == read_answer::damaged) {
    auto* f = file(place.file);
    note_read_error(
        {errc::corrupt, fmt::format("{} at {}: the record is damaged",
                                    f != nullptr ? f->path().string() : "?", place.offset)});
  }
  return answer;
}

bool name_space::same_value(record_place place, byte_span key, byte_span value) {
  auto* f = file(place.file);
  buffer piece(std::min(compare_bytes, value.size()));
  for (std::size_t at = 0; at < value.size();) {
    auto n = std::min(piece.size(), value.size() - at);
    auto part = mutable_byte_span{piece}.first(n);
    auto got = f->read(part, std::uint64_t{place.offset} + record_header_bytes + key.size() + at);
    if (!got.ok()) {
      note_read_error(got.err());
      return false;
    }
    if (!std::equal(part.begin(), part.end(), value.begin() + static_cast<std::ptrdiff_t>(at)))
      return false;
    at += n;
  }
  return true;
}

// -- writing --------------------------------------------------------------------------------------

status name_space::rotate(bool flushes) {
  QS_TRY_ASSIGN(auto made, data_file::create(pool_, directory_,
                                             {last_file_ + 1, flushes, settings_.sequential}));
  ++last_file_;
  names_changed_ = true;
  files_.emplace(last_file_, std::move(made));
  return {};
}

status name_space::append(const record_header& header, byte_span key, byte_span value,
                          record_place& place) {
  if (failed_)
    return error{errc::io, "the namespace takes no writes until the server is started anew"};
  auto need = header.record_bytes();
  if (files_.empty() || (active_file() != last_file_) ||
      (files_.rbegin()->second->size() > file_header_bytes &&
       files_.rbegin()->second->size() + need > limits_.datasize))
    QS_TRY(rotate(false));
  auto& active = *files_.rbegin()->second;
  auto offset = static_cast<std::uint32_t>(active.size());
  auto head = encode_record_header(header, key, offset);
  iovec parts[3] = {{head.data(), head.size()},
                    {const_cast<std::byte*>(key.data()), key.size()},
                    {const_cast<std::byte*>(value.data()), value.size()}};
  auto written = active.append({parts, value.empty() ? 2U : 3U});
  if (!written.ok()) {
    if (!std::exchange(write_failing_, true)) log::error("zdb", "{}", describe(written.err()));
    ++write_errors;
    if (written.err().code == errc::corrupt) failed_ = true;
    return written;
  }
  write_failing_ = false;
  place = {active.id(), offset};
  return {};
}

namespace {
write_answer failure(const error& why) {
  return why.code == errc::no_space ? write_answer::no_space : write_answer::failed;
}
} // namespace

write_answer name_space::set(byte_span key, byte_span value, std::uint32_t timestamp, bool only_new,
                             std::string& id) {
  auto old = settings_.sequential && key.empty() ? position{} : locate(key, true);
  auto there = old.entry.place.valid();
  if (settings_.sequential && !key.empty() && !there) return write_answer::update_only;
  if (there && only_new) return write_answer::exists;
  if (there && settings_.worm) return write_answer::worm;
  auto old_length = there ? old.entry.length : 0;
  if (settings_.maxsize > 0 && live_bytes_ + value.size() > settings_.maxsize + old_length)
    return write_answer::no_space;

  std::array<std::byte, 8> new_id{};
  if (settings_.sequential && key.empty()) {
    store_le(new_id.data(), ids_.next_id());
    key = new_id;
  }
  id = to_string(key);
  record_header header;
  header.payload_length = static_cast<std::uint32_t>(value.size());
  header.payload_crc = crc32c(value);
  header.timestamp = timestamp;
  header.previous = old.entry.place;
  header.key_length = static_cast<std::uint8_t>(key.size());
  if (there && old.header.payload_crc == header.payload_crc && old_length == value.size() &&
      same_value(old.entry.place, key, value))
    return write_answer::identical;

  index_entry entry{{}, header.payload_length};
  if (auto done = append(header, key, value, entry.place); !done.ok()) return failure(done.err());
  live_bytes_ += value.size();
  live_bytes_ -= old_length;
  if (settings_.sequential)
    ids_.put(id_of(key), entry);
  else if (there)
    keys_.replace(old.slot, entry);
  else
    keys_.insert(key, entry);
  return write_answer::stored;
}

write_answer name_space::erase(byte_span key, std::uint32_t timestamp) {
  auto old = locate(key, false);
  if (!old.entry.place.valid()) return write_answer::missing;
  record_header header;
  header.timestamp = timestamp;
  header.previous = old.entry.place;
  header.kind = record_kind::erase;
  header.key_length = static_cast<std::uint8_t>(key.size());
  record_place place;
  if (auto done = append(header, key, {}, place); !done.ok()) return failure(done.err());
  live_bytes_ -= old.entry.length;
  if (settings_.sequential)
    ids_.erase(id_of(key));
  else
    keys_.erase(old.slot);
  return write_answer::stored;
}

result<std::vector<std::filesystem::path>> name_space::flush() {
  std::vector<std::filesystem::path> old;
  if (failed_)
    return error{errc::io, "the namespace takes no writes until the server is started anew"};
  if (files_.empty()) return old;
  QS_TRY(rotate(true));
  for (auto it = files_.begin(); it->first != last_file_; it = files_.erase(it))
    old.push_back(it->second->path());
  keys_ = user_index{limits_.hash_key};
  ids_ = {};
  live_bytes_ = 0;
  synced_ = {};
  return old;
}

// -- what is on disk
// --------------------------------------------------------------------------------

sync_mark name_space::end() const noexcept {
  if (files_.empty()) return synced_;
  return {files_.rbegin()->first, files_.rbegin()->second->size()};
}

std::uint64_t name_space::entries() const noexcept {
  return settings_.sequential ? ids_.size() : keys_.size();
}

std::uint64_t name_space::disk_bytes() const noexcept {
  std::uint64_t n = 0;
  for (auto& [id, f] : files_) n += f->size();
  return n;
}

std::uint64_t name_space::index_bytes() const noexcept {
  return keys_.memory_bytes() + ids_.memory_bytes();
}

bool name_space::linked() const {
  return std::all_of(files_.begin(), files_.end(), [](auto& f) { return f.second->linked(); });
}

result<sync_job> name_space::make_sync_job() {
  if (failed_) return error{errc::io, "the namespace has failed"};
  sync_job job;
  job.directory = directory_;
  job.mark = end();
  job.names_changed = std::exchange(names_changed_, false);
  for (auto it = files_.lower_bound(synced_.file); it != files_.end(); ++it) {
    if (it->first == synced_.file && it->second->size() == synced_.size) continue;
    QS_TRY_ASSIGN(auto fd, it->second->descriptor());
    job.files.push_back(std::move(fd));
  }
  return job;
}

void name_space::sync_done(const sync_job& job, const status& outcome) {
  if (outcome.ok()) {
    synced_ = std::max(synced_, job.mark);
    return;
  }
  // The kernel may have dropped the pages it could not write, and would say yes the next time:
  // never ask again.
  failed_ = true;
  ++write_errors;
  log::error("zdb", "namespace {}: {}: no more writes until the server is started anew",
             settings_.name, describe(outcome.err()));
}

} // namespace qs::zdb
