// Reading a namespace at start: which files count, in which order, and the index out of their
// records.
#include <algorithm>
#include <charconv>
#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/log.hpp"
#include "zdb/crc32c.hpp"
#include "zdb/name_space.hpp"

namespace qs::zdb {

namespace {

/// Of a file whose header is damaged: did it never get one?
bool was_being_made(const std::filesystem::path& path) {
  auto fd = open_file(path, O_RDONLY);
  if (!fd.ok()) return false;
  std::array<std::byte, file_header_bytes> bytes{}; // zero where the file has ended
  if (::pread(fd->get(), bytes.data(), bytes.size(), 0) < 0) return false;
  return ::lseek(fd->get(), 0, SEEK_END) < static_cast<off_t>(bytes.size()) ||
         std::all_of(bytes.begin(), bytes.end(), [](auto b) { return b == std::byte{0}; });
}

} // namespace

result<std::shared_ptr<name_space>>
name_space::open(file_pool& pool, const std::filesystem::path& directory, limits lim) {
  std::shared_ptr<name_space> ns{new name_space{pool, directory, std::move(lim)}};
  QS_TRY_ASSIGN(auto settings, read_settings(directory));
  ns->settings_ = std::move(settings);
  QS_TRY(ns->load(true));
  return ns;
}

std::shared_ptr<name_space> name_space::stand_in(file_pool& pool, std::filesystem::path directory,
                                                 limits lim, namespace_settings settings,
                                                 not_opened why) {
  std::shared_ptr<name_space> ns{new name_space{pool, std::move(directory), std::move(lim)}};
  ns->settings_ = std::move(settings);
  ns->failure_ = std::move(why);
  ns->failed_ = true;
  return ns;
}

status name_space::revive(namespace_settings settings) {
  std::unique_ptr<name_space> fresh{new name_space{pool_, directory_, limits_}};
  fresh->settings_ = std::move(settings);
  auto loaded = fresh->load();
  read_errors += fresh->read_errors;
  QS_TRY(loaded);
  settings_ = std::move(fresh->settings_);
  take(*fresh);
  failure_ = {};
  failed_ = false;
  return {};
}

/// Beside what is served, which stays when it fails: keys must not vanish because a disk hiccuped.
status name_space::reload() {
  settle();
  if (syncing || compacting_ || deleting_files > 0)
    return error{errc::busy, "the namespace is being synced, compacted or emptied"};
  std::unique_ptr<name_space> fresh{new name_space{pool_, directory_, limits_}};
  fresh->settings_ = settings_;
  fresh->last_file_ = last_file_;
  auto loaded = fresh->load();
  read_errors += fresh->read_errors;
  if (!loaded.ok()) {
    failed_ = true; // what is in memory may not be what is on the disk
    return loaded;
  }
  take(*fresh);
  return {};
}

void name_space::take(name_space& fresh) {
  order_ = std::move(fresh.order_);
  files_ = std::move(fresh.files_);
  keys_ = std::move(fresh.keys_);
  ids_ = std::move(fresh.ids_);
  changed_.clear();
  live_bytes_ = fresh.live_bytes_;
  active_ = fresh.active_;
  last_log_ = fresh.last_log_;
  last_file_ = fresh.last_file_;
  active_since_ = fresh.active_since_;
  synced_ = fresh.synced_;
  names_changed_ = names_changed_ || fresh.names_changed_;
  left_aside_ = fresh.left_aside_;
  moving_to_ = 0;
  ++epoch_;
}

status name_space::load(bool opening) {
  std::vector<std::uint32_t> ids;
  std::error_code ec;
  for (auto& entry : std::filesystem::directory_iterator{directory_, ec}) {
    auto name = entry.path().filename().string();
    // New settings that were not put in their place: they may hold a password. Not on RELOAD, while
    // they may be on their way there.
    if (opening && name.starts_with(".namespace.") && !pool_.read_only)
      ::unlink(entry.path().c_str());
    std::uint32_t id = 0;
    auto [p, bad] = std::from_chars(name.data(), name.data() + name.size(), id, 16);
    if (bad != std::errc{} || p != name.data() + 8 || id == 0) continue;
    if (std::string_view{p} == ".data") ids.push_back(id);
    // A compaction that did not come to its end.
    if (std::string_view{p} == ".packing" && !pool_.read_only) ::unlink(entry.path().c_str());
  }
  if (ec)
    return error{errc::io, fmt::format("read {}: {}", directory_.string(), ec.message()),
                 ec.value()};
  std::sort(ids.begin(), ids.end());
  auto mark = read_sync_mark(directory_);
  last_file_ = std::max(last_file_, mark.file); // ids are never used again
  std::map<std::uint32_t, file_ptr> found;
  for (auto id : ids) {
    last_file_ = std::max(last_file_, id);
    QS_TRY_ASSIGN(auto f, open_one(id, mark));
    if (!f || !f->header().compacted) last_log_ = id;
    if (f) found.emplace(id, std::move(f));
  }
  QS_TRY(drop_replaced(found));
  for (auto& [id, f] : found) {
    if (!f->header().compacted) active_ = id;
    add_file(std::move(f));
  }
  for (auto& [first, f] : order_) QS_TRY(read_records(*f, mark));
  changed_.clear();
  active_since_ = std::chrono::steady_clock::now();
  // What was found behind the mark may still be in memory only, from before a crash of the program
  // alone.
  synced_ = mark;
  names_changed_ = !files_.empty();
  return {};
}

/// Null: it does not count.
result<name_space::file_ptr> name_space::open_one(std::uint32_t id, const sync_mark& mark) {
  auto opened = data_file::open(pool_, directory_, id);
  if (opened.ok()) {
    if ((*opened)->header().sequential != settings_.sequential)
      return error{errc::corrupt,
                   fmt::format("{}: the namespace has another mode", (*opened)->path().string())};
    return opened;
  }
  if (opened.err().code != errc::corrupt) return std::move(opened).err();
  auto path = data_file_path(directory_, id);
  // Made when the program or the machine died: nothing in it was ever synced.
  if (id > mark.file && was_being_made(path)) {
    log::warning("zdb", "{}: {}: {}", path.string(),
                 pool_.read_only ? "does not count" : "dropped", describe(opened.err()));
    if (!pool_.read_only) ::unlink(path.c_str());
  } else {
    ++read_errors;
    left_aside_ = true;
    log::error("zdb", "{}: left aside: {}", path.string(), describe(opened.err()));
  }
  return file_ptr{};
}

/// Ends what was begun: a FLUSH whose older files are still there, a compaction whose inputs are.
status name_space::drop_replaced(std::map<std::uint32_t, file_ptr>& found) {
  std::uint32_t flushed = 0;
  for (auto& [id, f] : found)
    if (f->header().flushes) flushed = id;
  std::vector<std::uint32_t> needless;
  for (auto& [id, f] : found) {
    bool replaced = id < flushed;
    for (auto& [other, by] : found)
      replaced = replaced || (other > id && by->header().compacted &&
                              by->header().first <= f->header().first &&
                              f->header().last <= by->header().last);
    if (replaced) needless.push_back(id);
  }
  for (auto id : needless) {
    auto& path = found.at(id)->path();
    if (!pool_.read_only && ::unlink(path.c_str()) != 0 && errno != ENOENT)
      return errno_error(fmt::format("delete {}", path.string()), errno);
    found.erase(id);
  }
  return {};
}

status name_space::read_records(data_file& f, const sync_mark& mark) {
  auto id = f.id();
  auto all_synced = f.header().compacted || id < mark.file;
  auto synced = all_synced ? f.size() : id == mark.file ? mark.size : 0;
  if (settings_.sequential) ids_.skip_to(f.header().next_id);
  status applied;
  auto visit = [&](const record_header& header, byte_span key, std::uint32_t offset) {
    f.passed(offset, header.origin({id, offset}));
    applied = apply(header, key, {id, offset});
    return applied.ok();
  };
  std::uint64_t from = file_header_bytes;
  for (;;) {
    QS_TRY_ASSIGN(auto end, f.walk(from, synced, visit));
    QS_TRY(applied);
    if (end == f.size()) return {};
    if (end >= synced) {
      log::warning("zdb", "{}: {} at {}: {} bytes of a torn tail", f.path().string(),
                   pool_.read_only ? "ends" : "cut", end, f.size() - end);
      return f.cut(end);
    }
    // Damage where all was on disk: never cut. What comes after it still counts.
    ++read_errors;
    f.keep = true;
    QS_TRY_ASSIGN(from, f.next_record(end + 1));
    log::error("zdb", "{}: damaged from {} to {}, stepped over", f.path().string(), end, from);
    if (from == f.size()) return {};
  }
}

status name_space::apply(const record_header& header, byte_span key, record_place place) {
  auto* f = file(place.file);
  auto is_set = header.kind == record_kind::set;
  if (settings_.sequential && !is_sequential_key(key)) return {};
  (is_set ? f->live_bytes : f->tombstone_bytes) += header.record_bytes();
  return index_record(header, key, place);
}

/// The record at `place` counts from now on, what it replaces no more.
status name_space::index_record(const record_header& header, byte_span key, record_place place) {
  index_entry entry{place, header.payload_length};
  auto is_set = header.kind == record_kind::set;
  index_entry old;
  user_index::found slot;
  auto hash = settings_.sequential ? 0 : keys_.hash(key);
  if (settings_.sequential) {
    QS_TRY_ASSIGN(old, ids_.find(id_of(key)));
  } else {
    // The record says which one it replaces; only after a compaction the key itself must tell.
    if (header.previous.valid() && !header.moved)
      slot = keys_.find_hash(hash, [&](record_place p) { return p == header.previous; });
    if (!slot.there()) {
      bool unreadable = false;
      slot = keys_.find_hash(hash, [&](record_place p) {
        auto what = key_at(p, key);
        unreadable = what == seen::unreadable;
        return what != seen::other;
      });
      if (unreadable)
        return error{errc::io, fmt::format("{}: a key could not be read", directory_.string())};
    }
    old = slot.entry;
  }
  if (old.place.valid()) {
    live_bytes_ -= old.length;
    died(old.place, record_header_bytes + key.size() + old.length);
  }
  if (is_set) live_bytes_ += entry.length;
  if (settings_.sequential) {
    ids_.skip_to(id_of(key) + 1);
    QS_TRY(is_set ? ids_.put(id_of(key), entry) : ids_.erase(id_of(key)));
  } else if (is_set) {
    slot.there() ? keys_.replace(slot.slot, entry) : keys_.insert_hash(hash, entry);
  } else if (slot.there()) {
    keys_.erase(slot.slot);
  }
  return {};
}

} // namespace qs::zdb
