// Where things lie on this machine (docs/commands.md, "Files"): what the environment says, gathered once and made
// absolute, so that everything else is a function of values. Reads no file and makes none.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "base/result.hpp"

namespace qs::cli {

struct surroundings {
  std::filesystem::path home;        ///< empty = unknown
  std::filesystem::path config_home; ///< $XDG_CONFIG_HOME or ~/.config
  std::filesystem::path state_home;  ///< $XDG_STATE_HOME or ~/.local/state
  std::filesystem::path cache_home;  ///< $XDG_CACHE_HOME or ~/.cache
  std::filesystem::path system_root = "/var/lib/qs";
  std::filesystem::path state_dir;   ///< --state-dir, else QS_STATE_DIR; empty = by name
  std::filesystem::path grid_dir;    ///< QS_GRID_DIR, else <state_home>/qs/grid-local
  std::filesystem::path phrase_file; ///< QS_PHRASE_FILE; empty = not set
  std::filesystem::path credentials; ///< systemd's $CREDENTIALS_DIRECTORY; empty = not set

  [[nodiscard]] std::filesystem::path volumes_root() const { return state_home / "qs"; }
  [[nodiscard]] std::filesystem::path wallets() const { return state_home / "qs" / "wallets"; }
  [[nodiscard]] std::filesystem::path cache_of(const std::string& volume) const { return cache_home / "qs" / volume; }
  /// The state directory of a volume. Errors: invalid_argument (two of them, no home).
  [[nodiscard]] result<std::filesystem::path> state_of(const std::string& volume) const;
};

using variable_reader = std::function<std::optional<std::string>(const char*)>;

/// XDG variables that are not absolute are ignored, as their specification says; the others are made absolute.
/// Errors: invalid_argument when a home directory is needed and unknown.
result<surroundings> look_around(const std::string& state_dir_flag, const variable_reader& variable,
                                 const std::filesystem::path& password_home = {});
/// The same of this process, with the home of the password database as a fallback.
result<surroundings> look_around(const std::string& state_dir_flag);

/// The path of this program, to run itself again.
std::filesystem::path this_program();

} // namespace qs::cli
