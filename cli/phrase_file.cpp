#include "cli/phrase_file.hpp"

#include <sys/stat.h>

#include <fmt/format.h>

#include "base/posix.hpp"

namespace qs::cli {

namespace fs = std::filesystem;

fs::path phrase_path(const surroundings& around, const std::string& volume) { return around.config_home / "qs" / volume / "phrase"; }

result<fs::path> find_phrase(const surroundings& around, const std::string& volume) {
  std::error_code ignored;
  if (!around.phrase_file.empty()) {
    if (fs::exists(around.phrase_file, ignored)) return around.phrase_file;
    return error{errc::not_found, fmt::format("QS_PHRASE_FILE names {}, which does not exist; unset it or point it to the 24 words",
                                              around.phrase_file.string())};
  }
  if (!around.credentials.empty() && fs::exists(around.credentials / "qs-phrase", ignored)) return around.credentials / "qs-phrase";
  auto own = phrase_path(around, volume);
  if (fs::exists(own, ignored)) return own;
  return error{errc::not_found,
               fmt::format("there are no 24 words for '{}': {} does not exist. Make new ones with 'qs key new {}', bring yours with "
                           "'qs key import {}', or set QS_PHRASE_FILE",
                           volume, own.string(), volume, volume)};
}

result<root_secret> read_phrase(const surroundings& around, const std::string& volume) {
  QS_TRY_ASSIGN(auto path, find_phrase(around, volume));
  struct ::stat info {};
  if (::stat(path.c_str(), &info) != 0) return errno_error(fmt::format("look at {}", path.string()), errno);
  // systemd hands credentials out as 0400 or 0440 in a directory that only the service can enter.
  auto forbidden = !around.credentials.empty() && path.parent_path() == around.credentials ? mode_t{S_IRWXO} : mode_t{S_IRWXG | S_IRWXO};
  if ((info.st_mode & forbidden) != 0)
    return error{errc::access_denied, fmt::format("{} can be read by others, and whoever reads it has the whole volume; "
                                                  "'chmod 600 {}' and think about who may have seen it",
                                                  path.string(), path.string())};
  QS_TRY_ASSIGN(auto text, read_file(path, 4096));
  auto root = from_phrase(text);
  sodium_memzero(text.data(), text.size());
  if (!root.ok()) return std::move(root).err().with(path.string());
  return root;
}

status write_phrase(const surroundings& around, const std::string& volume, const root_secret& root) {
  auto path = phrase_path(around, volume);
  std::error_code ignored;
  if (fs::exists(path, ignored))
    return error{errc::already_exists, fmt::format("{} exists already and is never overwritten; move it away first if it is really not needed",
                                                   path.string())};
  QS_TRY(make_directories(path.parent_path(), 0700));
  if (::chmod(path.parent_path().c_str(), 0700) != 0) return errno_error(fmt::format("chmod {}", path.parent_path().string()), errno);
  auto text = to_phrase(root) + "\n";
  auto written = create_file_atomic(path, as_bytes(text), 0600);
  sodium_memzero(text.data(), text.size());
  return written;
}

std::string show_words(const root_secret& root) {
  auto text = to_phrase(root);
  std::string out;
  std::size_t at = 0;
  for (int number = 1; number <= 24; ++number) {
    auto end = std::min(text.find(' ', at), text.size());
    auto last_in_row = number % 4 == 0;
    out += fmt::format("  {:>2} {:<12}", number, text.substr(at, end - at));
    if (last_in_row) {
      while (out.back() == ' ') out.pop_back();
      out += '\n';
    }
    at = end + 1;
  }
  sodium_memzero(text.data(), text.size());
  return out;
}

} // namespace qs::cli
