// The local grid as `qs grid` sees it: hosts and nodes listed, a node made to die, all of it
// stopped and started. Works without an engine, without the phrase and beside engines that run. Not
// the provider: it reserves and deletes nothing. Blocking; a value without state of its own, any
// thread.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "grid/provider.hpp"
#include "model/ids.hpp"
#include "model/node.hpp"

namespace qs::grid {

/// QS_GRID_DIR, else $XDG_STATE_HOME/qs/grid-local, else ~/.local/state/qs/grid-local. Errors:
/// invalid_argument (no home).
result<std::filesystem::path> local_grid_directory();

/// How reservations of a volume are marked: 16 hex digits derived from its public id.
std::string local_volume_tag(const model::volume_id& id);

struct local_node {
  std::string name; ///< the reservation and the namespace: "qs" + 16 hex
  std::string tag;  ///< of its volume
  std::string wallet;
  model::node_id node;
  std::uint32_t incarnation = 1;
  std::string host;
  byte_count size = 0;
  model::money price; ///< per month
  wall_time since{};
  inspection::state what = inspection::state::unknown;
  std::string reason;    ///< as provider::inspect() says it
  int pid = 0;           ///< 0: no process
  model::endpoint where; ///< valid when running
};

class local_grid {
public:
  /// Errors: not_found when there is no grid in `directory`.
  static result<local_grid> open(const std::filesystem::path& directory,
                                 std::filesystem::path program = "/proc/self/exe");

  /// The catalogue with what is free. Errors: invalid_argument (catalogue.json).
  [[nodiscard]] result<std::vector<model::host>> hosts() const;
  /// Nodes of one volume, or of all if `tag` is empty; by volume, number and incarnation.
  [[nodiscard]] result<std::vector<local_node>> nodes(std::string_view tag = {}) const;
  /// SIGKILL, and a tombstone so that it stays dead; `wipe`: with its data. Of several incarnations
  /// the newest. `tag` may be empty where only one volume has such a node. Done again it changes
  /// nothing but the wipe. Errors: not_found, invalid_argument (several volumes have it), busy, io.
  result<local_node> kill(std::string_view tag, model::node_id node, bool wipe) const;
  /// Orderly stop of every node's process (SIGTERM, after ten seconds SIGKILL). How many were
  /// stopped. A running engine starts them again.
  result<unsigned> down(std::string_view tag = {}) const;
  /// Starts every node that is stopped with whole data and has no tombstone. How many were started.
  result<unsigned> up(std::string_view tag = {}) const;
  /// The request that made a reservation (list_ours() names them), for adopting or cancelling a
  /// stray. Errors: not_found.
  [[nodiscard]] result<request> request_of(const std::string& name) const;

private:
  local_grid(std::filesystem::path directory, std::filesystem::path program)
      : directory_{std::move(directory)}, program_{std::move(program)} {}

  std::filesystem::path directory_;
  std::filesystem::path program_;
};

} // namespace qs::grid
