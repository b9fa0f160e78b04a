// The making of one plan: desired against recorded against observed, step by step, each step one
// function below. Internal to controller; lives for one call of diff().
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "controller/decide.hpp"
#include "controller/placement.hpp"
#include "controller/world.hpp"

namespace qs::controller {

class planner {
public:
  planner(const spec::storage_spec& desired, const std::string& spec_text,
          const spec::storage_spec* previous, const model::recorded& recorded,
          const model::observed& observed);
  diff_result run();

private:
  /// What is to become of a node that counts today.
  struct fate {
    const model::recorded_node* row = nullptr;
    bool failed = false;  ///< lost or overdue, and not held: replaced (or dropped) by this plan
    bool surplus = false; ///< more nodes than wanted
    bool moves = false;   ///< healthy, and replaced on another host
    bool needed = false;  ///< `locations` count it
    std::string why;      ///< for people
    byte_count size = 0;  ///< its size afterwards
  };

  // The steps, in the order they run. Each may refuse; refusals are collected.
  void check_rules();
  void check_first_time();
  void list_nodes(); ///< what is under way, unknown, failed
  void choose_surplus();
  void keep_or_move(); ///< exclude, locations, sizes
  [[nodiscard]] std::string left_out(const model::recorded_node& row) const;
  void place_new();
  void plan_groups();
  void plan_volume();
  void plan_settings();
  void plan_strays();
  void check_budget();
  void finish();

  void refuse(bool by_rule, std::string message) {
    refusals_.push_back({by_rule, std::move(message)});
  }
  void refuse_for_now(std::string message) {
    refusals_.push_back({false, std::move(message), true});
  }
  action& add(action_kind kind, std::string address, std::string reason);
  action& add_node(action_kind kind, const model::recorded_node& row, std::string reason);
  model::recorded_node&
  change(const model::recorded_node& row); ///< the row in rows_, copied there first
  [[nodiscard]] std::vector<model::recorded_node> rows_afterwards() const;
  void resize_or_move(fate& f, byte_count target, bool lowered);
  [[nodiscard]] std::string enough_nodes(byte_count size_now) const;
  void prove_space(const next_layout& next, const std::vector<model::recorded_node>& after);

  const spec::storage_spec& desired_;
  const std::string& text_;
  const spec::storage_spec* previous_;
  const model::recorded& recorded_;
  const model::observed& observed_;
  world w_;
  placement hosts_;
  std::vector<fate> fates_;
  std::vector<model::recorded_node> rows_;
  std::uint32_t next_number_;
  std::vector<refusal> refusals_;
  plan plan_;
};

/// "monitor.interval 10s -> 5s" for every setting that differs and needs no provider; `mount` gets
/// those of the mount.
std::vector<std::string> changed_settings(const spec::storage_spec& before,
                                          const spec::storage_spec& after,
                                          std::vector<std::string>& mount);

} // namespace qs::controller
