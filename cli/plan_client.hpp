// A plan asked for and its answer taken apart, for diff, apply and destroy. Main thread.
#pragma once

#include <string>
#include <vector>

#include "cli/control_client.hpp"
#include "cli/terminal.hpp"
#include "cli/volume_choice.hpp"

namespace qs::cli {

struct plan_answer {
  int exit = 0; ///< 3 or 1: refused, `errors` says why
  bool empty = false;
  bool only_unknown = false;
  bool refresh = false; ///< to be accepted even when it changes nothing (plan_view.hpp)
  bool needs_typed_name = false;
  std::string human;
  std::string human_colour;
  std::string plan_json; ///< the document of `qs diff --json`; empty when there is no plan
  std::string plan_hash;
  std::uint64_t serial = 0;
  std::vector<std::string> errors;
  std::vector<std::string> warnings;
};

/// Reads the document of POST /v1/plan. Pure.
plan_answer read_plan(const std::string& document);
/// The same from the engine. A refusal of the engine is a plan_answer as well.
result<plan_answer> ask_for_plan(const control_client& client, const chosen_volume& volume, const spec::loaded& file, bool destroy);
/// Errors and warnings to stderr; the exit code if it cannot go on.
int report_plan(const plan_answer& plan, terminal& t);

/// The file's problems to stderr; false when there is an error among them.
bool report_problems(const chosen_volume& volume, const spec::loaded& file, terminal& t);

} // namespace qs::cli
