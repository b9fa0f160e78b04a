// A world in which steps come true at once: hosts, nodes with data or without, a volume of groups
// whose shards are counted. For tests of the controller: what it decides is carried out, and every
// step is checked against what must never happen.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "controller/decide.hpp"
#include "controller/render.hpp"
#include "model/observed.hpp"

namespace qs::test {

struct truth {
  bool reserved = false;
  bool running = false; ///< the process
  bool frozen = false;  ///< SIGSTOP: running, silent
  bool data = false;    ///< whole
  bool tombstone = false;
  bool denied = false;
  byte_count limit = 0;
  std::chrono::milliseconds silent_for{0};
};

class trivial_world {
public:
  explicit trivial_world(spec::storage_spec s);

  /// hosts h1 … hN over farms f1 … and countries c1 …, all alike.
  void add_hosts(int count, int farms, int countries, byte_count free, std::int64_t price);

  model::observed observe() const;
  controller::diff_result diff(const spec::storage_spec& desired) const;
  /// Accepts a plan as the store does.
  void accept(const spec::storage_spec& desired, const controller::plan& p);
  /// One pass: decides, checks, carries out. Returns how many steps there were.
  std::size_t pass();
  /// Passes until nothing is left to do; false when there is no end.
  bool settle(int most = 400);
  /// Moves data to where the groups want it, as far as living nodes allow.
  void repair();
  void advance(std::chrono::milliseconds by);
  void store_segments(std::uint64_t per_group, byte_count bytes_per_slot);

  std::vector<model::node_id> members() const;
  std::size_t count(model::node_state state) const;
  model::recorded_node& row(model::node_id id);
  bool alive(model::node_id id) const; ///< runs, answers and holds its data

  spec::storage_spec spec;
  model::recorded recorded;
  std::map<model::node_id, truth> nodes;
  std::map<std::string, std::vector<model::host>> hosts;
  bool hosts_known = true;
  std::string grid_trouble;
  bool strays_known = true;
  bool complete = true;
  bool volume_open = false;
  std::string mounted_at;
  std::vector<model::stray_node> strays;
  std::vector<model::group> groups;
  std::map<std::uint32_t, std::vector<std::set<model::node_id>>>
      shards; ///< by group: who holds slot i
  std::uint64_t segments = 0;
  byte_count slot_bytes = 0;
  wall_time now{std::chrono::hours{24 * 365 * 55}};
  std::vector<wall_time> replaced_at; ///< nodes that were only unreachable
  std::map<model::host_key, wall_time> failed_hosts;
  std::set<std::string> refusing; ///< hosts that refuse every reservation
  controller::decision last;
  std::vector<std::string> broken; ///< what must never happen and did

private:
  void carry_out(const controller::step& s, const model::observed& seen);
  void judge(const controller::step& s, const model::observed& seen);
  int redundancy(const model::group& g, model::node_id without) const;
};

/// YAML → spec; fails the test if it is not valid.
spec::storage_spec parse(const std::string& yaml);

} // namespace qs::test
