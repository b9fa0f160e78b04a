#include "zdb/name_space.hpp"

#include <algorithm>
#include <ctime>
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
    : pool_{pool}, directory_{std::move(directory)}, limits_{lim}, keys_{lim.hash_key},
      ids_{pool.ids} {}

data_file* name_space::file(std::uint32_t id) const {
  auto it = files_.find(id);
  return it == files_.end() ? nullptr : it->second.get();
}

void name_space::add_file(file_ptr made) {
  auto& header = made->header();
  order_[header.first] = made.get();
  files_[header.id] = std::move(made);
}

void name_space::note_read_error(const error& why) {
  ++read_errors;
  auto now = static_cast<std::uint32_t>(std::time(nullptr));
  // A disk that is gone fails thousands of times a second: ten lines of a second are enough.
  if (now != last_error_at) errors_said_ = 0;
  last_error_at = now;
  if (errors_said_++ < 10) log::error("zdb", "{}", describe(why));
}

// -- looking up -----------------------------------------------------------------------------------

name_space::seen name_space::key_at(record_place place, byte_span key, record_header* header) {
  auto* f = file(place.file);
  if (f == nullptr) return seen::unreadable;
  std::array<std::byte, record_header_bytes + 255> bytes; // NOLINT: filled by the read
  auto whole = mutable_byte_span{bytes}.first(record_header_bytes + key.size());
  if (std::uint64_t{place.offset} + whole.size() > f->size()) return seen::other; // a shorter key
  if (auto got = f->read(whole, place.offset); !got.ok()) {
    note_read_error(got.err());
    return seen::unreadable;
  }
  auto head = byte_span{whole}.first(record_header_bytes);
  auto stored_header = peek_record_header(head);
  if (stored_header.key_length != key.size()) return seen::other;
  auto stored = byte_span{whole}.subspan(record_header_bytes);
  if (!std::equal(stored.begin(), stored.end(), key.begin())) return seen::other;
  if (!record_header_fits(head, stored, place.offset)) {
    note_read_error({errc::corrupt, fmt::format("{} at {}: the record is damaged",
                                                f->path().string(), place.offset)});
    return seen::damaged;
  }
  if (header != nullptr) *header = stored_header;
  return seen::same;
}

name_space::position name_space::locate(byte_span key, bool with_header) {
  position p;
  auto look_at = [&](record_place place) {
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
    p.state = read_answer::found;
    // Another key at an id's place is damage.
    if (with_header && !look_at(p.entry.place)) p.state = read_answer::damaged;
    return p;
  }
  auto found = keys_.find(key, look_at);
  p.slot = found.slot;
  p.entry = found.entry;
  return p;
}

read_answer name_space::exists(byte_span key) { return locate(key, false).state; }

read_answer name_space::look(byte_span key, record_header& out) {
  auto p = locate(key, true);
  out = p.header;
  return p.state;
}

read_answer name_space::get(byte_span key, value_block& out) {
  record_place place;
  std::uint32_t crc = 0;
  // Header, key and payload in one read: the slot knows the length.
  auto read = [&](record_place at, std::uint32_t length) -> read_answer {
    auto* f = file(at.file);
    if (f == nullptr) return read_answer::unreadable;
    if (std::uint64_t{at.offset} + record_header_bytes + key.size() + length > f->size())
      return read_answer::missing; // a shorter key with the same hash
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
    auto found = peek_record_header(header);
    if (found.key_length != key.size() || !std::equal(stored.begin(), stored.end(), key.begin()))
      return read_answer::missing; // another key with the same hash
    if (!record_header_fits(header, stored, at.offset) || found.payload_length != length)
      return read_answer::damaged;
    crc = found.payload_crc;
    out = std::move(body);
    return read_answer::found;
  };
  auto answer = read_answer::missing;
  if (settings_.sequential) {
    if (!is_sequential_key(key)) return answer;
    auto entry = ids_.find(id_of(key));
    if (!entry.ok()) {
      note_read_error(entry.err());
      return read_answer::unreadable;
    }
    if (!entry->place.valid()) return answer;
    place = entry->place;
    answer = read(entry->place, entry->length);
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

read_answer name_space::get_range(byte_span key, std::uint64_t offset, std::uint64_t length,
                                  value_block& out) {
  auto p = locate(key, true);
  if (p.state != read_answer::found) return p.state;
  std::uint64_t size = p.header.payload_length;
  offset = std::min(offset, size);
  length = std::min(length, size - offset);
  value_block body{static_cast<std::size_t>(length)};
  auto* f = file(p.entry.place.file);
  auto at = std::uint64_t{p.entry.place.offset} + record_header_bytes + key.size() + offset;
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
  file_header header;
  header.id = last_file_ + 1;
  header.flushes = flushes;
  header.sequential = settings_.sequential;
  QS_TRY_ASSIGN(auto made, data_file::create(pool_, directory_, header));
  made->keep = flushes; // until what it says is gone is gone
  auto left = active_;
  active_ = last_log_ = last_file_ = header.id;
  active_since_ = std::chrono::steady_clock::now();
  names_changed_ = true;
  add_file(std::move(made));
  if (limits_.jumped) limits_.jumped(*this, left, active_);
  return {};
}

status name_space::jump() {
  if (failed_)
    return error{errc::io, "the namespace takes no writes until the server is started anew"};
  auto* f = file(active_);
  if (f == nullptr || f->size() <= file_header_bytes) return {};
  return rotate(false);
}

void name_space::died(record_place place, std::uint64_t bytes) {
  changed_.insert(place.file);
  if (auto* f = file(place.file)) f->live_bytes -= std::min(f->live_bytes, bytes);
}

status name_space::append(const record_header& header, byte_span key, byte_span value,
                          record_place& place) {
  if (failed_)
    return error{errc::io, "the namespace takes no writes until the server is started anew"};
  auto need = header.record_bytes();
  auto* writable = file(active_);
  auto full = [&](const data_file& f) {
    if (f.size() <= file_header_bytes) return false;
    return f.size() + need > limits_.datasize ||
           (limits_.rotate_after.count() > 0 &&
            std::chrono::steady_clock::now() - active_since_ >= limits_.rotate_after);
  };
  if (writable == nullptr || active_ != last_log_ || full(*writable)) {
    QS_TRY(rotate(false));
    writable = file(active_);
  }
  auto& active = *writable;
  auto offset = static_cast<std::uint32_t>(active.size());
  auto head = encode_record_header(header, key, offset);
  iovec parts[3] = {{head.data(), head.size()},
                    {const_cast<std::byte*>(key.data()), key.size()},
                    {const_cast<std::byte*>(value.data()), value.size()}};
  auto written = active.append({parts, value.empty() ? 2U : 3U});
  if (!written.ok()) {
    if (!std::exchange(write_failing_, true)) log::error("zdb", "{}", describe(written.err()));
    ++write_errors;
    last_error_at = static_cast<std::uint32_t>(std::time(nullptr));
    if (written.err().code == errc::corrupt) failed_ = true;
    return written;
  }
  write_failing_ = false;
  place = {active.id(), offset};
  active.passed(offset, place);
  (header.kind == record_kind::set ? active.live_bytes : active.tombstone_bytes) += need;
  return {};
}

namespace {
write_answer failure(const error& why) {
  return why.code == errc::no_space ? write_answer::no_space : write_answer::failed;
}
} // namespace

/// Whether the index knows what was written: it does, as the page was in memory when the old entry
/// was looked up. If not, memory and disk disagree from here on.
write_answer name_space::kept(const status& indexed) {
  if (indexed.ok()) return write_answer::stored;
  note_read_error(indexed.err());
  failed_ = true;
  return write_answer::failed;
}

write_answer name_space::set(byte_span key, byte_span value, std::uint32_t timestamp, bool only_new,
                             std::string& id) {
  auto old = settings_.sequential && key.empty() ? position{} : locate(key, true);
  if (old.state == read_answer::unreadable) return write_answer::failed;
  auto there = old.state != read_answer::missing;
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
  if (old.state == read_answer::found && old.header.payload_crc == header.payload_crc && old_length == value.size() &&
      same_value(old.entry.place, key, value))
    return write_answer::identical;

  index_entry entry{{}, header.payload_length};
  if (auto done = append(header, key, value, entry.place); !done.ok()) return failure(done.err());
  live_bytes_ += value.size();
  live_bytes_ -= old_length;
  if (there) died(old.entry.place, record_header_bytes + key.size() + old_length);
  if (settings_.sequential)
    return kept(ids_.put(id_of(key), entry));
  if (there)
    keys_.replace(old.slot, entry);
  else
    keys_.insert(key, entry);
  return write_answer::stored;
}

status name_space::restore(byte_span key, byte_span value, std::uint32_t timestamp) {
  auto old = locate(key, false);
  if (old.state == read_answer::unreadable)
    return error{errc::io, fmt::format("{}: cannot be read", directory_.string())};
  record_header header;
  header.payload_length = static_cast<std::uint32_t>(value.size());
  header.payload_crc = crc32c(value);
  header.timestamp = timestamp;
  header.previous = old.entry.place;
  header.key_length = static_cast<std::uint8_t>(key.size());
  record_place place;
  QS_TRY(append(header, key, value, place));
  return index_record(header, key, place);
}

status name_space::use_up_ids(std::uint64_t next) {
  if (next <= ids_.next_id()) return {};
  std::array<std::byte, 8> last{};
  store_le(last.data(), next - 1);
  record_header header; // a tombstone tells the next start, too
  header.kind = record_kind::erase;
  header.key_length = 8;
  record_place place;
  QS_TRY(append(header, last, {}, place));
  return index_record(header, last, place);
}

write_answer name_space::erase(byte_span key, std::uint32_t timestamp) {
  auto old = locate(key, false);
  if (old.state == read_answer::unreadable) return write_answer::failed;
  if (old.state == read_answer::missing) return write_answer::missing;
  record_header header;
  header.timestamp = timestamp;
  header.previous = old.entry.place;
  header.kind = record_kind::erase;
  header.key_length = static_cast<std::uint8_t>(key.size());
  record_place place;
  if (auto done = append(header, key, {}, place); !done.ok()) return failure(done.err());
  live_bytes_ -= old.entry.length;
  died(old.entry.place, record_header_bytes + key.size() + old.entry.length);
  if (settings_.sequential) return kept(ids_.erase(id_of(key)));
  keys_.erase(old.slot);
  return write_answer::stored;
}

result<std::vector<std::filesystem::path>> name_space::flush() {
  std::vector<std::filesystem::path> old;
  if (failed_)
    return error{errc::io, "the namespace takes no writes until the server is started anew"};
  if (files_.empty()) return old;
  QS_TRY(rotate(true));
  order_ = {{active_, file(active_)}};
  for (auto it = files_.begin(); it->first != active_; it = files_.erase(it))
    old.push_back(it->second->path());
  ++epoch_;
  moving_to_ = 0;
  changed_.clear();
  keys_ = user_index{limits_.hash_key};
  ids_ = sequential_index{pool_.ids};
  live_bytes_ = 0;
  synced_ = {};
  return old;
}

// -- what is on disk
// --------------------------------------------------------------------------------

sync_mark name_space::end() const noexcept {
  auto* f = file(active_);
  return f == nullptr ? synced_ : sync_mark{active_, f->size()};
}

std::uint64_t name_space::entries() const noexcept {
  return settings_.sequential ? ids_.size() : keys_.size();
}

std::uint64_t name_space::disk_bytes() const noexcept {
  std::uint64_t n = 0;
  for (auto& [id, f] : files_) n += f->size();
  return n;
}

space_usage name_space::usage() const noexcept {
  space_usage u;
  u.live_payload = live_bytes_;
  for (auto& [id, f] : files_) {
    u.live += f->live_bytes;
    u.dead += f->dead_bytes();
    u.tombstones += f->tombstone_bytes;
    u.disk += f->size();
  }
  u.files = files_.size();
  return u;
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
  for (auto it = files_.lower_bound(synced_.file); it != files_.end(); ++it) {
    if (it->second->header().compacted) continue; // synced before it got its name
    if (it->first == synced_.file && it->second->size() == synced_.size) continue;
    QS_TRY_ASSIGN(auto fd, it->second->descriptor());
    job.files.push_back(std::move(fd));
  }
  // Only now: a job that is not made syncs no directory, and the next one must.
  job.names_changed = std::exchange(names_changed_, false);
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
  names_changed_ = names_changed_ || job.names_changed;
  ++write_errors;
  last_error_at = static_cast<std::uint32_t>(std::time(nullptr));
  log::error("zdb", "namespace {}: {}: no more writes until the server is started anew",
             settings_.name, describe(outcome.err()));
}

} // namespace qs::zdb
