// The JSON document that answers "what would change": one shape with an engine and without one
// (control.hpp, /v1/plan). Pure: values in, text out.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "controller/decide.hpp"
#include "model/observed.hpp"
#include "model/recorded.hpp"

namespace qs::actors {

struct plan_remarks {
  int exit = 0; ///< when not 0: why it cannot be accepted stands in `errors`
  std::vector<std::string> errors;
  std::vector<std::string> warnings;
  bool refresh = false; ///< to be accepted even if it changes nothing: what is recorded beside the spec is stale
};

std::string plan_document(const controller::diff_result& made, const plan_remarks& remarks);

/// control.md, 2: with a phrase and no recorded state, what is out there under our name is a volume
/// to recover. `trouble`: what kept a grid from saying so. The text of the refusal with its exit code, or exit 0.
plan_remarks existing_volume(const model::recorded& recorded, const model::observed& world,
                             const std::filesystem::path& state_directory,
                             const std::string& trouble = {});

} // namespace qs::actors
