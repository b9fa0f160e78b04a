// The directories of the local grid and what is written in them. Shared by the provider and the
// commands; knows files and locks, not processes, not zdb, not money.
//
// - <grid>/catalogue.json: the hosts, edited by users; ledger.jsonl: see ledger.hpp
// - <grid>/lock: flock, held for milliseconds by whoever changes reservations or the ledger
// - <grid>/nodes/NAME/: a node, 0700. It appears by rename, complete, and goes by rename
// - - reservation.json: the contract; tombstone.json: it stays dead, and why
// - - admin: the server's admin password, 0600; log, log.1: the server's output
// - - op.lock: flock of whoever starts, changes or ends this node
// - - process.json: pid and start time
// - - data/: the server's; data/qs-node holds the reservation's marker, so that a directory that
//     was deleted or swapped is told from one whose process merely died
// - <grid>/nodes/.new-NAME, .gone-NAME-X: what a crash left of a submit or a cancel
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/posix.hpp"
#include "base/result.hpp"
#include "base/units.hpp"
#include "grid/ledger.hpp"
#include "grid/provider.hpp"
#include "model/ids.hpp"
#include "model/money.hpp"

namespace qs::grid {

/// An flock on a file, freed when it goes or the process ends.
class file_lock {
public:
  /// Errors: busy when it is not free within the deadline, not_found when the file's directory is
  /// not there.
  static result<file_lock> take(const std::filesystem::path& file,
                                std::chrono::milliseconds deadline);

private:
  friend result<file_lock> lock_node(const std::filesystem::path&, std::chrono::milliseconds);
  explicit file_lock(unique_fd fd) : fd_{std::move(fd)} {}
  unique_fd fd_;
};

struct node_paths {
  std::filesystem::path directory;
  [[nodiscard]] std::filesystem::path reservation() const { return directory / "reservation.json"; }
  [[nodiscard]] std::filesystem::path tombstone() const { return directory / "tombstone.json"; }
  [[nodiscard]] std::filesystem::path process() const { return directory / "process.json"; }
  [[nodiscard]] std::filesystem::path admin() const { return directory / "admin"; }
  [[nodiscard]] std::filesystem::path op_lock() const { return directory / "op.lock"; }
  [[nodiscard]] std::filesystem::path log() const { return directory / "log"; }
  [[nodiscard]] std::filesystem::path data() const { return directory / "data"; }
  [[nodiscard]] std::filesystem::path marker() const { return data() / "qs-node"; }
  [[nodiscard]] std::filesystem::path endpoint() const { return data() / "endpoint"; }
  [[nodiscard]] std::filesystem::path data_lock() const { return data() / "lock"; }
};

struct grid_paths {
  std::filesystem::path root;
  [[nodiscard]] std::filesystem::path lock() const { return root / "lock"; }
  [[nodiscard]] std::filesystem::path ledger() const { return root / "ledger.jsonl"; }
  [[nodiscard]] std::filesystem::path nodes() const { return root / "nodes"; }
  [[nodiscard]] node_paths node(const std::string& name) const { return {nodes() / name}; }
  [[nodiscard]] std::filesystem::path fresh(const std::string& name) const {
    return nodes() / (".new-" + name);
  }
};

/// What one node order says, as the request document has it.
struct order_document {
  std::string name;
  std::string tag;
  model::node_id node;
  std::uint32_t incarnation = 1;
  std::string host;
  byte_count size = 0;
  model::money price_limit;
};
request encode_order(const order_document& order);
/// Errors: invalid_argument, version_mismatch.
result<order_document> decode_order(const request& text);

/// The contract.
struct reservation {
  request asked; ///< the request that made it, as it was
  order_document order;
  byte_count size = 0; ///< as it is now: resize changes it
  std::string wallet;
  model::money price_per_gib_month; ///< the host's when it was reserved
  wall_time since{};
  wall_time rate_since{}; ///< when `size` was last changed
  std::string marker;     ///< 32 hex digits, also in data/qs-node
  bool made = false; ///< the namespace was finished once: from then on nothing here deletes the
                     ///< data unasked
  std::uint16_t port = 0; ///< last seen
};
status write_reservation(const node_paths& node, const reservation& r);
/// Errors: not_found, corrupt, io.
result<reservation> read_reservation(const node_paths& node);

struct tombstone {
  wall_time at{};
  std::string reason; ///< "Tombstone": killed; "DataGone": found out at a start
};
status write_tombstone(const node_paths& node, const tombstone& t);
/// Errors: io, corrupt. Nothing: it has none.
result<std::optional<tombstone>> read_tombstone(const node_paths& node);

/// Of the node's data, by its marker.
enum class data_state : std::uint8_t { whole, gone, foreign, unknown };
data_state look_at_data(const node_paths& node, const reservation& r);

/// Excludes everybody else who starts, changes or ends this node. Errors: not_found (no such node),
/// busy.
result<file_lock> lock_node(const std::filesystem::path& directory,
                            std::chrono::milliseconds deadline);

struct placed_node {
  node_paths paths;
  reservation contract;
  std::optional<tombstone> dead;
};
/// Every reservation of every volume; what cannot be read is logged and left out. One pass over the
/// directory; an error if that is missing.
result<std::vector<placed_node>> list_reservations(const grid_paths& grid);
/// Those that `wallet` pays for.
std::vector<charged_node> charged_nodes(const std::vector<placed_node>& all,
                                        const std::string& wallet);
/// The catalogue's hosts with what the reservations leave free.
result<std::vector<model::host>> hosts_with_free(const grid_paths& grid,
                                                 const std::vector<placed_node>& all,
                                                 bool make_catalogue = true);

/// rm -r, done again it is no error.
status remove_tree(const std::filesystem::path& path);

} // namespace qs::grid
