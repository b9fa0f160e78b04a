// The files of a namespace at rest: settings, the synced mark, and reading all of it at start.
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

constexpr std::string_view settings_title = "qs zdb namespace 1";
constexpr std::size_t mark_bytes = 24;
constexpr std::uint32_t mark_magic = 0x314b4d5a; // "ZMK1"

std::filesystem::path settings_path(const std::filesystem::path& directory) {
  return directory / "namespace";
}
std::filesystem::path mark_path(const std::filesystem::path& directory) {
  return directory / "synced";
}

sync_mark read_mark(const std::filesystem::path& directory) {
  auto text = read_file(mark_path(directory), 4096);
  if (!text.ok() || text->size() != mark_bytes) return {};
  auto bytes = as_bytes(*text);
  byte_reader in{bytes};
  auto magic = in.get<std::uint32_t>();
  sync_mark mark;
  mark.file = in.get<std::uint32_t>();
  mark.size = in.get<std::uint64_t>();
  (void)in.get<std::uint32_t>();
  auto crc = in.get<std::uint32_t>();
  if (magic != mark_magic || crc != crc32c(bytes.first(20), mark_magic)) return {};
  return mark;
}

/// The next place in the file that is a record by its position and checksum, or its size.
result<std::uint64_t> next_record(data_file& f, std::uint64_t from) {
  buffer bytes;
  constexpr std::size_t piece = 256 << 10;
  for (auto at = from; at + record_header_bytes <= f.size(); at += piece) {
    bytes.resize(static_cast<std::size_t>(
        std::min<std::uint64_t>(piece + record_header_bytes + 255, f.size() - at)));
    QS_TRY(f.read(bytes, at));
    for (std::size_t i = 0; i < piece && i + record_header_bytes <= bytes.size(); ++i) {
      auto head = byte_span{bytes}.subspan(i, record_header_bytes);
      auto here = static_cast<std::uint32_t>(at + i);
      if (load_le<std::uint32_t>(head.data() + 24) != here) continue;
      auto header = peek_record_header(head);
      if (i + record_header_bytes + header.key_length > bytes.size()) continue;
      auto key = byte_span{bytes}.subspan(i + record_header_bytes, header.key_length);
      if (record_header_fits(head, key, here)) return at + i;
    }
  }
  return f.size();
}

} // namespace

// -- settings -------------------------------------------------------------------------------------

std::string encode_settings(const namespace_settings& s) {
  auto text =
      fmt::format("{}\nname {}\npassword {}\nmaxsize {}\npublic {}\nworm {}\nmode {}\n",
                  settings_title, to_hex(as_bytes(s.name)), to_hex(as_bytes(s.password)), s.maxsize,
                  s.is_public ? 1 : 0, s.worm ? 1 : 0, s.sequential ? "seq" : "user");
  return text + fmt::format("crc {:08x}\n", crc32c(as_bytes(text)));
}

result<namespace_settings> decode_settings(std::string_view text) {
  error damaged{errc::corrupt, "the namespace file is damaged"};
  auto at = text.rfind("crc ");
  if (at == std::string_view::npos || at == 0 || text[at - 1] != '\n') return damaged;
  if (text.substr(at) != fmt::format("crc {:08x}\n", crc32c(as_bytes(text.substr(0, at)))))
    return damaged;
  namespace_settings s;
  auto rest = text.substr(0, at);
  bool first = true;
  while (!rest.empty()) {
    auto end = rest.find('\n');
    auto line = rest.substr(0, end);
    rest.remove_prefix(end + 1);
    if (std::exchange(first, false)) {
      if (line != settings_title)
        return error{errc::version_mismatch,
                     fmt::format("namespace file \"{}\": made by a newer zdb", line)};
      continue;
    }
    auto space = line.find(' ');
    if (space == std::string_view::npos) return damaged;
    auto name = line.substr(0, space);
    auto value = line.substr(space + 1);
    if (name == "name" || name == "password") {
      auto bytes = from_hex(value);
      if (!bytes) return damaged;
      (name == "name" ? s.name : s.password) = to_string(*bytes);
    } else if (name == "maxsize") {
      auto [p, ec] = std::from_chars(value.data(), value.data() + value.size(), s.maxsize);
      if (ec != std::errc{} || p != value.data() + value.size()) return damaged;
    } else if (name == "public") {
      s.is_public = value == "1";
    } else if (name == "worm") {
      s.worm = value == "1";
    } else if (name == "mode") {
      s.sequential = value == "seq";
    } else {
      return error{errc::version_mismatch,
                   fmt::format("namespace file: \"{}\": made by a newer zdb", name)};
    }
  }
  if (s.name.empty()) return damaged;
  return s;
}

status name_space::create(const std::filesystem::path& directory,
                          const namespace_settings& settings) {
  // Under another name until it is whole: a directory that counts always has its settings.
  auto making = directory;
  making += ".new";
  std::error_code ec;
  std::filesystem::remove_all(making, ec);
  QS_TRY(make_directories(making));
  QS_TRY(save(making, settings));
  if (::rename(making.c_str(), directory.c_str()) != 0)
    return errno_error(fmt::format("rename {}", making.string()), errno);
  return sync_directory(directory.parent_path());
}

status name_space::save(const std::filesystem::path& directory,
                        const namespace_settings& settings) {
  return write_file_atomic(settings_path(directory), as_bytes(encode_settings(settings)), 0600);
}

// -- sync
// ------------------------------------------------------------------------------------------

status sync_job::run() const {
  for (auto& f : files)
    if (::fdatasync(f->get()) != 0)
      return errno_error(fmt::format("sync {}", directory.string()), errno);
  if (names_changed) QS_TRY(sync_directory(directory));
  // Not synced itself: an old mark is true as well, it only makes the next start check more.
  buffer bytes;
  byte_writer{bytes}.put(mark_magic).put(mark.file).put(mark.size).put(std::uint32_t{0});
  byte_writer{bytes}.put(crc32c(bytes, mark_magic));
  auto fd = open_file(mark_path(directory), O_WRONLY | O_CREAT);
  if (fd.ok()) {
    auto n = ::pwrite(fd->get(), bytes.data(), bytes.size(), 0);
    (void)n; // the old mark, or a damaged one that counts as none
  }
  return {};
}

// -- start
// -----------------------------------------------------------------------------------------

result<std::shared_ptr<name_space>>
name_space::open(file_pool& pool, const std::filesystem::path& directory, limits lim) {
  std::shared_ptr<name_space> ns{new name_space{pool, directory, lim}};
  QS_TRY_ASSIGN(auto text, read_file(settings_path(directory), 64 << 10));
  auto settings = decode_settings(text);
  if (!settings.ok()) return std::move(settings).err().with(settings_path(directory).string());
  ns->settings_ = std::move(*settings);
  QS_TRY(ns->load());
  return ns;
}

status name_space::load() {
  std::vector<std::uint32_t> ids;
  std::error_code ec;
  for (auto& entry : std::filesystem::directory_iterator{directory_, ec}) {
    auto name = entry.path().filename().string();
    std::uint32_t id = 0;
    auto [p, bad] = std::from_chars(name.data(), name.data() + name.size(), id, 16);
    if (bad == std::errc{} && name.size() == 13 && std::string_view{p} == ".data" && id > 0)
      ids.push_back(id);
  }
  if (ec)
    return error{errc::io, fmt::format("read {}: {}", directory_.string(), ec.message()),
                 ec.value()};
  std::sort(ids.begin(), ids.end());
  auto mark = read_mark(directory_);
  for (auto id : ids) {
    last_file_ = id;
    QS_TRY(load_file(id, mark));
  }
  // What was found behind the mark may still be in memory only, from before a crash of the program
  // alone.
  synced_ = mark;
  names_changed_ = !files_.empty();
  if (files_.find(mark.file) == files_.end()) synced_ = {};
  return {};
}

status name_space::load_file(std::uint32_t id, const sync_mark& mark) {
  auto opened = data_file::open(pool_, directory_, id);
  if (!opened.ok()) {
    if (opened.err().code != errc::corrupt) return std::move(opened).err();
    if (id >
        mark.file) { // made when the program or the machine died; nothing in it was ever synced
      log::warning("zdb", "{}: dropped: {}", data_file_path(directory_, id).string(),
                   describe(opened.err()));
      ::unlink(data_file_path(directory_, id).c_str());
    } else {
      ++read_errors;
      log::error("zdb", "{}: left aside: {}", data_file_path(directory_, id).string(),
                 describe(opened.err()));
    }
    return {};
  }
  auto& f = **opened;
  if (f.header().sequential != settings_.sequential)
    return error{errc::corrupt,
                 fmt::format("{}: the namespace has another mode", f.path().string())};
  if (f.header().flushes) { // a FLUSH that was begun: finish it
    for (auto& [other, old] : files_) ::unlink(old->path().c_str());
    files_.clear();
    keys_ = user_index{limits_.hash_key};
    ids_ = {};
    live_bytes_ = 0;
  }
  files_.emplace(id, std::move(*opened));
  auto synced = id < mark.file ? f.size() : id == mark.file ? mark.size : 0;
  auto visit = [&](const record_header& header, byte_span key, std::uint32_t offset) {
    apply(header, key, {id, offset});
    return true;
  };
  std::uint64_t from = file_header_bytes;
  for (;;) {
    QS_TRY_ASSIGN(auto end, f.walk(from, synced, visit));
    if (end == f.size()) return {};
    if (end >= synced) {
      log::warning("zdb", "{}: cut at {}: {} bytes of a torn tail", f.path().string(), end,
                   f.size() - end);
      return f.cut(end);
    }
    // Damage where all was on disk: never cut. What comes after it still counts.
    ++read_errors;
    QS_TRY_ASSIGN(from, next_record(f, end + 1));
    log::error("zdb", "{}: damaged from {} to {}, stepped over", f.path().string(), end, from);
    if (from == f.size()) return {};
  }
}

void name_space::apply(const record_header& header, byte_span key, record_place place) {
  index_entry entry{place, header.payload_length};
  if (settings_.sequential) {
    if (!is_sequential_key(key)) return;
    auto id = load_le<std::uint64_t>(key.data());
    live_bytes_ -= ids_.find(id).length;
    if (header.kind == record_kind::set) {
      ids_.put(id, entry);
      live_bytes_ += entry.length;
    } else {
      ids_.erase(id);
    }
    return;
  }
  auto old = keys_.find(key, [&](record_place p) { return key_at(p, key); });
  if (old.there()) live_bytes_ -= old.entry.length;
  if (header.kind == record_kind::set) {
    if (old.there())
      keys_.replace(old.slot, entry);
    else
      keys_.insert(key, entry);
    live_bytes_ += entry.length;
  } else if (old.there()) {
    keys_.erase(old.slot);
  }
}

} // namespace qs::zdb
