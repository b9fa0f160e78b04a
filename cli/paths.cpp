#include "cli/paths.hpp"

#include <cstdlib>

#include <pwd.h>
#include <unistd.h>

#include "state/store.hpp"

namespace qs::cli {

namespace fs = std::filesystem;

result<fs::path> surroundings::state_of(const std::string& volume) const {
  state::state_roots roots;
  roots.explicit_dir = state_dir.string();
  roots.system_root = system_root;
  roots.user_root = volumes_root();
  return state::state_directory(roots, volume);
}

result<surroundings> look_around(const std::string& state_dir_flag, const variable_reader& variable, const fs::path& password_home) {
  auto value = [&](const char* name) { return variable(name).value_or(""); };
  auto absolute = [](const std::string& text) {
    std::error_code failed;
    return text.empty() ? fs::path{} : fs::absolute(text, failed).lexically_normal();
  };
  surroundings out;
  out.home = value("HOME");
  if (out.home.empty() || !out.home.is_absolute()) out.home = password_home;
  auto xdg = [&](const char* name, const char* below_home) {
    fs::path given = value(name);
    if (given.is_absolute()) return given;
    return out.home.empty() ? fs::path{} : out.home / below_home;
  };
  out.config_home = xdg("XDG_CONFIG_HOME", ".config");
  out.state_home = xdg("XDG_STATE_HOME", ".local/state");
  out.cache_home = xdg("XDG_CACHE_HOME", ".cache");
  if (out.config_home.empty() || out.state_home.empty() || out.cache_home.empty())
    return error{errc::invalid_argument, "the home directory is unknown; set HOME, or XDG_CONFIG_HOME, XDG_STATE_HOME and XDG_CACHE_HOME"};
  out.state_dir = absolute(state_dir_flag.empty() ? value("QS_STATE_DIR") : state_dir_flag);
  out.grid_dir = absolute(value("QS_GRID_DIR"));
  if (out.grid_dir.empty()) out.grid_dir = out.state_home / "qs" / "grid-local";
  out.phrase_file = absolute(value("QS_PHRASE_FILE"));
  out.credentials = value("CREDENTIALS_DIRECTORY");
  return out;
}

result<surroundings> look_around(const std::string& state_dir_flag) {
  fs::path home;
  // NOLINTNEXTLINE(concurrency-mt-unsafe): called on the main thread before any other is made
  if (const auto* entry = ::getpwuid(::getuid()); entry != nullptr && entry->pw_dir != nullptr) home = entry->pw_dir;
  auto variable = [](const char* name) -> std::optional<std::string> {
    const auto* value = std::getenv(name);
    return value == nullptr ? std::nullopt : std::optional<std::string>{value};
  };
  return look_around(state_dir_flag, variable, home);
}

fs::path this_program() {
  std::error_code failed;
  auto path = fs::read_symlink("/proc/self/exe", failed);
  if (failed || !fs::exists(path, failed)) return "/proc/self/exe";
  return path;
}

} // namespace qs::cli
