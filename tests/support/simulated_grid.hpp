// A grid that lives in memory and outlives the engine: hosts, reservations, nodes with their objects, a wallet, and a provider whose
// answers get lost, come late, or never. Everything it does wrong follows from its random source, so a run replays from its
// seed. It counts what must never happen (two reservations, two payments, a needless loss) and remembers the first such
// thing. Single-threaded: under the deterministic scheduler.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/random.hpp"
#include "codec/keys.hpp"
#include "grid/provider.hpp"
#include "model/recorded.hpp"

namespace qs::test {

/// How likely each wrong answer is, in percent. All zero: a grid without faults.
struct grid_faults {
  unsigned refuse = 0;        ///< submit: the host will not
  unsigned pending = 0;       ///< submit: done some seconds later, told so
  unsigned lost_request = 0;  ///< submit, cancel: never arrived, answered unknown; for a while resolve does not know
  unsigned lost_answer = 0;   ///< submit, cancel, resize: done, answered unknown
  unsigned late_request = 0;  ///< submit: answered unknown, done seconds later
  unsigned unknown_query = 0; ///< resolve, inspect: unknown; lists and wallet: an error
  unsigned refuse_restart = 0;
};

struct simulated_node {
  std::string name; ///< reservation and namespace
  model::node_id node;
  std::uint32_t incarnation = 1;
  std::string host;
  byte_count size = 0;
  std::uint16_t port = 0;
  model::money price;
  bool running = true;   ///< its process
  bool silent = false;   ///< SIGSTOP: takes everything, answers nothing
  bool tombstone = false; ///< killed on purpose: stays dead, its provider says so
  bool data_gone = false; ///< its files are deleted; a running one answers with nothing in it
  std::uint64_t life = 1;
  boot_time lost_at{}; ///< since when its data is out of reach for good; zero: it is not
  std::set<model::object_name> lost; ///< what it had then
  std::map<model::object_name, buffer> objects;
  std::set<model::object_name> unsynced; ///< what a power cut takes
  [[nodiscard]] bool answers() const { return running && !silent && !tombstone; }
};

class simulated_grid {
public:
  simulated_grid(const codec::volume_keys& keys, random_source& random, const clock& time);

  /// The door for one engine; when the engine is dead its calls do nothing.
  std::shared_ptr<grid::provider> door(std::shared_ptr<bool> alive);
  status write_identity(const model::recorded_node& row);

  simulated_node* find(const std::string& name); ///< by namespace
  simulated_node* find(model::node_id node);     ///< the live reservation of a node; nullptr if none
  std::vector<simulated_node*> nodes();
  void tick(); ///< what is late happens when its time has come

  // -- faults of nodes ---------------------------------------------------------------------------------------------
  void stop_process(simulated_node& n);
  void kill_for_good(simulated_node& n, bool wipe); ///< qs grid kill
  void delete_files(simulated_node& n);             ///< behind everybody's back
  void power_cut(simulated_node& n);                ///< what no barrier covered is gone; it is stopped

  grid_faults faults;
  std::set<std::string> dead_hosts; ///< whether something there is ended nobody can say: cancel and resolve get no answer
  std::map<std::string, int> counters;              ///< prove that rare paths ran
  std::vector<std::string> violations;
  std::map<std::pair<std::uint32_t, std::uint32_t>, int> made;    ///< (node, incarnation) → reservations ever made
  std::map<std::pair<std::uint32_t, std::uint32_t>, int> charged; ///< … and payments
  std::function<void(const simulated_node&)> before_cancel;       ///< the oracle's look at what is about to go
  std::vector<model::host> hosts;
  model::money balance{10'000'000LL * 1000};

private:
  friend class simulated_provider;
  struct order {
    model::node_id node;
    std::uint32_t incarnation = 0;
    std::string host;
    byte_count size = 0;
    model::money limit;
  };
  struct late {
    boot_time at{};
    bool real = false; ///< false: it never arrived, but nobody knows that before `at`
    std::string request;
  };
  static order parse(const std::string& request);
  [[nodiscard]] bool chance(unsigned percent) { return percent != 0 && random_.below(100) < percent; }
  [[nodiscard]] std::string name_of(const order& o) const { return keys_.node_name(o.node, o.incarnation); }
  grid::answer make(const std::string& request);
  grid::answer standing(const simulated_node& n) const;
  grid::answer submit(const std::string& request);
  grid::answer resolve(const std::string& request);
  grid::answer cancel(const std::string& request);
  grid::answer resize(const std::string& request, byte_count size);
  grid::answer restart(const std::string& request);
  grid::inspection inspect(const std::string& request);
  void remove(const std::string& name);
  void lose(simulated_node& n);

  const codec::volume_keys& keys_;
  random_source& random_;
  const clock& time_;
  std::map<std::string, simulated_node> nodes_;
  std::map<std::string, late> late_; ///< by reservation name
  std::set<std::string> submitted_;
  std::uint16_t next_port_ = 1;
};

} // namespace qs::test
