// qs run --follow: while the engine runs in this process, edits of storage.yaml that only add or enlarge are accepted without a
// person (control.md, 2). A client of the control socket like any other, on a thread of its own; what else the file asks for is
// left to `qs apply`, and the engine says so (condition ApprovalNeeded).
#pragma once

#include <memory>

#include "cli/options.hpp"

namespace qs::cli {

class file_follower {
public:
  /// Begins at once; the engine of this volume serves already.
  explicit file_follower(const common_flags& o);
  file_follower(const file_follower&) = delete;
  file_follower& operator=(const file_follower&) = delete;
  ~file_follower(); ///< ends within a request's time

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

} // namespace qs::cli
