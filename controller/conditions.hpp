// The conditions and the overall state of `qs status`, from the world and the steps just decided.
// Internal to controller.
#pragma once

#include <string>
#include <vector>

#include "controller/decide.hpp"
#include "controller/world.hpp"

namespace qs::controller {

/// Something that waits for a person (condition ApprovalNeeded).
struct approval {
  std::string reason; ///< CamelCase
  std::string message;
};

/// Fills conditions and state of `out`, whose steps are there already.
void judge(const world& w, decision& out, const std::vector<approval>& waiting);

} // namespace qs::controller
