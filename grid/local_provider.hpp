// The `local` provider (control.md, 4): storage nodes are `qs zdb` servers on this machine, spread
// over the made-up hosts, farms and countries of a catalogue, paid from a ledger of their own. All
// of it lives in one grid directory that several volumes and engines may share. A node is a
// directory and a process; the process outlives the engine. Thread-safe; every call but prepare()
// blocks. For the commands that work without an engine: local_grid.hpp.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.hpp"
#include "base/random.hpp"
#include "base/result.hpp"
#include "codec/keys.hpp"
#include "grid/provider.hpp"

namespace qs::grid {

struct local_options {
  std::filesystem::path directory; ///< the grid directory; made 0700 if missing
  codec::volume_keys keys;         ///< names, passwords and the tag come from it
  std::string
      wallet; ///< public id of the wallet that pays, [0-9a-z-]{1,64}; credited 1,000 TFT when new
  std::filesystem::path program = "/proc/self/exe"; ///< run as `PROGRAM zdb --data DIR …`
  qs::clock* time = &system_clock();
  random_source* random = &system_random();
  std::chrono::milliseconds start_deadline{10'000}; ///< for a server to listen and answer
  /// For a look beside an engine or without one: no lock is taken, nothing is made or changed on
  /// disk. What only looks works, on a grid that is not there yet as on a new one; the rest is
  /// refused.
  bool read_only = false;
  /// For tests: called after every durable step of submit, resolve, resize, cancel with the step's
  /// name.
  std::function<void(std::string_view)> after_step;
};

/// Makes the directory, its default catalogue and the wallet's account where missing, and ends
/// cancels that a crash cut. Starts no node. Errors: io, busy (the grid's lock), corrupt (ledger),
/// invalid_argument (directory or wallet id). A catalogue that cannot be read is logged here, and
/// an error of hosts(), price() and a refusal of submit().
///
/// What the answers mean here, beyond provider.hpp:
/// - submit refused: unknown host, no room, price over the limit (0 = none), empty wallet, another
///   request by that name, or the server cannot be started (then nothing stays behind).
///   pending: it is slow to answer.
/// - resolve finishes what submit began. A half-made node that was killed or lost its data is
///   removed: absent. A made one is `done` whatever became of it since (inspect() tells), with its
///   last address.
/// - restart refused: tombstone, data gone or foreign. A suspended process (SIGSTOP) counts as
///   running.
/// - inspect gone: ReservationGone, Tombstone, DataGone, Foreign. stopped: ProcessDown, HalfMade.
///   unknown: Starting, Unreadable.
result<std::unique_ptr<provider>> make_local(local_options options);

} // namespace qs::grid
