#include "zdb/name_list.hpp"

#include <cerrno>
#include <fcntl.h>

#include <fmt/format.h>

#include "base/log.hpp"
#include "base/posix.hpp"
#include "zdb/crc32c.hpp"

namespace qs::zdb {

namespace {
constexpr std::uint32_t seed = 0x7a646221;
constexpr std::size_t directory_letters = 8;

std::string line_of(const std::string& directory, std::string_view name) {
  auto text = fmt::format("{} {}", directory, to_hex(as_bytes(name)));
  return text + fmt::format(" {:08x}\n", crc32c(as_bytes(text), seed));
}
} // namespace

void name_list::read(std::filesystem::path file) {
  file_ = std::move(file);
  names_.clear();
  auto text = read_file(file_);
  if (!text.ok()) {
    if (text.err().sys != ENOENT) log::warning("zdb", "{}", describe(text.err()));
    return;
  }
  std::string_view rest{*text};
  while (!rest.empty()) {
    auto line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    auto directory = std::string{line.substr(0, directory_letters)};
    auto end = line.rfind(' ');
    if (end == std::string_view::npos || end <= directory_letters) continue;
    auto name = from_hex(line.substr(directory_letters + 1, end - directory_letters - 1));
    if (!name || fmt::format("{}\n", line) != line_of(directory, as_text(*name))) continue;
    names_[directory] = to_string(*name); // the last one counts
  }
}

std::string name_list::name_of(const std::string& directory) const {
  auto it = names_.find(directory);
  return it == names_.end() ? std::string{} : it->second;
}

void name_list::add(const std::string& directory, std::string_view name) {
  auto fd = open_file(file_, O_WRONLY | O_CREAT | O_APPEND);
  auto written = fd.ok() ? write_all(fd->get(), as_bytes("\n" + line_of(directory, name)))
                         : status{fd.err()};
  if (!written.ok()) log::warning("zdb", "{}", describe(written.err()));
}

status name_list::replace(const std::map<std::string, std::string>& all) {
  auto same = all == std::exchange(names_, {});
  if (same) return {};
  std::string text;
  for (auto& [directory, name] : all) text += line_of(directory, name);
  return write_file_atomic(file_, as_bytes(text), 0600);
}

} // namespace qs::zdb
