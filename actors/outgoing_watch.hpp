// Tells from the length of the kernel's queue whether the other side takes what it is sent. What fits into a queue says nothing: one
// that stands still takes that, too. What stood in it a while ago and has left it since was taken by somebody. Values in, values out.
#pragma once

#include <algorithm>
#include <cstdint>

namespace qs::actors {

class outgoing_watch {
public:
  /// `given`: bytes the kernel took since the connection began. `queued`: those of them that the other side's kernel has not
  /// acknowledged (SIOCOUTQ). True: some of what was queued at the last look is not any more.
  bool look(std::uint64_t given, std::uint64_t queued) noexcept {
    auto gone = given - std::min(given, queued);
    auto moved = was_queued_ && gone > gone_;
    gone_ = gone;
    was_queued_ = queued >= least;
    return moved;
  }

private:
  /// Less than that may just be on its way: a PING stays in the queue until its acknowledgement comes.
  static constexpr std::uint64_t least = 16 << 10;
  std::uint64_t gone_ = 0;
  bool was_queued_ = false;
};

} // namespace qs::actors
