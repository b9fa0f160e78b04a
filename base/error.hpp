// error: why something expected failed. A value, cheap to make, never thrown.
// A code exists only if a caller can react to it in its own way; everything else is text.
// The message says what was tried, on what, what came back and, where a person can act, what to do.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace qs {

enum class errc : std::uint8_t {
  none,
  invalid_argument, ///< the caller's input is wrong; trying again changes nothing
  not_found,        ///< an answer, not a failure: the thing does not exist
  already_exists,   ///< the thing exists and is not ours to overwrite
  io,               ///< this machine's disk or kernel refused; see sys
  no_space,         ///< full: disk, log, node quota
  corrupt,          ///< bytes that do not authenticate or do not parse
  unreachable,      ///< no connection, nothing was sent
  timed_out,        ///< no answer in time; for a read: try elsewhere
  maybe_delivered,  ///< sent, outcome unknown: must be resolved, never assumed
  refused,          ///< a rule of ours or of the other side says no
  access_denied,    ///< password or permission is wrong
  data_lost,        ///< the node answers but is not the node we knew
  busy,             ///< somebody else holds it; try again
  no_quorum,        ///< too few answers to decide
  unsupported,      ///< the other side, or this version, cannot do that
  version_mismatch, ///< made by a newer or incompatible version
  protocol,         ///< the peer does not speak the protocol
  cancelled,        ///< stopped by us
  over_budget,      ///< money does not allow it
};

/// The code's name as printed in logs and JSON ("not_found").
std::string_view to_string(errc code) noexcept;

struct error {
  errc code = errc::none;
  std::string message;
  int sys = 0; ///< errno where the failure has one (file systems, sockets), else 0

  /// The same error with what the caller was doing in front: "open the log: No space left".
  error with(std::string_view doing) &&;
};

/// An error from errno. `doing` names the call and its object, e.g. "rename /a to /b".
error errno_error(std::string_view doing, int sys);

/// For file system calls where the errno is all there is to say. Allocates nothing.
inline error posix_error(int sys) noexcept { return {errc::io, {}, sys}; }

/// "message" or, if there is none, the text of errno or of the code.
std::string describe(const error& e);

} // namespace qs
