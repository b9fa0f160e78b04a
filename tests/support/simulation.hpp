// A whole controller that stands still until told: every actor under CAF's deterministic scheduler, a real SQLite state and a real
// volume in a temporary directory, a simulated grid behind them, one clock for all. The engine can be cut at any commit of
// its state or between any two messages, and started again on what it left. Everything follows from the seed.
// One thread. No CAF in this header: it is slow to compile.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "actors/mount_port.hpp"
#include "base/clock.hpp"
#include "base/random.hpp"
#include "model/observed.hpp"
#include "model/recorded.hpp"
#include "support/simulated_grid.hpp"
#include "volume/filesystem.hpp"
#include "volume/volume.hpp"

namespace qs::test {

struct link_faults {
  unsigned lost_answer = 0; ///< per mille of requests to nodes: done, and the connection breaks before the answer
  unsigned slow = 0;        ///< per mille: takes seconds
};

struct simulation_options {
  std::uint64_t seed = 1;
  std::string name = "sim";
};

struct command_reply {
  int status = 0; ///< 0: the engine was cut before it answered
  std::string body;
};

class simulation {
public:
  explicit simulation(simulation_options options);
  ~simulation();
  simulation(const simulation&) = delete;
  simulation& operator=(const simulation&) = delete;

  // -- the engine --------------------------------------------------------------------------------------------------
  void start(); ///< from what is recorded
  void crash(); ///< now, between two messages
  void stop();  ///< orderly, as `qs stop`
  /// The same asked for `times` at once; tells for each answer whether the volume was closed by then.
  std::vector<bool> stop_asked(int times);
  bool durable_look(); ///< a report of the volume that a power cut cannot take back; false without an answer
  [[nodiscard]] bool up() const;
  [[nodiscard]] std::uint64_t lives() const; ///< engines started so far: what the one before was asked nobody answers
  std::optional<int> ended; ///< the supervisor asked for the end of the process, with this code
  bool restart = true;      ///< what is cut, or ends with an error, is started again
  std::set<std::string> disk_full_for; ///< writes of the state that fail: summary, event, refusal
  std::uint64_t cut_at_commit = 0; ///< counted from the start of the simulation; 0: never
  [[nodiscard]] std::uint64_t commits() const;

  // -- time --------------------------------------------------------------------------------------------------------
  void settle();                          ///< until nothing moves without the clock
  void run_for(std::chrono::milliseconds time);
  bool run_until(const std::function<bool()>& condition, std::chrono::milliseconds at_most);
  manual_clock time;

  // -- from outside ------------------------------------------------------------------------------------------------
  command_reply command(const std::string& verb, const std::string& body = "{}");
  /// plan and accept of this text, as `qs apply` does; again if the engine was cut. Exit code of the plan or the accept.
  int apply(const std::string& text);
  int destroy();
  volume::filesystem* files(); ///< while it is mounted
  bool kill_actor(const std::string& which); ///< monitor, repair, reservation, connection, mount, payment, dispersal, blocking
  model::recorded recorded();
  model::observed observed();               ///< as the supervisor sees it now
  std::string state();                      ///< Deploying, Ready, …
  std::string condition(const std::string& type); ///< its status
  volume::volume_stats stats();             ///< as last reported
  [[nodiscard]] std::vector<model::event> events() const; ///< of every life of the engine
  /// Ready, nothing at risk, all redundancy confirmed, no node in transit.
  bool whole();

  seeded_random random;
  std::unique_ptr<simulated_grid> grid;
  link_faults links;
  std::size_t parity = 2; ///< of the spec, for the oracle
  std::filesystem::path directory;
  std::vector<std::string>& violations() { return grid->violations; }
  /// Set by a test that knows that nothing may be decided now; a reserve or cancel intent written while it is set is a violation.
  std::string nothing_may_change;

private:
  friend struct simulation_parts;
  struct engine;
  bool step();
  void after_step();
  void start_anew();
  void judge_cancel(model::node_id node);

  simulation_options options_;
  std::unique_ptr<struct shard_book> book_;
  std::unique_ptr<codec::volume_keys> keys_;
  std::unique_ptr<engine> engine_;
  std::uint64_t commits_ = 0;
  std::uint64_t lives_ = 0;
  std::weak_ptr<volume::volume> volume_;
  bool cut_ = false;
  std::vector<model::event> events_;
};

/// A small spec: data, parity, nodes and what a test wants beside them, as YAML lines of `storage:`.
std::string small_spec(int data, int parity, int nodes, const std::string& capacity = "1GiB", const std::string& more = "",
                       const std::string& name = "sim");

} // namespace qs::test
