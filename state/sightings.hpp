// When each node was last seen, and in which life of its server: what a start of the engine must know to
// doubt what a node confirmed just before it was last seen, if it has been restarted meanwhile
// (volume.md, 3). A file of its own beside the database, replaced atomically every few minutes:
// nothing waits for it. Written by the engine alone; any thread, one at a time.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "model/ids.hpp"

namespace qs::state {

struct sighting {
  std::string instance; ///< the server's instance id; another one: another life
  wall_time seen{};
  bool operator==(const sighting&) const = default;
};
using sightings = std::map<model::node_id, sighting>;

/// Empty if nothing was recorded. Errors: io, corrupt.
result<sightings> read_sightings(const std::filesystem::path& state_directory);
status write_sightings(const std::filesystem::path& state_directory, const sightings& seen);
/// With the rest of a destroyed volume's state.
void remove_sightings(const std::filesystem::path& state_directory) noexcept;

} // namespace qs::state
