// The grids of one engine: its providers by name, what `grid: {hosts: […]}` says of the machines,
// and one look at all of it. Providers are made when a volume first needs them, so that one that
// is on machines of its own leaves no trace of a local grid. Calls of providers block: from jobs
// of the blocking actor only.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/random.hpp"
#include "base/result.hpp"
#include "codec/keys.hpp"
#include "grid/hosts_provider.hpp"
#include "grid/provider.hpp"
#include "model/observed.hpp"
#include "model/recorded.hpp"
#include "spec/storage_spec.hpp"

namespace qs::actors {

using named_provider = std::pair<std::string, std::shared_ptr<grid::provider>>;

/// Thread-safe; a provider once made stays until the set goes.
class provider_set {
public:
  using maker = std::function<result<std::shared_ptr<grid::provider>>()>;

  /// One that is there, and in use.
  void put(const std::string& name, std::shared_ptr<grid::provider> made);
  /// One that is made when it is first wanted.
  void offer(const std::string& name, maker make);
  /// The grids that the volume is on from now on, beside those that were put.
  void use(std::set<std::string> names);

  [[nodiscard]] bool knows(const std::string& name) const;
  /// Makes it if need be (blocks). Errors: not_found for a name that nobody offered, and the
  /// maker's.
  result<std::shared_ptr<grid::provider>> get(const std::string& name);
  /// nullptr where get() fails.
  grid::provider* find(const std::string& name);
  /// Those in use that there are. `trouble`: why another could not be made; may be null.
  std::vector<named_provider> in_use(status* trouble = nullptr);

private:
  mutable std::recursive_mutex mutex_; ///< held while one is made: local files, no network
  std::map<std::string, std::shared_ptr<grid::provider>> made_;
  std::map<std::string, maker> offered_;
  std::set<std::string> used_;
};

/// The grids that the spec names (null: none) and those of nodes that are not gone.
std::set<std::string> grids_of(const spec::storage_spec* desired, const model::recorded& recorded);

/// The machines of every `hosts` grid of the spec, with what its references stand for.
std::vector<grid::hosts_machine> machines_of(const spec::storage_spec& desired);
/// `now`, and of `before` those that are not in it any more: they keep their nodes and take no new
/// one.
std::vector<grid::hosts_machine> with_former(std::vector<grid::hosts_machine> now,
                                             const std::vector<grid::hosts_machine>& before);
/// Those that take new nodes or still have one that is not gone.
std::vector<grid::hosts_machine> without_unused(std::vector<grid::hosts_machine> all,
                                                const model::recorded& recorded);

/// The state's note with the machines, sealed: control.md 3, a node's provider stays configured
/// until its last node is gone, whatever the file says then.
inline constexpr std::string_view machines_note = "grid.hosts";
std::string seal_machines(const codec::volume_keys& keys,
                          const std::vector<grid::hosts_machine>& machines, random_source& random);
/// Nothing if it is empty or was not sealed for this phrase and volume.
std::vector<grid::hosts_machine> open_machines(const codec::volume_keys& keys,
                                               const std::string& sealed);

/// What the providers say, all asked at the same time.
struct grid_look {
  std::map<std::string, std::vector<model::host>> hosts;
  bool hosts_known = true; ///< every one of them answered; else `hosts` has those that did
  std::vector<model::stray_node> strays;
  bool strays_known = true;
  model::wallet_view money; ///< of those that charge
  std::string trouble;      ///< the first thing that went wrong, for people
};
grid_look look_at_grids(const std::vector<named_provider>& providers,
                        const codec::volume_keys& keys, const model::recorded& recorded);

/// What is asked before a plan for `desired` is made: the providers in use, and grid hosts as this
/// spec describes it, whatever was accepted before.
grid_look look_for_plan(provider_set& providers, const codec::volume_keys& keys,
                        const spec::storage_spec* desired,
                        const std::vector<grid::hosts_machine>& former,
                        const model::recorded& recorded,
                        std::chrono::milliseconds deadline = limits::node_connect_deadline,
                        std::chrono::milliseconds call_deadline = limits::provider_call_deadline);

} // namespace qs::actors
