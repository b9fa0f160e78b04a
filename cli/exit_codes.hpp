// Exit codes: the one table of docs/commands.md, and which error leads to which. Every command ends through these.
#pragma once

#include "base/error.hpp"

namespace qs::cli {

inline constexpr int exit_done = 0;         ///< done, or no changes
inline constexpr int exit_failed = 1;       ///< error
inline constexpr int exit_changes = 2;      ///< changes pending, only with --detailed-exitcode
inline constexpr int exit_refused = 3;      ///< by a rule: stale plan, protected, over budget, not this volume, restart needed
inline constexpr int exit_degraded = 4;     ///< done but degraded, or a diff that found only unknown
inline constexpr int exit_again = 5;        ///< busy, unreachable or timed out: try again
inline constexpr int exit_usage = 64;       ///< the command line is wrong
inline constexpr int exit_interrupted = 130; ///< detached or interrupted

constexpr int exit_of(errc code) noexcept {
  switch (code) {
  case errc::none: return exit_done;
  case errc::refused:
  case errc::version_mismatch:
  case errc::over_budget: return exit_refused;
  case errc::busy:
  case errc::timed_out:
  case errc::unreachable:
  case errc::maybe_delivered:
  case errc::no_quorum: return exit_again;
  case errc::cancelled: return exit_interrupted;
  case errc::invalid_argument:
  case errc::not_found:
  case errc::already_exists:
  case errc::io:
  case errc::no_space:
  case errc::corrupt:
  case errc::access_denied:
  case errc::data_lost:
  case errc::unsupported:
  case errc::protocol: return exit_failed;
  }
  return exit_failed;
}

} // namespace qs::cli
