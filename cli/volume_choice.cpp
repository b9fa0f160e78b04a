#include "cli/volume_choice.hpp"

#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>

#include "base/limits.hpp"
#include "base/posix.hpp"
#include "state/store.hpp"

namespace qs::cli {

namespace fs = std::filesystem;

namespace {

constexpr auto file_note = "storage-file";

bool has_state(const fs::path& directory) {
  std::error_code ignored;
  return fs::exists(directory / "state.db", ignored);
}

void collect(const fs::path& root, std::vector<std::string>& out) {
  std::error_code failed;
  for (fs::directory_iterator at{root, failed}, end; !failed && at != end; at.increment(failed))
    if (has_state(at->path())) out.push_back(at->path().filename().string());
}

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= 32 && text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string_view::npos;
}

std::string joined(const std::vector<std::string>& names) {
  std::string out;
  for (const auto& n : names) out += (out.empty() ? "" : ", ") + n;
  return out;
}

result<chosen_volume> from_file(const fs::path& file, const common_flags& flags, const surroundings& around) {
  auto text = read_file(file, limits::spec_bytes_max);
  if (!text.ok()) {
    auto e = std::move(text).err();
    if (e.sys == ENOENT)
      return error{errc::not_found, fmt::format("{} does not exist; 'qs init' writes one, or name another file", file.string())};
    return e;
  }
  chosen_volume out;
  out.around = around;
  out.file = file;
  out.text = std::move(*text);
  out.name = name_in(out.text);
  if (!is_name(out.name)) {
    auto problems = spec::load(out.text, real_environment{around.home, file.parent_path()}, spec::reference_mode::keep).problems;
    return error{errc::invalid_argument, fmt::format("{} does not say which volume it is about\n{}", file.string(),
                                                     render(problems, file.filename().string(), out.text))};
  }
  if (!flags.volume.empty() && flags.volume != out.name)
    return error{errc::invalid_argument, fmt::format("{} is about '{}', --volume says '{}'; leave one of them out", file.string(), out.name, flags.volume)};
  return out;
}

/// The storage.yaml that was last applied, if it is still there and still about this volume.
void find_file(chosen_volume& volume) {
  auto noted = read_file(volume.state_directory / file_note, 8192);
  if (!noted.ok()) return;
  auto text = read_file(*noted, limits::spec_bytes_max);
  if (!text.ok() || name_in(*text) != volume.name) return;
  volume.file = *noted;
  volume.text = std::move(*text);
}

result<std::string> only_name(const surroundings& around) {
  if (!around.state_dir.empty()) {
    auto recorded = state::read_recorded(around.state_dir / "state.db");
    if (recorded.ok() && recorded->accepted) {
      if (auto name = name_in(recorded->accepted->text); !name.empty()) return name;
    }
  }
  auto names = known_volumes(around);
  if (names.size() == 1) return names.front();
  if (names.empty())
    return error{errc::invalid_argument, "no volume: there is no storage.yaml here and no volume on this machine; 'qs init' makes one"};
  return error{errc::invalid_argument,
               fmt::format("which volume? There is no storage.yaml here, and this machine has {}: {}. Pass --volume NAME", names.size(), joined(names))};
}

} // namespace

std::vector<std::string> known_volumes(const surroundings& around) {
  std::vector<std::string> out;
  collect(around.system_root, out);
  collect(around.volumes_root(), out);
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

std::string name_in(std::string_view text) {
  while (!text.empty()) {
    auto end = std::min(text.find('\n'), text.size());
    auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.rfind("name:", 0) != 0) continue;
    line.remove_prefix(5);
    if (auto comment = line.find(" #"); comment != std::string_view::npos) line = line.substr(0, comment);
    auto trim = [&](std::string_view set) {
      while (!line.empty() && set.find(line.front()) != std::string_view::npos) line.remove_prefix(1);
      while (!line.empty() && set.find(line.back()) != std::string_view::npos) line.remove_suffix(1);
    };
    trim(" \t\r");
    if (line.size() >= 2 && line.front() == line.back() && (line.front() == '"' || line.front() == '\'')) line = line.substr(1, line.size() - 2);
    return std::string{line};
  }
  return {};
}

result<chosen_volume> choose_volume(const common_flags& flags, need what, const surroundings& around, const fs::path& here) {
  chosen_volume out;
  std::error_code ignored;
  auto beside = here / "storage.yaml";
  if (!flags.file.empty()) {
    QS_TRY_ASSIGN(out, from_file((here / flags.file).lexically_normal(), flags, around));
  } else if (flags.volume.empty() && fs::exists(beside, ignored)) {
    QS_TRY_ASSIGN(out, from_file(beside, flags, around));
  } else {
    out.around = around;
    out.name = flags.volume;
    if (out.name.empty()) {
      QS_TRY_ASSIGN(out.name, only_name(around));
    }
    if (!is_name(out.name))
      return error{errc::invalid_argument, fmt::format("'{}' is no volume name: up to 32 of a-z, 0-9 and '-'", out.name)};
  }
  QS_TRY_ASSIGN(out.state_directory, around.state_of(out.name));
  if (out.file.empty()) {
    find_file(out);
    if (auto text = read_file(beside, limits::spec_bytes_max); out.file.empty() && text.ok() && name_in(*text) == out.name) {
      out.file = beside;
      out.text = std::move(*text);
    }
  }
  if (what == need::file && out.file.empty())
    return error{errc::not_found, fmt::format("where is the storage.yaml of '{}'? Go to its directory or name the file", out.name)};
  return out;
}

result<chosen_volume> choose_volume(const common_flags& flags, need what) {
  QS_TRY_ASSIGN(auto around, look_around(flags.state_dir));
  std::error_code failed;
  auto here = fs::current_path(failed);
  if (failed) here = "/";
  return choose_volume(flags, what, around, here);
}

void remember_file(const chosen_volume& volume) {
  if (volume.file.empty()) return;
  auto path = volume.file.string();
  if (auto known = read_file(volume.state_directory / file_note, 8192); known.ok() && *known == path) return;
  // A convenience only: without it --volume asks for the file.
  (void)write_file_atomic(volume.state_directory / file_note, as_bytes(path));
}

std::optional<std::string> real_environment::variable(const std::string& name) const {
  const auto* value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>{value};
}

result<std::string> real_environment::file(const std::string& path) const { return read_file(beside_ / path, 64 * kib); }

spec::loaded load_file(const chosen_volume& volume) {
  return spec::validate(volume.text, real_environment{volume.around.home, volume.file.parent_path()});
}

} // namespace qs::cli
