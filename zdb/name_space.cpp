#include "zdb/name_space.hpp"

#include <algorithm>
#include <ctime>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/log.hpp"
#include "zdb/crc32c.hpp"

namespace qs::zdb {

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
  settle();
  if (failed_)
    return error{errc::io, "the namespace takes no writes until the server is started anew"};
  auto* f = file(active_);
  if (f == nullptr || f->size() <= file_header_bytes) return {};
  return rotate(false);
}

void name_space::died(record_place place, std::uint64_t bytes) {
  changed_.insert(place.file);
  auto* f = file(place.file);
  if (f == nullptr) return;
  f->live_bytes -= std::min(f->live_bytes, bytes);
  pool_.cache.drop(f->serial(), place.offset);
}

status name_space::restore(byte_span key, byte_span value, std::uint32_t timestamp) {
  settle();
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
  settle();
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
  settle();
  auto old = locate(key, false);
  if (old.state == read_answer::unreadable) return write_answer::failed;
  if (old.state == read_answer::missing) return write_answer::missing;
  record_header header;
  header.timestamp = timestamp;
  header.previous = old.entry.place;
  header.kind = record_kind::erase;
  header.key_length = static_cast<std::uint8_t>(key.size());
  record_place place;
  if (auto done = append(header, key, {}, place); !done.ok())
    return done.err().code == errc::no_space ? write_answer::no_space : write_answer::failed;
  live_bytes_ -= old.entry.length;
  died(old.entry.place, record_header_bytes + key.size() + old.entry.length);
  if (settings_.sequential) return kept(ids_.erase(id_of(key)));
  keys_.erase(old.slot);
  return write_answer::stored;
}

result<std::vector<std::filesystem::path>> name_space::flush() {
  settle();
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

void name_space::flushed() {
  // A file set aside because of damage in it is no flush's.
  for (auto& [id, f] : files_)
    if (f->header().flushes) f->keep = false;
}

/// A name that goes changes its directory: while that is as it was, the files need not be looked at.
bool name_space::linked() const {
  struct stat now {};
  if (::stat(directory_.c_str(), &now) != 0) return errno != ENOENT && errno != ENOTDIR;
  auto same = [](const timespec& a, const timespec& b) {
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
  };
  if (looked_ino_ == now.st_ino && looked_dev_ == now.st_dev && same(looked_mtime_, now.st_mtim) &&
      now.st_nlink > 0)
    return true;
  auto all =
      std::all_of(files_.begin(), files_.end(), [](auto& f) { return f.second->linked(); });
  // The kernel's clock ticks in milliseconds: what changes just now could look as if it had not.
  timespec real{};
  ::clock_gettime(CLOCK_REALTIME, &real);
  looked_ino_ = all && real.tv_sec - now.st_mtim.tv_sec >= 2 ? now.st_ino : 0;
  looked_dev_ = now.st_dev;
  looked_mtime_ = now.st_mtim;
  return all;
}

result<sync_job> name_space::make_sync_job() {
  settle();
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
