#include "cli/leftovers.hpp"

#include <fmt/format.h>

#include "state/store.hpp"

namespace qs::cli {

namespace fs = std::filesystem;

bool holds_volume(const chosen_volume& volume) {
  for (const char* name : {"volume.json", "rows", "log"}) {
    std::error_code failed;
    if (fs::exists(volume.state_directory / name, failed) || failed) return true;
  }
  return false;
}

void remove_state_leftovers(const chosen_volume& volume) {
  std::error_code ignored;
  const auto& state = volume.state_directory;
  for (const char* name : {"state.db", "state.db-journal", "volume.json", "control.sock", "storage-file", "qs.log", "qs.1.log", "qs.2.log",
                           "qs.3.log", "qs.4.log", "qs.5.log", "qs.err", "lock", "watcher.lock"})
    fs::remove(state / name, ignored);
  for (auto version = 1; version < state::schema_version; ++version) fs::remove(state / fmt::format("state.db.v{}", version), ignored);
  for (const char* name : {"log", "rows"}) fs::remove_all(state / name, ignored);
  fs::remove(state, ignored); // only when it is empty
}

void remove_leftovers(const chosen_volume& volume) {
  remove_state_leftovers(volume);
  std::error_code ignored;
  fs::remove_all(volume.around.cache_of(volume.name), ignored);
}

} // namespace qs::cli
