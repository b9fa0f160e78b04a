// Storing records: one by one, or gathered and written together. A gathered record is in the index
// at once, at the place where it will stand; what else it changes is counted when it has been
// written. So a failed write takes nothing back but index entries and the quota's count.
#include <algorithm>
#include <climits>
#include <ctime>

#include <fmt/format.h>

#include "base/log.hpp"
#include "zdb/crc32c.hpp"
#include "zdb/name_space.hpp"

namespace qs::zdb {

namespace {
/// Of what is written: more than this is kept in memory only when it is read.
constexpr std::size_t written_bytes_cached = 16 << 10;
/// Larger values are written on their own, out of the memory they were received in.
constexpr std::size_t value_bytes_gathered = 8 << 10;
constexpr std::size_t records_gathered = IOV_MAX;
constexpr std::uint64_t bytes_gathered = 256 << 10;

write_answer failure(const error& why) {
  return why.code == errc::no_space ? write_answer::no_space : write_answer::failed;
}

value_block join(byte_span head, byte_span key, byte_span value) {
  value_block record{head.size() + key.size() + value.size()};
  auto* to = record.bytes().data();
  for (auto part : {head, key, value}) to = std::copy(part.begin(), part.end(), to);
  return record;
}
} // namespace

bool name_space::full(const data_file& f, std::uint64_t need) const {
  auto size = f.size() + gathered_bytes_;
  if (size <= file_header_bytes) return false;
  return size + need > limits_.datasize ||
         (limits_.rotate_after.count() > 0 &&
          std::chrono::steady_clock::now() - active_since_ >= limits_.rotate_after);
}

void name_space::note_write_error(const error& why) {
  if (!std::exchange(write_failing_, true)) log::error("zdb", "{}", describe(why));
  ++write_errors;
  last_error_at = static_cast<std::uint32_t>(std::time(nullptr));
  if (why.code == errc::corrupt) failed_ = true;
}

status name_space::append(const record_header& header, byte_span key, byte_span value,
                          record_place& place) {
  QS_ASSERT(gathered_.empty());
  if (failed_)
    return error{errc::io, "the namespace takes no writes until the server is started anew"};
  auto need = header.record_bytes();
  auto* writable = file(active_);
  if (writable == nullptr || active_ != last_log_ || full(*writable, need)) {
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
    note_write_error(written.err());
    return written;
  }
  write_failing_ = false;
  place = {active.id(), offset};
  active.passed(offset, place);
  (header.kind == record_kind::set ? active.live_bytes : active.tombstone_bytes) += need;
  // It is likely to be asked for, or to be replaced, soon.
  if (header.kind == record_kind::set && value.size() <= written_bytes_cached &&
      pool_.cache.takes(need))
    pool_.cache.put(active.serial(), offset, join(head, key, value));
  return {};
}

/// Whether the index knows what was written: it does, as the page was in memory when the old entry
/// was looked up. If not, memory and disk disagree from here on.
write_answer name_space::kept(const status& indexed) {
  if (indexed.ok()) return write_answer::stored;
  note_read_error(indexed.err());
  failed_ = true;
  return write_answer::failed;
}

write_answer name_space::set(byte_span key, byte_span value, std::uint32_t timestamp, bool only_new,
                             std::string& id, bool gathers) {
  auto appends = settings_.sequential && key.empty();
  // What may have to be taken back must not have left for a page.
  if (appends && ids_.last_is_full()) settle();
  auto together = gathers && value.size() <= value_bytes_gathered &&
                  can_gather(record_header_bytes + (appends ? 8 : key.size()) + value.size());
  if (!together) settle();
  auto old = appends ? position{} : locate(key, true);
  if (together && failed_) return write_answer::failed;
  if (old.state == read_answer::unreadable) return write_answer::failed;
  auto there = old.state != read_answer::missing;
  // In 0-db's order: worm, the quota, and only then what the key must be.
  if (there && only_new) return write_answer::exists;
  if (there && settings_.worm) return write_answer::worm;
  auto old_length = there ? old.entry.length : 0;
  if (settings_.maxsize > 0 && live_bytes_ - old_length + value.size() > settings_.maxsize) {
    if (gathered_.empty()) return write_answer::no_space;
    settle(); // what is written counts, and nothing else
    return set(key, value, timestamp, only_new, id, false);
  }
  if (key.empty() && (!settings_.sequential || only_new)) return write_answer::key_needed;
  if (settings_.sequential && !appends && !there) return write_answer::update_only;

  std::array<std::byte, 8> new_id{};
  if (appends) {
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
  if (old.state == read_answer::found && old.header.payload_crc == header.payload_crc &&
      old_length == value.size() && same_value(old.entry.place, key, value))
    return write_answer::identical;

  if (!pool_.space.takes(header.record_bytes())) return write_answer::no_space;

  index_entry entry{{active_, 0}, header.payload_length};
  if (together)
    entry.place.offset = static_cast<std::uint32_t>(file(active_)->size() + gathered_bytes_);
  else if (auto done = append(header, key, value, entry.place); !done.ok())
    return failure(done.err());
  live_bytes_ += value.size();
  live_bytes_ -= old_length;
  if (there && !together) died(old.entry.place, record_header_bytes + key.size() + old_length);
  if (settings_.sequential) {
    if (kept(ids_.put(id_of(key), entry)) != write_answer::stored) return write_answer::failed;
  } else if (there) {
    keys_.replace(old.slot, entry);
  } else {
    keys_.insert(key, entry);
  }
  if (!together) return write_answer::stored;
  gather(header, key, value, {{}, entry, old.entry, timestamp, 0, there, appends, only_new});
  return write_answer::gathered;
}

// -- gathered -------------------------------------------------------------------------------------

bool name_space::can_gather(std::uint64_t need) const {
  auto* f = file(active_);
  return f != nullptr && !failed_ && active_ == last_log_ && gathered_.size() < records_gathered &&
         gathered_bytes_ + need <= bytes_gathered && !full(*f, need);
}

void name_space::gather(const record_header& header, byte_span key, byte_span value,
                        gathered_write w) {
  w.record = join(encode_record_header(header, key, w.entry.place.offset), key, value);
  w.key_length = header.key_length;
  if (gathered_.empty()) {
    gathered_from_ = w.entry.place.offset;
    gathered_ = std::exchange(pool_.spare_writes, {});
  }
  gathered_bytes_ += w.record.size();
  gathered_.push_back(std::move(w));
}

/// It is gathered, and not on the disk.
bool name_space::waits(record_place place) const noexcept {
  return !gathered_.empty() && place.file == active_ && place.offset >= gathered_from_;
}

void name_space::undo(const gathered_write& w) {
  live_bytes_ -= w.entry.length;
  if (w.there) live_bytes_ += w.old.length;
  if (settings_.sequential) {
    if (w.appends)
      ids_.take_back();
    else
      kept(ids_.put(id_of(w.key()), w.old));
    return;
  }
  auto at = keys_.find(w.key(), [&](record_place p) { return p == w.entry.place; });
  w.there ? keys_.replace(at.slot, w.old) : keys_.erase(at.slot);
}

void name_space::count_written(const gathered_write& w) {
  auto& f = *file(active_);
  f.passed(w.entry.place.offset, w.entry.place);
  f.live_bytes += w.record.size();
  if (w.there) died(w.old.place, record_header_bytes + w.key_length + w.old.length);
  if (pool_.cache.takes(w.record.size()))
    pool_.cache.put(f.serial(), w.entry.place.offset, w.record);
}

void name_space::settle() {
  if (gathered_.empty()) return;
  auto all = std::exchange(gathered_, {});
  gathered_bytes_ = 0;
  std::vector<iovec> parts;
  parts.reserve(all.size());
  for (auto& w : all) parts.push_back({w.record.bytes().data(), w.record.size()});
  auto written = file(active_)->append(parts);
  if (written.ok()) {
    write_failing_ = false;
    for (auto& w : all) count_written(w);
    all.clear();
    pool_.spare_writes = std::move(all);
    if (settled) settled(*this, {});
    return;
  }
  note_write_error(written.err());
  std::for_each(all.rbegin(), all.rend(), [&](auto& w) { undo(w); });
  // What fails may be the last of them alone: each gets the answer that it would have had.
  std::vector<settled_write> came_of_it(all.size());
  for (std::size_t i = 0; i < all.size(); ++i)
    came_of_it[i].answer = set(all[i].appends ? byte_span{} : all[i].key(), all[i].value(),
                               all[i].timestamp, all[i].only_new, came_of_it[i].id);
  if (settled) settled(*this, came_of_it);
}

} // namespace qs::zdb
