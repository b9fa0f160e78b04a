// The files of a namespace at rest: settings and the synced mark.
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

result<namespace_settings> read_settings(const std::filesystem::path& directory) {
  QS_TRY_ASSIGN(auto text, read_file(settings_path(directory), 64 << 10));
  auto settings = decode_settings(text);
  if (!settings.ok()) return std::move(settings).err().with(settings_path(directory).string());
  return settings;
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

sync_mark read_sync_mark(const std::filesystem::path& directory) {
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

// -- sync -----------------------------------------------------------------------------------------

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

} // namespace qs::zdb
